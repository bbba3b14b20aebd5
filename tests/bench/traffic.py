"""Changes of what is live that build nothing: weights, and rollbacks to a version that is warm or gone."""

from __future__ import annotations

import time
from typing import Any, Final

from tests.bench.checkout import STAMP, Checkout
from tests.bench.figures import Row, Section
from tests.bench.progress import Progress
from tests.bench.watch import watching

TITLE: Final = "Changes of traffic"
MODEL: Final = "bench-traffic"
OLD: Final = f"1.{STAMP}.0"
NEW: Final = f"1.{STAMP}.1"
WEIGHTS_SECONDS: Final = 3
WARM_SECONDS: Final = 3
GONE_SECONDS: Final = 8


def measure(checkout: Checkout, runs: int, progress: Progress) -> Section:
    for version in (OLD, NEW):
        checkout.release(version, model=MODEL)
    turns = [_turn(checkout) for _ in progress.each("weights and rollbacks", range(runs))]
    weights, warm, gone = ([*series] for series in zip(*turns, strict=True))
    text = (
        "A copy of the model `iris-dtc` with two versions. The weights of both are changed: until `pulumi up` has "
        "ended. The older one gets all traffic back, whose pods `keepWarm` has kept, or which was gone: until nobody "
        "else answers, asked every 50 ms. The baseline is what is allowed."
    )
    rows = [
        _row("weights changed, command ended after", weights, WEIGHTS_SECONDS),
        _row("rollback to a warm version, all traffic after", warm, WARM_SECONDS),
        _row("rollback to a version that was gone, all traffic after", gone, GONE_SECONDS),
    ]
    return Section(title=TITLE, text=text, rows=rows)


def _turn(checkout: Checkout) -> tuple[float, float, float]:
    _serve(checkout, versions={OLD: 50, NEW: 50})
    weights = _serve(checkout, versions={OLD: 10, NEW: 90})
    _serve(checkout, versions={NEW: 100}, keepWarm=1)
    warm = _rolled_back(checkout, keepWarm=1)
    _serve(checkout, versions={NEW: 100})
    return weights, warm, _rolled_back(checkout)


def _serve(checkout: Checkout, **settings: Any) -> float:
    checkout.serve({MODEL: settings})
    return checkout.up()


def _rolled_back(checkout: Checkout, **settings: Any) -> float:
    url, request = checkout.outputs["models"][MODEL]["url"], checkout.folder / "models" / MODEL / OLD / "request.json"
    with watching(f"{url}/infer", request) as watch:
        began = time.perf_counter()
        _serve(checkout, versions={OLD: 100}, **settings)
        return watch.wait_for(OLD) - began


def _row(what: str, seconds: list[float], allowed: float) -> Row:
    return Row(what=what, unit="s", values=seconds, baseline="allowed", base=[allowed] * len(seconds), bar=1)
