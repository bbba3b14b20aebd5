"""Says what is being measured, while it takes its minutes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

_Item = TypeVar("_Item")


class Progress:
    """One line a step, with the time since the beginning, on standard error: standard output is for the tables."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:4.0f} s] {text}", file=sys.stderr, flush=True)

    def each(self, what: str, items: Sequence[_Item]) -> Iterator[_Item]:
        for number, item in enumerate(items, start=1):
            self.say(f"{what}, {number} of {len(items)}")
            yield item
