# What a model needs to run: MLServer and the packages that the model was trained with, exactly as locked.
# The build context has the release's requirements.lock and the files of server/launcher, see runtimes.py.
ARG BASE=scratch

# An empty folder, unless the build is given a context of this name with the lock's wheels.
FROM scratch AS wheels

FROM ${BASE}

# LightGBM and XGBoost link GNU OpenMP, which slim images leave out.
RUN ldconfig -p | grep -q libgomp.so.1 \
    || (apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*)

# PIP_NO_INDEX is 1 where every wheel is in the folder: then the build needs no network, and asks none.
ARG PIP_NO_INDEX=0
# The lock is complete. It may replace what a package asks for (requirements-overrides.txt), so pip must not compare the two.
# pip goes as soon as it has done its work: nothing is ever installed into a running server.
RUN --mount=type=bind,source=requirements.lock,target=/requirements.lock \
    --mount=type=bind,from=wheels,target=/wheels \
    python3 -m venv /opt/mlserver \
    && /opt/mlserver/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --no-deps \
        --find-links /wheels --requirement /requirements.lock \
    && /opt/mlserver/bin/pip uninstall --yes --quiet pip setuptools

# What starts MLServer. Its name is none that a module of a model may have.
COPY --chmod=0555 launcher /opt/mlserver/launcher/model_serving_launcher

# Numbers, because Kubernetes cannot tell whether a name is root. 65532 is what distroless images call nonroot.
USER 65532:65532
ENV PATH=/opt/mlserver/bin:$PATH PYTHONPATH=/opt/mlserver/launcher PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
ENTRYPOINT ["python", "-m", "model_serving_launcher.main", "/models"]
