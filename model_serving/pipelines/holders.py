"""Records of running deployments in a stack's tags, by which others identify the holder of its lock.

A lock names a host and a process, which is useless once the job's machine is gone; the record adds the job, which the
site can be asked about. It is written before Pulumi starts, updated with Pulumi's process, and removed at the end.
"""

import contextlib
import getpass
import os
import secrets
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from model_serving.hosts.site import Run
from model_serving.pipelines.backend import Backend

PREFIX: Final = "deploy-"
KEPT: Final = timedelta(days=1)
"""How long the record of a killed deployment is kept: its commit may be partly deployed."""
_WRITES: Final = 3
"""Pulumi rewrites all tags to set one. Of two writers at once, one may be lost, so each write is verified."""
_PROC: Final = Path("/proc")


class Machine(BaseModel):
    """A machine or container, by host name, boot ID and PID namespace; the last two are empty without /proc.

    The host name, as in a lock, is not enough: runners reuse names across machines.
    """

    model_config = ConfigDict(frozen=True)

    host: str
    boot: str
    processes: str

    @classmethod
    def here(cls) -> Self:
        try:
            boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
            processes = str((_PROC / "self/ns/pid").readlink())
        except OSError:
            boot = processes = ""
        return cls(host=socket.gethostname(), boot=boot, processes=processes)

    def sees(self, other: Self) -> bool:
        """Whether this machine can look up processes of the other one."""
        return bool(self.boot and self.processes) and self == other


class Holder(BaseModel):
    """A deployment that has the stack's lock, or is about to take it.

    Attributes:
        process: ID of Pulumi's process; None before it starts.
        started: start time of that process, see `process_start`.
        began: creation time of the record.
    """

    model_config = ConfigDict(frozen=True)

    machine: Machine
    process: int | None = None
    started: str = ""
    began: datetime
    user: str
    commit: str
    run: Run | None

    def __str__(self) -> str:
        if self.run is None:
            return f"{self.user} on {self.machine.host}"
        return f"{self.run.name} {self.run.url}".rstrip()

    @classmethod
    def this(cls, commit: str, run: Run | None) -> Self:
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a container's user ID without a name
            user = str(os.getuid())
        return cls(machine=Machine.here(), began=datetime.now(UTC), user=user, commit=commit, run=run)


class Register:
    """The records of one stack."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._own = PREFIX + secrets.token_hex(6)

    def write(self, holder: Holder) -> None:
        """Writes or updates this deployment's record."""
        text = holder.model_dump_json()
        for _ in range(_WRITES):
            self._backend.set_tag(self._own, text)
            if self._backend.tags().get(self._own) == text:
                return

    def others(self) -> dict[str, Holder]:
        """The records of all other deployments by tag; removes records older than `KEPT`."""
        found = {}
        for name, text in self._backend.tags().items():
            if not name.startswith(PREFIX) or name == self._own:
                continue
            try:
                holder = Holder.model_validate_json(text)
            except ValidationError:  # of another version of this project
                continue
            if datetime.now(UTC) - holder.began > KEPT:
                self._backend.remove_tag(name)
            else:
                found[name] = holder
        return found

    def remove(self, name: str | None = None) -> None:
        """Removes a record, by default this deployment's own."""
        self._backend.remove_tag(name or self._own)


def process_start(process: int) -> str | None:
    """Start time of a process here in clock ticks, which no later one with its ID has; None if it no longer runs."""
    try:
        # proc_pid_stat(5): the name may contain spaces and brackets, so fields are counted from its end.
        fields = (_PROC / str(process) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def process_name(process: int) -> str:
    """Name of a process on this machine; empty if it no longer runs."""
    with contextlib.suppress(OSError):
        return (_PROC / str(process) / "comm").read_text(encoding="utf-8").strip()
    return ""
