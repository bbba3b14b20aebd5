"""Asks a model again and again which version it is, to know from when on all traffic is on another one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from model_serving.pipelines import show

PAUSE_SECONDS: Final = 0.05
IN_A_ROW: Final = 20
"""Answers of one version after which it has all traffic; half of it would be taken for all once in a million times."""
LONGEST_SECONDS: Final = 180
NOBODY: Final = ""


@dataclass(frozen=True)
class Answer:
    """Who answered, and when it was asked, in seconds of time.perf_counter."""

    asked: float
    version: str


@dataclass
class Watch:
    """What was answered so far."""

    answers: list[Answer] = field(default_factory=list)

    def wait_for(self, version: str) -> float:
        """Waits until a version has all traffic; returns since when."""
        deadline = time.perf_counter() + LONGEST_SECONDS
        while (since := has_all_traffic(self.answers, version)) is None:
            if time.perf_counter() > deadline:
                raise TimeoutError(f"{version} did not get all traffic within {LONGEST_SECONDS} s")
            time.sleep(PAUSE_SECONDS)
        return since


def has_all_traffic(answers: Sequence[Answer], version: str) -> float | None:
    """Since when nobody else answered; None if that is not so, or not for long enough."""
    last_other = next((n for n in range(len(answers), 0, -1) if answers[n - 1].version != version), 0)
    own = answers[last_other:]
    return own[0].asked if len(own) >= IN_A_ROW else None


@contextmanager
def watching(url: str, request: Path) -> Iterator[Watch]:
    """Asks, on a new connection each time, until the end of the block."""
    watch, over = Watch(), threading.Event()

    def ask() -> None:
        while not over.wait(PAUSE_SECONDS):
            asked = time.perf_counter()
            try:
                version = str(json.loads(show.predict(url, request))["model_version"])
            except OSError:
                version = NOBODY
            watch.answers.append(Answer(asked, version))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()
