"""Describes a release to people: inputs and outputs, an example, its framework and its origin.

The catalog has checked what serving depends on. A part that cannot be shown, e.g. a large example, is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from model_serving.catalog.release_folder import SETTINGS
from model_serving.catalog.releases import Release
from model_serving.catalog.requirements import locked
from model_serving.catalog.training_versions import EVERY_FRAMEWORK, FRAMEWORKS, PROVENANCE

MOST_BYTES: Final = 32 * 1024
"""Of each part, as JSON: a form of more values would be of no use."""
ORIGIN: Final = ("repository", "commit", "tag", "pipeline")
"""Keys of the provenance that `publish` writes."""
_OF_TENSOR: Final = ("name", "datatype", "shape", "parameters")


def describe(release: Release) -> dict[str, Any]:
    """The description, as server/portal/served.py reads it; without what the release does not tell."""
    settings = _object(release.folder / SETTINGS)
    parts = {
        "implementation": release.implementation,
        "frameworks": _frameworks(release),
        "inputs": _tensors(settings.get("inputs")),
        "outputs": _tensors(settings.get("outputs")),
        "request": _object(release.request) if release.request else None,
        "response": _object(release.response) if release.response else None,
        "origin": _origin(release.folder / PROVENANCE),
    }
    return {key: part for key, part in parts.items() if part and _can_be_shown(part)}


def _frameworks(release: Release) -> dict[str, str]:
    """Package -> the version that serves the model."""
    packages = locked(release.lock.read_text(encoding="utf-8", errors="replace"))
    names = [*FRAMEWORKS.get(release.implementation.partition(".")[0], EVERY_FRAMEWORK), "mlserver"]
    return {
        name: next(iter(packages[name].versions))
        for name in names
        if name in packages and len(packages[name].versions) == 1
    }


def _origin(path: Path) -> dict[str, str]:
    provenance = _object(path) if path.is_file() else {}
    return {key: provenance[key] for key in ORIGIN if isinstance(provenance.get(key), str)}


def _tensors(described: Any) -> list[dict[str, Any]]:
    return [{key: each[key] for key in _OF_TENSOR if key in each} for each in described or []]


def _object(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _can_be_shown(part: Any) -> bool:
    """Whether it is small, and JSON to browsers as well, which have no NaN."""
    try:
        return len(json.dumps(part, allow_nan=False)) <= MOST_BYTES
    except ValueError:
        return False
