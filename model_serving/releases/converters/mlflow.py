"""MLflow models: a folder with the file ``MLmodel``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from model_serving.catalog import contents
from model_serving.catalog.training_versions import MLMODEL
from model_serving.problems import InvalidInput, Problem
from model_serving.releases.converters import mlflow_example, mlflow_signature
from model_serving.releases.converters.draft import Draft, Foreign, lacking, nested, read_yaml
from model_serving.releases.converters.mlflow_example import Example
from model_serving.releases.converters.mlflow_signature import Signature

HELP: Final = "an MLflow model: the folder with its file MLmodel"
EXAMPLE: Final = (
    "python -m model_serving convert mlflow mlruns/0/…/model --name iris --version v1.0.0 --lock requirements.lock"
)

IMPLEMENTATION: Final = "mlserver_mlflow.MLflowRuntime"
FOLDER: Final = "model"
PYTHON: Final = "3.11"
"""Of the runtime images."""


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
    inputs = mlflow_signature.tensors(signature.inputs)
    loader = str(nested(metadata.flavors, "python_function", "loader_module"))
    described = {
        "inputs": mlflow_signature.described_inputs(inputs),
        "outputs": mlflow_signature.described_outputs(mlflow_signature.tensors(signature.outputs), loader),
    }
    example = mlflow_example.read(folder, inputs)
    # With a signature, MLServer takes the content type from there.
    content_type = {"content_type": example.content_type} if example and not inputs else {}
    return Draft(
        name=options.name,
        version=options.version,
        settings={
            "implementation": IMPLEMENTATION,
            **{key: tensors for key, tensors in described.items() if tensors},
            "parameters": {"uri": f"./{FOLDER}", **content_type},
        },
        files={FOLDER: folder},
        request=example.request if example else None,
        requirements=_requirements(folder / "requirements.txt"),
        remarks=[*_remarks(folder, metadata, described, example)],
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
        if isinstance(path, str) and not contents.exists(folder / path):
            what = f"flavors.python_function.{key} is {path}, which does not exist"
            yield lacking(folder / MLMODEL, what, "Get the whole folder: mlflow artifacts download.")
    if metadata.signature:
        yield from mlflow_signature.problems(folder / MLMODEL, metadata.signature)


def _requirements(path: Path) -> list[str]:
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = [line.partition(" #")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def _remarks(
    folder: Path, metadata: Metadata, described: Mapping[str, Sequence[object]], example: Example | None
) -> Iterator[str]:
    if metadata.signature is None and example is None:
        yield (
            'It has no signature: each request must say what it is, "parameters": {"content_type": "np"} for an array '
            'and "pd" for columns, or write that into the parameters of model-settings.json.'
        )
    if metadata.signature and not described["inputs"]:
        yield "Its signature has columns of lists or objects: the release does not describe its inputs."
    if metadata.signature and not described["outputs"]:
        yield "Its signature does not tell how MLServer will type the outputs: the release does not describe them."
    if example is None and any((folder / name).is_file() for name in mlflow_example.FILES):
        yield "Its input example does not fit the signature: it is not the request.json."
    path = folder / "python_env.yaml"
    python = read_yaml(path, Environment).python if path.is_file() else None
    if python and python.split(".")[:2] != PYTHON.split("."):
        yield f"It was saved by Python {python} and is served by {PYTHON}: cloudpickle's files may fail to load."
