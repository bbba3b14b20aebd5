"""A resource's properties in the words of Google's API.

google_requests.yaml says which request makes each kind of resource. Nothing of a request is left unjudged: a kind or a
property that neither the table nor the API's description knows is an error of the table.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from tests.engine import google_api
from tests.engine.google_api import Api, Problem, Schema
from tests.engine.provider import UNKNOWN, number_of
from tests.engine.store import Properties

TABLE: Final = Path(__file__).with_name("google_requests.yaml")
WHOLE: Final = "*"
_IN_THE_PROVIDER: Final = {"project", "deletionPolicy"}
"""Properties that are in no body, whatever the kind of resource."""
_LINK: Final = "https://www.googleapis.com/compute/v1/"


class Incomplete(Exception):
    """What google_requests.yaml lacks."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """Where a property is in the API.

    Attributes:
        path: from the object that its own object is; ``*`` if its text is the whole request.
        keyed: what becomes the key of a mapping where the property is a list; empty otherwise.
    """

    path: str
    keyed: str = ""

    def read(self, content: Mapping[str, Any]) -> Any:
        """What is there in an API's object; None if there is nothing."""
        found = read(content, self.path)
        return [found[key] for key in sorted(found)] if self.keyed and found else found


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What google_requests.yaml says of a kind of resource; its head explains the words."""

    name: str
    method: str
    parameters: Mapping[str, str]
    body: str = ""
    fields: Mapping[str, str | None] = field(default_factory=dict)
    adds: Mapping[str, Any] = field(default_factory=dict)
    provider: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def api(self) -> Api:
        return google_api.api(self.method.split()[0])

    @property
    def call(self) -> google_api.Method:
        return self.api.method(self.method.split()[1])

    @property
    def schema(self) -> Schema:
        """Of the part of the request that has the properties."""
        whole = self.api.schema(self.call.request) if self.call.request else {"type": "object"}
        found = self.schema_at(whole, self.body)
        if found is None:
            raise Incomplete(f"{self.name}: {self.call.request} has no {self.body}")
        return found

    def schema_at(self, schema: Schema, path: str) -> Schema | None:
        """Of a field; None if there is none of that name."""
        found: Schema | None = self.api.resolved(schema)
        for part in filter(None, path.split(".")):
            if found is None:
                return None
            inner = found.get("items") if part.isdigit() else found.get("properties", {}).get(part)
            found = self.api.resolved(inner) if inner else None
        return found

    def field(self, place: str) -> Field | None:
        """Of a property, ``maintenancePolicy.recurringWindow``; None if it stays in the provider."""
        same = None if place in _IN_THE_PROVIDER else place.rpartition(".")[2]
        if (found := self.fields.get(place, same)) is None:
            return None
        path, _, keyed = found.rstrip("}").partition("{")
        return Field(path=path, keyed=keyed)

    def request(self, inputs: Properties) -> dict[str, Any]:
        """The request's body.

        Raises:
            Incomplete: with every property that the table does not know.
        """
        missing: list[str] = []
        content = self._written(inputs, self.schema, "", missing)
        if missing:
            raise Incomplete("\n".join([f"{TABLE.name} lacks, or the program misspells:", *missing]))
        return put({}, self.body, content) if self.body else content

    def problems(self, inputs: Properties, filled: Callable[[str], str]) -> Iterator[Problem]:
        """What Google would refuse; ``filled`` gives a parameter's template its values."""
        if self.call.request:
            yield from self.api.problems(self.api.schema(self.call.request), self.request(inputs))
        parameters = {key: filled(template) for key, template in self.parameters.items()}
        yield from self.api.parameter_problems(self.call, parameters)

    def in_full(self, place: str, value: Any) -> Any:
        """What Google makes of a value, e.g. of a name."""
        form = self.names.get(place)
        if form == "link" and str(value).startswith("projects/"):
            return f"{_LINK}{value}"
        if form == "number":
            return re.sub(r"^projects/([a-z][^/]*)/", lambda found: f"projects/{number_of(found[1])}/", value)
        return value.upper() if form == "upper" else value

    def _written(self, value: Any, schema: Schema, place: str, missing: list[str]) -> Any:
        schema = self.api.resolved(schema)
        if isinstance(value, list):
            return [self._written(each, schema.get("items", {}), place, missing) for each in value]
        if not isinstance(value, dict) or "additionalProperties" in schema:
            return _scalar(value, schema)
        content: dict[str, Any] = {}
        for key, inner in value.items():
            here = f"{place}.{key}" if place else key
            if (found := self.field(here)) is None:
                continue
            if found.path == WHOLE:
                return json.loads(inner) if inner != UNKNOWN else UNKNOWN
            below = self.schema_at(schema, found.path)
            if below is None:
                close = difflib.get_close_matches(key, schema.get("properties", {}), n=3, cutoff=0.4)
                missing.append(f"  {self.name}: {here}, unknown to {schema.get('id', self.method)}; there is {close}")
                continue
            items = self.api.resolved(below.get("additionalProperties", {})) if found.keyed else {}
            written = self._written(inner, {"items": items} if found.keyed else below, here, missing)
            by_key = {each[found.keyed]: each for each in written} if found.keyed else written
            put(content, found.path, by_key)
        return content


def kind(name: str) -> Kind:
    """The kind of resources of a name, ``container/cluster``.

    Raises:
        Incomplete: if the table has none.
    """
    if name not in _table():
        raise Incomplete(f"{TABLE.name} has no {name}")
    return _table()[name]


def kinds() -> list[str]:
    return sorted(_table())


@functools.cache
def _table() -> Mapping[str, Kind]:
    content = yaml.load(TABLE.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    return {name: Kind(name=name, **entry) for name, entry in content.items()}


def put(content: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Writes a value under a path, ``cluster`` or ``policy.bindings.0``, and makes what is not there yet."""
    first, _, rest = path.partition(".")
    if not rest:
        content[first] = value
    elif rest.partition(".")[0].isdigit():
        below = rest.partition(".")[2]
        (inner,) = content.setdefault(first, [{}])
        content[first] = [put(inner, below, value)] if below else [value]
    else:
        put(content.setdefault(first, {}), rest, value)
    return content


def read(content: Any, path: str) -> Any:
    """What is under a path, None if there is nothing."""
    for part in filter(None, path.split(".")):
        if isinstance(content, list):
            content = content[int(part)] if int(part) < len(content) else None
        elif isinstance(content, dict):
            content = content.get(part)
    return content


def _scalar(value: Any, schema: Schema) -> Any:
    """As JSON has it: the protocol knows no integers, and Google writes long ones as strings."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value)) if schema.get("type") == "string" else int(value)
    return str(value) if schema.get("type") == "string" and type(value) is int else value
