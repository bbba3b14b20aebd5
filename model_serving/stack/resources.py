"""What the pods of a release are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from model_serving.catalog import Release
from model_serving.quantities import amount
from model_serving.stack.models import ModelSettings

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
LARGEST_REQUEST: Final = 16 << 20
"""Bytes, unless a stack says otherwise."""
REQUEST_GROWTH: Final = 64
"""A request whose lists have one number each takes 31 times its size when it is read, and MLServer with its libraries
half of a pod's memory. Measured with MLServer 1.7.1 on 2026-11-29; short numbers take 15 times, long ones 3 times."""
LEAST_GROWTH: Final = 16
"""With less room than that, a request of short numbers ends the pod."""


@dataclass(frozen=True, kw_only=True)
class PodResources:
    """What a pod is given, as Kubernetes quantities."""

    cpu: str
    memory: str


def resources_of(release: Release, model: ModelSettings) -> PodResources:
    """What the stack says, and what the implementation usually needs where it says nothing."""
    package = release.implementation.partition(".")[0]
    # Each worker is a process that loads libraries and model again.
    memory = MEMORY_MEBIBYTES.get(package, OWN_CODE_MEBIBYTES) * (1 + model.workers)
    return PodResources(
        cpu=model.resources.cpu or CPU.get(package, "100m"),
        memory=model.resources.memory or f"{memory}Mi",
    )


def request_bytes(model: ModelSettings, memory: str) -> int:
    """Largest body of a request to pods with so much memory."""
    if model.request_size:
        return int(amount(model.request_size))
    # Each worker is a process that has the request once more.
    return min(LARGEST_REQUEST, int(amount(memory)) // (1 + model.workers) // REQUEST_GROWTH)


def least_memory(model: ModelSettings) -> int:
    """Bytes below which a single request of the size that the stack allows can end a pod."""
    return int(amount(model.request_size or "0")) * LEAST_GROWTH * (1 + model.workers)
