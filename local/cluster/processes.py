"""Starts, identifies and ends the processes of the cluster.

A process is identified by its id, its start time and the boot in which it started, all from a file written at its
start, because an id alone may be reused. Processes without such a file (a container's shim, the children of a process
that died) are identified by a variable in their environment.
"""

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
from dataclasses import asdict, dataclass, field
from pathlib import Path

from local.cluster.layout import LOOPBACK, Layout, write_atomically
from model_serving.problems import Failure

MARK = "MODEL_SERVING_LOCAL"
SHOWN_LOG_LINES = 12
END_SECONDS = 10
NOT_INHERITED = frozenset({"NOTIFY_SOCKET", "KUBECONFIG", "GOGC"})
"""GOGC is for Pulumi's short-lived processes; it would only make the cluster's use more memory."""
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
START_TIME_FIELD = 19  # of /proc/<pid>/stat, counted after the command's closing parenthesis


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process of the cluster.

    Attributes:
        command: its first item is a path or a name on the system's PATH.
        ready: whether it does its work, not merely runs.
        after: names of the steps that must be done before it starts.
        ports: port -> purpose.
        address: where it listens on those ports.
        files: path -> text of the configuration files written before it starts.
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
        """Hash of its command, program and configuration."""
        program = os.path.realpath(shutil.which(self.command[0]) or self.command[0])
        content = [program, *self.command, *(f"{path}={text}" for path, text in self.files.items())]
        return hashlib.sha256("\0".join(content).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Record:
    """A process that was started, as its file describes it."""

    pid: int
    started: str
    boot: str
    digest: str

    @property
    def is_alive(self) -> bool:
        return self.boot == boot() and start_time(self.pid) == self.started

    @property
    def has_died(self) -> bool:
        """Whether it ended since this machine's boot without having been stopped."""
        return self.boot == boot() and not self.is_alive

    @property
    def uptime_seconds(self) -> float:
        now = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
        return now - int(self.started) / os.sysconf("SC_CLK_TCK")


class Processes:
    """The processes that this instance started, by name."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def record(self, name: str) -> Record | None:
        try:
            return Record(**json.loads((self._layout.pids / name).read_text()))
        except (FileNotFoundError, ValueError, TypeError):  # a power failure may leave a damaged file
            return None

    def names(self) -> list[str]:
        return sorted(path.name for path in self._layout.pids.glob("[!.]*"))

    def is_alive(self, name: str) -> bool:
        record = self.record(name)
        return record is not None and record.is_alive

    def log(self, name: str) -> Path:
        return self._layout.logs / f"{name}.log"

    def last_lines(self, name: str) -> str:
        return last_lines(self.log(name))

    def launch(self, process: Process) -> None:
        """Start a process in its own session, so that a Ctrl-C in the terminal does not reach it."""
        for path, text in process.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text)
        temporary = self._layout.run / "tmp"  # buildkitd leaves mount points in its temporary folder
        for folder in (temporary, self._layout.pids, self._layout.logs):
            folder.mkdir(parents=True, exist_ok=True)
        inherited = {key: value for key, value in os.environ.items() if key not in NOT_INHERITED}
        own = {"PATH": f"{self._layout.bin}:{SYSTEM_PATH}", "TMPDIR": str(temporary), MARK: str(self._layout.run)}
        log = self.log(process.name)
        if log.exists():
            log.rename(log.with_suffix(".previous.log"))
        with log.open("wb") as output:
            child = subprocess.Popen(
                process.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=inherited | own,
                start_new_session=True,
            )
        record = Record(pid=child.pid, started=start_time(child.pid) or "", boot=boot(), digest=process.digest)
        write_atomically(self._layout.pids / process.name, json.dumps(asdict(record)))

    def end_all(self, names: Iterable[str], *, grace_seconds: float = 0) -> None:
        """Stop processes and remove their files."""
        records = {name: self.record(name) for name in names}
        _end([record.pid for record in records.values() if record and record.is_alive], grace_seconds)
        for name in records:
            (self._layout.pids / name).unlink(missing_ok=True)

    def end_marked(self) -> None:
        """End shims and all other descendants that outlived this instance's processes."""
        deadline = time.monotonic() + END_SECONDS
        while marked := list(self.marked()):
            if time.monotonic() > deadline:
                raise Failure(f"These processes keep running even though they were killed: {marked}")
            _end(marked)

    def marked(self) -> Iterator[int]:
        """All processes of this instance, whichever checkout started them."""
        return (pid for pid in running() if mark_of(pid) == self._layout.run)


def last_lines(log: Path) -> str:
    """The end of a log, indented."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return "\n".join(f"    {line[:200]}" for line in lines[-SHOWN_LOG_LINES:]) or "    (its log is empty)"


def boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()


def network_namespace() -> str:
    return str(Path("/proc/self/ns/net").readlink())


def write_owner(layout: Layout) -> None:
    """Record who runs the instance; without it, `stop` could not know which firewall to clean."""
    owner = {"state": str(layout.state), "network": network_namespace(), "boot": boot()}
    write_atomically(layout.run / "state", json.dumps(owner))


def owner_of(run: Path) -> dict[str, str]:
    """State folder, network namespace and boot of the instance with this runtime folder; empty if it is stopped."""
    try:
        owner: dict[str, str] = json.loads((run / "state").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return owner


def running() -> Iterator[int]:
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())  # noqa: PTH208 - a third of the time


def start_time(pid: int) -> str | None:
    """Clock ticks from boot to the start of a process; None for one that ended, even if it is not reaped yet."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[START_TIME_FIELD]


def mark_of(pid: int) -> Path | None:
    """Runtime folder of the instance that started a process or one of its ancestors."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    match = re.search(rf"(?:^|\0){MARK}=([^\0]*)".encode(), environment)
    return Path(match[1].decode()) if match and pid != os.getpid() else None


def _end(pids: list[int], grace_seconds: float = 0) -> None:
    """End processes and wait for that; with SIGTERM first if there is grace."""
    with contextlib.ExitStack() as cleanup:
        handles = set()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                handles.add(handle := os.pidfd_open(pid))
                cleanup.callback(os.close, handle)
        if grace_seconds:
            _signal(handles, signal.SIGTERM, grace_seconds)
        _signal(handles, signal.SIGKILL, END_SECONDS)
    for pid in pids:
        with contextlib.suppress(ChildProcessError):  # reaps those that this command started
            os.waitpid(pid, os.WNOHANG)


def _signal(handles: set[int], number: signal.Signals, seconds: float) -> None:
    """Signal processes and remove those that end in time; the descriptor of a process is readable when it ended."""
    for handle in handles:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)
    deadline = time.monotonic() + seconds
    while handles and (left := deadline - time.monotonic()) > 0:
        handles -= set(select.select(handles, [], [], left)[0])
