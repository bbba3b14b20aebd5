"""What the pods of a release are given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from model_serving.catalog import Release
from model_serving.quantities import amount
from model_serving.stack.models import ModelSettings

CPU: Final[Mapping[str, str]] = {"mlserver_huggingface": "1"}
"""Cores by the package of the implementation, where 100m is not enough to load a model in time."""
OPENMP: Final = frozenset({"mlserver_sklearn", "mlserver_lightgbm", "mlserver_xgboost"})
"""Packages whose libraries start a thread per core of the node for each prediction. One of a few rows takes less time
than waking them, and pods take cores from each other: with one thread on two cores, LightGBM answers 1.13 times as many
requests (2026-11-30). Elsewhere, as with PyTorch, a single prediction is long enough to be worth all free cores."""
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
    """What a pod is given.

    Attributes:
        cpu: reserved cores, as a Kubernetes quantity.
        memory: as a Kubernetes quantity.
        threads: of OpenMP in each process; None is as many as the node has cores.
    """

    cpu: str
    memory: str
    threads: int | None = None


def resources_of(release: Release, model: ModelSettings) -> PodResources:
    """What the stack says, and what the implementation usually needs where it says nothing."""
    package = release.implementation.partition(".")[0]
    # Each worker is a process that loads libraries and model again.
    memory = MEMORY_MEBIBYTES.get(package, OWN_CODE_MEBIBYTES) * (1 + model.workers)
    cpu = model.resources.cpu or CPU.get(package, "100m")
    return PodResources(
        cpu=cpu,
        memory=model.resources.memory or f"{memory}Mi",
        threads=math.ceil(amount(cpu) / max(1, model.workers)) if package in OPENMP else None,
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
