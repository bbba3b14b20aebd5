"""Tensors of the V2 protocol: what is valid, what is equal, and what a derived request is made of.

Standard library only: the contract check runs with whatever a model's image has.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeGuard

TOLERANCE: Final[Mapping[str, float]] = {"FP16": 1e-2, "FP32": 1e-4, "FP64": 1e-6}
"""Relative and absolute: another processor rounds the last digits differently, and gradient boosting adds them up."""
SAMPLES: Final[Mapping[str, object]] = {"BOOL": False, "BYTES": "a"}
"""What a derived request is filled with, where zero will not do."""
SAMPLES_OF_BYTES: Final[Mapping[str, str]] = {"datetime": "2024-01-01T00:00:00", "base64": "YQ==", "pd_json": "{}"}
"""The same by MLServer's content type, where "a" will not do."""
# https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md#tensor-data-types
DATATYPE: Final = re.compile(r"BOOL|BYTES|FP(16|32|64)|U?INT(8|16|32|64)")
MOST_DIMENSIONS: Final = 64
"""Of an array in NumPy, https://numpy.org/doc/stable/release/2.0.0-notes.html."""
LARGEST_SIZE: Final = 1 << 31
"""Of a dimension, as the launcher has it."""
MOST_SAMPLED: Final = 1 << 23
"""Values of a derived request: more would neither fit into a request nor into the check's memory."""
SHOWN: Final = 400
"""Characters of a request or an answer: what Kubernetes keeps of a message is 2,048 bytes in all."""


def fault(tensor: Mapping[str, Any], *, nulls: bool = False) -> str | None:
    """What is wrong with a tensor: ``shape [2] needs 2 values, there is 1``; None if nothing is.

    It needs as many values as its shape says, in one list or nested as the shape says, each finite and of its datatype.

    Args:
        tensor: of a request or a response.
        nulls: whether floats and texts may be missing.
    """
    shape, datatype, data = tensor.get("shape"), tensor.get("datatype"), tensor.get("data")
    if not is_shape(shape) or min(shape, default=0) < 0:
        return f"shape is {shown(json.dumps(shape))}, not a list of sizes"
    if not is_datatype(datatype):
        return f"datatype is {shown(json.dumps(datatype))}, not one of the V2 protocol"
    values = [] if data is None else [*flat(data)]
    if (size := math.prod(shape)) != len(values):
        there = "is 1" if len(values) == 1 else f"are {len(values)}"
        return f"shape {shape} needs {size} value{'' if size == 1 else 's'}, there {there}"
    if isinstance(data, list) and any(isinstance(each, list) for each in data) and not _nests(data, shape):
        return f"lists are not nested as the shape {shape} says"
    may_be_missing = nulls and datatype.startswith(("FP", "BYTES"))
    for position, value in enumerate(values):
        if not _is_value(value, datatype) and not (may_be_missing and value is None):
            kind = "a finite " if datatype.startswith("FP") else ""
            return f"value {position} is {shown(json.dumps(value))}, not {kind}{datatype}"
    return None


def is_shape(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and len(value) <= MOST_DIMENSIONS and all(map(_is_size, value))


def _is_size(value: object) -> bool:
    return type(value) is int and abs(value) <= LARGEST_SIZE


def is_datatype(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and DATATYPE.fullmatch(value) is not None


def _nests(data: object, shape: Sequence[int]) -> bool:
    if not isinstance(data, list):
        return not shape
    return bool(shape) and len(data) == shape[0] and all(_nests(each, shape[1:]) for each in data)


def _is_value(value: object, datatype: str) -> bool:
    if datatype == "BYTES":
        return isinstance(value, str)
    if datatype == "BOOL":
        return value in (True, False)
    # A server whose JSON has no NaN writes null in its place. Compared and not converted: an integer may be longer than
    # any float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        return False
    kind, bits = datatype.partition("INT")[::2]
    if not bits:
        return True
    low, high = (0, 1 << int(bits)) if kind else (-(1 << int(bits) - 1), 1 << int(bits) - 1)
    return value == int(value) and low <= value < high


def fits(shape: Sequence[int], pattern: Sequence[int]) -> bool:
    return len(shape) == len(pattern) and all(wanted in (-1, size) for size, wanted in zip(shape, pattern, strict=True))


def tolerance_of(response: Mapping[str, Any], output: Mapping[str, Any]) -> float:
    """``parameters.tolerance`` of the output, else of the whole response, else what its type is good for.

    It counts for floats only; other values are equal or not.
    """
    if not output["datatype"].startswith("FP"):
        return 0.0
    for holder in (output, response):
        tolerance = (holder.get("parameters") or {}).get("tolerance")
        if tolerance is not None:
            return float(tolerance)
    return TOLERANCE[output["datatype"]]


def is_close(wanted: Any, value: Any, tolerance: float) -> bool:
    if not tolerance or wanted is None or value is None:
        return bool(wanted == value)
    return math.isclose(wanted, value, rel_tol=tolerance, abs_tol=tolerance)


def sampled_shape(tensor: Mapping[str, Any]) -> list[int]:
    """Of one row: the sizes that are not fixed are 1."""
    return [max(1, size) for size in tensor["shape"]]


def sample(tensor: Mapping[str, Any]) -> dict[str, Any]:
    shape = sampled_shape(tensor)
    datatype, content_type = tensor["datatype"], (tensor.get("parameters") or {}).get("content_type")
    value = SAMPLES.get(datatype, 0.0 if datatype.startswith("FP") else 0)
    if datatype == "BYTES":
        value = SAMPLES_OF_BYTES.get(str(content_type), value)
    kept = {key: tensor[key] for key in ("name", "datatype", "parameters") if tensor.get(key)}
    return kept | {"shape": shape, "data": [value] * math.prod(shape)}


def flat(data: object) -> Iterator[Any]:
    # Without recursion, which lists that are nested too deep would end.
    left = [data]
    while left:
        item = left.pop()
        if isinstance(item, list):
            left.extend(reversed(item))
        else:
            yield item


def shown(text: str) -> str:
    """A text in one line that leaves room for the others in a message."""
    line = re.sub(r"\s+", " ", text)
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}… ({len(line)} characters)"
