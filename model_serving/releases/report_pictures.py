"""Plots as pictures, for sites that take uploads: Vega-Lite, drawn by vl-convert without a browser or the network."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from model_serving.hosts import Site
from model_serving.releases.project import Plot
from model_serving.releases.report_files import Pair, Table
from model_serving.releases.report_plots import CLASSES, COLOURS, points

HERE: Final = "this branch"
SCALE: Final = 2
"""Pixels per point, for screens of high resolution."""
DOTS: Final = 2000
"""Maximum of a picture; of more rows, evenly spaced ones are drawn."""
Spec = dict[str, Any]


def uploaded(plots: Sequence[tuple[Plot, Pair[Table]]], base: str, site: Site, marker: str) -> dict[int, str]:
    """Uploads the plots that can be drawn; place in the list -> Markdown. A picture that did not change is used again.

    Empty if the site takes no uploads, or without the package vl-convert-python.

    Raises:
        SiteError: if the site refuses.
    """
    draw = _drawer()
    if draw is None or not site.takes_uploads:
        return {}
    note = site.read_note(marker)
    pictures = {}
    for number, (plot, tables) in enumerate(plots):
        drawn = spec(plot, tables, base)
        if drawn is None:
            continue
        name = f"plot-{hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest()[:16]}.png"
        known = re.search(rf"!\[[^\]]*\]\([^)\s]*/{re.escape(name)}\)(\{{[^}}]*\}})?", note.body if note else "")
        pictures[number] = known[0] if known else site.upload(name, draw(drawn))
    return pictures


def _drawer() -> Callable[[Spec], bytes] | None:
    try:
        import vl_convert  # noqa: PLC0415  # Only jobs that post need it.
    except ImportError:
        return None
    return lambda drawn: bytes(vl_convert.vegalite_to_png(drawn, scale=SCALE))


def spec(plot: Plot, tables: Pair[Table], base: str) -> Spec | None:
    """A plot for Vega-Lite, with the base beside or behind this branch; None if there is nothing to draw."""
    sides = [(HERE, tables.here)]
    if tables.base is not None and set(tables.here.columns) <= set(tables.base.columns):
        sides.append((base, tables.base))
    drawn = {"line": _lines, "confusion": _confusion, "table": _predictions}[plot.kind](plot, sides)
    if drawn is None:
        return None
    # vl-convert finds no other font where a machine has none.
    return {"title": plot.title or plot.file, "background": "white", "config": {"font": "Liberation Sans"}} | drawn


Sides = Sequence[tuple[str, Table]]


def _lines(plot: Plot, sides: Sides) -> Spec | None:
    values = [
        {"x": x, "y": y, "line": name, "side": side}
        for side, table in sides
        for name in table.columns
        if name != plot.x
        for x, y in points(table, plot.x, name)
    ]
    if not values:
        return None
    return {
        "data": {"values": values},
        "facet": {"field": "line", "title": None},
        "columns": 2,
        "resolve": {"scale": {"y": "independent"}},
        "spec": {
            "width": 320,
            "height": 200,
            "mark": {"type": "line", "point": len(values) < DOTS // 10},
            "encoding": {
                "x": {"field": "x", "type": "quantitative", "title": plot.x},
                "y": {"field": "y", "type": "quantitative", "title": None, "scale": {"zero": False}},
                "color": _by_side(sides),
            },
        },
    }


def _confusion(_: Plot, sides: Sides) -> Spec | None:
    counts = {side: Counter(zip(*_columns(table), strict=True)) for side, table in sides}
    classes = sorted({name for count in counts.values() for pair in count for name in pair})
    if len(classes) > CLASSES:
        return None
    values = [
        {"actual": actual, "predicted": predicted, "count": count[actual, predicted], "side": side}
        for side, count in counts.items()
        for actual in classes
        for predicted in classes
    ]
    cells = {"x": {"field": "predicted", "type": "nominal"}, "y": {"field": "actual", "type": "nominal"}}
    colour = {"field": "count", "type": "quantitative", "scale": {"scheme": "blues"}, "legend": None}
    return {
        "data": {"values": values},
        "facet": {"column": {"field": "side", "title": None, "sort": [side for side, _ in sides]}},
        "spec": {
            "width": {"step": 44},
            "height": {"step": 44},
            "encoding": cells,
            "layer": [
                {"mark": "rect", "encoding": {"color": colour}},
                {
                    "mark": "text",
                    "encoding": {"text": {"field": "count"}},
                },
            ],
        },
    }


def _predictions(_: Plot, sides: Sides) -> Spec | None:
    """What was predicted against what is: a point per row for numbers, bars per class otherwise."""
    if not {"actual", "predicted"} <= set(sides[0][1].columns):
        return None
    classes = {name for _, table in sides for column in _columns(table) for name in column}
    if len(classes) <= CLASSES:
        return _bars(sides)
    values = [
        {"actual": actual, "predicted": predicted, "side": side}
        for side, table in sides
        for actual, predicted in _thinned(points(table, "actual", "predicted"))
    ]
    axes = {name: {"field": name, "type": "quantitative", "scale": {"zero": False}} for name in ("actual", "predicted")}
    if not values:
        return None
    return {
        "data": {"values": values},
        "width": 320,
        "height": 320,
        "mark": {"type": "point", "filled": True, "opacity": 0.6},
        "encoding": {"x": axes["actual"], "y": axes["predicted"], "color": _by_side(sides)},
    }


def _bars(sides: Sides) -> Spec:
    def rows() -> Iterator[dict[str, Any]]:
        for side, table in sides:
            for of, column in zip(("actual", "predicted"), _columns(table), strict=True):
                for name, count in sorted(Counter(column).items()):
                    yield {"class": name, "rows": count, "of": of, "side": side}

    return {
        "data": {"values": [*rows()]},
        "facet": {"column": {"field": "side", "title": None, "sort": [side for side, _ in sides]}},
        "spec": {
            "mark": "bar",
            "width": {"step": 16},
            "height": 180,
            "encoding": {
                "x": {"field": "class", "type": "nominal"},
                "xOffset": {"field": "of"},
                "y": {"field": "rows", "type": "quantitative"},
                "color": {"field": "of", "title": None},
            },
        },
    }


def _columns(table: Table) -> tuple[list[str], list[str]]:
    return table.column("actual"), table.column("predicted")


def _thinned(pairs: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return pairs[:: max(1, len(pairs) // DOTS)]


def _by_side(sides: Sides) -> Spec:
    names = [side for side, _ in sides]
    colours = [colour for _, colour in COLOURS[: len(names)]]
    return {"field": "side", "type": "nominal", "title": None, "scale": {"domain": names, "range": colours}}
