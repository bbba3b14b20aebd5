# A released model on its runtime: one layer, the release's folder.
ARG RUNTIME=scratch
FROM ${RUNTIME}
ARG MODEL
# --link: the layer does not depend on those below it, so a release builds and pushes no more than the model.
# --chmod: readable by the server's user, whatever the umask of the checkout it was built from.
COPY --link --chmod=0555 . /models/${MODEL}/
