"""The input example of an MLflow model, as a request of the V2 protocol."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from model_serving.catalog import tensors
from model_serving.releases.converters.draft import nested
from model_serving.releases.converters.mlflow_signature import JSON, Tensor

FILES: Final = ("serving_input_example.json", "input_example.json")
"""The first one is there since MLflow 2.16."""
ROWS: Final = 5
"""Of the example, at most: some models are saved with their whole training set."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A request that the model can answer.

    Attributes:
        request: in the V2 protocol.
        content_type: tells MLServer how to decode it, if the model has no signature.
    """

    request: dict[str, Any]
    content_type: str


def read(folder: Path, inputs: Sequence[Tensor]) -> Example | None:
    """The example in the folder of a model; None if it has none that a request can be made of.

    Args:
        folder: of the model.
        inputs: of its signature; none if it has no signature.
    """
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        return None
    try:
        # MLflow writes a missing value as null or NaN.
        content = json.loads(path.read_bytes(), parse_constant=lambda _: None)
        content_type, found = _tensors(_data(content), inputs)
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    parameters = nested(content, "params")
    request = {"inputs": found} | ({"parameters": parameters} if parameters else {})
    if any(tensors.mistakes(request, "inputs", data=True)):
        return None
    return Example(request=request, content_type=content_type)


def _data(content: Any) -> Any:
    """The example without what MLflow puts around it."""
    for key in ("dataframe_split", "inputs"):
        if isinstance(content, dict) and key in content:
            content = content[key]
    return content


def _tensors(data: Any, inputs: Sequence[Tensor]) -> tuple[str, list[dict[str, Any]]]:
    """Content type of the request, and its tensors.

    Raises:
        KeyError, TypeError, ValueError: if the example has another form than the signature.
    """
    is_table = inputs[0].is_column if inputs else _is_table(data)
    if is_table:
        return "pd", _columns(data, inputs)
    if inputs and inputs[0].name:
        return "dict", [_array(str(each.name), data[each.name][: _rows(each)], each) for each in inputs]
    if not isinstance(data, list):
        raise TypeError
    tensor = inputs[0] if inputs else None
    rows = _rows(tensor)
    return "np", [_array("input-0", _complete(data)[:rows] if rows else data, tensor)]


def _is_table(data: Any) -> bool:
    return isinstance(data, dict) and isinstance(data.get("data"), list) and data.keys() <= {"columns", "index", "data"}


def _columns(data: Any, inputs: Sequence[Tensor]) -> list[dict[str, Any]]:
    unnamed = [f"input-{position}" for position in range(len(inputs))]
    if _is_table(data):
        names, rows = data.get("columns", unnamed), data["data"]
    elif isinstance(data, dict):
        names, rows = [*data], [[*data.values()]]
    elif all(isinstance(row, dict) for row in data):
        names = [*dict.fromkeys(name for row in data for name in row)]
        rows = [[row.get(name) for name in names] for row in data]
    else:
        names, rows = unnamed, [[value] for value in data]
    kept = _complete(rows)[:ROWS]
    values = dict(zip(names, zip(*kept, strict=True), strict=True))
    if len(values) < len(names):
        raise ValueError("two columns of one name")
    if inputs and not inputs[0].name:
        return [_column(*each) for each in zip(unnamed, values.values(), inputs, strict=True)]
    known = {each.name: each for each in inputs}
    # Columns that the signature calls optional may be missing.
    return [_column(name, each, known[name] if inputs else None) for name, each in values.items()]


def _column(name: str, values: Sequence[Any], tensor: Tensor | None) -> dict[str, Any]:
    datatype, content_type = (tensor.datatype, tensor.content_type) if tensor else _guessed(values)
    if content_type == JSON:
        values = [json.dumps(value, ensure_ascii=False) for value in values]
    elif content_type == "base64":
        # MLflow breaks its lines, and MLServer would take it for another text.
        values = ["".join(value.split()) if isinstance(value, str) else value for value in values]
    return _filled(name, datatype, content_type, [len(values), 1], values)


def _array(name: str, data: Any, tensor: Tensor | None) -> dict[str, Any]:
    values = [*_flat(data)]
    datatype = tensor.datatype if tensor else _guessed(values)[0]
    return _filled(name, datatype, "np", _shape(data), values)


def _filled(name: str, datatype: str, content_type: str, shape: list[int], values: Sequence[Any]) -> dict[str, Any]:
    if math.prod(shape) != len(values):
        raise ValueError
    parameters = {"content_type": content_type}
    return {"name": name, "shape": shape, "datatype": datatype, "parameters": parameters, "data": [*values]}


def _guessed(values: Sequence[Any]) -> tuple[str, str]:
    """Datatype and content type of values without a signature."""
    kinds = {type(value) for value in values if value is not None}
    for kind, datatype, content_type in ((bool, "BOOL", "np"), (int, "INT64", "np"), (str, "BYTES", "str")):
        if kinds == {kind}:
            return datatype, content_type
    return ("FP64", "np") if kinds <= {int, float} else ("BYTES", JSON)


def _complete(rows: Sequence[Any]) -> Sequence[Any]:
    """Those without a missing value, if there are any: not each model takes null."""
    return [row for row in rows if all(value is not None for value in _flat(row))] or rows


def _rows(tensor: Tensor | None) -> int | None:
    """Of the tensor, at most; None if the signature says how many there must be."""
    return ROWS if tensor is None or [*tensor.shape[:1]] == [-1] else None


def _shape(data: Any) -> list[int]:
    return [len(data), *_shape(data[0])] if isinstance(data, list) and data else []


def _flat(data: Any) -> Iterator[Any]:
    if isinstance(data, list):
        for item in data:
            yield from _flat(item)
    else:
        yield data
