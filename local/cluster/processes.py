"""The processes of the cluster: how they are started, recognised, watched and ended.

A process is recognised by its id, its start time and the boot in which it started, all from a file written at its
start: an id alone may belong to someone else by now. What those files cannot know (a container's shim, the children
of a process that died) carries a mark in its environment.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local.cluster.errors import LocalError
from local.cluster.layout import LOOPBACK, Layout

MARK = "MODEL_SERVING_LOCAL"
SHOWN_LOG_LINES = 12
NOT_INHERITED = frozenset({"NOTIFY_SOCKET", "KUBECONFIG", "GOGC"})
"""GOGC is for Pulumi's processes, which end in seconds; a cluster's would only grow with it."""
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
START_TIME_FIELD = 19  # of /proc/<pid>/stat, counted after the command's closing parenthesis


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process of the cluster.

    Attributes:
        command: its first item is a path or a name on the system's PATH.
        ready: true once it does its work, not merely runs.
        after: the steps that have to be done before it can start.
        ports: port -> what it is for.
        address: where it listens on those ports.
        files: configuration written before it starts; another content means another process.
    """

    name: str
    command: tuple[str, ...]
    ready: Callable[[], bool]
    after: tuple[str, ...] = ()
    ports: Mapping[int, str] = field(default_factory=dict)
    address: str = LOOPBACK
    files: Mapping[Path, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Changes when the process would run differently: its command, its program or its configuration."""
        program = os.path.realpath(shutil.which(self.command[0]) or self.command[0])
        content = [program, *self.command, *(f"{path}={text}" for path, text in self.files.items())]
        return hashlib.sha256("\0".join(content).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is remembered of a process that was started."""

    pid: int
    started: str
    boot: str
    digest: str

    @property
    def is_of_this_boot(self) -> bool:
        return self.boot == boot()

    @property
    def is_alive(self) -> bool:
        return self.is_of_this_boot and start_time(self.pid) == self.started

    @property
    def uptime_seconds(self) -> float:
        now = float(Path("/proc/uptime").read_text().split()[0])
        return now - int(self.started) / os.sysconf("SC_CLK_TCK")


class Processes:
    """The processes that this instance started, by name."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def record(self, name: str) -> Record | None:
        try:
            return Record(**json.loads((self._layout.pids / name).read_text()))
        except (FileNotFoundError, ValueError, TypeError):  # a machine that lost power may leave a torn file
            return None

    def names(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(path.name for path in self._layout.pids.iterdir())
        return []

    def is_alive(self, name: str) -> bool:
        record = self.record(name)
        return record is not None and record.is_alive

    def died(self, name: str) -> bool:
        """Whether it was started since this machine's boot and is gone without having been stopped."""
        record = self.record(name)
        return record is not None and record.is_of_this_boot and not record.is_alive

    def log(self, name: str) -> Path:
        return self._layout.logs / f"{name}.log"

    def last_lines(self, name: str) -> str:
        """The end of its log, indented."""
        try:
            lines = self.log(name).read_text(errors="replace").splitlines()
        except FileNotFoundError:
            lines = []
        return "\n".join(f"    {line[:200]}" for line in lines[-SHOWN_LOG_LINES:]) or "    (its log is empty)"

    def launch(self, process: Process) -> None:
        """Start it in a session of its own, so that a Ctrl-C in the terminal does not reach it."""
        for path, text in process.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        log = self.log(process.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists():
            log.rename(log.with_suffix(".previous.log"))
        with log.open("wb") as output:
            child = subprocess.Popen(
                process.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=self._environment(),
                start_new_session=True,
            )
        self._write(process, child.pid)

    def _environment(self) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if key not in NOT_INHERITED}
        path = f"{self._layout.bin}:{SYSTEM_PATH}"
        # buildkitd leaves mount points behind in its temporary folder.
        temporary = self._layout.run / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        return inherited | {"PATH": path, "TMPDIR": str(temporary), MARK: str(self._layout.run)}

    def _write(self, process: Process, pid: int) -> None:
        record = {"pid": pid, "started": start_time(pid) or "", "boot": boot(), "digest": process.digest}
        self._layout.pids.mkdir(parents=True, exist_ok=True)
        temporary = self._layout.pids.parent / f"{process.name}.pid"
        temporary.write_text(json.dumps(record))
        temporary.rename(self._layout.pids / process.name)

    def end_all(self, names: Iterable[str], *, grace_seconds: float = 0) -> None:
        """Stop processes and forget them."""
        records = [(name, self.record(name)) for name in names]
        _end([record.pid for _, record in records if record and record.is_alive], grace_seconds)
        for name, _ in records:
            (self._layout.pids / name).unlink(missing_ok=True)

    def any_marked(self) -> bool:
        """Whether anything of this instance runs, from whichever checkout it was started."""
        return any(self._marked())

    def end_marked(self) -> None:
        """End shims and everything else that descends from this instance's processes and outlived them."""
        deadline = time.monotonic() + 10
        while marked := list(self._marked()):
            if time.monotonic() > deadline:
                raise LocalError(f"Processes that do not end even when killed: {', '.join(map(str, marked))}")
            _end(marked, 0)

    def _marked(self) -> Iterator[int]:
        return (pid for pid in running() if mark_of(pid) == self._layout.run)


def boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def running() -> Iterator[int]:
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())  # noqa: PTH208 - a third of the time


def start_time(pid: int) -> str | None:
    """In clock ticks since boot; None for a process that is gone or only waits to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[START_TIME_FIELD]


def mark_of(pid: int) -> Path | None:
    """The runtime folder of the instance to which a process belongs, itself or by descent."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    match = re.search(rf"(?:^|\0){MARK}=([^\0]*)".encode(), environment)
    return Path(match[1].decode()) if match and pid != os.getpid() else None


def _end(pids: list[int], grace_seconds: float) -> None:
    """End processes, politely while there is grace, and return when none is left."""
    handles = {}
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            handles[pid] = os.pidfd_open(pid)
    if grace_seconds:
        _signal(handles, signal.SIGTERM)
        _await_end(handles, grace_seconds)
    _signal(handles, signal.SIGKILL)
    _await_end(handles, 10)
    for handle in handles.values():
        os.close(handle)
    for pid in pids:
        with contextlib.suppress(ChildProcessError):  # reaps those that this very command started
            os.waitpid(pid, os.WNOHANG)


def _signal(handles: Mapping[int, int], number: signal.Signals) -> None:
    for handle in handles.values():
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)


def _await_end(handles: Mapping[int, int], seconds: float) -> None:
    """A process's descriptor becomes readable when it ends, which needs no polling."""
    deadline = time.monotonic() + seconds
    waiting = set(handles.values())
    while waiting and (left := deadline - time.monotonic()) > 0:
        ended, _, _ = select.select(list(waiting), [], [], left)
        waiting -= set(ended)
