# What a model needs to run: MLServer and the packages that the model was trained with, exactly as locked.
# The build context is a release's folder, of which only requirements.lock is sent (see the .dockerignore beside this).
ARG BASE=scratch

# An empty folder, unless the build is given a context of this name with the lock's wheels.
FROM scratch AS wheels

FROM ${BASE}

# LightGBM and XGBoost link GNU OpenMP, which slim images leave out.
RUN ldconfig -p | grep -q libgomp.so.1 \
    || (apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*)

# PIP_NO_INDEX is 1 where every wheel is in the folder: then the build needs no network, and asks none.
ARG PIP_NO_INDEX=0
# pip goes as soon as it has done its work: nothing is ever installed into a running server.
RUN --mount=type=bind,source=requirements.lock,target=/requirements.lock \
    --mount=type=bind,from=wheels,target=/wheels \
    python3 -m venv /opt/mlserver \
    && /opt/mlserver/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes \
        --find-links /wheels --requirement /requirements.lock \
    && /opt/mlserver/bin/pip uninstall --yes --quiet pip setuptools

# MLServer 1.7 with two things changed that it has no setting for.
COPY --chmod=0444 <<'PYTHON' /opt/mlserver/serve.py
import asyncio
import functools

import uvicorn
import uvloop
from mlserver.cli import main

# An idle connection must be closed by the proxy and never by the server: a request that is sent while the server closes
# its end fails, and is not sent again because it is a POST. Google's load balancers keep connections for 600 s, Envoy
# for an hour; uvicorn closes them after 5 s, and MLServer passes no other time on.
SECONDS = 3660


class EventLoopPolicy(uvloop.EventLoopPolicy):
    """Makes a loop for who asks for one first. uvloop does so no more since 0.22, and MLServer's workers count on it."""

    def get_event_loop(self):
        try:
            return super().get_event_loop()
        except RuntimeError:
            self.set_event_loop(self.new_event_loop())
            return super().get_event_loop()


uvloop.install = lambda: asyncio.set_event_loop_policy(EventLoopPolicy())

# The worker processes import this file once more.
if __name__ == "__main__":
    uvicorn.Config.__init__ = functools.partialmethod(uvicorn.Config.__init__, timeout_keep_alive=SECONDS)
    main()
PYTHON

# Numbers, because Kubernetes cannot tell whether a name is root. 65532 is what distroless images call nonroot.
USER 65532:65532
ENV PATH=/opt/mlserver/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
ENTRYPOINT ["python", "/opt/mlserver/serve.py", "start", "/models"]
