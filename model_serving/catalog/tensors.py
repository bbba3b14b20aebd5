"""Checks of tensors in the form of the V2 protocol: request.json, response.json, and the metadata of a model.

What is right is what server/tensors.py says, with which the contract check compares answers; here is how it is told.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from server.tensors import MOST_SAMPLED, fault, is_datatype, is_shape, sampled_shape


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != ""


_Form: TypeAlias = dict[str, tuple[Callable[[Any], bool], str]]
_METADATA: Final[_Form] = {
    "name": (_is_name, '"name": "predict"'),
    "shape": (is_shape, '"shape": [1, 4]'),
    "datatype": (
        is_datatype,
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
    if tensors == [] and not data:
        return
    if data:
        yield from _wrong_parameters("", content)
    if not isinstance(tensors, list) or not tensors:
        what = "is not a list of tensors" if key in content else "is missing"
        yield f"{key} {what}", f'Write "{key}": a list of objects with {", ".join(form)}.'
        return
    for position, tensor in enumerate(tensors):
        place = f"{key}[{position}]"
        if not isinstance(tensor, dict):
            yield f"{place} is not an object", f"Write an object with {', '.join(form)}."
            continue
        wrong = _unfit(tensor, form, may_be_empty=key == "outputs")
        for name, example in wrong.items():
            value = json.dumps(tensor[name], ensure_ascii=False) if name in tensor else "missing"
            yield f"{place}.{name} is {value}", f"Write for example {example}."
        if wrong_parameters := [*_wrong_parameters(f"{place}.", tensor)]:
            yield from wrong_parameters
        elif data and not wrong and (found := fault(tensor, nulls=True)):
            remedy = "Write as many values as the shape needs, each of the datatype."
            yield f'{place} "{tensor["name"]}": {found}', remedy
    if data:
        yield from _repeated(tensors, key)


def _unfit(tensor: Mapping[str, Any], form: _Form, *, may_be_empty: bool) -> dict[str, str]:
    """The keys whose values do not fit, each with an example.

    An answer may be empty, such as that of a detector that finds nothing.
    """
    shape = tensor.get("shape")
    is_empty = may_be_empty and is_shape(shape) and 0 in shape and tensor.get("data") == []
    unfit = {name: example for name, (fits, example) in form.items() if not fits(tensor.get(name))}
    return {name: example for name, example in unfit.items() if name != "data" or not is_empty}


def _repeated(tensors: Sequence[object], key: str) -> Iterator[tuple[str, str]]:
    names = Counter(name for tensor in tensors if isinstance(tensor, dict) and _is_name(name := tensor.get("name")))
    for name, count in names.items():
        if count > 1:
            yield f'{key} has "{name}" {count} times', "Write each tensor once, under a name of its own."


def _wrong_parameters(place: str, holder: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    parameters = holder.get("parameters")
    example = 'Write for example "parameters": {"content_type": "str"}.'
    if not isinstance(parameters, dict | None):
        yield f"{place}parameters is not an object", example
    elif parameters and not isinstance(value := parameters.get("content_type"), str | None):
        yield f"{place}parameters.content_type is {json.dumps(value, ensure_ascii=False)}", example


def too_large(inputs: object) -> Iterator[tuple[str, str]]:
    """Inputs in a model's metadata of which no request could be derived."""
    for position, tensor in enumerate(inputs if isinstance(inputs, list) else []):
        if isinstance(tensor, dict) and is_shape(tensor.get("shape")):
            values = math.prod(sampled_shape(tensor))
            if values > MOST_SAMPLED:
                what = f"inputs[{position}].shape is {tensor['shape']}, which is {values} values in each request"
                yield what, "Correct it, with -1 for a size of any length, or add a request.json."


def wrong_tolerances(content: Mapping[str, Any], key: str) -> Iterator[tuple[str, str]]:
    """Each ``parameters.tolerance``, of the file and of its tensors, that no answer could be compared with."""
    tensors = content.get(key)
    for holder in (content, *(tensors if isinstance(tensors, list) else ())):
        parameters = holder.get("parameters") if isinstance(holder, dict) else None
        value = parameters.get("tolerance", 0) if isinstance(parameters, dict) else 0
        what = f"parameters.tolerance is {json.dumps(value)}"
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
            yield what, 'Write the permitted difference of floats, relative or absolute: "tolerance": 1e-4'
        elif value and not str(holder.get("datatype", "FP")).startswith("FP"):
            yield f"{what} for {holder['datatype']}", "Remove it: a tolerance counts for floats only."
