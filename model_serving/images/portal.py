"""The image of the portal, server/portal/."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from model_serving.images import runtimes
from model_serving.images.runtimes import Runtime
from model_serving.images.settings import ImageSettings

DOCKERFILE: Final = Path("server/portal.Dockerfile")
FOLDER: Final = Path("server/portal")
STATIC: Final = FOLDER / "static"
LOCK: Final = FOLDER / "requirements.lock"
REPOSITORY: Final = "portal"
"""Name in the registry, and of the resource that builds it."""


def image_name(images: ImageSettings) -> str:
    """Name in the registry, with the tag."""
    return f"{REPOSITORY}:{tag_of(images)}"


def tag_of(images: ImageSettings) -> str:
    """Tag of the image: a hash of everything that decides it."""
    return runtimes.digest(
        images.base.encode() + b"".join(path.read_bytes() for path in (DOCKERFILE, LOCK, *_sources()))
    )


def recipe_of(images: ImageSettings) -> Runtime:
    """What the image is built from; makes its build context if it is not there yet."""
    lock, tag = LOCK.read_bytes(), tag_of(images)
    sources = {path.relative_to(FOLDER.parent).as_posix(): path.read_bytes() for path in _sources()}
    return Runtime(
        tag=tag,
        context=runtimes.written_context(tag, {"requirements.lock": lock, **sources}),
        wheels=runtimes.wheels_of(lock, images),
    )


def _sources() -> list[Path]:
    return sorted([*FOLDER.glob("*.py"), *STATIC.iterdir()])
