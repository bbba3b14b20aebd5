"""MLflow models: a folder with the file ``MLmodel``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from model_serving.catalog.training_versions import MLMODEL
from model_serving.problems import InvalidInput, Problem
from model_serving.releases.converters.draft import NUMPY_DATATYPES, Draft, Foreign, lacking, nested, read_yaml

HELP: Final = "an MLflow model: the folder with its file MLmodel"
EXAMPLE: Final = (
    "python -m model_serving convert mlflow mlruns/0/…/model --name iris --version v1.0.0 --lock requirements.lock"
)

IMPLEMENTATION: Final = "mlserver_mlflow.MLflowRuntime"
FOLDER: Final = "model"
PYTHON: Final = "3.11"
"""Of the runtime images."""

# As MLServer itself reads a signature, so that the release and the server have the same metadata.
# https://github.com/SeldonIO/MLServer/blob/1.7.1/runtimes/mlflow/mlserver_mlflow/metadata.py
_COLUMNS: Final[Mapping[str, tuple[str, str]]] = {
    "boolean": ("BOOL", "np"),
    "integer": ("INT32", "np"),
    "long": ("INT64", "np"),
    "float": ("FP32", "np"),
    "double": ("FP64", "np"),
    "string": ("BYTES", "str"),
    "binary": ("BYTES", "base64"),
    "datetime": ("BYTES", "datetime"),
}
"""MLflow's type of a column -> datatype and content type."""


class Signature(Foreign):
    """Inputs and outputs of the model, each a JSON list as text."""

    inputs: str | None = Field(None, description="Inputs.")
    outputs: str | None = Field(None, description="Outputs.")


class Metadata(Foreign):
    """The file ``MLmodel``."""

    flavors: dict[str, Any] = Field(description="Ways to load the model.")
    signature: Signature | None = Field(None, description="Inputs and outputs.")
    mlflow_version: str | None = Field(None, description="Version that saved the model.")


class Environment(Foreign):
    """The file ``python_env.yaml``."""

    python: str | None = Field(None, description="Version of Python that saved the model.")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="FOLDER", help="folder with the file MLmodel")


def draft(options: argparse.Namespace, scratch: Path) -> Draft:
    folder: Path = options.source
    metadata = read_yaml(folder / MLMODEL, Metadata)
    if problems := [*_problems(folder, metadata)]:
        raise InvalidInput(problems)
    signature = metadata.signature or Signature()
    described = {"inputs": _tensors(signature.inputs, "input"), "outputs": _tensors(signature.outputs, "output")}
    return Draft(
        name=options.name,
        version=options.version,
        settings={
            "implementation": IMPLEMENTATION,
            **{key: tensors for key, tensors in described.items() if tensors},
            "parameters": {"uri": f"./{FOLDER}"},
        },
        files={FOLDER: folder},
        requirements=_requirements(folder / "requirements.txt"),
        remarks=[*_remarks(folder, takes=described["inputs"])],
    )


def _problems(folder: Path, metadata: Metadata) -> Iterator[Problem]:
    function = metadata.flavors.get("python_function")
    if function is None:
        yield lacking(
            folder / MLMODEL,
            f"has no flavor python_function, but {', '.join(metadata.flavors) or 'none'}",
            "MLServer loads only that one: save the model with one of MLflow's own flavors.",
        )
        return
    for key in ("data", "model_path", "code"):
        path = nested(function, key)
        if isinstance(path, str) and not (folder / path).exists():
            what = f"flavors.python_function.{key} is {path}, which does not exist"
            yield lacking(folder / MLMODEL, what, "Get the whole folder: mlflow artifacts download.")


def _tensors(text: str | None, prefix: str) -> list[dict[str, Any]]:
    """The tensors of the inputs or outputs; empty if one of them has no type in the V2 protocol."""
    try:
        columns = json.loads(text or "[]")
    except ValueError:
        return []
    tensors = [_tensor(column, f"{prefix}-{number}") for number, column in enumerate(columns)]
    return [tensor for tensor in tensors if tensor and all(tensors)]


def _tensor(column: object, name: str) -> dict[str, Any] | None:
    kind, shape, content_type = nested(column, "type"), [-1, 1], "np"
    if kind == "tensor":
        datatype = NUMPY_DATATYPES.get(str(nested(column, "tensor-spec", "dtype")))
        shape = nested(column, "tensor-spec", "shape")
    else:
        datatype, content_type = _COLUMNS.get(str(kind), (None, content_type))
    if datatype is None:
        return None
    return {
        "name": nested(column, "name") or name,
        "datatype": datatype,
        "shape": shape,
        "parameters": {"content_type": content_type},
    }


def _requirements(path: Path) -> list[str]:
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = [line.partition(" #")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def _remarks(folder: Path, *, takes: Sequence[object]) -> Iterator[str]:
    if not takes:
        yield "It has no signature in types of the V2 protocol: the release does not describe its inputs."
    path = folder / "python_env.yaml"
    python = read_yaml(path, Environment).python if path.is_file() else None
    if python and python.split(".")[:2] != PYTHON.split("."):
        yield f"It was saved by Python {python} and is served by {PYTHON}: cloudpickle's files may fail to load."
