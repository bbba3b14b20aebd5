"""What the gateway costs: a model asked through it and at its pod."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from tests.bench.checkout import LIKE, MODEL, PROJECT, Checkout, kubectl
from tests.bench.figures import Row, Section
from tests.bench.progress import Progress
from tests.bench.wrk import Load, load

TITLE: Final = "The gateway"
SECONDS: Final = 5
MANY: Final = 8
"""Connections that keep a server of one process busy."""
BODY: Final = PROJECT / "models" / MODEL / LIKE / "request.json"


def measure(checkout: Checkout, runs: int, progress: Progress) -> Section:
    through = f"{checkout.outputs['models'][MODEL]['url']}/infer"
    direct = f"http://{pod_address(f'app.kubernetes.io/name={MODEL}')}:8080/v2/models/{MODEL}/infer"
    rows: list[Row] = []
    for connections in (1, MANY):
        name = f"{connections} connection{'s' if connections > 1 else ''}"
        for url in (through, direct):
            load(url, BODY, connections=connections, seconds=1)
        pairs = [
            tuple(load(url, BODY, connections=connections, seconds=SECONDS) for url in (through, direct))
            for _ in progress.each(f"through the gateway and past it, {name}", range(runs))
        ]
        rows += [
            _row(f"{name}: median answer", "ms", pairs, lambda seen: seen.p50),
            _row(f"{name}: 99 of 100 answers", "ms", pairs, lambda seen: seen.p99),
            _row(f"{name}: requests per second", "/s", pairs, lambda seen: seen.rate),
        ]
    text = (
        f"`{MODEL}` asked by wrk for {SECONDS} s through the gateway, Envoy, and in turn at its pod. Generator, proxy "
        "and model share the machine's cores: where more cores are, the gateway costs no throughput of the model's."
    )
    return Section(title=TITLE, text=text, rows=rows)


def _row(what: str, unit: str, pairs: list[tuple[Load, ...]], of: Callable[[Load], float]) -> Row:
    through, direct = zip(*pairs, strict=True)
    return Row(what=what, unit=unit, values=[*map(of, through)], baseline="the pod directly", base=[*map(of, direct)])


def pod_address(selector: str) -> str:
    """Of the one pod that serves, by its labels; a pod on its way out or one that checked a contract is none."""
    pods = json.loads(kubectl("get", "pods", f"--selector={selector}", "--output=json"))["items"]
    serving = (
        pod for pod in pods if "deletionTimestamp" not in pod["metadata"] and pod["status"]["phase"] == "Running"
    )
    address: str = next(serving)["status"]["podIP"]
    return address
