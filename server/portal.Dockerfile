# The portal and its packages, exactly as locked. The build context has the files of server/portal, see portal.py.
ARG BASE=scratch

# An empty folder, unless the build is given a context of this name with the lock's wheels.
FROM scratch AS wheels

FROM ${BASE}

# As in runtime.Dockerfile.
ARG PIP_NO_INDEX=0
RUN --mount=type=bind,source=requirements.lock,target=/requirements.lock \
    --mount=type=bind,from=wheels,target=/wheels \
    python3 -m venv /opt/portal \
    && /opt/portal/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --no-deps \
        --find-links /wheels --requirement /requirements.lock \
    && /opt/portal/bin/pip uninstall --yes --quiet pip setuptools

COPY --chmod=0555 portal /opt/portal/app/portal

# Numbers, because Kubernetes cannot tell whether a name is root. 65532 is what distroless images call nonroot.
USER 65532:65532
ENV PATH=/opt/portal/bin:$PATH PYTHONPATH=/opt/portal/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
ENTRYPOINT ["python", "-m", "portal"]
