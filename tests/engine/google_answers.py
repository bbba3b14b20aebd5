"""What Google answers to a request, as the provider reads it into the state, and where a program differs from that.

Google leaves out of its answers what is zero, false or empty, adds its own, and gives names in full. So a preview with
refresh is empty here only if it would be at Google.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from tests.engine import google_requests
from tests.engine.google_api import Api, Schema
from tests.engine.google_requests import WHOLE, Kind
from tests.engine.provider import UNKNOWN, Path_
from tests.engine.sdk_types import Shape
from tests.engine.store import Properties

_WITH_ZEROS: Final = ("compute.", "storage.")
"""APIs whose enumerations begin with any value; those of the others begin with the one that is left out."""


def state_of(kind: Kind, shape: Shape, inputs: Properties) -> Properties:
    """What the provider reads back after it has asked for ``inputs``, in the program's words."""
    request = kind.request(inputs)
    asked = google_requests.read(request, kind.body)
    answered = without_zeros(kind.api, kind.schema, _filled(kind.adds, asked), kind.method)
    state: Properties = _read(kind, answered, shape, "", inputs)
    return state


def without_zeros(api: Api, schema: Schema, value: Any, method: str = "") -> Any:
    """A body as Google returns it: zero, false, empty lists and an enumeration's first value are not there.

    An object that somebody gave is there, even if nothing is in it.
    """
    schema = api.resolved(schema)
    if isinstance(value, list):
        return [without_zeros(api, schema.get("items", {}), each, method) for each in value]
    if not isinstance(value, dict) or "additionalProperties" in schema:
        return value
    fields = schema.get("properties", {})
    zeros: tuple[Any, ...] = (0, "", [], "0")
    content = {}
    for key, inner in value.items():
        field = api.resolved(fields.get(key, {}))
        first = () if method.startswith(_WITH_ZEROS) else tuple(field.get("enum", ())[:1])
        is_empty_mapping = inner == {} and "additionalProperties" in field
        if not (inner in zeros or inner in first or is_empty_mapping):
            content[key] = without_zeros(api, field, inner, method)
    return content


def changes(
    kind: Kind, *, kept: frozenset[str], shape: Shape, state: Properties, old: Properties, new: Properties
) -> Iterator[Path_]:
    """Where what a program asks for, ``new``, differs from the state, as the provider sees it.

    Nothing and zero are one. What the program leaves out is no difference if the provider keeps what Google says
    (``kept``) or fills in the same itself; nor is what Google adds inside of what the program asks for, unless the
    program asked for it before (``old``).
    """
    for key in sorted(shape.get("fields", {})):
        now = state.get(key)
        if key in new:
            yield from _differences(kind, now, old.get(key), new[key], (key,))
        elif key not in kept and not is_zero(now) and now != kind.provider.get(key):
            yield (key,)


def limited(state: Any, asked: Any) -> Any:
    """The part of a state that somebody asked for; what was zero there and is nothing here stays as it was."""
    if isinstance(asked, dict) and isinstance(state, dict):
        there = {key: limited(state[key], value) for key, value in asked.items() if key in state}
        return {**{key: value for key, value in asked.items() if key not in state and is_zero(value)}, **there}
    if isinstance(asked, list) and isinstance(state, list) and len(asked) == len(state):
        return [limited(now, value) for now, value in zip(state, asked, strict=True)]
    return state


def is_zero(value: Any) -> bool:
    return value in (None, False, 0, "", [], {}) and value is not UNKNOWN


def _filled(adds: Any, asked: Any) -> Any:
    """A request with what Google fills in; of a list, in each of its objects."""
    if isinstance(adds, dict) and isinstance(asked, dict):
        return {**adds, **{key: _filled(adds.get(key), value) for key, value in asked.items()}}
    return adds if asked is None else asked


def _read(kind: Kind, value: Any, shape: Shape, place: str, asked: Any) -> Any:
    if isinstance(value, list):
        each = shape.get("items", {})
        asked = asked if isinstance(asked, list) and len(asked) == len(value) else [None] * len(value)
        return [_read(kind, inner, each, place, before) for inner, before in zip(value, asked, strict=True)]
    if "fields" not in shape:
        is_number = shape.get("scalar") in ("int", "float") and isinstance(value, str)
        return kind.in_full(place, int(value) if is_number else value)
    content = {}
    asked = asked if isinstance(asked, dict) else {}
    for key, below in shape["fields"].items():
        here = f"{place}.{key}" if place else key
        field = kind.field(here)
        if field is None:
            inner = asked.get(key)
        elif field.path == WHOLE:
            inner = json.dumps(value, sort_keys=True)
        elif (inner := field.read(value)) is not None:
            inner = _read(kind, inner, below, here, asked.get(key))
        if inner is not None:
            content[key] = inner
    return content


def _differences(kind: Kind, now: Any, old: Any, new: Any, path: Path_) -> Iterator[Path_]:
    if isinstance(now, dict) and isinstance(new, dict):
        before = old if isinstance(old, dict) else {}
        for key in sorted({*new, *(before.keys() & now.keys())}):
            yield from _differences(kind, now.get(key), before.get(key), new.get(key), (*path, key))
    elif isinstance(now, list) and isinstance(new, list) and len(now) == len(new):
        now, new = _in_order(kind, _place(path), now), _in_order(kind, _place(path), new)
        for index, (left, right) in enumerate(zip(now, new, strict=True)):
            earlier = old[index] if isinstance(old, list) and index < len(old) else None
            yield from _differences(kind, left, earlier, right, (*path, index))
    elif not _is_one(kind, _place(path), now, new):
        yield path


def _place(path: Path_) -> str:
    return ".".join(part for part in path if isinstance(part, str))


def _in_order(kind: Kind, place: str, value: list[Any]) -> list[Any]:
    """A list whose order is of no account to the provider, in one that is always the same."""
    field = kind.field(place)
    return sorted(value, key=lambda each: str(each[field.keyed])) if field and field.keyed else value


def _is_one(kind: Kind, place: str, now: Any, new: Any) -> bool:
    """Whether two values are one to the provider: nothing and zero, a name and the address that ends with it."""
    field = kind.field(place)
    if UNKNOWN in (now, new):
        return bool(now == new)
    if field and field.path == WHOLE:
        return now is not None and bool(_common(json.loads(now), json.loads(new)) == json.loads(new))
    left, right = kind.in_full(place, now), kind.in_full(place, new)
    is_last_part = kind.names.get(place) == "link" and str(left).endswith(f"/{right}")
    return bool(left == right or is_last_part or (is_zero(now) and is_zero(new)))


def _common(now: Any, new: Any) -> Any:
    """A dashboard that there is, without the keys that the new one lacks: so the provider compares them.

    https://github.com/hashicorp/terraform-provider-google, resource_monitoring_dashboard
    """
    if isinstance(now, dict) and isinstance(new, dict):
        return {key: _common(value, new[key]) for key, value in now.items() if key in new}
    if isinstance(now, list) and isinstance(new, list) and len(now) == len(new):
        return [_common(left, right) for left, right in zip(now, new, strict=True)]
    return now
