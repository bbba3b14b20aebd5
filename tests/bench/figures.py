"""What was measured, as tables: on the terminal while it runs, in docs/benchmarks.md to be kept."""

from __future__ import annotations

import re
import statistics
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

HEAD: Final = ("what", "here", "baseline", "ratio", "bar")
WIDTH: Final = 120
MANY: Final = 100
"""From here on a number is shown without digits behind the point."""
_SECTION: Final = re.compile(r"^## (.+)\n", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table.

    Attributes:
        unit: of both series, e.g. ``s``.
        values: what was measured here, one value a run.
        baseline: what it is compared with; None, if with nothing.
        base: the baseline's values, of the same runs in the same order.
        bar: the highest ratio that is good enough.
    """

    what: str
    unit: str
    values: Sequence[float]
    baseline: str | None = None
    base: Sequence[float] = ()
    bar: float | None = None

    @property
    def ratios(self) -> list[float]:
        """Of each run to the baseline beside it, which saw the same machine."""
        return [ours / base for ours, base in zip(self.values, self.base, strict=True)] if self.baseline else []

    @property
    def missed(self) -> bool:
        return self.bar is not None and statistics.median(self.ratios) > self.bar

    @property
    def cells(self) -> tuple[str, ...]:
        base = f"{self.baseline}: {spread(self.base)} {self.unit}" if self.baseline else ""
        bar = "" if self.bar is None else f"{'MISSED' if self.missed else 'met'}: at most {self.bar:g}"
        return (self.what, f"{spread(self.values)} {self.unit}", base, spread(self.ratios) if base else "", bar)


@dataclass(frozen=True, kw_only=True)
class Section:
    """What one part of the benchmark measured.

    Attributes:
        text: how it was measured.
        conditions: when, and what else the machine did.
    """

    title: str
    text: str
    rows: Sequence[Row]
    conditions: str = ""

    def plain(self) -> str:
        table = [HEAD, *(row.cells for row in self.rows)]
        widths = [max(len(cells[column]) for cells in table) for column in range(len(HEAD))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) for cells in table]
        return "\n".join([self.title, *(f"  {line}".rstrip() for line in lines), f"  ({self.conditions})"])

    def markdown(self) -> str:
        lines = [HEAD, ("---",) * len(HEAD), *(row.cells for row in self.rows)]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        return f"## {self.title}\n\n{_wrapped(self.text)}\n\n{table}\n\n{_wrapped(self.conditions)}.\n"


def spread(values: Sequence[float]) -> str:
    """Median, and in parentheses the lowest and the highest."""
    median, low, high = statistics.median(values), min(values), max(values)
    return _number(median) if len(values) == 1 else f"{_number(median)} ({_number(low)} to {_number(high)})"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= MANY else f"{value:.2f}"


def document(old: str, *, head: str, order: Sequence[str], measured: Sequence[Section]) -> str:
    """The page with the new sections in the place of the old ones; what was not measured now stays.

    Args:
        old: the page as it is, or nothing.
        head: everything in front of the first section.
        order: titles, as they follow each other.
        measured: the new sections.
    """
    sections = dict(_sections(old)) | {section.title: section.markdown() for section in measured}
    return "\n".join([head, *(sections[title] for title in order if title in sections)])


def _sections(text: str) -> Iterator[tuple[str, str]]:
    _, *parts = _SECTION.split(text)
    for title, body in zip(parts[::2], parts[1::2], strict=True):
        yield title, f"## {title}\n{body.rstrip()}\n"
