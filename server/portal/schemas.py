"""JSON Schemas of requests and answers, from the inputs and outputs that a release describes.

They allow what the launcher allows: numbers of any width stand for each other, and whole numbers for floats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from .served import Version

FLOATS: Final = ("FP16", "FP32", "FP64")
INTEGERS: Final = tuple(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64))
OTHERS: Final = ("BOOL", "BYTES")
ANY_SIZE: Final = -1
COLUMN: Final = 2
"""Sizes of a table of one column."""

_STRING: Final = {"type": "string"}
_BOOLEAN: Final = {"type": "boolean"}
_PARAMETERS: Final = {"type": "object", "description": "As in the protocol, e.g. content_type."}


def name_of(version: Version, part: str) -> str:
    """Name of the schema of a version's request or response. No model's name has two dots in a row."""
    return f"{version.model}..{version.version}..{part}"


def of(version: Version) -> dict[str, Any]:
    """The schemas of a version's request and response."""
    return {
        name_of(version, "request"): _request(version.about.get("inputs", ()), version.about.get("outputs", ())),
        name_of(version, "response"): _response(version.about.get("outputs", ())),
    }


def common() -> dict[str, Any]:
    """The schemas that all stacks have."""
    metadata = _object({"name": _STRING, "datatype": _datatypes(), "shape": _sizes(), "parameters": _PARAMETERS}, 3)
    listed = _object({"name": _STRING, "version": _STRING, "state": _STRING, "reason": _STRING}, 3)
    return {
        "Error": _object({"error": _STRING}, 1),
        "ServerMetadata": _object({"name": _STRING, "version": _STRING, "extensions": _list(_STRING)}, 3),
        "Live": _object({"live": _BOOLEAN}, 1),
        "Ready": _object({"ready": _BOOLEAN}, 1),
        "IndexRequest": _object({"ready": {**_BOOLEAN, "description": "Only versions that can serve."}}),
        "RepositoryIndex": _list(listed),
        "TensorMetadata": metadata,
        "ModelMetadata": _object(
            {
                "name": _STRING,
                "platform": _STRING,
                "versions": _list(_STRING),
                "inputs": _list({"$ref": "#/components/schemas/TensorMetadata"}),
                "outputs": _list({"$ref": "#/components/schemas/TensorMetadata"}),
                "parameters": _PARAMETERS,
            },
            1,
        ),
        "Tensor": _object(
            {"name": _STRING, "shape": _sizes(), "datatype": _datatypes(), "data": {}, "parameters": _PARAMETERS}, 4
        ),
    }


def _request(inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = {"enum": [output["name"] for output in outputs]} if outputs else {}
    wanted = _object({"name": {**_STRING, **names}, "parameters": _PARAMETERS}, 1)
    return _object(
        {
            "inputs": _tensors(inputs, is_only_free=True),
            "id": _STRING,
            "parameters": _PARAMETERS,
            "outputs": {**_list(wanted), "description": "The outputs to answer with; all by default."},
        },
        1,
    )


def _response(outputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return _object(
        {
            "model_name": _STRING,
            "outputs": _tensors(outputs),
            "model_version": _STRING,
            "id": _STRING,
            "parameters": _PARAMETERS,
        },
        2,
    )


def _tensors(described: Sequence[Mapping[str, Any]], *, is_only_free: bool = False) -> dict[str, Any]:
    """A list of the described tensors, in any order.

    Args:
        described: as in a model's metadata.
        is_only_free: whether the name does not matter if there is only one.
    """
    tensors = [_tensor(each, is_free=is_only_free and len(described) == 1) for each in described]
    if not tensors:
        return {**_list({"$ref": "#/components/schemas/Tensor"}), "minItems": 1}
    return {**_list(tensors[0] if len(tensors) == 1 else {"anyOf": tensors}), "minItems": 1}


def _tensor(described: Mapping[str, Any], *, is_free: bool) -> dict[str, Any]:
    name = {**_STRING, "examples": [described["name"]]} if is_free else {"const": described["name"]}
    shape, datatype = described["shape"], described["datatype"]
    members = {
        "name": name,
        "shape": _shape(shape),
        "datatype": {"type": "string", "enum": [*_standing_for(datatype)]},
        "data": _data(shape, datatype),
        "parameters": _PARAMETERS,
    }
    return _object(members, 4)


def _standing_for(datatype: str) -> Sequence[str]:
    if datatype in FLOATS:
        return [datatype, *(each for each in (*FLOATS, *INTEGERS) if each != datatype)]
    return [datatype, *(each for each in INTEGERS if each != datatype)] if datatype in INTEGERS else [datatype]


def _shape(shape: Sequence[int]) -> dict[str, Any]:
    """Of as many sizes as the described one; which ones is only told, because generated clients mistake prefixItems."""
    # A list of values is a column, with or without a second size.
    is_column = len(shape) == 1 or (len(shape) == COLUMN and shape[1] == 1)
    least, most = (1, COLUMN) if is_column else (len(shape), len(shape))
    text = f"As {[*shape]}" + (f", where {ANY_SIZE} is any size." if ANY_SIZE in shape else ".")
    return {**_sizes(), "minItems": least, "maxItems": most, "description": text}


def _data(shape: Sequence[int], datatype: str) -> dict[str, Any]:
    value = _value(datatype)
    # One list of all values, or lists nested as the shape says.
    return {"type": "array", "items": value if len(shape) == 1 else {"anyOf": [value, _list({})]}}


def _value(datatype: str) -> dict[str, Any]:
    if datatype in FLOATS:
        return {"type": ["number", "null"], "description": "null is a missing number"}
    if datatype in INTEGERS:
        return {"type": "integer"}
    return {"type": ["boolean", "integer"]} if datatype == "BOOL" else {"type": ["string", "null"]}


def _datatypes() -> dict[str, Any]:
    return {"type": "string", "enum": [*FLOATS, *INTEGERS, *OTHERS]}


def _sizes() -> dict[str, Any]:
    return _list({"type": "integer"})


def _list(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _object(members: Mapping[str, Any], required: int = 0) -> dict[str, Any]:
    """An object of which so many members, the first ones, have to be there."""
    first = [*members][:required]
    return {"type": "object", "properties": members, **({"required": first} if first else {})}
