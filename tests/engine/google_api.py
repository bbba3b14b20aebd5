"""Google's own descriptions of its APIs, and whether a request is one that they allow.

google-api-python-client ships the descriptions; nothing else of it is used.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import functools
import importlib.util
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from tests.engine.provider import UNKNOWN

Schema = Mapping[str, Any]
Problem = tuple[str, str]
"""Place in the request, e.g. ``cluster.fleet``, and what is wrong there."""

_BITS: Final[Mapping[str, tuple[int, int]]] = {
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
}
_TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "array": list,
    "object": dict,
}
_OUTPUT_ONLY: Final = re.compile(r"\W*output[ -]only\b", re.IGNORECASE)
_REQUIRED: Final = re.compile(r"\W*required\.(?! *deprecated)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Method:
    """One call of an API.

    Attributes:
        request: name of the schema of its body; empty if it has none.
        parameters: name to schema, of what is in the address.
    """

    name: str
    request: str
    parameters: Mapping[str, Schema]


class Api:
    """One API: its methods and the schemas of their bodies."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        self._description = description

    def method(self, path: str) -> Method:
        """By its place, e.g. ``projects.locations.clusters.create``.

        Raises:
            KeyError: if the API has no such method.
        """
        *collections, name = path.split(".")
        found = self._description
        for collection in collections:
            found = found["resources"][collection]
        method = found["methods"][name]
        request = method.get("request", {}).get("$ref", "")
        return Method(name=method["id"], request=request, parameters=method.get("parameters", {}))

    def schema(self, name: str) -> Schema:
        return self.resolved({"$ref": name})

    def resolved(self, schema: Schema) -> Schema:
        """What a reference means, with what is said beside the reference."""
        if "$ref" not in schema:
            return schema
        found: Schema = self._description["schemas"][schema["$ref"]]
        return {**found, **schema}

    def problems(self, schema: Schema, value: Any, place: str = "") -> Iterator[Problem]:
        """What Google would refuse in a body or a part of one. Values that a preview does not know are let through."""
        schema = self.resolved(schema)
        if value == UNKNOWN:
            return
        kind = schema.get("type", "any")
        if kind != "any" and (not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
            yield place, f"is {json.dumps(value)} but has to be of the type {kind}"
        elif kind == "object":
            yield from self._object_problems(schema, value, place)
        elif kind == "array":
            for index, each in enumerate(value):
                yield from self.problems(schema["items"], each, f"{place}[{index}]")
        elif kind in ("string", "integer", "number") and (problem := _value_problem(schema, value)):
            yield place, f"is {json.dumps(value)}, {problem}"

    def parameter_problems(self, method: Method, given: Mapping[str, str]) -> Iterator[Problem]:
        for name, value in given.items():
            if name in method.parameters:
                yield from self.problems(method.parameters[name], value, name)
            else:
                yield name, f"is no parameter of {method.name}: {', '.join(sorted(method.parameters))}"
        for name, parameter in method.parameters.items():
            if parameter.get("required") and name not in given:
                yield name, f"is a parameter that {method.name} requires"

    def _object_problems(self, schema: Schema, value: Mapping[str, Any], place: str) -> Iterator[Problem]:
        prefix, fields = f"{place}." if place else "", schema.get("properties", {})
        others = schema.get("additionalProperties")
        for key, inner in value.items():
            field = fields.get(key, others)
            if field is None:
                close = difflib.get_close_matches(key, fields, n=1)
                hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(fields))}"
                yield f"{prefix}{key}", f"is no field of {schema.get('id', 'this object')}; {hint}"
            elif is_read_only(field):
                yield f"{prefix}{key}", "is for Google alone to set"
            else:
                yield from self.problems(field, inner, f"{prefix}{key}")
        for key, field in fields.items():
            if key not in value and is_required(field):
                yield f"{prefix}{key}", f"is missing: {schema.get('id', 'this object')} requires it"


def is_read_only(field: Schema) -> bool:
    return bool(field.get("readOnly")) or bool(_OUTPUT_ONLY.match(field.get("description", "")))


def is_required(field: Schema) -> bool:
    return bool(_REQUIRED.match(field.get("description", ""))) and not is_read_only(field)


@functools.cache
def api(name: str) -> Api:
    """The API of a name and version, e.g. ``container.v1beta1``.

    Raises:
        FileNotFoundError: if google-api-python-client is not installed, or has no such API.
    """
    found = importlib.util.find_spec("googleapiclient")
    (folder,) = found.submodule_search_locations or [""] if found else [""]
    return Api(json.loads((Path(folder) / "discovery_cache" / "documents" / f"{name}.json").read_text()))


def _value_problem(schema: Schema, value: Any) -> str:
    kind, pattern = schema.get("format", ""), schema.get("pattern")
    if (known := schema.get("enum")) and value not in known:
        return f"not one of {', '.join(known)}"
    if pattern and not re.fullmatch(pattern, value):
        return f"which does not match {pattern}"
    if kind in _BITS:
        least, most = _BITS[kind]
        if not re.fullmatch(r"-?\d+", str(value)) or not least <= int(value) <= most:
            return f"not an integer of the format {kind}"
    if (check := _FORMATS.get(kind)) and not check(value):
        return f"not of the format {kind}"
    return ""


def _is_time(value: str) -> bool:
    try:
        return datetime.fromisoformat(value.upper()).tzinfo is not None
    except ValueError:
        return False


def _is_base64(value: str) -> bool:
    try:
        base64.b64decode(value, validate=True)
    except binascii.Error:
        return False
    return True


_FORMATS: Final[Mapping[str, Callable[[str], object]]] = {
    "google-duration": re.compile(r"-?\d+(\.\d{1,9})?s").fullmatch,
    "google-datetime": _is_time,
    "date-time": _is_time,
    "byte": _is_base64,
}
