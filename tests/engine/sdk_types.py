"""What the Python SDK of a cloud knows of a resource: its properties, their types, what replaces it.

The SDK passes a nested mapping with a misspelt key on as it is. Its classes know better, so the stand-in asks them:
once for each type of resource, because loading them takes a second and every command starts the stand-in anew.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import json
import os
import re
import threading
import typing
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.engine import protocol
from tests.engine.provider import UNKNOWN, Path_
from tests.engine.store import Properties

Shape = Mapping[str, Any]
"""A type as JSON: ``{"class", "fields", "required", "replacing"}``, ``{"items"}``, ``{"values"}``, ``{"scalar"}``; or
``{}``, which takes anything."""
_REPLACES: Final = re.compile(
    r"forces?\s+(a\s+)?(new|recreation|replacement)|(force|trigger)\s+(re-?creation|replacement)|will\s+be\s+recreated"
    r"|cannot\s+be\s+changed\s+(after|once)|immutable",
    re.IGNORECASE,
)
_MAY_BE_NONE: Final = re.compile(r"([\w.]+\.)?Output\[([\w.]+\.)?Optional\[")
_SCALARS: Final[Mapping[str, tuple[type, ...]]] = {
    "str": (str,),
    "bool": (bool,),
    "int": (int, float),
    "float": (int, float),
}
_LOADING: Final = threading.RLock()


def inputs_of(token: str) -> Shape:
    """The properties that a program may give."""
    found: Shape = _known(token)["inputs"]
    return found


def kept(token: str) -> frozenset[str]:
    """Properties that the cloud may fill in when a program leaves them out: Terraform's "computed" ones.

    pulumi-gcp types those as outputs that are always there, and other optional ones as outputs that may be None. It
    does so for a resource's own properties, not for those inside of them.
    """
    return frozenset(_known(token)["kept"])


def output_names(token: str) -> frozenset[str]:
    return frozenset(_known(token)["outputs"])


def input_names(token: str) -> frozenset[str]:
    return frozenset(_known(token)["inputs"].get("fields", ()))


def problems(token: str, inputs: Properties) -> Iterator[tuple[str, str]]:
    """Properties that are unknown, missing or of another type than the SDK's classes say."""
    if shape := _known(token)["inputs"]:
        yield from _problems(shape, inputs, "")
    else:
        yield "", f"pulumi-{token.partition(':')[0]} has no resource {token}"


def replaced_by(token: str, path: Path_) -> bool:
    """Whether the SDK's own documentation says that another value there makes another resource."""
    shape: Shape = _known(token)["inputs"]
    for part in path:
        if isinstance(part, str) and part in shape.get("replacing", ()):
            return True
        shape = shape.get("items", {}) if isinstance(part, int) else shape.get("fields", {}).get(part, {})
    return False


def _problems(shape: Shape, value: Any, place: str) -> Iterator[tuple[str, str]]:
    if value is None or value == UNKNOWN:
        return
    if "fields" in shape:
        yield from _object_problems(shape, value, place)
    elif "items" in shape:
        if not isinstance(value, list):
            yield place, f"is {value!r} but has to be a list"
            return
        for index, inner in enumerate(value):
            yield from _problems(shape["items"], inner, f"{place}[{index}]")
    elif "values" in shape:
        if not isinstance(value, dict):
            yield place, f"is {value!r} but has to be a mapping"
    elif (scalar := shape.get("scalar")) and (
        not isinstance(value, _SCALARS[scalar]) or (isinstance(value, bool) and scalar != "bool")
    ):
        yield place, f"is {value!r} but has to be {scalar}"


def _object_problems(shape: Shape, value: Any, place: str) -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict):
        yield place, f"is {value!r} but has to be a mapping, see {shape['class']}"
        return
    prefix, fields = f"{place}." if place else "", shape["fields"]
    for key in sorted(set(shape["required"]) - value.keys()):
        yield f"{prefix}{key}", f"is missing: {shape['class']} requires it"
    for key, inner in value.items():
        if key in fields:
            yield from _problems(fields[key], inner, f"{prefix}{key}")
            continue
        close = difflib.get_close_matches(key, fields, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(fields))}"
        yield f"{prefix}{key}", f"is no property of {shape['class']}; {hint}"


@functools.cache
def _known(token: str) -> Mapping[str, Any]:
    """Inputs and outputs of a type, from the folder STANDIN_TYPES if another process looked them up before."""
    folder = os.environ.get("STANDIN_TYPES")
    path = Path(folder) / f"{re.sub(r'[^A-Za-z]+', '-', token)}.json" if folder else None
    if path and path.exists():
        found: Mapping[str, Any] = json.loads(path.read_text())
        return found
    with _LOADING:  # a module is loaded at its first use, which does not bear threads
        protocol.with_sdk()
        found = _look_up(token)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        scratch.write_text(json.dumps(found))
        scratch.replace(path)
    return found


def _look_up(token: str) -> Mapping[str, Any]:
    from pulumi import _types  # noqa: PLC0415 - a process that finds everything in the folder does without

    package, place, name = token.split(":")
    first, _, second = place.partition("/")
    # gcp:compute/network:Network is compute.Network; kubernetes:networking.k8s.io/v1:Ingress is networking.v1.Ingress.
    path, suffix = (first, "Args") if package == "gcp" else (f"{first.partition('.')[0]}.{second}", "InitArgs")
    with warnings.catch_warnings():
        # Some modules tell whoever loads them of arguments that they dropped.
        warnings.simplefilter("ignore")
        try:
            module = importlib.import_module(f"pulumi_{package}.{path}")
            resource, arguments = getattr(module, name), getattr(module, f"{name}{suffix}")
        except (ModuleNotFoundError, AttributeError):
            return {"inputs": {}, "outputs": [], "kept": []}
    names = _types.input_type_py_to_pulumi_names(arguments)
    return {
        "inputs": _shape(arguments),
        "outputs": sorted(_types.resource_types(resource)),
        "kept": sorted(names[name] for name in _always_there(resource) if name in names),
    }


def _always_there(resource: type) -> Iterator[str]:
    for name, value in vars(resource).items():
        returned = value.fget.__annotations__["return"] if isinstance(value, property) and value.fget else ""
        if returned and not _MAY_BE_NONE.match(returned if isinstance(returned, str) else repr(returned)):
            yield name


def _shape(expected: Any, within: tuple[type, ...] = ()) -> Shape:
    from pulumi import _types  # noqa: PLC0415

    expected = _types.unwrap_type(expected)
    origin = typing.get_origin(expected)
    if isinstance(expected, type) and _types.is_input_type(expected):
        return {} if expected in within else _object_shape(expected, (*within, expected))
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return {"items": _shape(typing.get_args(expected)[0], within)}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"values": True}
    name = getattr(expected, "__name__", "")
    return {"scalar": name} if name in _SCALARS else {}


def _object_shape(cls: type, within: tuple[type, ...]) -> Shape:
    from pulumi import _types  # noqa: PLC0415

    names = _types.input_type_py_to_pulumi_names(cls)
    parameters = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
    texts = {name: value.fget.__doc__ or "" for name, value in vars(cls).items() if isinstance(value, property)}
    return {
        "class": cls.__name__,
        "fields": {name: _shape(field, within) for name, field in _types.input_type_types(cls).items()},
        "required": [names[each.name] for each in parameters if each.name in names and each.default is each.empty],
        "replacing": [names[name] for name, text in texts.items() if name in names and _REPLACES.search(text)],
    }
