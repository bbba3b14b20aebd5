"""Models that MLEM saved: ``model.mlem``, which is YAML, and the artefact beside it.

MLEM itself has had no maintainer since 2023, and is not needed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from model_serving.images.remotes import md5_of
from model_serving.problems import InvalidInput, Problem
from model_serving.releases.converters.draft import NUMPY_DATATYPES, Draft, Foreign, lacking, nested, read_yaml

HELP: Final = "a model that MLEM saved: model.mlem and the artefact beside it"
EXAMPLE: Final = (
    "python -m model_serving convert mlem models/rf.mlem --name iris --version v1.0.0 --lock requirements.lock"
)

_IMPLEMENTATIONS: Final[Mapping[str, str]] = {
    "sklearn": "mlserver_sklearn.SKLearnModel",
    "sklearn_pipeline": "mlserver_sklearn.SKLearnModel",
    "lightgbm": "mlserver_lightgbm.LightGBMModel",
    "xgboost": "mlserver_xgboost.XGBoostModel",
    "catboost": "mlserver_catboost.CatboostModel",
}
"""By MLEM's type of the model."""
_SUFFIXES: Final[Mapping[str, str]] = {
    "sklearn": "joblib",
    "sklearn_pipeline": "joblib",
    "lightgbm": "txt",
    "catboost": "cbm",
}
"""By MLEM's type: how the artefact's format is usually called."""
_DATATYPES: Final[Mapping[str, str]] = {**NUMPY_DATATYPES, "object": "BYTES", "string": "BYTES"}
"""By pandas' name of a column's type: that of the V2 protocol."""


class Artefact(Foreign):
    """A file of the model."""

    uri: str = Field(description="Path of the artefact, from where model.mlem is.")
    hash: str | None = Field(None, description="MD5 of the artefact.")
    size: int | None = Field(None, description="Bytes of the artefact.")


class Requirement(Foreign):
    """A package that the model was saved with."""

    module: str | None = Field(None, description="Name that is imported.")
    package_name: str | None = Field(None, description="Name in the index, where it differs.")
    version: str | None = Field(None, description="Exactly.")

    @property
    def name(self) -> str | None:
        """In the index."""
        return self.package_name or self.module


class ModelType(Foreign):
    """What kind of model it is."""

    type: str = Field(description="MLEM's name of the framework.")
    methods: dict[str, Any] = Field({}, description="What it takes and answers.")


class Metadata(Foreign):
    """The file ``model.mlem``, in both of its forms."""

    artifacts: dict[str, Artefact] = Field({}, description="The files of the model.")
    requirements: list[Requirement] = Field([], description="The packages of the training.")
    model_type: ModelType | None = Field(None, description="What the model is, up to MLEM 0.2.")
    processors: dict[str, ModelType] = Field({}, description="What the model is, from MLEM 0.3 on.")

    @property
    def kind(self) -> ModelType | None:
        return self.model_type or self.processors.get("model")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="FILE", help="model.mlem")


def draft(options: argparse.Namespace, scratch: Path) -> Draft:
    path: Path = options.source
    metadata = read_yaml(path, Metadata)
    kind = metadata.kind
    problems = [*_problems_of_kind(path, kind), *_problems_of_artefact(path, metadata.artifacts)]
    if problems or kind is None:
        raise InvalidInput(problems)
    (artefact,) = metadata.artifacts.values()
    implementation = _IMPLEMENTATIONS[kind.type]
    source = path.parent / artefact.uri
    name = f"model.{_SUFFIXES.get(kind.type) or _suffix_of_xgboost(source)}"
    inputs, content_type = _inputs(kind.methods)
    return Draft(
        name=options.name,
        version=options.version,
        settings={
            "implementation": implementation,
            **({"inputs": inputs} if inputs else {}),
            "parameters": {"uri": f"./{name}", **({"content_type": content_type} if content_type else {})},
        },
        files={name: source},
        trained_with={each.name: each.version for each in metadata.requirements if each.name and each.version},
    )


def _problems_of_kind(path: Path, kind: ModelType | None) -> Iterator[Problem]:
    known = ", ".join(_IMPLEMENTATIONS)
    if kind is None:
        yield lacking(path, "says neither model_type nor processors.model", f"Save a model with MLEM: {known}.")
    elif kind.type not in _IMPLEMENTATIONS:
        yield lacking(
            path,
            f'the type of the model is "{kind.type}", for which MLServer has no implementation here',
            f"Known here: {known}. Others are served by code of their own, as docs/runtimes.md shows.",
        )


def _problems_of_artefact(path: Path, artefacts: Mapping[str, Artefact]) -> Iterator[Problem]:
    if len(artefacts) != 1:
        yield lacking(
            path,
            f"artifacts names {len(artefacts)} files: {', '.join(artefacts) or 'none'}",
            "MLServer loads one; save the model alone, without a wrapper around it.",
        )
        return
    (artefact,) = artefacts.values()
    uri = Path(artefact.uri)
    file = path.parent / uri
    if uri.is_absolute() or ".." in uri.parts or not file.is_file():
        remedy = f"Put it there, and its path from there into the file; if DVC keeps it: dvc pull {uri}"
        yield lacking(path, f"artifacts.data.uri is {uri}, which is no file beside it", remedy)
    elif artefact.size is not None and file.stat().st_size != artefact.size:
        what = f"{artefact.uri} has {file.stat().st_size} bytes, and artifacts says {artefact.size}"
        yield lacking(path, what, "Get the artefact that was saved with this file.")
    elif artefact.hash and md5_of(file) != artefact.hash:
        what = f"{artefact.uri} is not the artefact that was saved: its MD5 is not {artefact.hash}"
        yield lacking(path, what, "Get the artefact that was saved with this file.")


def _suffix_of_xgboost(file: Path) -> str:
    """XGBoost goes by the name of a file, and MLEM gives it none that XGBoost knows."""
    with file.open("rb") as content:
        first = content.read(2)
    # A text goes on with a quote or a space, the binary form with the type of a length.
    return "json" if first[1:2] in {b'"', b" ", b"\n"} else "ubj"


def _inputs(methods: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str | None]:
    """Tensors that the model takes, and their content type; empty where the file does not say it in numbers."""
    arguments = nested(methods, "predict", "args")
    taken = nested(arguments[0], "type_") if isinstance(arguments, list) and len(arguments) == 1 else None
    match nested(taken, "type"):
        case "ndarray":
            return _of_array(nested(taken, "dtype"), nested(taken, "shape")), None
        case "dataframe":
            return _of_table(nested(taken, "columns"), nested(taken, "dtypes")), "pd"
    return [], None


def _of_array(dtype: object, shape: object) -> list[dict[str, Any]]:
    datatype = _DATATYPES.get(str(dtype))
    if datatype is None or not isinstance(shape, list):
        return []
    return [{"name": "predict", "datatype": datatype, "shape": [-1 if size is None else size for size in shape]}]


def _of_table(columns: object, dtypes: object) -> list[dict[str, Any]]:
    if not isinstance(columns, list) or not isinstance(dtypes, list):
        return []
    datatypes = [_DATATYPES.get(str(each)) for each in dtypes]
    return [
        {"name": str(name), "datatype": datatype, "shape": [-1, 1]}
        for name, datatype in zip(columns, datatypes, strict=False)
        if datatype and all(datatypes)
    ]
