"""Where a deployment's time goes: what is ours, and what is Pulumi's, the images' and the rollout's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal

Phase = Literal["own", "waiting", "start", "images", "rollout"]
_IMAGE: Final = "docker-build:"
_NAMES: Final[Mapping[Phase, str]] = {
    "own": "own overhead",
    "waiting": "waiting for locks",
    "start": "Pulumi's start",
    "images": "images",
    "rollout": "rollout",
}


class Phases:
    """A stopwatch that is always in one phase.

    Args:
        clock: seconds, from any start.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = clock()
        self._phase: Phase = "own"
        self.seconds: dict[Phase, float] = dict.fromkeys(_NAMES, 0.0)
        self._building: set[str] = set()

    @contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """What happens in the block counts for a phase; afterwards the one before goes on."""
        before = self._phase
        self._turn(phase)
        try:
            yield
        finally:
            self._building.clear()
            self._turn(before)

    def event(self, event: Mapping[str, Any]) -> None:
        """Takes one of the engine's: its start ends with the program's first resource; a build counts as images."""
        if metadata := event.get("resourcePreEvent", {}).get("metadata"):
            if metadata["type"].startswith("pulumi:"):  # the stack itself: the program is not even loaded
                return
            if metadata["type"].startswith(_IMAGE) and metadata["op"] not in ("same", "delete", "discard"):
                self._building.add(metadata["urn"])
        elif metadata := (event.get("resOutputsEvent") or event.get("resOpFailedEvent") or {}).get("metadata"):
            self._building.discard(metadata["urn"])
        else:
            return
        self._turn("images" if self._building else "rollout")

    def __str__(self) -> str:
        self._turn(self._phase)
        spent = ", ".join(
            f"{name} {self.seconds[phase]:.1f} s"
            for phase, name in _NAMES.items()
            if self.seconds[phase] or phase == "own"
        )
        return f"took {sum(self.seconds.values()):.1f} s: {spent}"

    def _turn(self, phase: Phase) -> None:
        now = self._clock()
        self.seconds[self._phase] += now - self._at
        self._at, self._phase = now, phase
