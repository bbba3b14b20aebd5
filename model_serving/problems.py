"""Texts for people, above all errors: one base class, printed without a traceback in one place, `__main__.main`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One mistake and its cure.

    Attributes:
        file: path as the reader knows it, relative to the project.
        what: the key or place and its value, e.g. ``model-serving:models.iris-dtc.replicas is 0``.
        consequence: what would happen if it were let through, one sentence.
        remedy: what to write or to run instead, one sentence.
    """

    file: str
    what: str
    consequence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}\n  {self.consequence}\n  {self.remedy}"


def first_few(items: Sequence[str], count: int = 5, separator: str = ", ") -> str:
    """A list for people that may be long: ``a, b, c, d, e and 7 more``."""
    more = f" and {len(items) - count} more" if len(items) > count else ""
    return f"{separator.join(items[:count])}{more}"


def aligned(rows: Sequence[Sequence[str]], *, right: int | None = None) -> str:
    """A table for people, of which one column may be right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = ["<" if column != right else ">" for column in range(len(widths))]
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in rows
    )


class Failure(Exception):
    """The base of all errors that a person can do something about: what happened, its consequence, and the remedy."""


class InvalidInput(Failure):
    """Everything that is wrong with the input at once; nothing was changed."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n\n".join(str(problem) for problem in self.problems))

    @classmethod
    def of(cls, file: str, what: str, consequence: str, remedy: str) -> Self:
        """The error of a single mistake."""
        return cls([Problem(file=file, what=what, consequence=consequence, remedy=remedy)])
