"""Runs Pulumi's CLI as a child process: hands out its events, prints its progress, and passes signals on to it.

Not through the Automation API: signals must reach Pulumi in order, and a lock names Pulumi's process, whose ID that API
does not hand out.

Events are those of ``--json``, one per line. Unlike the summary that ``preview --json`` prints by default, they include
policy violations. Each is a mapping with one key that names its kind (``resourcePreEvent``, ``diagnosticEvent``,
``summaryEvent``, …), as in apitype.EngineEvent of Pulumi 3.259.0.
"""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from model_serving.pipelines.progress import Progress
from model_serving.pipelines.redact import Redactor
from model_serving.problems import Failure

Event = Mapping[str, Any]

TICK_SECONDS: Final = 1.0
_PASSED_ON: Final = (signal.SIGINT, signal.SIGTERM)
_WHEN_TOLD: Final = ("sh", "-c", 'read -r _; exec "$@"', "sh")
"""Starts a command, with the ID that the process has already, once its standard input is closed."""


class EngineMissing(Failure):
    """There is no pulumi to run; nothing was done."""

    def __init__(self) -> None:
        super().__init__(
            "pulumi is not on PATH.\n"
            "  Nothing was changed.\n"
            '  Run `make tools`, then `eval "$(make env)"`, or use the project\'s tool image.'
        )


def run(
    arguments: Sequence[str],
    *,
    redactor: Redactor,
    on_event: Callable[[Event], None] = lambda event: None,
    on_text: Callable[[str], object] = lambda line: None,
    on_start: Callable[[int], object] | None = None,
    expected: int | None = None,
    folder: Path | None = None,
    environ: Mapping[str, str] | None = None,
    out: IO[str] | None = None,
) -> int:
    """Runs ``pulumi preview``, ``up``, ``refresh`` or ``destroy`` with its options until it exits.

    What is printed here is redacted, what the callbacks get is not; the calling thread calls them. ``on_text`` gets the
    lines that are not events, such as the error that the stack is locked, and keeps a line from being printed by
    returning something true. Pulumi starts once ``on_start`` has returned; it gets the process ID, which will be in the
    lock. The progress shows ``expected``, the number of resources that will change, if it is known.

    Returns:
        Pulumi's exit code, or the negated number of the signal that ended it.

    Raises:
        EngineMissing: if pulumi is not on PATH.
    """
    stream = sys.stdout if out is None else out
    progress = Progress(lambda line: print(line, file=stream, flush=True), redact=redactor.text, expected=expected)
    with _started(arguments, folder, os.environ if environ is None else environ) as child:
        if on_start:
            on_start(child.pid)
        if child.stdin:
            child.stdin.close()
        for line in _lines(child, progress.tick):
            if (event := _event(line)) is not None:
                progress.event(event)
                on_event(event)
            elif line.strip() and not on_text(line):
                progress.text(line)
        return child.wait()


@contextmanager
def _started(
    arguments: Sequence[str], folder: Path | None, environ: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """The child process, which receives the signals of this process until the block ends."""
    if shutil.which("pulumi", path=environ.get("PATH")) is None:
        raise EngineMissing
    command, *options = arguments
    early: list[int] = []
    pass_on: Callable[[int], None] = early.append
    handlers = {number: signal.signal(number, lambda received, _: pass_on(received)) for number in _PASSED_ON}
    try:
        child = subprocess.Popen(
            [*_WHEN_TOLD, "pulumi", command, "--json", "--non-interactive", "--color", "never", *options],
            cwd=folder,
            env={**environ, "PULUMI_ENABLE_STREAMING_JSON_PREVIEW": "true", "PULUMI_SKIP_UPDATE_CHECK": "true"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            # A terminal sends Ctrl-C to the whole group, and on a second interrupt Pulumi drops everything at once.
            start_new_session=True,
        )
        pass_on = child.send_signal
        for received in early:
            pass_on(received)
        try:
            yield child
        finally:
            # A callback raised an error: without this, Pulumi would go on unseen, or leave its lock.
            if child.poll() is None:
                child.terminate()
                child.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _lines(child: subprocess.Popen[str], tick: Callable[[], None]) -> Iterator[str]:
    """The lines of both output streams; calls ``tick`` while there are none."""
    lines: queue.Queue[str | None] = queue.Queue()
    streams = [stream for stream in (child.stdout, child.stderr) if stream]
    for stream in streams:
        threading.Thread(target=_read, args=(stream, lines), daemon=True).start()
    reading = len(streams)
    while reading:
        try:
            line = lines.get(timeout=TICK_SECONDS)
        except queue.Empty:
            if child.poll() is not None:
                # A plugin that is still running holds the streams open; no more output will come.
                return
            tick()
            continue
        if line is None:
            reading -= 1
        else:
            yield line


def _read(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    """Puts the lines of a stream into the queue, then None."""
    with stream:
        for line in stream:
            lines.put(line.rstrip("\n"))
    lines.put(None)


def _event(line: str) -> Event | None:
    if not line.startswith("{"):
        return None
    try:
        event: Event = json.loads(line)
    except ValueError:
        return None
    return event if "sequence" in event else None
