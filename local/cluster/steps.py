"""Runs the steps of a start, each as soon as the steps that it needs are done."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import partial
from graphlib import TopologicalSorter

from local.cluster.probes import wait_until
from local.cluster.processes import Process, Processes
from model_serving.problems import Failure

START_SECONDS = 60
CHECK_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Task:
    """Work that ends, unlike a process."""

    name: str
    run: Callable[[], None]
    after: tuple[str, ...] = ()


Step = Process | Task


def run_steps(steps: Sequence[Step], processes: Processes) -> None:
    """Launch the processes that do not run, and run all tasks."""
    began = time.monotonic()
    by_name = {step.name: step for step in steps}
    order = TopologicalSorter({step.name: step.after for step in steps})
    order.prepare()
    launched: list[str] = []
    watched: list[str] = []
    pending: dict[Future[None], str] = {}
    done = 0
    while order.is_active():
        for name in order.get_ready():
            step = by_name[name]
            if isinstance(step, Process):
                if not processes.is_alive(name):
                    processes.launch(step)
                    launched.append(name)
                watched.append(name)
                work: Callable[[], None] = partial(
                    wait_until, step.ready, START_SECONDS, partial(_is_late, name, processes)
                )
            else:
                work = step.run
            pending[_in_background(work)] = name
        finished = wait(pending, CHECK_SECONDS, FIRST_COMPLETED).done
        _check_lives(watched, processes)
        for future in finished:
            name = pending.pop(future)
            try:
                future.result()
            except OSError as error:
                raise Failure(f"{name}: {error}. Run start again; status shows what runs.") from error
            order.done(name)
            done += 1
            if launched:
                print(f"[{done:2}/{len(steps)}] {time.monotonic() - began:4.1f} s  {name}")


def _is_late(name: str, processes: Processes) -> str:
    return f"{name} is not ready after {START_SECONDS} s; its last log lines:\n{processes.last_lines(name)}"


def _check_lives(names: Iterable[str], processes: Processes) -> None:
    for name in names:
        if not processes.is_alive(name):
            raise Failure(
                f"{name} died while the cluster started; its last log lines:\n{processes.last_lines(name)}\n"
                f"  Its whole log: {processes.log(name)}\n"
                "  All other processes keep running. Fix the cause and run start again, or run stop."
            )


def _in_background(work: Callable[[], None]) -> Future[None]:
    """Run work in a daemon thread, unlike an executor's, so that a start that fails or is interrupted ends at once."""
    future: Future[None] = Future()

    def target() -> None:
        try:
            work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=target, daemon=True).start()
    return future
