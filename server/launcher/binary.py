"""The binary tensor extension of the V2 protocol: values of tensors as they are in memory, after the JSON.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md

Plain Python and NumPy: it knows nothing of MLServer.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, Final, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

HEADER: Final = "inference-header-content-length"
"""Bytes of JSON at the beginning of a body; the rest is binary."""
EXTENSION: Final = "binary_tensor_data"
SIZE: Final = "binary_data_size"
_ALL: Final = "binary_data_output"
_ONE: Final = "binary_data"
_OTHERS: Final = ("classification", "shared_memory_region")
"""Parameters of extensions that change what comes back; without them a client would misread the answer."""
_LONGEST_NUMBER: Final = 18
_LENGTH: Final = struct.Struct("<I")
_DTYPES: Final = {
    "BOOL": np.dtype("?"),
    **{
        f"{sign}INT{bits}": np.dtype(f"<{sign.lower() or 'i'}{bits // 8}")
        for sign in ("", "U")
        for bits in (8, 16, 32, 64)
    },
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}


class Malformed(Exception):
    """A request that is not one of this extension."""


class Values(Sequence[Any]):
    """The numbers of a tensor: an array for NumPy, and Python's own numbers for everyone else, as JSON has them."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, position: int) -> Any: ...
    @overload
    def __getitem__(self, position: slice) -> list[Any]: ...
    def __getitem__(self, position: int | slice) -> Any:
        return self.array[position].tolist()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.array.tolist())

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.array, dtype=dtype, copy=copy)

    def first_infinite(self) -> int | None:
        """Position of the first value that JSON could not have; NaN stands for null."""
        if self.array.dtype.kind != "f" or not (infinite := np.isinf(self.array)).any():
            return None
        return int(infinite.argmax())


def split(body: bytes, length: str | None) -> tuple[memoryview, memoryview]:
    """The JSON of a body, and what comes after it.

    Args:
        body: of a request.
        length: value of the header; None if there is none.

    Raises:
        Malformed: if it does not fit the body.
    """
    content = memoryview(body)
    if length is None:
        return content, content[:0]
    is_number = length.isascii() and length.isdigit() and len(length) <= _LONGEST_NUMBER
    if not is_number or int(length) > len(content):
        raise Malformed(f"the header {HEADER} is not a number of bytes up to {len(content)}, which the body has")
    return content[: int(length)], content[int(length) :]


def sizes(document: Any) -> dict[int, int]:
    """Takes the sizes of binary inputs out of a request's JSON: position -> bytes. Those inputs get an empty list.

    Raises:
        Malformed: if a size is not a number, or the input has data beside it.
    """
    found: dict[int, int] = {}
    for position, tensor in enumerate(_objects(document, "inputs")):
        parameters = tensor.get("parameters")
        if not isinstance(parameters, dict) or SIZE not in parameters:
            continue
        size, name = parameters.pop(SIZE), tensor.get("name")
        if type(size) is not int or size < 0:
            raise Malformed(f"the {SIZE} of {name} is not a number of bytes")
        if "data" in tensor:
            raise Malformed(f"{name} has both data and {SIZE}")
        tensor["data"] = []
        found[position] = size
    return found


def _objects(document: Any, key: str) -> Iterable[dict[str, Any]]:
    listed = document.get(key) if isinstance(document, dict) else None
    # Whatever is not an object is refused later, by the protocol.
    return (each if isinstance(each, dict) else {} for each in (listed if isinstance(listed, list) else ()))


def parts(rest: memoryview, lengths: Iterable[int]) -> list[memoryview]:
    """What comes after the JSON, cut into the parts of the inputs.

    Raises:
        Malformed: if the parts are not all of it.
    """
    wanted = [*lengths]
    if sum(wanted) != len(rest):
        raise Malformed(f"the inputs have {sum(wanted)} bytes of binary data together; the body has {len(rest)}")
    return [rest[start:end] for start, end in pairwise(accumulate(wanted, initial=0))]


def unpacked(name: str, datatype: str, content: memoryview) -> Values | list[str] | list[bytes]:
    """The values of an input; text where all of them are UTF-8, as JSON would have it.

    Raises:
        Malformed: if they are not of the datatype.
    """
    if datatype == "BYTES":
        return as_text([*_elements(name, content)])
    dtype = _DTYPES[datatype]
    if len(content) % dtype.itemsize:
        raise Malformed(f"{name} has {len(content)} bytes, and a value of {datatype} has {dtype.itemsize}")
    if datatype == "BOOL" and np.frombuffer(content, np.uint8).max(initial=0) > 1:
        raise Malformed(f"{name} has a byte that is neither 0 nor 1, which is not BOOL")
    return Values(np.frombuffer(content, dtype))


def _elements(name: str, content: memoryview) -> Iterator[bytes]:
    place = 0
    while place < len(content):
        start = place + _LENGTH.size
        if start > len(content):
            raise Malformed(f"the binary data of {name} ends within the length of an element")
        (length,) = _LENGTH.unpack_from(content, place)
        place = start + length
        if place > len(content):
            raise Malformed(f"the binary data of {name} ends within an element")
        yield bytes(content[start:place])


def as_text(values: list[bytes]) -> list[str] | list[bytes]:
    """Text, unless one of the values is not UTF-8."""
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError:
        return values


class Wanted:
    """The outputs that a client wants as binary data.

    Args:
        document: the JSON of its request.

    Raises:
        Malformed: if it wants outputs in a form that no server of ours has.
    """

    def __init__(self, document: Any) -> None:
        chosen = document.get("parameters") if isinstance(document, dict) else None
        self._all = isinstance(chosen, dict) and chosen.get(_ALL) is True
        self._each: dict[Any, bool] = {}
        for output in _objects(document, "outputs"):
            parameters = output.get("parameters")
            if not isinstance(parameters, dict):
                continue
            if other := [each for each in _OTHERS if each in parameters]:
                raise Malformed(f"the parameter {other[0]} of an output is of an extension that this server lacks")
            if isinstance(output.get("name"), str) and _ONE in parameters:
                self._each[output["name"]] = parameters[_ONE] is True

    def __contains__(self, name: object) -> bool:
        return self._each.get(name, self._all)

    def __bool__(self) -> bool:
        return self._all or any(self._each.values())


def packed(datatype: str, shape: Sequence[int], values: Any) -> bytes | None:
    """The values of an output; None if they have no binary form: missing ones, or not one for each place.

    Args:
        datatype: of the output.
        shape: of the output.
        values: as they would be in JSON, also nested.

    Raises:
        ValueError, TypeError, OverflowError: if one is not of the datatype.
    """
    if datatype == "BYTES":
        flat = np.array(values, dtype=object).ravel().tolist()
        if len(flat) != math.prod(shape) or not all(isinstance(each, str | bytes) for each in flat):
            return None
        return b"".join(_prefixed(each if isinstance(each, bytes) else each.encode()) for each in flat)
    dtype = _DTYPES[datatype]
    if dtype.kind != "f" and None in values:
        return None
    array = np.array(values, dtype=dtype)
    return array.tobytes() if array.size == math.prod(shape) else None


def _prefixed(element: bytes) -> bytes:
    return _LENGTH.pack(len(element)) + element
