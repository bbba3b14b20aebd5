"""What differs between two states of a resource, in texts that a person can read and that tell no secret."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from model_serving.pipelines.redact import MARK

LONGEST: Final = 160
"""Characters of a value that are shown; what is meant to be compared is seldom longer."""
_CONTEXT: Final = 24
"""Characters before the first difference of two long values that are shown of both."""
UNKNOWN: Final = "known after the update"
FILE: Final = "file"

_SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
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
"""What stands for a value that is not known yet, by its type: pulumi/pulumi sdk/go/common/resource/plugin/rpc.go."""
_HIDDEN: Final = frozenset({"kubectl.kubernetes.io/last-applied-configuration"})
"""Keys under which kubectl writes all of a resource once more."""
_HIDDEN_IN_SECRETS: Final = _HIDDEN | {"data", "stringData", "binaryData", "annotations"}
"""Fields of a Kubernetes Secret, whatever the program calls secret."""

Path = tuple[str, ...]


class _ItemName(str):
    """A part of a path that is the name of an item in a list, not a key."""

    __slots__ = ()


class Difference(BaseModel):
    """One property that changes.

    Attributes:
        path: from the resource down, e.g. ``spec.replicas`` or ``spec.containers[mlserver].image``.
        old: None if it is not there before.
        new: None if it is not there afterwards.
        forces: whether this change takes another resource.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    old: str | None
    new: str | None
    forces: bool = False


class Comparison:
    """Compares what the engine says of one resource.

    Args:
        token: the resource's type.
        redact: takes out what may not be shown; it gets whole values, before they are shortened.
    """

    def __init__(self, token: str, redact: Callable[[str], str]) -> None:
        is_secret = re.fullmatch(r"kubernetes:core/v1:Secret(Patch|List)?", token)
        self._hidden = _HIDDEN_IN_SECRETS if is_secret else _HIDDEN
        self._redact = redact

    def differences(self, metadata: Mapping[str, Any]) -> Iterator[Difference]:
        """What changes, from the metadata of a step, every place once.

        A provider may say itself where; what it does not say is found by comparing the arguments.
        """
        old, new = metadata.get("old") or {}, metadata.get("new") or {}
        before, after = old.get("inputs") or {}, new.get("inputs") or {}
        seen: set[str] = set()
        for place, detail in (metadata.get("detailedDiff") or {}).items():
            path, forces = parsed(place), detail["diffKind"].endswith("-replace")
            source = before if detail.get("inputDiff") else old.get("outputs") or {}
            for found in self._below(path, _at(source, path), _at(after, path), forces=forces, named=True):
                if found.path not in seen:
                    seen.add(found.path)
                    yield found
        if not metadata.get("detailedDiff") and new:
            yield from self._below((), before, after, forces=False)

    def _below(self, path: Path, old: Any, new: Any, *, forces: bool, named: bool = False) -> Iterator[Difference]:
        """The leaves that differ; ``named`` is a place that the provider names, which is shown in any case."""
        found = list(_leaves(path, old, new))
        if not found and named:
            # Two secrets look the same, and so do values that only the provider computes.
            found = [(path, old, new)]
        for place, before, after in found:
            shown = self._shown(place, before), self._shown(place, after)
            yield Difference(
                path=self._redact(written(place)), old=shortened(*shown), new=shortened(*reversed(shown)), forces=forces
            )

    def _shown(self, path: Path, value: Any) -> str | None:
        if value is None:
            return None
        if not self._hidden.isdisjoint(path):
            return MARK
        return self._redact(text_of(value))


def text_of(value: Any) -> str:
    """A value as text; nothing of a secret."""
    if isinstance(value, str):
        if value in _UNKNOWNS:
            return UNKNOWN
        # Settings of a provider are JSON in a string, with the secrets in it marked.
        return MARK if _SIGNATURE in value else value
    opened = _open(value)
    return opened if isinstance(opened, str) else json.dumps(opened, ensure_ascii=False, sort_keys=True)


def shortened(text: str | None, other: str | None) -> str | None:
    """A long text around the place where it differs from the other one."""
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
    """A path as a person writes it."""
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
    """The deepest places at which two values differ."""
    if _is_opaque(old) or _is_opaque(new):
        children: Mapping[str, tuple[Any, Any]] = {}
    else:
        children = _children(old, new)
    if children:
        for key, (before, after) in children.items():
            yield from _leaves((*path, key), before, after)
    elif old != new:
        yield path, old, new


def _children(old: Any, new: Any) -> Mapping[str, tuple[Any, Any]]:
    """What is one level deeper on both sides; nothing if there is no level that they share."""
    if _is(dict, old, new):
        before, after = old or {}, new or {}
        keys = [key for key in sorted({*before, *after}) if not key.startswith("__")]
        return {key: (before.get(key), after.get(key)) for key in keys}
    if _is(list, old, new):
        # In and out of a list, an item has a name for whoever reads, and a number that shifts.
        before, after = _named(old), _named(new)
        if before is not None and after is not None:
            keys = list(dict.fromkeys([*before, *after]))
            return {key: (before.get(key), after.get(key)) for key in keys}
        pairs = zip_longest(_items(old), _items(new))
        return {str(index): pair for index, pair in enumerate(pairs)}
    return {}


def _is(kind: type, old: Any, new: Any) -> bool:
    """Whether both are of a kind, or one is and the other is not there."""
    sides = [side for side in (old, new) if side is not None]
    return bool(sides) and all(isinstance(side, kind) for side in sides)


def _items(value: Any) -> Sequence[Any]:
    return value or []


def _named(value: Any) -> dict[str, Any] | None:
    """Items by their names; None if one has no name or two have the same."""
    items = _items(value)
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if not all(isinstance(name, str) and name not in _UNKNOWNS for name in names) or len({*names}) != len(names):
        return None
    # The place says the name already.
    bare = [{key: value for key, value in item.items() if key != "name"} or item for item in items]
    return {_ItemName(name): item for name, item in zip(names, bare, strict=True)}


def _is_opaque(value: Any) -> bool:
    return isinstance(value, dict) and _SIGNATURE in value


def _open(value: Any) -> Any:
    """A tree without the engine's own marks."""
    if isinstance(value, dict):
        if _SIGNATURE in value:
            return MARK if value[_SIGNATURE] == _SECRET else FILE
        return {key: _open(item) for key, item in value.items() if not key.startswith("__")}
    if isinstance(value, list):
        return [_open(item) for item in value]
    return text_of(value) if isinstance(value, str) else value


def _at(tree: Any, path: Path) -> Any:
    """What is there; None, as for an explicit null, if nothing is. Within a secret, the secret."""
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
