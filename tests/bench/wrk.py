"""Load for a few seconds, as fast as the answers come, by wrk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.checkout import Failed, run

SCRIPT: Final = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a load saw.

    Attributes:
        p50: milliseconds of the median answer.
        p99: milliseconds in which 99 of 100 answers came.
    """

    requests: int
    seconds: float
    p50: float
    p99: float
    failed: int

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def load(url: str, body: Path, *, connections: int, seconds: int) -> Load:
    """Asks for so many seconds, on connections that are kept.

    Raises:
        Failed: if a request did; a figure of failures would mean nothing.
    """
    options = ("--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s")
    printed = run("wrk", *options, "--script", str(SCRIPT), url, "--", str(body))
    report = Load(**json.loads(printed.splitlines()[-1]))
    if report.failed:
        raise Failed(f"{report.failed} of {report.requests} requests to {url} failed")
    return report
