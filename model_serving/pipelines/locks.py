"""Locks of stacks in a self-managed backend: who holds them, and which are dead.

No one releases the lock of a killed run. A lock is dead if its process on this machine has ended, or if it is that of
another job while this job is the only one that may deploy the stack: GitLab's ``resource_group`` and GitHub's
``concurrency`` see to that. All other locks are waited for: two updates at once are worse than a job that has to be run
again.

Each lock is a file with a name of its own, and a dead one is removed by that name. `pulumi cancel` would remove all
locks of the stack, including one that another run has just taken.
"""

import json
import shlex
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model_serving.pipelines import backend
from model_serving.pipelines.backend import Backend
from model_serving.problems import Failure

WAIT_SECONDS: Final = 900
"""Default maximum wait of a deployment for others: longer than a model's rollout takes."""
POLL_SECONDS: Final = 5
SAY_SECONDS: Final = 60
REFUSAL: Final = "error: the stack is currently locked by "
"""Start of Pulumi's error message."""
TAG: Final = "deploying-job"
"""Of the stack; its value is the `Job` that deploys it."""
_FOLDER: Final = ".pulumi/locks"
_PROC: Final = Path("/proc")

State = Literal["dead", "alive", "unknown"]


class Lock(BaseModel):
    """A lock, as Pulumi 3.259.0 writes it: https://github.com/pulumi/pulumi/blob/v3.259.0/pkg/backend/diy/lock.go."""

    model_config = ConfigDict(frozen=True)

    path: str
    user: str = Field("", alias="username")
    host: str = Field("", alias="hostname")
    process: int = Field(0, alias="pid")
    since: datetime = Field(datetime.min.replace(tzinfo=UTC), alias="timestamp")

    def __str__(self) -> str:
        if not self.host:
            return f"someone whose lock {self.path} cannot be read"
        return f"{self.user}@{self.host}, process {self.process}, since {self.since:%Y-%m-%d %H:%M:%S} UTC"

    @property
    def stack(self) -> str:
        return self.path.split("/")[-2]


class Job(BaseModel):
    """The job that deploys a stack, or was killed while it did; kept in the stack's tag `TAG`.

    Attributes:
        name: for people.
        commit: that it deploys.
        host: its machine or container.
        process: of Pulumi.
        began: just before that process.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    commit: str
    host: str = Field(default_factory=socket.gethostname)
    process: int
    began: datetime = Field(default_factory=lambda: datetime.now(UTC))

    @classmethod
    def read(cls, tags: Mapping[str, str]) -> Self | None:
        with suppress(ValidationError):  # of another version of this project
            return cls.model_validate_json(tags[TAG]) if TAG in tags else None
        return None

    def holds(self, lock: Lock) -> bool:
        # Pulumi writes times of its own machine; the clocks are the same, and so is the order.
        return (lock.host, lock.process) == (self.host, self.process) and lock.since >= self.began


class Verdict(NamedTuple):
    """Whether a lock's holder is still running, and how that is known."""

    lock: Lock
    state: State
    who: str
    why: str

    def __str__(self) -> str:
        return f"{self.who} ({self.why})"


def judge(lock: Lock, *, job: Job | None = None, is_only_job: bool = False, is_in_job: bool = False) -> Verdict:
    """Whether a lock is dead.

    Args:
        lock: of the stack.
        job: the job that began to deploy the stack last.
        is_only_job: whether this is a job, and no other job deploys the stack meanwhile.
        is_in_job: whether this is a job: then a host name proves nothing, because runners reuse names.
    """
    is_here = lock.host == socket.gethostname()
    if is_here and _runs_pulumi(lock.process):
        return Verdict(lock, "alive", str(lock), "its process is running on this machine")
    if is_only_job and job and job.holds(lock):
        return Verdict(lock, "dead", job.name, "it has ended, because only one job at a time deploys this stack")
    if is_here and not is_in_job and _PROC.is_dir():
        return Verdict(lock, "dead", str(lock), "its process is no longer running on this machine")
    return Verdict(lock, "unknown", str(lock), "only its own machine can tell whether it is running")


def _runs_pulumi(process: int) -> bool:
    try:
        # proc_pid_stat(5): ID, name in brackets, state.
        name, _, rest = (_PROC / str(process) / "stat").read_text(encoding="utf-8").partition("(")[2].rpartition(")")
    except OSError:
        return False
    return name == "pulumi" and rest.split()[0] not in "ZX"


def held(url: str, *, project: str = "", stack: str = "") -> list[Lock]:
    """The locks in a backend: of all stacks, or of one stack of a project.

    Raises:
        Failure: if they cannot be read.
    """
    found = []
    with backend.reading(url) as (files, root):
        folder = f"{root}/{_FOLDER}" + (f"/organization/{project}/{stack}" if stack else "")
        for path in sorted(files.find(folder)):
            if not path.endswith(".json"):  # the attributes that Pulumi keeps beside a file
                continue
            with suppress(FileNotFoundError):  # released meanwhile
                found.append(_lock(path, files.cat_file(path)))
    return found


def _lock(path: str, content: bytes) -> Lock:
    try:
        return Lock.model_validate({**json.loads(content), "path": path})
    except (ValueError, TypeError):
        return Lock(path=path)


def remove(url: str, lock: Lock) -> None:
    """Removes one lock, if it is still there."""
    with backend.reading(url) as (files, _), suppress(FileNotFoundError):
        files.rm_file(lock.path)


def dead(url: str, consequence: str, *, project: str = "", stack: str = "") -> list[Verdict]:
    """The dead locks on this machine.

    Raises:
        Failure: if an update may be running; the caller names the consequence.
    """
    verdicts = [judge(lock) for lock in held(url, project=project, stack=stack)]
    living = next((each for each in verdicts if each.state != "dead"), None)
    if living:
        raise Failure(
            f"stack {living.lock.stack} is being updated by {living}.\n"
            f"  {consequence}\n"
            "  Run this command again when the update has finished."
        )
    return verdicts


@dataclass(kw_only=True)
class Gate:
    """Gets a deployment past the locks of its stack: removes dead ones, and waits for the others.

    Attributes:
        wait_seconds: maximum wait, from the first lock on.
        is_only_job: see `judge`.
        is_in_job: see `judge`.
    """

    backend: Backend
    wait_seconds: float = WAIT_SECONDS
    is_only_job: bool = False
    is_in_job: bool = False
    say: Callable[[str], None] = print
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _since: float | None = field(default=None, init=False)
    _said: tuple[list[str], float] = field(default=([], 0.0), init=False)

    def get_past(self, job: Job | None) -> None:
        """Returns once the stack has no lock; ``job`` is the one that began to deploy it last.

        Raises:
            Failure: if the time is up.
        """
        url, project = self.backend.url, self.backend.project
        while locks := held(url, project=project, stack=self.backend.stack):
            verdicts = [judge(lock, job=job, is_only_job=self.is_only_job, is_in_job=self.is_in_job) for lock in locks]
            for verdict in verdicts:
                if verdict.state == "dead":
                    self.say(f"removing the lock of a dead run: {verdict}")
                    remove(url, verdict.lock)
            if living := [verdict for verdict in verdicts if verdict.state != "dead"]:
                self._wait(living)

    def _wait(self, living: Sequence[Verdict]) -> None:
        now = self.clock()
        self._since = now if self._since is None else self._since
        waited = now - self._since
        if waited >= self.wait_seconds:
            raise Failure(self._refusal(living))
        told, when = self._said
        names = [str(verdict) for verdict in living]
        if told != names or waited - when >= SAY_SECONDS:
            self._said = names, waited
            for name in names:
                self.say(f"the stack is locked, waiting ({waited:.0f} s of at most {self.wait_seconds:.0f} s): {name}")
        self.sleep(min(POLL_SECONDS, self.wait_seconds - waited))

    def _refusal(self, living: Sequence[Verdict]) -> str:
        listed = "".join(f"\n    {verdict}\n      lock: {verdict.lock.path}" for verdict in living)
        command = shlex.join(["pulumi", "cancel", "--yes", "--stack", self.backend.stack])
        return (
            f"stack {self.backend.stack} is still locked after {self.wait_seconds:.0f} s:{listed}\n"
            "  Two updates at once would damage the state, so nothing was changed.\n"
            "  Run this job again when the other update is done. If its holder says that it is dead, run\n"
            f"  `{command}` first."
        )
