"""What a release needs to run: an image with its packages, which releases with the same lock share, and memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from model_serving.catalog import Release
from settings import ImageSettings, ModelSettings

DOCKERFILE: Final = Path("images/runtime.Dockerfile")
CONTEXTS: Final = Path(".state/runtimes")
"""Build contexts by tag. A release's folder will not do: it may go while others still run on the same lock."""

CPU: Final[Mapping[str, str]] = {"mlserver_huggingface": "1"}
"""Cores by the package of the implementation, where 100m is not enough to load a model in time."""
MEMORY_MEBIBYTES: Final[Mapping[str, int]] = {
    "mlserver_sklearn": 512,
    "mlserver_lightgbm": 512,
    "mlserver_xgboost": 512,
    "mlserver_catboost": 512,
    "mlserver_mlflow": 1024,
    "mlserver_alibi_detect": 2048,
    "mlserver_alibi_explain": 2048,
    "mlserver_huggingface": 4096,
}
"""By the package of the implementation: MLServer with its libraries takes 200 to 350 MiB, the rest is for the model."""
OWN_CODE_MEBIBYTES: Final = 1024
"""For an implementation that MLServer does not bring: nobody knows what it loads."""


@dataclass(frozen=True, kw_only=True)
class PodResources:
    """What a pod is given, as Kubernetes quantities."""

    cpu: str
    memory: str


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
    lock, tag = release.lock.read_bytes(), tag_of(release, images)
    context = CONTEXTS / tag / "requirements.lock"
    if not context.is_file():
        context.parent.mkdir(parents=True, exist_ok=True)
        context.write_bytes(lock)
    wheels = Path(images.wheels) / _digest(lock) if images.wheels else None
    return Runtime(tag=tag, context=context.parent, wheels=wheels if wheels and wheels.is_dir() else None)


def fingerprint(release: Release, images: ImageSettings) -> str:
    """What decides how a release answers: itself and its runtime, in 12 hexadecimal digits."""
    return _digest((release.content_hash + tag_of(release, images)).encode())


def resources_of(release: Release, model: ModelSettings) -> PodResources:
    """What the stack says, and what the implementation usually needs where it says nothing."""
    package = release.implementation.partition(".")[0]
    # Each worker is a process that loads libraries and model again.
    memory = MEMORY_MEBIBYTES.get(package, OWN_CODE_MEBIBYTES) * (1 + model.workers)
    return PodResources(
        cpu=model.resources.cpu or CPU.get(package, "100m"),
        memory=model.resources.memory or f"{memory}Mi",
    )


def tag_of(release: Release, images: ImageSettings) -> str:
    """Tag of the runtime image of a release."""
    return _digest(images.base.encode() + DOCKERFILE.read_bytes() + release.lock.read_bytes())


@lru_cache  # the versions of a model mostly have the same lock
def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
