"""One command of Pulumi's that changes a stack, tried: it runs to its end, or finds a lock and nothing is done."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from typing import Final

from model_serving.pipelines import engine, locks
from model_serving.pipelines.backend import BackendError
from model_serving.pipelines.engine import Event
from model_serving.pipelines.holders import Holder, Register, process_start
from model_serving.pipelines.locks import Lock
from model_serving.pipelines.phases import Phases
from model_serving.pipelines.redact import Redactor

HELD_SECONDS: Final = 10
"""By then Pulumi has said whether the stack is locked; a log must not stay silent for longer."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        code: Pulumi's exit code; the negated number of the signal that ended it.
        held: the locks that were in the way; nothing was done then.
    """

    code: int
    held: Sequence[Lock] = ()


@dataclass(frozen=True, kw_only=True)
class Attempts:
    """Runs Pulumi for a deployment, and has the register know its process.

    Attributes:
        holder: the deployment's record.
        phases: what its time is counted by.
    """

    stack: str
    environ: Mapping[str, str] = field(repr=False)
    redactor: Redactor
    register: Register
    holder: Holder
    phases: Phases

    def run(
        self, command: Sequence[str], *, expected: int | None = None, on_begin: Callable[[], None] = lambda: None
    ) -> Outcome:
        """Tries once.

        Args:
            command: e.g. ``["refresh", "--target=URN"]``.
            expected: how many resources will be changed, if that is known.
            on_begin: is called when the engine runs, which is to say that the lock is ours; perhaps more than once.

        Raises:
            EngineMissing: if there is no pulumi.
        """
        said: list[str] = []
        writers: list[threading.Thread] = []
        out = _HeldBack()

        def on_start(process: int) -> None:
            # Beside the engine: the record is wanted only if something goes wrong.
            writers.append(threading.Thread(target=quietly, args=[partial(self._record, process)]))
            writers[-1].start()

        def on_event(event: Event) -> None:
            on_begin()
            out.release()
            self.phases.event(event)

        with self.phases.during("start"):
            code = engine.run(
                [*command, "--yes", "--skip-preview", "--stack", self.stack],
                redactor=self.redactor,
                on_event=on_event,
                on_text=said.append,
                on_start=on_start,
                expected=expected,
                environ=self.environ,
                out=out,
            )
        for writer in writers:
            writer.join()
        held = locks.parse(said) if code else []
        if not held:
            out.release()
        return Outcome(code=code, held=held)

    def _record(self, process: int) -> None:
        started = process_start(process) or ""
        self.register.write(self.holder.model_copy(update={"process": process, "started": started}))


def quietly(action: Callable[[], None]) -> None:
    """A record that cannot be written or removed makes the next run wait longer, and is no reason to fail this one."""
    try:
        action()
    except BackendError as error:
        print(f"note: {error}", file=sys.stderr, flush=True)


class _HeldBack(StringIO):
    """Keeps what Pulumi says until its engine runs: a refusal because of a lock is told in our own words."""

    def __init__(self) -> None:
        super().__init__()
        self._until: float | None = time.monotonic() + HELD_SECONDS

    def write(self, text: str) -> int:
        if self._until is not None and time.monotonic() > self._until:
            self.release()
        return super().write(text) if self._until is not None else sys.stdout.write(text)

    def flush(self) -> None:
        if self._until is None:
            sys.stdout.flush()

    def release(self) -> None:
        if self._until is not None:
            self._until = None
            sys.stdout.write(self.getvalue())
            sys.stdout.flush()
