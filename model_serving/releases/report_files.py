"""The files that a report compares: in the working tree, and at another commit."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from model_serving import yaml_text
from model_serving.git import Git
from model_serving.hosts.markdown import code, prose
from model_serving.problems import Problem

T = TypeVar("T")
Values = Mapping[str, Any]
"""Dotted key -> value; a list is one value."""


class Unreadable(ValueError):
    """A file has the wrong form; the message is the end of a sentence that begins with the file."""


@dataclass(frozen=True, kw_only=True)
class Pair(Generic[T]):
    """The content of a file in the working tree and at the base; None if it is missing or unreadable there."""

    path: str
    here: T
    base: T | None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A CSV file with a header; values are text."""

    columns: Sequence[str]
    rows: Sequence[Mapping[str, str]]

    def column(self, name: str) -> list[str]:
        return [row[name] for row in self.rows]


@dataclass(frozen=True, kw_only=True)
class Files:
    """Reads files twice, and collects what is wrong with them.

    Attributes:
        root: of the model's repository, which may be a folder inside a checkout.
        base: branch or commit to compare with.
        problems: of files in the working tree, which must be corrected.
        notes: on files at the base, which are then not compared; Markdown.
    """

    root: Path
    base: str
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @cached_property
    def commit(self) -> str:
        """Of the base; empty if there is no such commit here."""
        done = self._git.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{self.base}^{{commit}}")
        return "" if done.code else done.text

    def pair(self, path: str, parse: Callable[[bytes], T]) -> Pair[T] | None:
        """A file here and at the base; None if it cannot be read here, which is a problem."""
        content, before = self._here(path), self._at(self.commit, path) if self.commit else None
        if content is None:
            self._refuse(path, "is missing", "Train first: make train. If it is obsolete, remove it from release.yaml.")
            return None
        try:
            here = parse(content)
        except Unreadable as error:
            self._refuse(path, str(error), "Correct what writes it, or `report` in release.yaml.")
            return None
        try:
            return Pair(path=path, here=here, base=None if before is None else parse(before))
        except Unreadable as error:
            self.notes.append(f"{code(path)} {prose(str(error))} on {code(self.base)}: nothing is compared with it.")
            return Pair(path=path, here=here, base=None)

    def is_uncommitted(self, path: str) -> bool:
        return self._here(path) != self._at("HEAD", path)

    @property
    def _git(self) -> Git:
        return Git(folder=self.root)

    def _here(self, path: str) -> bytes | None:
        file = self.root / path
        return file.read_bytes() if file.is_file() else None

    def _at(self, commit: str, path: str) -> bytes | None:
        done = self._git.run("show", f"{commit}:./{path}")
        return None if done.code else done.bytes

    def _refuse(self, path: str, what: str, remedy: str) -> None:
        consequence = "The report would show less than release.yaml promises."
        self.problems.append(Problem(file=path, what=what, consequence=consequence, remedy=remedy))


def values(content: bytes) -> Values:
    """The values of a YAML or JSON file; raises `Unreadable` for any other."""
    try:
        text = content.decode("utf-8")
        # JSON first: in YAML, 1e-05 is not a number.
        try:
            read = json.loads(text)
        except json.JSONDecodeError:
            read = yaml_text.parse(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"is neither YAML nor JSON: {error}") from None
    if not isinstance(read, dict):
        raise Unreadable("holds no keys")
    return dict(_flat(read, ()))


def table(content: bytes, required: Iterable[str] = ()) -> Table:
    """A CSV file with a header; raises `Unreadable` if it is not one, or lacks a required column."""
    try:
        lines = [*csv.reader(io.StringIO(content.decode("utf-8"), newline=""), strict=True)]
    except (csv.Error, UnicodeDecodeError) as error:
        raise Unreadable(f"holds no comma-separated values: {error}") from None
    if not lines:
        raise Unreadable("is empty")
    columns, *rows = lines
    for number, row in enumerate(rows, 2):
        if len(row) != len(columns):
            raise Unreadable(f"has {len(row)} values in row {number}, and {len(columns)} columns")
    for name in required:
        if name not in columns:
            raise Unreadable(f"has no column {name}; there are {', '.join(columns)}")
    return Table(columns=columns, rows=[dict(zip(columns, row, strict=True)) for row in rows])


def shown(value: Any) -> str:
    """A value for people: numbers with six digits, text without quotes, everything else as JSON."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _flat(value: Any, keys: tuple[str, ...]) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from _flat(each, (*keys, str(key)))
    else:
        yield ".".join(keys), value
