"""Who holds a stack's lock: each deployment leaves a record of itself in the stack's tags, for others to find.

A lock names a host and a process, which tells nothing once the job's machine is gone; the record adds the run that the
site can be asked about. It is written before Pulumi starts, completed with Pulumi's process, and removed at the end.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from model_serving.hosts.runs import Run
from model_serving.pipelines.backend import Backend

PREFIX: Final = "deploy-"
KEPT: Final = timedelta(days=1)
"""For how long the record of a killed run is kept: it says that its commit may have been deployed in part."""
_WRITES: Final = 3
"""A tag is written by rewriting all; two writers at once may lose one, so each looks whether its own is there."""
_PROC: Final = Path("/proc")


class Machine(BaseModel):
    """Where processes can be looked for; a host's name alone is no proof, runners give the same one to many.

    Attributes:
        host: name, as a lock has it.
        boot: id of the kernel's start; empty where there is no /proc.
        processes: the PID namespace, which a container has for itself; empty where there is no /proc.
    """

    model_config = ConfigDict(frozen=True)

    host: str
    boot: str
    processes: str

    @classmethod
    def here(cls) -> Machine:
        try:
            boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
            processes = str((_PROC / "self/ns/pid").readlink())
        except OSError:
            boot = processes = ""
        return cls(host=socket.gethostname(), boot=boot, processes=processes)

    def sees(self, other: Machine) -> bool:
        """Whether processes of the other machine can be looked for on this one."""
        return bool(self.boot and self.processes) and self == other


class Holder(BaseModel):
    """A deployment that has the stack's lock, or is about to take it.

    Attributes:
        process: id of Pulumi's process; None before it is started.
        started: when that process started, see `process_start`.
        began: when the record was made.
        user: who runs it, for people.
        commit: what it deploys.
        run: the job; None outside of a pipeline.
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
        return " ".join(filter(None, [self.run.name, self.run.url]))

    @classmethod
    def this(cls, commit: str, run: Run | None) -> Holder:
        return cls(machine=Machine.here(), began=datetime.now(UTC), user=_user(), commit=commit, run=run)


class Register:
    """The records of one stack."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._own = PREFIX + secrets.token_hex(6)

    def write(self, holder: Holder) -> None:
        """Writes this deployment's record, or completes it."""
        text = holder.model_dump_json()
        for _ in range(_WRITES):
            self._backend.set_tag(self._own, text)
            if self._backend.tags().get(self._own) == text:
                return

    def others(self) -> dict[str, Holder]:
        """The records of all other deployments by their tags; those that are old and of nobody are removed."""
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
        """Removes a record, by default one's own."""
        self._backend.remove_tag(name or self._own)


def process_start(process: int) -> str | None:
    """When a process of this machine started, in the kernel's ticks, which tells it from a later one of its id.

    Returns:
        None if there is no such process any more.
    """
    try:
        # proc_pid_stat(5): the name may have spaces and brackets, so fields are counted from behind it.
        fields = (_PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, start = fields[0], fields[19]
    return None if state in "ZX" else start


def process_name(process: int) -> str:
    """What a process runs; empty if it is gone."""
    with contextlib.suppress(OSError):
        return (_PROC / str(process) / "comm").read_text().strip()
    return ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return str(os.getuid())
