"""Locks of a stack: who holds them, and whether to wait for them or cancel them.

In a self-managed backend, no one releases the lock of a killed run. A lock is dead if its process on this very machine
has ended, or if the site says that its job is finished. All other locks are waited for: two concurrent updates are
worse than a job that has to be run again.
"""

import json
import re
import secrets
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol

from pydantic import BaseModel

from model_serving.hosts import SiteError
from model_serving.hosts.site import Run, RunState
from model_serving.pipelines.backend import Backend
from model_serving.pipelines.holders import Holder, Machine, Register, process_name, process_start
from model_serving.problems import Failure

WAIT_SECONDS: Final = 900
"""Default maximum wait of a deployment for others: longer than a model's rollout takes."""
POLL_SECONDS: Final = 5
SAY_SECONDS: Final = 60
CLAIM_SECONDS: Final = 2
"""Wait between a claim to cancel and the cancellation: `pulumi cancel` removes all locks, including new ones."""
_CLAIM: Final = "cancel-claim"
_PATTERN: Final = re.compile(
    r"^\s*(?P<url>\S+): created by (?P<user>.*)@(?P<host>\S*) \(pid (?P<process>\d+)\) at (?P<since>\S+)"
)

REFUSAL: Final = "error: the stack is currently locked by "
"""Start of Pulumi's error message, which the locks follow, one per line."""

State = Literal["dead", "alive", "unknown"]
_JUDGED: Final[Mapping[RunState, tuple[State, str]]] = {
    "finished": ("dead", "the site says that this run is finished"),
    "running": ("alive", "the site says that this run is running"),
    "unknown": ("unknown", "the site does not know this run"),
}


class RunStates(Protocol):
    """The part of a site that knows about runs."""

    def run_state(self, run: Run) -> RunState: ...


class Lock(BaseModel):
    """A lock as Pulumi reports it."""

    url: str
    user: str
    host: str
    process: int
    since: datetime

    def __str__(self) -> str:
        return f"{self.user}@{self.host}, process {self.process}, since {self.since:%Y-%m-%d %H:%M:%S} UTC"


class Verdict(NamedTuple):
    """State of a lock: who holds it, how its state is known, and the tag of the holder's record."""

    who: str
    state: State
    why: str
    record: str | None = None

    def __str__(self) -> str:
        return f"{self.who} ({self.why})"


def parse(lines: Iterable[str]) -> list[Lock]:
    """The locks in an error message of Pulumi 3.259.0; empty for any other error."""
    return [Lock.model_validate(found.groupdict()) for line in lines if (found := _PATTERN.match(line))]


def dead_in(folder: Path, consequence: str) -> list[Verdict]:
    """The locks of killed updates in a folder of a file backend.

    Raises:
        Failure: if an update may be running; the caller names the consequence.
    """
    verdicts = []
    for path in sorted(folder.rglob("*.json")):
        try:
            verdict = judge(_read(path), {}, Machine.here(), None)
        except FileNotFoundError:  # released meanwhile
            continue
        except (OSError, ValueError, KeyError) as error:
            verdict = Verdict("someone", "unknown", f"the lock {path} cannot be read: {error}")
        if verdict.state != "dead":
            raise Failure(
                f"stack {path.parent.name} is being updated by {verdict}.\n"
                f"  {consequence}\n"
                "  Run this command again when the update has finished."
            )
        verdicts.append(verdict)
    return verdicts


def _read(path: Path) -> Lock:
    content = json.loads(path.read_text(encoding="utf-8"))
    names = {"user": "username", "host": "hostname", "process": "pid", "since": "timestamp"}
    return Lock.model_validate({"url": str(path)} | {name: content[key] for name, key in names.items()})


def judge(lock: Lock, records: Mapping[str, Holder], here: Machine, site: RunStates | None) -> Verdict:
    """Whether a lock's holder is still running, by the records of deployments, this machine and the site, if any."""
    record = _record_of(lock, records)
    if record is None:
        return Verdict(str(lock), *_judge_by_host(lock, here, site))
    return Verdict(str(records[record]), *_judge_by_record(records[record], here, site), record)


def _record_of(lock: Lock, records: Mapping[str, Holder]) -> str | None:
    """Tag of the holder's record: the one with its process, or the only one without a process yet."""
    of_host = {
        name: holder
        for name, holder in records.items()
        if holder.machine.host == lock.host and holder.began <= lock.since
    }
    exact = [name for name, holder in of_host.items() if holder.process == lock.process]
    if exact:
        return max(exact, key=lambda name: of_host[name].began)
    starting = [name for name, holder in of_host.items() if holder.process is None]
    return starting[0] if len(starting) == 1 else None


def _judge_by_host(lock: Lock, here: Machine, site: RunStates | None) -> tuple[State, str]:
    # In a pipeline, the host name proves nothing: runners reuse names for containers on different machines.
    if site is not None or lock.host != here.host or not here.boot:
        return "unknown", "its run left no record"
    if process_start(lock.process) is None:
        return "dead", f"process {lock.process} is no longer running on this machine"
    if (name := process_name(lock.process)) != "pulumi":
        return "dead", f"process {lock.process} on this machine is {name} now"
    return "alive", "its process is running on this machine"


def _judge_by_record(holder: Holder, here: Machine, site: RunStates | None) -> tuple[State, str]:
    if holder.process is not None and here.sees(holder.machine):
        if process_start(holder.process) == holder.started:
            return "alive", "its process is running on this machine"
        return "dead", f"its process {holder.process} is no longer running on this machine"
    if holder.run is None or site is None:
        return "unknown", "only its own machine can tell whether it is running"
    try:
        return _JUDGED[site.run_state(holder.run)]
    except SiteError as error:
        return "unknown", f"the site could not be asked: {str(error).partition(chr(10))[0]}"


class Gate:
    """Gets a deployment past locks: cancels dead ones and waits for the others, up to a maximum from the first lock."""

    def __init__(
        self,
        backend: Backend,
        register: Register,
        *,
        site: RunStates | None,
        wait_seconds: float = WAIT_SECONDS,
        say: Callable[[str], None] = print,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._backend, self._register, self._site, self._say = backend, register, site, say
        self._wait_seconds, self._clock, self._sleep = wait_seconds, clock, sleep
        self._since: float | None = None
        self._said: tuple[list[str], float] = ([], 0)

    def meet(self, held: Sequence[Lock]) -> None:
        """Returns when it is worth trying again; raises `Failure` if the time is up."""
        now = self._clock()
        self._since = now if self._since is None else self._since
        records = self._register.others()
        verdicts = [judge(lock, records, Machine.here(), self._site) for lock in held]
        living = [str(verdict) for verdict in verdicts if verdict.state != "dead"]
        if not living:
            self._cancel(verdicts)
            return
        left = self._since + self._wait_seconds - now
        if left <= 0:
            raise Failure(self._refusal(held, verdicts))
        self._tell(living, waited=now - self._since)
        self._sleep(min(POLL_SECONDS, left))

    def _cancel(self, verdicts: Sequence[Verdict]) -> None:
        claim = secrets.token_hex(6)
        self._backend.set_tag(_CLAIM, claim)
        self._sleep(CLAIM_SECONDS)
        if self._backend.tags().get(_CLAIM) != claim:
            self._say("another job is cancelling the lock; trying again")
            self._sleep(POLL_SECONDS)
            return
        for verdict in verdicts:
            self._say(f"cancelling the lock of a dead run: {verdict}")
        self._backend.cancel()
        # Jobs that claim from now on find no claim, and read the locks again.
        self._backend.remove_tag(_CLAIM)
        for verdict in verdicts:
            if verdict.record:
                self._register.remove(verdict.record)

    def _tell(self, living: list[str], waited: float) -> None:
        told, when = self._said
        if told == living and waited - when < SAY_SECONDS:
            return
        self._said = (living, waited)
        for each in living:
            self._say(f"the stack is locked, waiting ({waited:.0f} s of at most {self._wait_seconds:.0f} s): {each}")

    def _refusal(self, held: Sequence[Lock], verdicts: Sequence[Verdict]) -> str:
        listed = "".join(
            f"\n    {verdict.who}: {verdict.why}\n      lock: {lock} ({lock.url})"
            for lock, verdict in zip(held, verdicts, strict=True)
        )
        command = shlex.join(["pulumi", "cancel", "--yes", "--stack", self._backend.stack])
        return (
            f"stack {self._backend.stack} is still locked after {self._wait_seconds:.0f} s:{listed}\n"
            "  Two updates at once would damage the state, so nothing was changed.\n"
            f"  Run this job again when the other is done. If the holder says that it is dead, run `{command}` first."
        )
