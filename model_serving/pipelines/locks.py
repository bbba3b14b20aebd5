"""Locks of a stack: whose they are, and whether to wait for them or to cancel them.

A backend of one's own has locks that nobody releases when the run that took them is killed. A lock is dead if its
process, on this very machine, is gone or another one now; or if the site says that its run is finished. Everything else
is waited for: two runs that write at once are worse than a job that has to be run again.
"""

from __future__ import annotations

import re
import secrets
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, Protocol

from model_serving.hosts import SiteError
from model_serving.hosts.runs import Run, RunState
from model_serving.pipelines.backend import Backend
from model_serving.pipelines.holders import Holder, Machine, Register, process_name, process_start
from model_serving.problems import Failure

WAIT_SECONDS: Final = 900
"""How long a deployment waits for others by default: longer than a model's rollout takes."""
POLL_SECONDS: Final = 5
SAY_SECONDS: Final = 60
CLAIM_SECONDS: Final = 2
"""How long who wants to cancel looks whether somebody else does: `pulumi cancel` removes every lock, new ones too."""
_CLAIM: Final = "cancel-claim"
_PATTERN: Final = re.compile(
    r"^\s*(?P<url>\S+): created by (?P<user>.*)@(?P<host>\S*) \(pid (?P<pid>\d+)\) at (?P<at>\S+)"
)


class Locked(Failure):
    """The stack is locked by somebody who may be alive; nothing was changed. The message has three parts."""


class RunStates(Protocol):
    """The part of a site that knows of runs."""

    def run_state(self, run: Run) -> RunState: ...


@dataclass(frozen=True, kw_only=True)
class Lock:
    """A lock as Pulumi names it when it refuses to start."""

    url: str
    user: str
    host: str
    process: int
    since: datetime

    def __str__(self) -> str:
        return f"{self.user}@{self.host}, process {self.process}, since {self.since:%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is known of a lock.

    Attributes:
        who: its holder, for people.
        why: how that is known.
        record: tag of the holder's record, if it left one.
    """

    state: Literal["dead", "alive", "unknown"]
    who: str
    why: str
    record: str | None = None


def parse(lines: Iterable[str]) -> list[Lock]:
    """The locks that a refusal of Pulumi 3.259.0 names; none if it was something else that went wrong."""
    return [
        Lock(
            url=found["url"],
            user=found["user"],
            host=found["host"],
            process=int(found["pid"]),
            since=datetime.fromisoformat(found["at"]),
        )
        for line in lines
        if (found := _PATTERN.match(line))
    ]


def judge(lock: Lock, records: Mapping[str, Holder], here: Machine, site: RunStates | None) -> Verdict:
    """Whether a lock's holder still runs.

    Args:
        lock: what is in the way.
        records: what deployments left, by tag.
        here: this machine.
        site: where this job runs; None on a person's machine.
    """
    record = _record_of(lock, records)
    if record is None:
        return _judge_by_host(lock, here, site)
    holder = records[record]
    if holder.process is not None and here.sees(holder.machine):
        if process_start(holder.process) == holder.started:
            return Verdict(state="alive", who=str(holder), why="its process runs on this machine", record=record)
        why = f"process {holder.process} of this machine, which was its, is gone"
        return Verdict(state="dead", who=str(holder), why=why, record=record)
    return _ask(holder, record, site)


def _record_of(lock: Lock, records: Mapping[str, Holder]) -> str | None:
    """The tag of the holder's record: by its process, else the only one that had not yet started one."""
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


def _judge_by_host(lock: Lock, here: Machine, site: RunStates | None) -> Verdict:
    who = str(lock)
    # In a pipeline the host's name proves nothing: runners give one name to the containers of different machines.
    if site is not None or lock.host != here.host or not here.boot:
        return Verdict(state="unknown", who=who, why="it left no record of its run")
    if process_start(lock.process) is None:
        return Verdict(state="dead", who=who, why="that process of this machine is gone")
    if (name := process_name(lock.process)) != "pulumi":
        return Verdict(state="dead", who=who, why=f"that process of this machine is {name} now")
    return Verdict(state="alive", who=who, why="that process runs on this machine")


def _ask(holder: Holder, record: str, site: RunStates | None) -> Verdict:
    who = str(holder)
    if holder.run is None or site is None:
        return Verdict(state="unknown", who=who, why="only its own machine can tell whether it runs", record=record)
    try:
        state = site.run_state(holder.run)
    except SiteError as error:
        said = str(error).partition("\n")[0]
        return Verdict(state="unknown", who=who, why=f"the site could not be asked: {said}", record=record)
    verdicts: dict[RunState, Verdict] = {
        "finished": Verdict(state="dead", who=who, why="the site says that this run is finished", record=record),
        "running": Verdict(state="alive", who=who, why="the site says that this run is running", record=record),
        "unknown": Verdict(state="unknown", who=who, why="the site does not know this run", record=record),
    }
    return verdicts[state]


class Gate:
    """Gets a deployment past locks: cancels dead ones, waits for the others, up to a deadline.

    Args:
        wait_seconds: for how long, from the first lock that is met.
        say: prints a line.
        clock: seconds, from any start.
    """

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
        self._here = Machine.here()
        self._since: float | None = None
        self._said: tuple[list[str], float] = ([], 0)

    def meet(self, held: Sequence[Lock]) -> None:
        """Returns when another attempt is worth it.

        Raises:
            Locked: if the time is up.
        """
        now = self._clock()
        self._since = now if self._since is None else self._since
        records = self._register.others()
        verdicts = [judge(lock, records, self._here, self._site) for lock in held]
        if all(verdict.state == "dead" for verdict in verdicts):
            self._cancel(verdicts)
            return
        left = self._since + self._wait_seconds - now
        if left <= 0:
            raise Locked(self._refusal(held, verdicts))
        self._tell(verdicts, waited=now - self._since)
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
            self._say(f"cancelling the lock of a dead run: {verdict.who} ({verdict.why})")
        self._backend.cancel()
        # Whoever claims from now on finds no claim, and looks at the locks anew.
        self._backend.remove_tag(_CLAIM)
        for verdict in verdicts:
            if verdict.record:
                self._register.remove(verdict.record)

    def _tell(self, verdicts: Sequence[Verdict], waited: float) -> None:
        waited_for = [f"{verdict.who} ({verdict.why})" for verdict in verdicts if verdict.state != "dead"]
        told, when = self._said
        if told == waited_for and waited - when < SAY_SECONDS:
            return
        self._said = (waited_for, waited)
        for each in waited_for:
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
            "  Run this job again when the other is done. If it is dead, which whoever is named above can tell, "
            f"run `{command}` first."
        )
