"""The signature of an MLflow model: what MLServer reads in it, and what MLServer answers.

The two differ. MLServer 1.7.1 describes the outputs as the signature does, but names and shapes its answers by what the
model returns: an array is ``output-1`` with two dimensions or more, a DataFrame is an output for each column.
https://github.com/SeldonIO/MLServer/blob/1.7.1/runtimes/mlflow/mlserver_mlflow/metadata.py
https://github.com/SeldonIO/MLServer/blob/1.7.1/mlserver/codecs/utils.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from model_serving.problems import Problem, first_few
from model_serving.releases.converters.draft import NUMPY_DATATYPES, Foreign, lacking, nested

_TENSORS: Final = {**NUMPY_DATATYPES, "str": "BYTES", "object": "BYTES", "bytes": "BYTES"}
"""NumPy's data type of a tensor -> datatype."""
JSON: Final = "pd_json"
"""Content type of a column whose values are lists or objects."""
_COLUMNS: Final = {
    "boolean": ("BOOL", "np"),
    "integer": ("INT32", "np"),
    "long": ("INT64", "np"),
    "float": ("FP32", "np"),
    "double": ("FP64", "np"),
    "string": ("BYTES", "str"),
    "binary": ("BYTES", "base64"),
    "datetime": ("BYTES", "datetime"),
    **dict.fromkeys(("array", "object", "map", "any", "sparkml_vector"), ("BYTES", JSON)),
}
"""MLflow's type of a column -> datatype and content type."""
_INEXACT: Final = "integer"
"""Also stands for columns of 8 and 16 bits, which MLServer answers as INT8 to UINT16."""
_RETURN_ARRAYS: Final = ("mlflow.sklearn", "mlflow.xgboost", "mlflow.lightgbm", "mlflow.catboost")
"""Loaders whose models return arrays, whatever the signature says of columns."""
_SAVE: Final = (
    'Correct the signature; no training is needed: mlflow.models.set_signature("{folder}", '
    "mlflow.models.infer_signature(X, model.predict(X)))."
)


class Signature(Foreign):
    """Inputs and outputs of the model, each a JSON list as text."""

    inputs: str | None = Field(None, description="Inputs.")
    outputs: str | None = Field(None, description="Outputs.")


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """An input or output.

    Attributes:
        name: in the signature, if there is one.
        kind: MLflow's type of the column, or ``tensor``.
        datatype: of the V2 protocol.
        shape: -1 for any length.
        content_type: tells MLServer how to decode it.
        is_optional: whether a request may leave it out.
    """

    name: str | None
    kind: str
    datatype: str
    shape: Sequence[int]
    content_type: str
    is_optional: bool

    @property
    def is_column(self) -> bool:
        return self.kind != "tensor"

    def named(self, name: str) -> dict[str, Any]:
        """Metadata of MLServer's."""
        return {
            "name": name,
            "datatype": self.datatype,
            "shape": [*self.shape],
            "parameters": {"content_type": self.content_type},
        }


def problems(path: Path, signature: Signature) -> Iterator[Problem]:
    """Everything in the signature with which MLServer does not load the model."""
    remedy = _SAVE.format(folder=path.parent)
    for key, text in (("inputs", signature.inputs), ("outputs", signature.outputs)):
        if text is None:
            yield lacking(path, f"signature has no {key}, without which MLServer fails to load it", remedy)
            continue
        specs = _specs(text)
        if not specs:
            yield lacking(path, f"signature.{key} is not a JSON list of columns or tensors", remedy)
        if odd := [str(name) for spec in specs if not isinstance(name := nested(spec, "name"), str | None)]:
            what = f"signature.{key} has names that are not text: {first_few(odd)}. MLServer fails to load it"
            yield lacking(path, what, f"Rename them: X.columns = X.columns.astype(str). {remedy}")
        for position, spec in enumerate(specs):
            if _tensor(spec) is None:
                kind = nested(spec, "tensor-spec", "dtype") or nested(spec, "type")
                what = f"signature.{key}[{position}] is of the type {kind}, with which MLServer fails to load it"
                yield lacking(path, what, remedy)


def tensors(text: str | None) -> list[Tensor]:
    """The inputs or outputs of a signature without problems."""
    return [tensor for spec in _specs(text or "[]") if (tensor := _tensor(spec))]


def described_inputs(inputs: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Metadata of the inputs, as MLServer has it; empty if no request can be derived from it."""
    if any(tensor.content_type == JSON for tensor in inputs):
        return []
    return [_asked(tensor, tensor.name or f"input-{position}") for position, tensor in enumerate(inputs)]


def _asked(tensor: Tensor, name: str) -> dict[str, Any]:
    described = tensor.named(name)
    if tensor.is_optional:
        described["parameters"]["optional"] = True
    return described


def described_outputs(outputs: Sequence[Tensor], loader: str) -> list[dict[str, Any]]:
    """Metadata of the outputs, as MLServer answers them; empty if the signature does not tell.

    Args:
        outputs: of the signature.
        loader: flavors.python_function.loader_module.
    """
    only = outputs[0] if len(outputs) == 1 else None
    if loader in _RETURN_ARRAYS:
        return [_answered(only, "output-1")] if only and not only.is_column else []
    if only and not only.name:
        # A column without a name is a list, and MLServer answers only those of text.
        return [_answered(only, "output-1")] if only.kind in {"tensor", "string"} else []
    if any(tensor.kind == _INEXACT for tensor in outputs):
        return []
    return [_answered(tensor, tensor.name) for tensor in outputs if tensor.name]


def _answered(tensor: Tensor, name: str) -> dict[str, Any]:
    # MLServer gives everything that it answers a second dimension.
    described = tensor.named(name)
    return described | {"shape": described["shape"] if len(tensor.shape) > 1 else [*tensor.shape, 1]}


def _specs(text: str) -> list[Any]:
    try:
        specs = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return specs if isinstance(specs, list) else []


def _tensor(spec: object) -> Tensor | None:
    kind, name = str(nested(spec, "type")), nested(spec, "name")
    shape, content_type = [-1, 1], "np"
    if kind == "tensor":
        datatype = _TENSORS.get(str(nested(spec, "tensor-spec", "dtype")))
        shape = nested(spec, "tensor-spec", "shape")
    else:
        datatype, content_type = _COLUMNS.get(kind, (None, content_type))
    if datatype is None or not isinstance(shape, list):
        return None
    return Tensor(
        name=name or None,
        kind=kind,
        datatype=datatype,
        shape=shape,
        content_type=content_type,
        # Until MLflow 2.9, it was written the other way round.
        is_optional=nested(spec, "required") is False or nested(spec, "optional") is True,
    )
