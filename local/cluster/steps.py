"""Runs what a start consists of, each step as soon as those that it needs are done."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from local.cluster.errors import LocalError
from local.cluster.processes import Process, Processes

START_SECONDS = 60
POLL_SECONDS = 0.02

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Task:
    """Work between the processes that is done once and then is done."""

    name: str
    run: Callable[[], None]
    after: tuple[str, ...] = ()


Step = Process | Task


class Work(threading.Thread):
    """A task in the background; as a daemon, so that a start which fails or is interrupted does not wait for it."""

    def __init__(self, task: Task) -> None:
        super().__init__(name=task.name, daemon=True)
        self._task = task
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._task.run()
        except BaseException as error:
            self._error = error

    def is_done(self) -> bool:
        if self.is_alive():
            return False
        if self._error:
            raise self._error
        return True


class Start:
    """One run through the steps: each begins as soon as those before it are done."""

    def __init__(self, steps: Sequence[Step], processes: Processes, report: Report) -> None:
        self._steps = steps
        self._processes = processes
        self._report = report
        self._began = time.monotonic()
        self._done: set[str] = set()
        self._begun: set[str] = set()
        self._work: dict[str, Work] = {}
        self._launched: set[str] = set()

    def run(self) -> None:
        while len(self._done) < len(self._steps):
            if not self._advance():
                self._check_time()
                time.sleep(POLL_SECONDS)

    def _advance(self) -> bool:
        """Begin what can begin and note what is done; whether anything was."""
        before = len(self._done)
        for step in self._steps:
            if step.name not in self._begun and self._done.issuperset(step.after):
                self._begin(step)
            if step.name in self._begun and step.name not in self._done and self._is_done(step):
                self._note(step)
        return len(self._done) > before

    def _begin(self, step: Step) -> None:
        self._begun.add(step.name)
        if isinstance(step, Task):
            self._work[step.name] = Work(step)
            self._work[step.name].start()
        elif not self._processes.is_alive(step.name):
            self._processes.launch(step)
            self._launched.add(step.name)

    def _is_done(self, step: Step) -> bool:
        if isinstance(step, Process):
            self._check_lives()
            return step.ready()
        try:
            return self._work[step.name].is_done()
        except (OSError, http.client.HTTPException) as error:
            self._check_lives()  # most likely the process that it talked to
            raise LocalError(f"{step.name}: {error}. Run start again; status shows what runs.") from error

    def _note(self, step: Step) -> None:
        self._done.add(step.name)
        if self._launched:
            elapsed = time.monotonic() - self._began
            self._report(f"[{len(self._done):2}/{len(self._steps)}] {elapsed:4.1f} s  {step.name}")

    def _check_lives(self) -> None:
        for name in [step.name for step in self._steps if isinstance(step, Process) and step.name in self._begun]:
            if not self._processes.is_alive(name):
                raise LocalError(
                    f"{name} died while the cluster started; its last log lines:\n{self._processes.last_lines(name)}\n"
                    f"  Its whole log: {self._processes.log(name)}\n"
                    "  What was started goes on running; run start again when the cause is gone, or stop."
                )

    def _check_time(self) -> None:
        if time.monotonic() - self._began < START_SECONDS:
            return
        waiting = [step.name for step in self._steps if step.name in self._begun and step.name not in self._done]
        logs = "\n".join(f"  {name}:\n{self._processes.last_lines(name)}" for name in waiting)
        raise LocalError(f"After {START_SECONDS} s these are not ready: {', '.join(waiting)}. Last log lines:\n{logs}")
