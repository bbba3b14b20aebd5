"""Models that MLEM saved: ``model.mlem``, which is YAML, and the artefact beside it.

MLEM itself, unmaintained since 2023, is not needed.
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

_IMPLEMENTATIONS: Final[Mapping[str, tuple[str, str | None]]] = {
    "sklearn": ("mlserver_sklearn.SKLearnModel", "joblib"),
    "sklearn_pipeline": ("mlserver_sklearn.SKLearnModel", "joblib"),
    "lightgbm": ("mlserver_lightgbm.LightGBMModel", "txt"),
    "xgboost": ("mlserver_xgboost.XGBoostModel", None),
    "catboost": ("mlserver_catboost.CatboostModel", "cbm"),
}
"""MLEM's type of the model -> MLServer's class, and the usual suffix of the artefact if there is only one."""
_DATATYPES: Final[Mapping[str, str]] = {**NUMPY_DATATYPES, "object": "BYTES", "string": "BYTES"}
"""pandas' data type -> that of the V2 protocol."""
_OTHER: Final = "Get the artefact that was saved with this file."


class Artefact(Foreign):
    """A file of the model."""

    uri: str = Field(description="Path of the artefact, relative to model.mlem.")
    hash: str | None = Field(None, description="MD5 of the artefact.")
    size: int | None = Field(None, description="Bytes of the artefact.")


class Requirement(Foreign):
    """A package that the model was saved with."""

    module: str | None = Field(None, description="Name of the module.")
    package_name: str | None = Field(None, description="Name in the package index, if different.")
    version: str | None = Field(None, description="Exact version.")

    @property
    def name(self) -> str | None:
        """In the package index."""
        return self.package_name or self.module


class ModelType(Foreign):
    """What kind of model it is."""

    type: str = Field(description="MLEM's name of the framework.")
    methods: dict[str, Any] = Field({}, description="Its inputs and outputs.")


class Metadata(Foreign):
    """The file ``model.mlem``, in its old and new form."""

    artifacts: dict[str, Artefact] = Field({}, description="The files of the model.")
    requirements: list[Requirement] = Field([], description="The packages of the training.")
    model_type: ModelType | None = Field(None, description="Type of the model, up to MLEM 0.2.")
    processors: dict[str, ModelType] = Field({}, description="Type of the model, since MLEM 0.3.")

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
    implementation, suffix = _IMPLEMENTATIONS[kind.type]
    source = path.parent / artefact.uri
    name = f"model.{suffix or _suffix_of_xgboost(source)}"
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
            f'the type of the model is "{kind.type}", which none of MLServer\'s runtimes here implements',
            f"Known types: {known}. Other models need code of their own, see docs/runtimes.md.",
        )


def _problems_of_artefact(path: Path, artefacts: Mapping[str, Artefact]) -> Iterator[Problem]:
    if len(artefacts) != 1:
        yield lacking(
            path,
            f"artifacts names {len(artefacts)} files: {', '.join(artefacts) or 'none'}",
            "MLServer loads exactly one: save only the model, without a wrapper.",
        )
        return
    (artefact,) = artefacts.values()
    uri = Path(artefact.uri)
    file = path.parent / uri
    if uri.is_absolute() or ".." in uri.parts or not file.is_file():
        remedy = f"Put it there, and its relative path into the file; if DVC tracks it: dvc pull {uri}"
        yield lacking(path, f"artifacts.data.uri is {uri}, which is not a file beside it", remedy)
    elif artefact.size is not None and file.stat().st_size != artefact.size:
        what = f"{artefact.uri} has {file.stat().st_size} bytes, and artifacts says {artefact.size}"
        yield lacking(path, what, _OTHER)
    elif artefact.hash and md5_of(file) != artefact.hash:
        yield lacking(path, f"{artefact.uri} is not the artefact that was saved: its MD5 differs", _OTHER)


def _suffix_of_xgboost(file: Path) -> str:
    """XGBoost tells formats apart by the suffix, and MLEM's file has none."""
    with file.open("rb") as content:
        first = content.read(2)
    # JSON continues with a quote or white space, UBJSON with the type of a length.
    return "json" if first[1:2] in {b'"', b" ", b"\n"} else "ubj"


def _inputs(methods: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str | None]:
    """The model's input tensors and their content type; empty if the file does not describe them."""
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
