"""Checks of tensors in the form of the V2 protocol: request.json, response.json, and the metadata of a model."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

# https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md#tensor-data-types
_DATATYPE: Final = re.compile(r"BOOL|BYTES|FP(16|32|64)|U?INT(8|16|32|64)")


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and all(type(size) is int for size in value)


_METADATA: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "name": (lambda value: isinstance(value, str) and value != "", '"name": "predict"'),
    "shape": (_is_shape, '"shape": [1, 4]'),
    "datatype": (
        lambda value: isinstance(value, str) and _DATATYPE.fullmatch(value) is not None,
        '"datatype": "FP32", or BOOL, BYTES, FP16 to FP64, INT8 to INT64, UINT8 to UINT64',
    ),
}
"""Key of a tensor -> whether a value fits, and an example."""
_TENSOR: Final = _METADATA | {
    "data": (lambda value: isinstance(value, list) and value != [], '"data": [5, 3.4, 1.5, 0.2]')
}


def mistakes(content: Mapping[str, Any], key: str, *, data: bool) -> Iterator[tuple[str, str]]:
    """Everything in a list of tensors that the V2 protocol does not allow: what is wrong, and the remedy.

    Args:
        content: of the file.
        key: of the list, ``inputs`` or ``outputs``.
        data: whether the tensors have data; those in a model's metadata do not.
    """
    form = _TENSOR if data else _METADATA
    tensors = content.get(key)
    if not isinstance(tensors, list) or not tensors:
        what = "is not a list of tensors" if key in content else "is missing"
        yield f"{key} {what}", f'Write "{key}": a list of objects with {", ".join(form)}.'
        return
    for position, tensor in enumerate(tensors):
        place = f"{key}[{position}]"
        if not isinstance(tensor, dict):
            yield f"{place} is not an object", f"Write an object with {', '.join(form)}."
            continue
        for name, (fits, example) in form.items():
            if not fits(tensor.get(name)):
                value = json.dumps(tensor[name], ensure_ascii=False) if name in tensor else "missing"
                yield f"{place}.{name} is {value}", f"Write for example {example}."


def wrong_tolerances(content: Mapping[str, Any], key: str) -> Iterator[object]:
    """The values of ``parameters.tolerance``, of the file and of each tensor, that are not a number from 0."""
    tensors = content.get(key)
    for holder in (content, *(tensors if isinstance(tensors, list) else ())):
        parameters = holder.get("parameters") if isinstance(holder, dict) else None
        value = parameters.get("tolerance", 0) if isinstance(parameters, dict) else 0
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            yield value
