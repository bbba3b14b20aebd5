"""Texts for people, above all errors: one base class, printed without a traceback in one place, `__main__.main`."""

import re
from collections.abc import Iterable, Mapping, Sequence
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

    def with_names(self, names: Mapping[str, str]) -> "Problem":
        """The same problem for a reader who has the files elsewhere: path as it is told -> the reader's."""
        longest_first = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
        # Not in the middle of a longer name: v1.0.1 is a part of v1.0.10.
        pattern = re.compile(rf"(?<![\w/-])(?:{longest_first})(?![.-]*\w)")
        return Problem(**{key: pattern.sub(lambda found: names[found[0]], text) for key, text in vars(self).items()})

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
