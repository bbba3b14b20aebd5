"""Which runtime image a release needs: one per distinct lock, so that releases with the same lock share it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from catalog import Release
from settings import ImageSettings

DOCKERFILE: Final = Path("images/runtime.Dockerfile")
CONTEXTS: Final = Path(".state/runtimes")
"""Build contexts by tag. A release's folder will not do: it may go while others still run on the same lock."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """The recipe of a runtime image.

    Attributes:
        tag: 12 hexadecimal digits of what decides the image: base, Dockerfile and lock. Two equal tags are one image.
        context: folder with the requirements.lock and nothing else.
        wheels: folder with every wheel of the lock; without it the build asks the package index.
    """

    tag: str
    context: Path
    wheels: Path | None


def runtime_of(release: Release, images: ImageSettings) -> Runtime:
    """The runtime of a release; makes its build context if it is not there yet."""
    lock = release.lock.read_bytes()
    tag = _digest(images.base.encode() + DOCKERFILE.read_bytes() + lock)
    context = CONTEXTS / tag / "requirements.lock"
    if not context.is_file():
        context.parent.mkdir(parents=True, exist_ok=True)
        context.write_bytes(lock)
    wheels = Path(images.wheels) / _digest(lock) if images.wheels else None
    return Runtime(tag=tag, context=context.parent, wheels=wheels if wheels and wheels.is_dir() else None)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
