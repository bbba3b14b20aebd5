"""A change as lines of a diff, for the note and for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from model_serving.pipelines.changes import Change, Difference, Operation
from model_serving.pipelines.values import UNKNOWN

SIGNS: Final[Mapping[Operation, str]] = {
    "create": "+",
    "import": "+",
    "update": "!",
    "replace": "-",
    "delete": "-",
    "forget": "-",
}
"""What begins a line, which decides its colour: an exclamation mark is neither added nor removed."""
ORDER: Final[tuple[Operation, ...]] = ("replace", "delete", "forget", "update", "import", "create")
"""From what has to be read to what can be skipped."""


def title(change: Change) -> str:
    place = f" ({change.component})" if change.component else ""
    return f"{SIGNS[change.operation]} {change.operation} {change.kind} {change.name}{place}"


def properties(change: Change) -> Iterator[str]:
    if change.operation == "update" and not change.differences:
        yield "    what changes is known after the update, if anything does"
    for difference in change.differences:
        yield from _property(difference)
    if change.omitted:
        yield f"    … and {change.omitted} more"


def in_order(changes: tuple[Change, ...]) -> list[Change]:
    return sorted(changes, key=lambda change: ORDER.index(change.operation))


def _property(difference: Difference) -> Iterator[str]:
    forced = "  (forces replacement)" if difference.forces else ""
    if difference.new == UNKNOWN and difference.old is not None:
        yield f"!   {difference.path}: {difference.old} → {UNKNOWN}{forced}"
        return
    if difference.old is not None:
        yield f"-   {difference.path}: {difference.old}{forced}"
    if difference.new is not None:
        yield f"+   {difference.path}: {difference.new}{forced}"
    if difference.old is None and difference.new is None:
        yield f"!   {difference.path}: {UNKNOWN}{forced}"
