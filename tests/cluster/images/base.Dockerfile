# What stands for the two public base images of local/tools/ci.Dockerfile where nothing can be downloaded: the local base
# image, with what this machine has downloaded, compiled and installed already.
ARG BASE
FROM $BASE AS slim
# Without a network: git and make are in it, and apt only has to find that nothing is missing.
RUN rm -rf /etc/apt/sources.list /etc/apt/sources.list.d \
    && mkdir -p /var/cache/apt/archives/partial /var/lib/apt/lists/partial /var/log/apt

FROM slim AS full
ENV PIP_NO_INDEX=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    UV_OFFLINE=1 \
    PULUMI_SKIP_UPDATE_CHECK=true
# Packages of another version than the pinned one would be missed, and not be had.
COPY --from=packages bin/ /opt/model-serving/venv/bin/
COPY --from=packages lib/ /opt/model-serving/venv/lib/
RUN rm -f /opt/model-serving/venv/bin/python* \
    && sed -i -E '1s|^#!.*/python[0-9.]*$|#!/opt/model-serving/venv/bin/python|' \
        $(grep -lIE '^#!.*/python[0-9.]*$' /opt/model-serving/venv/bin/*)
COPY --from=tools . /opt/model-serving/cache/model-serving/tools/
COPY --from=plugins . /opt/model-serving/pulumi/plugins/
