# A job in the tool image, as a step of a build: BuildKit is the only container engine that the local cluster offers to a
# user. The step has the network of this machine, and what a runner gives to a job: a checkout and a kubeconfig.
ARG IMAGE
FROM $IMAGE AS job
COPY --from=checkout . /builds/models
COPY --from=files kubeconfig /builds/kubeconfig
COPY --from=backend . /builds/backend
ARG BACKEND
RUN mkdir -p "$(dirname "$BACKEND")" && ln -s /builds/backend "$BACKEND"
WORKDIR /builds/models
ARG SCRIPT
ARG PULUMI_CONFIG_PASSPHRASE
RUN --mount=type=bind,from=wheels,target=/builds/models/.state/wheels \
    export KUBECONFIG=/builds/kubeconfig STACK=local DUTY=plan GITLAB_CI=true && sh -euxc "$SCRIPT"

FROM scratch
COPY --from=job /builds/models/previews /
