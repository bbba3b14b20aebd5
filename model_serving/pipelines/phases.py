"""Duration of a deployment by phase: own overhead, locks, Pulumi's start, images and rollout."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal

Phase = Literal["own", "waiting", "preview", "start", "images", "rollout"]
_NAMES: Final[Mapping[Phase, str]] = {
    "own": "own overhead",
    "waiting": "waiting for locks",
    "preview": "preview",
    "start": "Pulumi's start",
    "images": "images",
    "rollout": "rollout",
}


class Phases:
    """A stopwatch that is always in one phase; the clock returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = clock()
        self._phase: Phase = "own"
        self.seconds: dict[Phase, float] = dict.fromkeys(_NAMES, 0.0)
        self._building: set[str] = set()

    @contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """Counts the block for a phase, then continues the previous one."""
        before = self._phase
        self._turn(phase)
        try:
            yield
        finally:
            self._building.clear()
            self._turn(before)

    def event(self, event: Mapping[str, Any]) -> None:
        """Takes an event of the engine: its start ends with the program's first resource; builds count as images."""
        if metadata := event.get("resourcePreEvent", {}).get("metadata"):
            if metadata["type"].startswith("pulumi:"):  # the stack itself; the program is not loaded yet
                return
            if metadata["type"].startswith("docker-build:") and metadata["op"] not in ("same", "delete", "discard"):
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
