"""A request of the V2 protocol, compared with itself and with the inputs that a model's metadata tells.

Plain Python over MLServer's types: they have the same attributes whether a request came as JSON, as binary data or
through gRPC.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from types import NoneType
from typing import Any, Final, Protocol

from .binary import Values

MOST_DIMENSIONS: Final = 32
"""As NumPy 1 has them. MLServer pickles a request for its workers, which fails beyond some hundreds."""
LARGEST_SIZE: Final = 2**31
LARGEST_FLOATS: Final = {"FP16": 65504.0, "FP32": 3.4028234663852886e38}
INTEGERS: Final = {
    **{f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}
_KINDS: Final = {bool: "a boolean", dict: "an object", list: "a list", NoneType: "null"}
_SHOWN: Final = 40


class Tensor(Protocol):
    """What MLServer's RequestInput and MetadataTensor have in common."""

    name: str
    datatype: Any
    shape: list[int]
    parameters: Any


class Input(Tensor, Protocol):
    """MLServer's RequestInput."""

    data: Any


class Request(Protocol):
    """MLServer's InferenceRequest."""

    parameters: Any
    inputs: Sequence[Input]


def mistakes(
    request: Request, expected: Sequence[Tensor], content_type: str | None = None, optional: Collection[str] = ()
) -> list[str]:
    """What a client got wrong in a request; nothing if the model may see it.

    Args:
        request: of the client.
        expected: inputs in the model's metadata, in which -1 is a size of any length; empty if it has none.
        content_type: of the model's requests, unless the client names another one.
        optional: names of the inputs that may be missing.
    """
    chosen = getattr(request.parameters, "content_type", None) or content_type
    # Each input is a column of a table: its name decides, and text may be missing.
    is_table = chosen == "pd"
    found = [] if request.inputs else ["inputs is empty"]
    for parameters in (request.parameters, *(tensor.parameters for tensor in request.inputs)):
        found += _of_parameters(parameters)
    for tensor in request.inputs:
        found += _of_tensor(tensor, may_lack_text=is_table)
    found += [f"{name} is there {count} times" for name, count in _counts(request.inputs).items() if count > 1]
    return found + (_of_metadata(request.inputs, expected, optional, is_table=is_table) if expected else [])


def _counts(tensors: Iterable[Tensor]) -> Counter[str]:
    return Counter(tensor.name for tensor in tensors)


def _of_parameters(parameters: Any) -> list[str]:
    extra = getattr(parameters, "model_extra", None) or {}
    # MLServer keeps what it has decoded under such a name, and would give the client's value to the model.
    found = [f"the parameter {name} begins with _" for name in extra if name.startswith("_")]
    return found + ([f"parameters are nested more than {MOST_DIMENSIONS} deep"] if _is_deep([*extra.values()]) else [])


def _is_deep(level: Sequence[Any]) -> bool:
    for _ in range(MOST_DIMENSIONS):
        if not level:
            return False
        level = [*chain.from_iterable(map(_within, level))]
    return True


def _within(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _of_tensor(tensor: Input, *, may_lack_text: bool) -> list[str]:
    name, shape = tensor.name, tensor.shape
    if len(shape) > MOST_DIMENSIONS or not all(0 <= size <= LARGEST_SIZE for size in shape):
        return [f"the shape of {name} is not one: up to {MOST_DIMENSIONS} sizes, each from 1 to {LARGEST_SIZE}"]
    if 0 in shape:
        return [f"{name} has the shape {shape}, which has no values: send one row or more"]
    data = getattr(tensor.data, "root", tensor.data)
    values = data if isinstance(data, Values) else _flat(data)
    if values is None:
        return [f"the data of {name} has lists beside values, or is nested more than {MOST_DIMENSIONS} deep"]
    if len(values) != math.prod(shape):
        return [f"{name} has {len(values)} values; its shape {shape} needs {math.prod(shape)}"]
    # Binary data has the right types by itself.
    wrong = (
        values.first_infinite()
        if isinstance(values, Values)
        else _first_unfit(values, str(tensor.datatype), may_lack_text=may_lack_text)
    )
    if wrong is None:
        return []
    return [f"{name}[{wrong}] is {_shown(values[wrong])}, which is not {tensor.datatype}"]


def _flat(data: object) -> list[Any] | None:
    """The values of nested lists; None if they are nested unevenly or too deep."""
    values: list[Any] = data if isinstance(data, list) else [data]
    for _ in range(MOST_DIMENSIONS):
        kinds = set(map(type, values))
        if list not in kinds:
            return values
        if len(kinds) > 1:
            return None
        values = [*chain.from_iterable(values)]
    return None


def _first_unfit(values: list[Any], datatype: str, *, may_lack_text: bool) -> int | None:
    """Position of the first value that is not of a type; types and bounds are found without a loop of Python's."""
    # A model that takes missing numbers gets them as null, which MLServer makes NaN of.
    allowed: dict[str, set[type]] = {"BYTES": {str, bytes}, "BOOL": {bool, int}}
    kinds = allowed.get(datatype, {int, float})
    if datatype.startswith("FP") or (datatype == "BYTES" and may_lack_text):
        kinds = kinds | {NoneType}
    odd = set(map(type, values)) - kinds
    if odd:
        return next(position for position, value in enumerate(values) if type(value) in odd)
    if datatype == "BYTES":
        return None
    low, high = _bounds(datatype)
    numbers = [value for value in values if value is not None] if None in values else values
    whole = datatype in INTEGERS and float in set(map(type, values))
    if not numbers or not (min(numbers) < low or max(numbers) > high or whole):
        return None
    unfit = (
        position
        for position, value in enumerate(values)
        if value is not None and (not low <= value <= high or (whole and value != int(value)))
    )
    return next(unfit, None)


def _bounds(datatype: str) -> tuple[float, float]:
    if datatype == "BOOL":
        return 0, 1
    largest = LARGEST_FLOATS.get(datatype, math.inf)
    return INTEGERS.get(datatype, (-largest, largest))


def _shown(value: object) -> str:
    kind = _KINDS.get(type(value))
    if kind:
        return kind
    text = json.dumps(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _of_metadata(
    sent: Sequence[Input], expected: Sequence[Tensor], optional: Collection[str], *, is_table: bool
) -> list[str]:
    if len(sent) == len(expected) == 1 and not is_table:
        # MLServer's runtimes take the only input whatever its name is.
        return _of_expected(sent[0], expected[0])
    known = {tensor.name: tensor for tensor in expected}
    given = {tensor.name: tensor for tensor in sent}
    unknown = [name for name in given if name not in known]
    missing = [name for name in known if name not in given and name not in optional]
    return [
        *(f"{name} is not an input of the model, which are {', '.join(known)}" for name in unknown),
        *(f"the input {name} is missing" for name in missing),
        *(problem for name in given if name in known for problem in _of_expected(given[name], known[name])),
    ]


def optional_inputs(inputs: Iterable[Tensor]) -> frozenset[str]:
    """Names of the inputs in a release's settings that may be missing, with ``"parameters": {"optional": true}``."""
    return frozenset(tensor.name for tensor in inputs if getattr(tensor.parameters, "optional", False) is True)


def _of_expected(sent: Tensor, wanted: Tensor) -> list[str]:
    found = []
    if not _becomes(str(sent.datatype), str(wanted.datatype)):
        found.append(f"{sent.name} has the datatype {sent.datatype}; the model expects {wanted.datatype}")
    has, needs = _columns(sent.shape), _columns(wanted.shape)
    if len(has) != len(needs) or any(need not in (-1, size) for size, need in zip(has, needs, strict=True)):
        text = f"{sent.name} has the shape {sent.shape}; the model expects {wanted.shape}"
        tells = len(sent.shape) == len(needs) == 2 and needs[1] not in (-1, has[1])  # noqa: PLR2004 - rows and columns
        found.append(text + (f", which is {needs[1]} features and not {has[1]}" if tells else ""))
    return found


def _becomes(sent: str, wanted: str) -> bool:
    """Whether a type can stand for another: numbers in any width, and whole ones for floats, but not the reverse."""
    if sent in INTEGERS:
        return wanted in INTEGERS or wanted.startswith("FP")
    return sent == wanted or (sent.startswith("FP") and wanted.startswith("FP"))


def _columns(shape: list[int]) -> list[int]:
    """A list is a table of one column to MLServer."""
    return [*shape, 1] if len(shape) == 1 else shape
