"""Progress of a command: its steps, and the seconds that each took."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LINE_WIDTH: Final = 50


class Steps:
    """The steps of one run, on standard output."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._took: dict[str, float] = {}
        self._begun = time.monotonic()

    @contextmanager
    def step(self, name: str, label: str) -> Iterator[None]:
        """Reports a step and its seconds; ``name`` is for the summary."""
        begun = time.monotonic()
        head = f"[{len(self._took) + 1}/{self._total}] {label}"
        if sys.stdout.isatty():
            print(f"{head} …", end="\r", flush=True)
        yield
        self._took[name] = time.monotonic() - begun
        print(f"{head:{LINE_WIDTH}} {self._took[name]:5.1f} s", flush=True)

    def say(self, text: str) -> None:
        """Reports something that belongs to the step."""
        print(f"      {text}", flush=True)

    def summary(self) -> str:
        """All steps in one line: ``took 8.1 s: check 0.3 s, read 0.2 s, …``."""
        each = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self._took.items())
        return f"took {time.monotonic() - self._begun:.1f} s: {each}"
