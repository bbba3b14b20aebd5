"""Runs Pulumi as a child: its events to whoever asked, its progress to the log, signals on to it.

Events are those of ``--json``, one a line. They carry everything, policy violations too, which the digest that
``preview --json`` prints by itself leaves out. Each is a mapping with one key that says what it is
(``resourcePreEvent``, ``diagnosticEvent``, ``summaryEvent``, …), as in apitype.EngineEvent of Pulumi 3.259.0.

It decides nothing: which command, on which stack and what follows from its exit code is the caller's.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from model_serving.pipelines.progress import Progress
from model_serving.problems import Failure

if TYPE_CHECKING:
    from model_serving.pipelines.redact import Redactor

Event = Mapping[str, Any]

TICK_SECONDS: Final = 1.0
_PASSED_ON: Final = (signal.SIGINT, signal.SIGTERM)
_END: Final = None
"""What a reader puts into the queue when its stream has ended."""


class EngineMissing(Failure):
    """There is no pulumi to run; nothing was done."""


def run(
    arguments: Sequence[str],
    *,
    redactor: Redactor,
    on_event: Callable[[Event], None] = lambda event: None,
    on_text: Callable[[str], None] = lambda line: None,
    on_start: Callable[[int], None] = lambda pid: None,
    expected: int | None = None,
    folder: Path | None = None,
    environ: Mapping[str, str] | None = None,
    out: IO[str] | None = None,
) -> int:
    """Runs ``pulumi`` to its end, whatever that is.

    Args:
        arguments: the command and its options, e.g. ``["up", "--yes", "--skip-preview", "--stack", "dev"]``: one of
            preview, up, refresh and destroy. What makes it print events is added.
        redactor: what may not be shown; everything printed here passes it. Events and texts are handed out as they
            came: who prints or writes of them has to redact.
        on_event: is called with each event, in order, by the calling thread.
        on_text: is called with each line that is no event: what Pulumi says before its engine runs, such as that the
            stack is locked.
        on_start: is called with the child's process id, by which a lock names its holder.
        expected: how many resources will be changed, if that is known, for the progress.
        folder: of the project; the current one by default.
        environ: instead of this process's own environment.
        out: where progress is printed; standard output by default.

    Returns:
        Pulumi's exit code; the negated number of the signal that ended it, if one did.

    Raises:
        EngineMissing: if there is no pulumi on PATH.
    """
    stream = sys.stdout if out is None else out
    progress = Progress(lambda line: print(line, file=stream, flush=True), redact=redactor.text, expected=expected)
    with _started(["pulumi", *_with_events(arguments)], folder, os.environ if environ is None else environ) as child:
        on_start(child.pid)
        for line in _lines(child, progress.tick):
            if (event := _event(line)) is not None:
                progress.event(event)
                on_event(event)
            elif line.strip():
                progress.text(line)
                on_text(line)
        return child.wait()


@contextmanager
def _started(
    command: Sequence[str], folder: Path | None, environ: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """The child, which gets the signals that this process gets until the block ends."""
    got: list[int] = []
    handlers = {number: signal.signal(number, lambda received, _: got.append(received)) for number in _PASSED_ON}
    try:
        child = _start(command, folder, environ)
        for number in _PASSED_ON:
            signal.signal(number, lambda received, _: child.send_signal(received))
        for received in got:  # came while it was being started
            child.send_signal(received)
        try:
            yield child
        finally:
            # Left early, by a mistake in a callback: it must not go on behind our back, nor leave its lock.
            if child.poll() is None:
                child.terminate()
                child.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _with_events(arguments: Sequence[str]) -> list[str]:
    command, *options = arguments
    return [command, "--json", "--non-interactive", "--color", "never", *options]


def _start(command: Sequence[str], folder: Path | None, environ: Mapping[str, str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**environ, "PULUMI_ENABLE_STREAMING_JSON_PREVIEW": "true", "PULUMI_SKIP_UPDATE_CHECK": "true"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            # A terminal sends Ctrl-C to the whole group, and a second interrupt makes Pulumi drop everything at once.
            start_new_session=True,
        )
    except FileNotFoundError:
        raise EngineMissing(
            "pulumi is not on PATH.\n"
            "  Nothing was previewed and nothing was changed.\n"
            '  Run `make tools` and eval "$(make env)", or use the project\'s tool image.'
        ) from None


def _lines(child: subprocess.Popen[str], tick: Callable[[], None]) -> Iterator[str]:
    """What the child prints, of both streams; meanwhile the clock ticks."""
    lines: queue.Queue[str | None] = queue.Queue()
    streams = [stream for stream in (child.stdout, child.stderr) if stream]
    readers = [threading.Thread(target=_read, args=(stream, lines), daemon=True) for stream in streams]
    for reader in readers:
        reader.start()
    running = len(readers)
    while running:
        try:
            line = lines.get(timeout=TICK_SECONDS)
        except queue.Empty:
            if child.poll() is not None:
                # A plugin that outlived it holds the streams open; nothing more will come.
                return
            tick()
            continue
        if line is _END:
            running -= 1
        else:
            yield line


def _read(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    with stream:
        for line in stream:
            lines.put(line.rstrip("\n"))
    lines.put(_END)


def _event(line: str) -> Event | None:
    if not line.startswith("{"):
        return None
    try:
        event: Event = json.loads(line)
    except ValueError:
        return None
    return event if "sequence" in event else None
