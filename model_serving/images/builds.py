"""Which images there are already, so that nothing is built for them: a rollback runs what ran before, byte for byte."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from model_serving.catalog import Release
from model_serving.images import artefacts, published, runtimes
from model_serving.images.settings import ImageSettings

DOCKERFILE: Final = Path("server/model.Dockerfile")
CONTENT_LABEL: Final = "model-serving.content-hash"
"""Label of a model image: the hash of the release folder that it was built from."""


@dataclass(frozen=True, kw_only=True)
class Built:
    """Images that are in the registry and not in the state of the stack.

    Attributes:
        models: label of a release -> digest.
        runtimes: tag -> digest.
    """

    models: dict[str, str] = field(default_factory=dict)
    runtimes: dict[str, str] = field(default_factory=dict)


def find(releases: Sequence[Release], images: ImageSettings, *, registry: str, known: Collection[str]) -> Built:
    """Looks for the images of releases that this stack has not built itself.

    Args:
        releases: those that will be served.
        images: how images are built; decides their runtimes.
        registry: where they would be pushed to.
        known: names of the images that it has built. They stay declared, or the state would forget them.
    """
    models = _models([release for release in releases if model_name(release, images) not in known], registry)
    missing = [release for release in releases if release.label not in models]
    tags = {runtimes.runtime_of(release, images).tag for release in missing}
    wanted = {f"{registry}/runtime:{tag}": tag for tag in tags if runtime_name(tag) not in known}
    found = published.images(wanted)
    return Built(models=models, runtimes={wanted[reference]: image.digest for reference, image in found.items()})


def dockerfile_of(release: Release) -> Path:
    """What the image of a release is built by."""
    return artefacts.DOCKERFILE if release.pointers else DOCKERFILE


def model_name(release: Release, images: ImageSettings) -> str:
    """The image of a release as the stack remembers it, with what it is built by and on besides the release.

    An image whose base, runtime or Dockerfile is another one today is not remembered, but found in the registry: it
    stays as it was published. Declared, it would be built anew, and a registry with immutable tags refuses that.
    """
    return _remembered(release.label, dockerfile_of(release), runtimes.tag_of(release, images))


def runtime_name(tag: str) -> str:
    """The image of a runtime as the stack remembers it."""
    return _remembered(runtime_resource(tag), runtimes.DOCKERFILE, tag)


def runtime_resource(tag: str) -> str:
    """Name of the resource that builds a runtime."""
    return f"runtime-{tag}"


def _remembered(resource: str, dockerfile: Path, runtime: str) -> str:
    # The place of the Dockerfile is an input of the resource: an image that was declared with another would be built.
    recipe = f"{dockerfile}\n".encode() + dockerfile.read_bytes() + runtime.encode()
    return f"{resource}@{hashlib.sha256(recipe).hexdigest()[:12]}"


def _models(releases: Sequence[Release], registry: str) -> dict[str, str]:
    wanted = {f"{registry}/{release.name}:{release.version}": release for release in releases}
    return {
        wanted[reference].label: image.digest
        for reference, image in published.images(wanted).items()
        # Another content is refused when it is built.
        if image.labels.get(CONTENT_LABEL) == wanted[reference].content_hash
    }
