"""Differences between two states of a resource, as readable texts without secrets."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from model_serving.pipelines.redact import MARK, SIGNATURE

LONGEST: Final = 160
"""Characters shown of a value."""
_CONTEXT: Final = 24
"""Characters shown before the first difference of two long values."""
UNKNOWN: Final = "known after apply"

_SECRET: Final = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - a marker, pulumi/pulumi sdk/go/common/resource/sig
_UNKNOWNS: Final = frozenset(
    {
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",  # boolean
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",  # number
        "04da6b54-80e4-46f7-96ec-b56ff0331ba9",  # string
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",  # array
        "030794c1-ac77-496b-92df-f27374a8bd58",  # asset
        "e48ece36-62e2-4504-bad9-02848725956a",  # archive
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",  # object
    }
)
"""Placeholders of values not known yet, by type: pulumi/pulumi sdk/go/common/resource/plugin/rpc.go."""
_HIDDEN: Final = frozenset({"kubectl.kubernetes.io/last-applied-configuration"})
"""Annotations in which kubectl repeats the whole resource."""
_HIDDEN_IN_SECRETS: Final = _HIDDEN | {"data", "stringData", "binaryData", "annotations"}
"""Fields of a Kubernetes Secret, hidden even if the program does not mark them as secret."""

Path = tuple[str, ...]
Inputs = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Resource:
    """Arguments of a resource before and after the update; None where it does not exist."""

    token: str
    old: Inputs | None
    new: Inputs | None


class _ItemName(str):
    """A part of a path that is the name of an item in a list, not a key."""

    __slots__ = ()


class Part(BaseModel):
    """Base of everything in a preview."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Difference(Part):
    """A property that changes; None stands for a property that is not set.

    Attributes:
        path: e.g. ``spec.replicas`` or ``spec.containers[mlserver].image``.
        forces: whether this change needs a new resource.
    """

    path: str
    old: str | None
    new: str | None
    forces: bool = False


def differences(token: str, metadata: Mapping[str, Any], redact: Callable[[str], str]) -> list[Difference]:
    """The differences in the metadata of a step, each path once.

    ``redact`` removes secrets; it gets whole values, before they are shortened.
    """
    is_secret = re.fullmatch(r"kubernetes:core/v1:Secret(Patch|List)?", token)
    hidden = _HIDDEN_IN_SECRETS if is_secret else _HIDDEN

    def shown(path: Path, value: Any) -> str | None:
        if value is None:
            return None
        return redact(text_of(value)) if hidden.isdisjoint(path) else MARK

    found: dict[str, Difference] = {}
    for path, old, new, forces in _changed(metadata):
        before, after = shown(path, old), shown(path, new)
        difference = Difference(
            path=redact(written(path)), old=shortened(before, after), new=shortened(after, before), forces=forces
        )
        found.setdefault(written(path), difference)
    return [*found.values()]


def _changed(metadata: Mapping[str, Any]) -> Iterator[tuple[Path, Any, Any, bool]]:
    """Path, old value, new value, and whether it forces a replacement.

    The paths are the provider's; if it names none, the arguments are compared.
    """
    old, new = metadata.get("old") or {}, metadata.get("new") or {}
    before, after = old.get("inputs") or {}, new.get("inputs") or {}
    for place, detail in (metadata.get("detailedDiff") or {}).items():
        path, forces = parsed(place), detail["diffKind"].endswith("-replace")
        source = before if detail.get("inputDiff") else old.get("outputs") or {}
        sides = at(source, path), at(after, path)
        # Two secrets look the same, and so do values that only the provider computes.
        for leaf in [*_leaves(path, *sides)] or [(path, *sides)]:
            yield (*leaf, forces)
    if not metadata.get("detailedDiff") and new:
        yield from ((*leaf, False) for leaf in _leaves((), before, after))


def text_of(value: Any) -> str:
    """A value as text; secrets become a mark."""
    if isinstance(value, str):
        if value in _UNKNOWNS:
            return UNKNOWN
        # A provider's settings are JSON in a string, with marked secrets.
        return MARK if SIGNATURE in value else value
    opened = _open(value)
    return opened if isinstance(opened, str) else json.dumps(opened, ensure_ascii=False, sort_keys=True)


def shortened(text: str | None, other: str | None) -> str | None:
    """The part of a long text around its first difference from another one."""
    if text is None or len(text) <= LONGEST:
        return text
    same = next((at for at, pair in enumerate(zip(text, other or "", strict=False)) if len({*pair}) > 1), 0)
    start = max(0, min(same - _CONTEXT, len(text) - LONGEST))
    part = text[start : start + LONGEST]
    return f"{'…' if start else ''}{part}{'…' if start + LONGEST < len(text) else ''}"


def parsed(place: str) -> Path:
    """The parts of a property path as the engine writes it: ``spec.rules[0].weight``, ``["a.b"].c``."""
    parts = re.findall(r'\["((?:[^"\\]|\\.)*)"\]|\[(\d+)\]|([^.\[\]]+)', place)
    return tuple(quoted.replace('\\"', '"') or index or plain for quoted, index, plain in parts)


def written(path: Path) -> str:
    """A path as people write it."""
    text = ""
    for part in path:
        if part.isdecimal() or isinstance(part, _ItemName):
            text += f"[{part}]"
        elif re.fullmatch(r"[\w$-]+", part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part, ensure_ascii=False)}]"
    return text


def _leaves(path: Path, old: Any, new: Any) -> Iterator[tuple[Path, Any, Any]]:
    """The deepest paths at which two values differ, with both values."""
    if children := _children(old, new):
        for key, sides in children.items():
            yield from _leaves((*path, key), *sides)
    elif old != new:
        yield path, old, new


def _children(old: Any, new: Any) -> Mapping[str, tuple[Any, Any]]:
    """The values one level deeper on both sides; none if the two are not both mappings or both lists."""
    sides = [side for side in (old, new) if side is not None]
    if any(_is_opaque(side) for side in sides):
        return {}
    if all(isinstance(side, dict) for side in sides):
        before, after = old or {}, new or {}
        keys = [key for key in sorted({*before, *after}) if not key.startswith("__")]
    elif all(isinstance(side, list) for side in sides):
        before, after = _named(old or []), _named(new or [])
        if before is None or after is None:
            return {str(index): pair for index, pair in enumerate(zip_longest(old or [], new or []))}
        keys = [*dict.fromkeys([*before, *after])]
    else:
        return {}
    return {key: (before.get(key), after.get(key)) for key in keys}


def _named(items: list[Any]) -> dict[str, Any] | None:
    """Items by name, which is stable where the index is not; None if a name is missing or not unique."""
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if not all(isinstance(name, str) and name not in _UNKNOWNS for name in names) or len({*names}) != len(names):
        return None
    # The path has the name.
    bare = [{key: value for key, value in item.items() if key != "name"} or item for item in items]
    return {_ItemName(name): item for name, item in zip(names, bare, strict=True)}


def _is_opaque(value: Any) -> bool:
    return isinstance(value, dict) and SIGNATURE in value


def _open(value: Any) -> Any:
    """A tree without the engine's marks."""
    if isinstance(value, dict):
        if SIGNATURE in value:
            return MARK if value[SIGNATURE] == _SECRET else "file"
        return {key: _open(item) for key, item in value.items() if not key.startswith("__")}
    if isinstance(value, list):
        return [_open(item) for item in value]
    return text_of(value) if isinstance(value, str) else value


def mappings(tree: Any, *path: str) -> list[Inputs]:
    """The mappings in the list at a path; none if the list is not there, or not known yet."""
    found = at(tree, path)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def at(tree: Any, path: Path) -> Any:
    """The value at a path; None if there is none. Within a secret, the secret."""
    for part in path:
        if _is_opaque(tree):
            return tree
        if isinstance(tree, dict) and part in tree:
            tree = tree[part]
        elif isinstance(tree, list) and part.isdecimal() and int(part) < len(tree):
            tree = tree[int(part)]
        else:
            return None
    return tree
