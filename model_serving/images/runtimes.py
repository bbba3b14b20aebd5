"""The runtime image of a release, with its packages: releases with the same lock share one."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from model_serving.catalog import Release
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
    context = CONTEXTS / tag
    if not context.is_dir():
        launcher = {f"{LAUNCHER.name}/{path.name}": path.read_bytes() for path in _launcher()}
        _fill(context, {"requirements.lock": lock, **launcher})
    wheels = Path(images.wheels) / _digest(lock) if images.wheels else None
    return Runtime(tag=tag, context=context, wheels=wheels if wheels and wheels.is_dir() else None)


def fingerprint(release: Release, images: ImageSettings) -> str:
    """What decides how a release answers: itself and its runtime, in 12 hexadecimal digits."""
    return _digest((release.content_hash + tag_of(release, images)).encode())


def tag_of(release: Release, images: ImageSettings) -> str:
    """Tag of the runtime image of a release."""
    files = (DOCKERFILE, *_launcher(), release.lock)
    return _digest(images.base.encode() + b"".join(path.read_bytes() for path in files))


def _launcher() -> list[Path]:
    return sorted(LAUNCHER.glob("*.py"))


def _fill(context: Path, files: dict[str, bytes]) -> None:
    """Makes a build context whole or not at all: another command may look for it, or this one be killed."""
    CONTEXTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CONTEXTS, prefix=".new-") as scratch:
        made = Path(scratch, context.name)
        for name, content in files.items():
            path = made / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        try:
            made.rename(context)
        except OSError:
            if not context.is_dir():  # or another command was faster
                raise


@lru_cache  # the versions of a model mostly have the same lock
def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
