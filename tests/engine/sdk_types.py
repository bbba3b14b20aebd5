"""What the Python SDK of Google Cloud knows of a resource: its properties, their types, what replaces it.

The SDK passes a nested mapping with a misspelt key on as it is. The classes know better, so the stand-in asks them.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import re
import threading
import typing
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pulumi import _types

from tests.engine.provider import UNKNOWN, Path_, Properties

_REPLACES: Final = re.compile(
    r"forces?\s+(a\s+)?(new|recreation|replacement)|(force|trigger)\s+(re-?creation|replacement)|will\s+be\s+recreated"
    r"|cannot\s+be\s+changed\s+(after|once)|immutable",
    re.IGNORECASE,
)
_LOADING: Final = threading.RLock()
_SCALARS: Final[Mapping[type, tuple[type, ...]]] = {
    str: (str,),
    bool: (bool,),
    int: (int, float),
    float: (int, float),
}


@functools.cache
def resource_class(token: str) -> type | None:
    """The SDK's class of ``gcp:container/cluster:Cluster``, if it has one."""
    module = _module(token)
    return getattr(module, token.rpartition(":")[2], None) if module else None


@functools.cache
def arguments_class(token: str) -> type | None:
    module = _module(token)
    name = f"{token.rpartition(':')[2]}Args"
    return getattr(module, name, None) if module else None


def output_names(token: str) -> frozenset[str]:
    cls = resource_class(token)
    return frozenset(_types.resource_types(cls)) if cls else frozenset()


def input_names(token: str) -> frozenset[str]:
    cls = arguments_class(token)
    return frozenset(_fields(cls)) if cls else frozenset()


def problems(token: str, inputs: Properties) -> Iterator[tuple[str, str]]:
    """Properties that are unknown, missing or of another type than the SDK's classes say."""
    if cls := arguments_class(token):
        yield from _problems(cls, inputs, "")
    else:
        yield "", f"pulumi-gcp has no resource {token}"


def replaced_by(token: str, path: Path_) -> bool:
    """Whether the SDK's own documentation says that another value there makes another resource."""
    cls = arguments_class(token)
    for part in path:
        if isinstance(part, int) or cls is None:
            continue
        if part in _replacing(cls):
            return True
        cls = _nested(_fields(cls).get(part))
    return False


def _problems(cls: type, value: Any, place: str) -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict):
        yield place, f"is {value!r} but has to be a mapping, see {cls.__name__}"
        return
    fields = _fields(cls)
    for key in sorted(_required(cls) - value.keys()):
        yield _at(place, key), f"is missing: {cls.__name__} requires it"
    for key, inner in value.items():
        if key in fields:
            yield from _type_problems(fields[key], inner, _at(place, key))
            continue
        close = difflib.get_close_matches(key, fields, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(fields))}"
        yield _at(place, key), f"is no property of {cls.__name__}; {hint}"


def _type_problems(expected: Any, value: Any, place: str) -> Iterator[tuple[str, str]]:
    if value is None or value == UNKNOWN:
        return
    expected = _types.unwrap_type(expected)
    origin = typing.get_origin(expected)
    if isinstance(expected, type) and _types.is_input_type(expected):
        yield from _problems(expected, value, place)
    elif origin in (Sequence, list) or (isinstance(origin, type) and issubclass(origin, Sequence)):
        if not isinstance(value, list):
            yield place, f"is {value!r} but has to be a list"
            return
        for index, inner in enumerate(value):
            yield from _type_problems(typing.get_args(expected)[0], inner, f"{place}[{index}]")
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            yield place, f"is {value!r} but has to be a mapping"
    elif (allowed := _SCALARS.get(expected)) and (
        not isinstance(value, allowed) or (isinstance(value, bool) and expected is not bool)
    ):
        yield place, f"is {value!r} but has to be {expected.__name__}"


def _at(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


@functools.cache
def _module(token: str) -> Any:
    name = token.split(":")[1].partition("/")[0]
    # Modules are loaded at their first use, some warn of arguments that they dropped, and neither bears threads.
    with _LOADING, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            module = importlib.import_module(f"pulumi_gcp.{name}")
        except ModuleNotFoundError:
            return None
        hasattr(module, "loaded")
        return module


@functools.cache
def _fields(cls: type) -> dict[str, Any]:
    return _types.input_type_types(cls)


@functools.cache
def _required(cls: type) -> frozenset[str]:
    names = _types.input_type_py_to_pulumi_names(cls)
    parameters = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
    required = (parameter.name for parameter in parameters if parameter.default is parameter.empty)
    return frozenset(names[name] for name in required if name in names)


@functools.cache
def _replacing(cls: type) -> frozenset[str]:
    names = _types.input_type_py_to_pulumi_names(cls)
    documented = {
        name: (value.fget.__doc__ or "")
        for name, value in vars(cls).items()
        if inspect.isdatadescriptor(value) and hasattr(value, "fget")
    }
    return frozenset(names[name] for name, text in documented.items() if name in names and _REPLACES.search(text))


def _nested(field: Any) -> type | None:
    """The class of a property or of a list's items, if it has one."""
    field = _types.unwrap_type(field) if field is not None else None
    if isinstance(field, type):
        return field if _types.is_input_type(field) else None
    return next((found for inner in typing.get_args(field) if (found := _nested(inner))), None)
