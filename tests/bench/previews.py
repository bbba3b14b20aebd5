"""A preview that shows no change, against that of a program that declares nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from tests.bench.checkout import Checkout, empty_program, preview_of_empty
from tests.bench.figures import Row, Section
from tests.bench.progress import Progress
from tests.engine import harness

TITLE: Final = "Preview with nothing to change"
BAR_LOCAL: Final = 2.5
BAR_PRODUCTION: Final = 3.0


def measure(checkout: Checkout, runs: int, progress: Progress) -> Section:
    local, empty = _local(checkout, runs, progress)
    production, nothing = _production(runs, progress)
    up = [checkout.up() for _ in progress.each("up of local, nothing to change", range(runs))]
    base = "empty program"
    rows = [
        Row(what="preview of `local`", unit="s", values=local, baseline=base, base=empty, bar=BAR_LOCAL),
        Row(
            what="preview of `production`", unit="s", values=production, baseline=base, base=nothing, bar=BAR_PRODUCTION
        ),
        Row(what="up of `local`", unit="s", values=up),
    ]
    text = (
        "`pulumi preview`, in turn with the preview of a program that declares nothing. `local` is asked of the "
        "running cluster; for `production` every provider is a stand-in, as in the engine tests."
    )
    return Section(title=TITLE, text=text, rows=rows)


def _local(checkout: Checkout, runs: int, progress: Progress) -> tuple[list[float], list[float]]:
    with empty_program() as empty:
        checkout.preview()
        pairs = [(checkout.preview(), preview_of_empty(empty)) for _ in progress.each("preview of local", range(runs))]
    return [ours for ours, _ in pairs], [base for _, base in pairs]


def _production(runs: int, progress: Progress) -> tuple[list[float], list[float]]:
    with tempfile.TemporaryDirectory() as name, harness.cluster_api():
        folder = Path(name)
        home = harness.pulumi_home(folder / "home")
        empty_folder = harness.small_project(folder / "empty", "", {})
        empty = harness.Project(empty_folder, home, harness.Cloud(folder / "empty-cloud"), "bench")
        copy = harness.copy_of_project(folder / "production")
        production = harness.Project(copy, home, harness.Cloud(folder / "cloud"), "production")
        progress.say("up of production, clouds stood in for")
        production.up()
        empty.preview(), production.preview()  # compile what previews import
        pairs = [(production.preview(), empty.preview()) for _ in progress.each("preview of production", range(runs))]
    if changed := [ours for ours, _ in pairs if ours.changes]:
        raise harness.Unexpected(f"a preview without a change shows one: {changed[0]}")
    return [ours.seconds for ours, _ in pairs], [nothing.seconds for _, nothing in pairs]
