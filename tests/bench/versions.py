"""How previews and updates grow with the number of live versions, each with pods of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.bench.checkout import STAMP, Checkout, empty_program, preview_of_empty
from tests.bench.figures import Row, Section
from tests.bench.progress import Progress

TITLE: Final = "Live versions"
COUNTS: Final = (1, 10, 50)
PER_MODEL: Final = 10
"""A route has room for 15, see settings.LONGEST_ROUTE."""
BAR: Final = 5.0
START_SECONDS: Final = 600
"""Fifty servers that start at once share the cores of one machine."""
RESOURCES: Final = {"cpu": "10m", "memory": "320Mi"}
"""So that fifty find room on it."""


def measure(checkout: Checkout, runs: int, progress: Progress, counts: tuple[int, ...] = COUNTS) -> Section:
    rows: list[Row] = []
    with empty_program() as empty:
        for count in counts:
            rows += _with(count, checkout, empty, runs, progress)
    text = (
        f"So many versions of the small model `iris-dtc`, up to {PER_MODEL} a model, with equal shares of the traffic "
        "and a pod each. The update brings up all of them that the row before did not have: it builds their images, "
        "starts their pods, checks their contracts and moves their routes."
    )
    return Section(title=TITLE, text=text, rows=rows)


def _with(count: int, checkout: Checkout, empty: Path, runs: int, progress: Progress) -> list[Row]:
    models = models_of(count)
    for model, settings in models.items():
        for version in settings["versions"]:
            if not (checkout.folder / "models" / model / version).exists():
                checkout.release(version, model=model)
    checkout.serve(models)
    progress.say(f"up to {count} live versions")
    up = checkout.up()
    checkout.preview()
    pairs = [
        (checkout.preview(), preview_of_empty(empty), checkout.up())
        for _ in progress.each(f"preview and up of {count} live versions", range(runs))
    ]
    previews, base, idle = ([*series] for series in zip(*pairs, strict=True))
    name = "1 live version" if count == 1 else f"{count} live versions"
    bar = BAR if count == max(COUNTS) else None
    return [
        Row(what=f"{name}: preview", unit="s", values=previews, baseline="empty program", base=base, bar=bar),
        Row(what=f"{name}: up, nothing to change", unit="s", values=idle),
        Row(what=f"{name}: up, first time", unit="s", values=[up]),
    ]


def models_of(count: int) -> Mapping[str, dict[str, Any]]:
    """Models with so many live versions together."""
    firsts = range(0, count, PER_MODEL)
    return {f"bench-{first // PER_MODEL}": _model(min(PER_MODEL, count - first)) for first in firsts}


def _model(count: int) -> dict[str, Any]:
    share, rest = divmod(100, count)
    weights = {f"1.{STAMP}.{number}": share + (number < rest) for number in range(count)}
    return {"versions": weights, "resources": RESOURCES, "startSeconds": START_SECONDS}
