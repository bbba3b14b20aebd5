# A released model with files that are too large for git: pointers to them are in the release's folder, and the files
# themselves in a context of their own, which artefacts.py fills. A Dockerfile apart, because the images of all other
# models would be built again after each change of theirs.
ARG RUNTIME=scratch
FROM ${RUNTIME}
ARG MODEL
# As in model.Dockerfile.
COPY --link --chmod=0555 . /models/${MODEL}/
COPY --link --chmod=0555 --from=artefacts .fetched/ /models/${MODEL}/
