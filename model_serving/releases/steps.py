"""Tells what a command does, step by step, and how long each step took."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LABEL_WIDTH: Final = 44


class Steps:
    """The steps of one run, on standard output.

    Attributes:
        took: seconds of each step that is done, by its name.
    """

    def __init__(self, total: int) -> None:
        """Begins the first step's number at 1.

        Args:
            total: how many there will be.
        """
        self.took: dict[str, float] = {}
        self._total = total
        self._begun = time.monotonic()

    @contextmanager
    def step(self, name: str, label: str) -> Iterator[None]:
        """Tells a step and its seconds.

        Args:
            name: a word for the line of all steps.
            label: what is done.
        """
        number = len(self.took) + 1
        begun = time.monotonic()
        if sys.stdout.isatty():
            print(f"[{number}/{self._total}] {label} …", end="\r", flush=True)
        yield
        self.took[name] = time.monotonic() - begun
        print(f"[{number}/{self._total}] {label:{LABEL_WIDTH}} {self.took[name]:5.1f} s", flush=True)

    def say(self, text: str) -> None:
        """Tells something that belongs to the step."""
        print(f"      {text}", flush=True)

    def summary(self) -> str:
        """All steps in one line: ``took 8.1 s: check 0.3 s, read 0.2 s, …``."""
        each = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.took.items())
        return f"took {time.monotonic() - self._begun:.1f} s: {each}"
