"""What a model was trained with, as far as its release tells: by its provenance, and by the artefact itself.

An artefact is read as bytes and never unpickled: to unpickle a file is to run whatever it says.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from model_serving import yaml_text
from model_serving.catalog.pointers import MEBIBYTE
from model_serving.catalog.requirements import Package, normal

PROVENANCE: Final = "provenance.json"
MLMODEL: Final = "MLmodel"
SEARCHED_MEBIBYTES: Final = 16
"""Of an artefact, from its beginning: 0.1 s at most. The version comes after the first estimator, mostly far sooner."""

FRAMEWORKS: Final[Mapping[str, Sequence[str]]] = {
    "mlserver_sklearn": ("scikit-learn",),
    "mlserver_lightgbm": ("lightgbm",),
    "mlserver_xgboost": ("xgboost",),
    "mlserver_catboost": ("catboost",),
}
"""By the package of the implementation: the packages whose version decides whether and how an artefact is read."""
EVERY_FRAMEWORK: Final = ("scikit-learn", "lightgbm", "xgboost", "xgboost-cpu", "catboost", "mlflow", "torch")
"""For MLflow and a model's own code, of which nobody knows what they load."""

# https://mlflow.org/docs/latest/ml/model/#storage-format
FLAVORS: Final[Mapping[str, tuple[str, str]]] = {
    "sklearn": ("scikit-learn", "sklearn_version"),
    "lightgbm": ("lightgbm", "lgb_version"),
    "xgboost": ("xgboost", "xgb_version"),
    "catboost": ("catboost", "catboost_version"),
}
"""By MLflow's flavor: the package, and the key of its version."""

_WELL_KNOWN: Final = ("model.joblib", "model.pickle", "model.pkl")
"""What MLServer looks for in a folder of scikit-learn's."""
# scikit-learn writes its version into the state of each estimator, behind this key. Between the two are pickle's own
# words: MEMOIZE, BINPUT or LONG_BINPUT, the beginning of a frame, and the length of the text, in 1 or 4 bytes.
# https://github.com/scikit-learn/scikit-learn/blob/1.9.1/sklearn/base.py
_SKLEARN_VERSION: Final = re.compile(
    rb"_sklearn_version(?:\x94|q.|r.{4})?(?:\x95.{8})?(?:\x8c(?P<short>.)|X(?P<long>.{4}))(?P<text>[0-9][0-9A-Za-z.+]*)",
    re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class TrainedWith:
    """One package that a model was trained with.

    Attributes:
        package: its normal name.
        version: exactly.
        told_by: the file that says so.
    """

    package: str
    version: str
    told_by: Path

    def differs_from(self, lock: Mapping[str, Package]) -> bool:
        """Whether it is served in another version; what is not locked at all is for others to say."""
        locked = lock.get(self.package)
        return locked is not None and bool(locked.versions) and self.version not in locked.versions


def trained_with(folder: Path, implementation: str, artefact: Path | None) -> Iterator[TrainedWith]:
    """What decides how the artefact is read, from each file that tells it.

    Args:
        folder: of the release.
        implementation: class that serves it.
        artefact: file or folder that ``parameters.uri`` names, if there is one.
    """
    runtime = implementation.partition(".")[0]
    frameworks = FRAMEWORKS.get(runtime, EVERY_FRAMEWORK)
    yield from _by_provenance(folder / PROVENANCE, frameworks)
    if artefact is None:
        return
    if runtime == "mlserver_mlflow":
        yield from _by_mlflow(artefact / MLMODEL)
    elif "scikit-learn" in frameworks:  # a model's own code may load a pickle as well
        yield from _by_pickle(artefact)


def _by_provenance(path: Path, frameworks: Iterable[str]) -> Iterator[TrainedWith]:
    packages = _mapping(_json(path).get("packages")) if path.is_file() else {}
    versions = {normal(str(name)): str(version) for name, version in packages.items()}
    for package in frameworks:
        if package in versions:
            yield TrainedWith(package=package, version=versions[package], told_by=path)


def _by_pickle(artefact: Path) -> Iterator[TrainedWith]:
    files = [artefact / name for name in _WELL_KNOWN] if artefact.is_dir() else [artefact]
    for path in files:
        if path.is_file() and (version := sklearn_version(path)):
            yield TrainedWith(package="scikit-learn", version=version, told_by=path)
            return


def sklearn_version(path: Path) -> str | None:
    """The version of scikit-learn that wrote a pickle or joblib file, if it says so and is not compressed."""
    length = min(path.stat().st_size, SEARCHED_MEBIBYTES * MEBIBYTE)
    if not length:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ) as content:
        match = _SKLEARN_VERSION.search(content)
        if match is None:
            return None
        size = int.from_bytes(match["short"] or match["long"], "little")
        return match["text"][:size].decode()


def _by_mlflow(path: Path) -> Iterator[TrainedWith]:
    content = _mlmodel(path)
    found = [("mlflow", content.get("mlflow_version"))]
    flavors = _mapping(content.get("flavors"))
    found += [(package, _mapping(flavors.get(flavor)).get(key)) for flavor, (package, key) in FLAVORS.items()]
    for package, version in found:
        if isinstance(version, str):
            yield TrainedWith(package=package, version=version, told_by=path)


def _mlmodel(path: Path) -> Mapping[str, Any]:
    try:
        return _mapping(yaml_text.parse(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _json(path: Path) -> Mapping[str, Any]:
    try:
        return _mapping(json.loads(path.read_bytes()))
    except (ValueError, RecursionError):
        return {}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
