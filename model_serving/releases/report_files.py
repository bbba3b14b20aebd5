"""What a report reads: the files of the working tree, and the same files as a commit has them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import yaml

from model_serving.git import Git
from model_serving.hosts.markdown import code, prose
from model_serving.problems import Problem

T = TypeVar("T")
Values = Mapping[str, Any]
"""What is at the end of each key with dots; a list counts as one value."""


class Unreadable(Exception):
    """A file that is not what it should be; the message says why, as the end of a sentence that the file begins."""


class Tree(Protocol):
    """Files by their path from the root of the model's repository."""

    def read(self, path: str) -> bytes | None:
        """A file's content; None if it is not there."""


@dataclass(frozen=True, kw_only=True)
class WorkingTree:
    """As training has just left them."""

    root: Path

    def read(self, path: str) -> bytes | None:
        file = self.root / path
        return file.read_bytes() if file.is_file() else None


@dataclass(frozen=True, kw_only=True)
class Revision:
    """As a commit has them.

    Attributes:
        git: in the root of the model's repository, which need not be the root of the checkout.
        commit: which one.
    """

    git: Git
    commit: str

    def read(self, path: str) -> bytes | None:
        done = self.git.run("show", f"{self.commit}:./{path}")
        return None if done.code else done.bytes


class Nowhere:
    """In the place of a base that is not there."""

    def read(self, _path: str) -> bytes | None:
        return None


@dataclass(frozen=True, kw_only=True)
class Pair(Generic[T]):
    """What a file says.

    Attributes:
        path: from the root of the model's repository.
        here: in the working tree.
        base: on the base; None if it is not there, or nobody can read it.
    """

    path: str
    here: T
    base: T | None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A file of comma-separated values.

    Attributes:
        columns: as its head has them.
        rows: a value for each column, as text.
    """

    columns: Sequence[str]
    rows: Sequence[Mapping[str, str]]

    def column(self, name: str) -> list[str]:
        """Its values from top to bottom.

        Raises:
            Unreadable: if there is no such column.
        """
        if name not in self.columns:
            raise Unreadable(f"has no column {name}; there are {', '.join(self.columns)}")
        return [row[name] for row in self.rows]


def values(content: bytes) -> Values:
    """The values of a file of YAML or JSON.

    Raises:
        Unreadable: if it is neither, or holds no keys.
    """
    try:
        text = content.decode("utf-8")
        # Where both would do, JSON: for YAML 1e-05 is no number.
        try:
            read = json.loads(text)
        except json.JSONDecodeError:
            read = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Unreadable(f"is neither YAML nor JSON: {' '.join(str(error).split())}") from None
    if not isinstance(read, dict):
        raise Unreadable("holds no keys")
    return dict(_flat(read, ()))


def table(content: bytes) -> Table:
    """A file of comma-separated values.

    Raises:
        Unreadable: if it has no head, or a row has another number of values than that.
    """
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
    return Table(columns=columns, rows=[dict(zip(columns, row, strict=True)) for row in rows])


class Sources:
    """Reads each file twice, and keeps what is wrong with any.

    Attributes:
        problems: of the working tree's files, which whoever trains can cure.
        notes: of the base's, with which nothing can be compared then.
    """

    def __init__(self, here: Tree, base: Tree, *, name: str) -> None:
        """Reads nothing yet.

        Args:
            here: what is reported.
            base: what it is compared with.
            name: the base's, for people.
        """
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self._here = here
        self._base = base
        self._name = name

    def pair(self, path: str, parse: Callable[[bytes], T]) -> Pair[T] | None:
        """A file here and on the base; None if this one cannot be read, which is a problem then."""
        content, before = self._here.read(path), self._base.read(path)
        if content is None:
            self._refuse(path, "is missing", "Train first: make train. If it is no more, take it out of release.yaml.")
            return None
        try:
            here = parse(content)
        except Unreadable as error:
            self._refuse(path, str(error), "Correct it, or what in training writes it.")
            return None
        return Pair(path=path, here=here, base=None if before is None else self._parsed(path, before, parse))

    def _parsed(self, path: str, content: bytes, parse: Callable[[bytes], T]) -> T | None:
        try:
            return parse(content)
        except Unreadable as error:
            self.notes.append(f"{code(path)} {prose(str(error))} on {code(self._name)}: nothing is compared with it.")
            return None

    def _refuse(self, path: str, what: str, remedy: str) -> None:
        consequence = "The report would say less than release.yaml promises."
        self.problems.append(Problem(file=path, what=what, consequence=consequence, remedy=remedy))


def shown(value: Any) -> str:
    """A value for people: a number with six digits, other things as they are written in JSON, text without quotes."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _flat(value: Any, keys: tuple[str, ...]) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from _flat(each, (*keys, str(key)))
    else:
        yield ".".join(keys), value
