"""The runtime image of a release, with its packages: releases with the same lock share one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from model_serving.catalog import Release
from model_serving.images.remotes import replacing
from model_serving.images.settings import ImageSettings

DOCKERFILE: Final = Path("server/runtime.Dockerfile")
LAUNCHER: Final = Path("server/launcher")
"""What starts MLServer in the image."""
CONTEXTS: Final = Path(".state/runtimes")
"""Build contexts by tag. A release's folder will not do: it may go while others still run on the same lock."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """The recipe of a runtime image.

    Attributes:
        tag: 12 hexadecimal digits of what decides the image: base, Dockerfile, launcher and lock. Equal tags are one
            image.
        context: folder with the requirements.lock and the launcher.
        wheels: folder with every wheel of the lock; without it the build asks the package index.
    """

    tag: str
    context: Path
    wheels: Path | None


def runtime_of(release: Release, images: ImageSettings) -> Runtime:
    """The runtime of a release; makes its build context if it is not there yet."""
    lock, tag = release.lock.read_bytes(), tag_of(release, images)
    files = {"requirements.lock": lock, **{f"{LAUNCHER.name}/{path.name}": path.read_bytes() for path in _launcher()}}
    return Runtime(tag=tag, context=written_context(tag, files), wheels=wheels_of(lock, images))


def written_context(tag: str, files: Mapping[str, bytes]) -> Path:
    """The build context with a tag: a folder with these files, which are written unless they are there."""
    context = CONTEXTS / tag
    for name, content in files.items():
        path = context / name
        # Compared: a run that was killed, or a machine that lost its power, may have left a part of it.
        if not path.is_file() or path.read_bytes() != content:
            with replacing(path, scratch=CONTEXTS) as file:
                file.write(content)
    return context


def wheels_of(lock: bytes, images: ImageSettings) -> Path | None:
    """The folder with every wheel of a lock; None if there is none."""
    wheels = Path(images.wheels) / digest(lock) if images.wheels else None
    return wheels if wheels and wheels.is_dir() else None


def fingerprint(release: Release, images: ImageSettings) -> str:
    """What decides how a release answers: itself and its runtime, in 12 hexadecimal digits."""
    return digest((release.content_hash + tag_of(release, images)).encode())


def tag_of(release: Release, images: ImageSettings) -> str:
    """Tag of the runtime image of a release."""
    files = (DOCKERFILE, *_launcher(), release.lock)
    return digest(images.base.encode() + b"".join(path.read_bytes() for path in files))


def _launcher() -> list[Path]:
    return sorted(LAUNCHER.glob("*.py"))


@lru_cache  # the versions of a model mostly have the same lock
def digest(content: bytes) -> str:
    """Hash in 12 hexadecimal digits, as in tags."""
    return hashlib.sha256(content).hexdigest()[:12]
