"""Plots as Markdown that GitLab and GitHub render; no external script is loaded. report_pictures.py draws pictures."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Final

from model_serving.hosts.blocks import Block
from model_serving.hosts.markdown import cell, code, label, prose
from model_serving.releases.project import Plot
from model_serving.releases.report_files import Pair, Table

POINTS: Final = 60
"""Maximum of a line; more are invisible at the width of a comment."""
FEWEST: Final = 2
"""Minimum of points of a line."""
CLASSES: Final = 20
"""Maximum of a confusion matrix, which is as wide as it is high."""
COLUMNS: Final = 12
"""Maximum of a table."""
COLOURS: Final = (("🟦", "#1f77b4"), ("🟧", "#ff7f0e"))
"""Of this branch and the base, in the text and in the chart: Mermaid draws no legend."""
MARGIN: Final = 0.05
"""Above and below a chart's lines, relative to its height."""
DIGITS: Final = 5

Points = list[tuple[float, float]]


def required(plot: Plot) -> Sequence[str]:
    """Columns that a plot needs."""
    return {"line": [plot.x], "confusion": ["actual", "predicted"], "table": []}[plot.kind]


def block(plot: Plot, tables: Pair[Table], base: str, picture: str = "") -> Block:
    """A plot with its heading, from tables with the required columns.

    A picture, in Markdown, replaces charts and matrix; it stands above the rows of a table.
    """
    if plot.kind == "line":
        return _lines(plot, tables, base, picture)
    drawn = {"confusion": _confusion, "table": _preview}[plot.kind](plot, tables, base)
    if not picture:
        return drawn
    head = f"{_head(plot)}{picture}\n"
    if plot.kind == "confusion":
        return Block(what=drawn.what, importance=drawn.importance, head=head, items=[drawn.foot])
    rows = drawn.head.removeprefix(_head(plot))
    return replace(drawn, head=f"{head}\n{rows}")


def _head(plot: Plot) -> str:
    return f"\n### {prose(plot.title or plot.file)}\n\n"


def _lines(plot: Plot, tables: Pair[Table], base: str, picture: str) -> Block:
    items = [_line(plot.x, name, tables, base) for name in tables.here.columns if name != plot.x]
    if picture:
        return Block(what=f"picture of {plot.file}", importance=2, head=_head(plot), items=[f"{picture}\n"])
    return Block(what=f"lines of {plot.file}", importance=2, head=_head(plot), items=items)


def _line(x: str, name: str, tables: Pair[Table], base: str) -> str:
    here = points(tables.here, x, name)
    before = points(tables.base, x, name) if tables.base and name in tables.base.columns else []
    if len(here) < FEWEST:
        return f"{code(name)} has fewer than two numbers over {code(x)}: not drawn.\n\n"
    told = f"{COLOURS[0][0]} this branch ends at {_number(here[-1][1])}"
    if len(before) < FEWEST:
        return f"{_chart(x, name, [here], _range([here]))}\n{told}; {code(base)} has no such line.\n\n"
    told += f", {COLOURS[1][0]} {code(base)} at {_number(before[-1][1])}"
    height = _range([here, before])
    if (here[0][0], here[-1][0]) == (before[0][0], before[-1][0]):
        return f"{_chart(x, name, [here, before], height)}\n{told}.\n\n"
    # Mermaid stretches every line over the full width.
    charts = _chart(x, name, [here], height) + _chart(x, name, [before], height, colour=1)
    return f"{charts}\n{told}; they are drawn apart, because their ranges of {code(x)} differ.\n\n"


def _chart(x: str, name: str, lines: Sequence[Points], height: tuple[float, float], colour: int = 0) -> str:
    first, last = lines[0][0][0], lines[0][-1][0]
    palette = ", ".join(each for _, each in COLOURS[colour:])
    return "\n".join(
        [
            "```mermaid",
            f'%%{{init: {{"themeVariables": {{"xyChart": {{"plotColorPalette": "{palette}"}}}}}}}}%%',
            "xychart-beta",
            f"  x-axis {label(x)} {_number(first)} --> {_number(last)}",
            f"  y-axis {label(name)} {_number(height[0])} --> {_number(height[1])}",
            *(f"  line [{', '.join(_number(value) for value in _even(line))}]" for line in lines),
            "```",
            "",
        ]
    )


def points(table: Table, x: str, name: str) -> Points:
    """Rows in which both are numbers, by x; of several with the same x, the last."""
    pairs = zip(map(_float, table.column(x)), map(_float, table.column(name)), strict=True)
    return sorted({left: value for left, value in pairs if left is not None and value is not None}.items())


def _float(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _even(line: Points) -> list[float]:
    """Values at even distances, as Mermaid draws them, interpolated where the line has other distances."""
    count = min(len(line), POINTS)
    first, last = line[0][0], line[-1][0]
    found, right = [], 1
    for number in range(count):
        place = first + (last - first) * number / (count - 1)
        while right < len(line) - 1 and line[right][0] < place:
            right += 1
        (left_x, left_y), (right_x, right_y) = line[right - 1], line[right]
        share = min(1.0, (place - left_x) / (right_x - left_x))
        found.append(left_y + (right_y - left_y) * share)
    return found


def _range(lines: Sequence[Points]) -> tuple[float, float]:
    values = [value for line in lines for _, value in line]
    lowest, highest = min(values), max(values)
    margin = (highest - lowest) * MARGIN or abs(highest) * MARGIN or 1.0
    return lowest - margin, highest + margin


def _number(value: float) -> str:
    """Without an exponent, which Mermaid cannot read."""
    return format(Decimal(f"{value:.{DIGITS}g}"), "f")


def _confusion(plot: Plot, tables: Pair[Table], base: str) -> Block:
    here = _counts(tables.here)
    before = _counts(tables.base) if tables.base else None
    classes = sorted({name for pair in (*here, *(before or ())) for name in pair})
    if len(classes) > CLASSES:
        text = f"Not shown: it has {len(classes)} classes, and the limit is {CLASSES}.\n"
        return Block(what=f"classes of {plot.file}", importance=3, head=_head(plot), items=[text])
    rows = [
        _row([cell(actual), *(_count(here, before, actual, predicted) for predicted in classes)]) for actual in classes
    ]
    right = sum(count for (actual, predicted), count in here.items() if actual == predicted)
    compared = f"; in brackets the difference to {code(base)}" if before is not None else ""
    return Block(
        what=f"rows of the matrix of {plot.file}",
        importance=3,
        head=_head(plot) + _row(["actual ↓ predicted →", *map(cell, classes)]) + f"|---|{'--:|' * len(classes)}\n",
        items=rows,
        foot=f"\n{right} of {sum(here.values())} right{compared}.\n",
    )


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _count(here: Counter[tuple[str, str]], before: Counter[tuple[str, str]] | None, actual: str, predicted: str) -> str:
    count = here[actual, predicted]
    text = f"**{count}**" if actual == predicted else str(count or "·")
    difference = count - before[actual, predicted] if before is not None else 0
    return f"{text} ({difference:+d})" if difference else text


def _counts(table: Table) -> Counter[tuple[str, str]]:
    return Counter(zip(table.column("actual"), table.column("predicted"), strict=True))


def _preview(plot: Plot, tables: Pair[Table], base: str) -> Block:
    columns = tables.here.columns[:COLUMNS]
    return Block(
        what=f"rows of {plot.file}",
        importance=1,
        head=_head(plot) + _row([*map(cell, columns)]) + f"|{'---|' * len(columns)}\n",
        items=[_row([cell(row[name]) for name in columns]) for row in tables.here.rows[: plot.rows]],
        foot=f"\n{_told(plot, tables, base)}\n",
    )


def _told(plot: Plot, tables: Pair[Table], base: str) -> str:
    here = tables.here
    told = f"{min(plot.rows, len(here.rows))} of {len(here.rows)} rows"
    if len(here.columns) > COLUMNS:
        told += f", {COLUMNS} of {len(here.columns)} columns"
    if tables.base is None:
        return f"{told}."
    if (tables.base.columns, len(tables.base.rows)) != (here.columns, len(here.rows)):
        return f"{told}; on {code(base)} the table has other columns or another number of rows."
    others = sum(row != before for row, before in zip(here.rows, tables.base.rows, strict=True))
    return f"{told}; {others or 'none'} of all {len(here.rows)} differ from {code(base)}."
