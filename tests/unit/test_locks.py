from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from model_serving.hosts import SiteError
from model_serving.hosts.site import Run, RunState
from model_serving.pipelines import holders, locks
from model_serving.pipelines.backend import Backend
from model_serving.pipelines.holders import Holder, Machine, Register
from model_serving.pipelines.locks import Gate, Lock, judge, parse
from model_serving.problems import Failure

HERE = Machine.here()
ELSEWHERE = Machine(host="runner-1-project-2-concurrent-0", boot="other", processes="pid:[1]")
RUN = Run(name="job deploy dev of pipeline 7", url="https://gitlab.example.com/jobs/8", id="8")
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
REFUSAL = """\
error: the stack is currently locked by 2 lock(s). Either wait for the other process(es) to end or delete the lock \
file with `pulumi cancel`.
  file:///state/.pulumi/locks/organization/p/dev/0e.json?no_tmp_dir=true: created by root@vm (pid 23) at \
2026-11-23T22:56:00Z
  gs://bucket/.pulumi/locks/organization/p/dev/1f.json: created by ACME\\some one@host-2 (pid 7) at \
2026-11-23T22:57:01+01:00
"""


class Site:
    """What a site says of every run."""

    def __init__(self, state: RunState | None) -> None:
        self.state = state

    def run_state(self, run: Run) -> RunState:
        if self.state is None:
            raise SiteError(what="no answer in 30 s", consequence="…", remedy="…")
        return self.state


class Tags(Backend):
    """A backend in memory."""

    def __init__(self) -> None:
        super().__init__(stack="dev", environ={})
        self.__dict__["kept"] = {}
        self.__dict__["cancelled"] = 0

    def tags(self) -> dict[str, str]:
        return {**self.__dict__["kept"]}

    def set_tag(self, name: str, value: str) -> None:
        self.__dict__["kept"][name] = value

    def remove_tag(self, name: str) -> None:
        self.__dict__["kept"].pop(name, None)

    def cancel(self) -> None:
        self.__dict__["cancelled"] += 1


class Time:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process of this machine that runs."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def lock(machine: Machine = ELSEWHERE, process: int = 23) -> Lock:
    return Lock(url="file:///x", user="root", host=machine.host, process=process, since=NOW)


def holder(
    machine: Machine = ELSEWHERE,
    *,
    process: int | None = 23,
    run: Run | None = RUN,
    began: datetime = NOW,
    started: str = "1",
) -> Holder:
    return Holder(machine=machine, process=process, started=started, began=began, user="root", commit="c", run=run)


def test_a_refusal_names_every_lock() -> None:
    first, second = parse(REFUSAL.splitlines())
    assert (first.host, first.process, first.user) == ("vm", 23, "root")
    assert first.since == datetime(2026, 11, 23, 22, 56, tzinfo=UTC)
    assert (second.host, second.process, second.user) == ("host-2", 7, "ACME\\some one")
    assert second.url == "gs://bucket/.pulumi/locks/organization/p/dev/1f.json"


def test_another_error_names_none() -> None:
    assert parse(["error: no stack named 'dev' found", "created by root@vm"]) == []


@pytest.mark.parametrize(("said", "state"), [("finished", "dead"), ("running", "alive"), ("unknown", "unknown")])
def test_the_site_says_whether_a_run_still_runs(said: RunState, state: str) -> None:
    verdict = judge(lock(), {"deploy-1": holder()}, HERE, Site(said))
    assert verdict.state == state
    assert verdict.who == f"{RUN.name} {RUN.url}"


def test_a_site_that_does_not_answer_makes_no_lock_dead() -> None:
    verdict = judge(lock(), {"deploy-1": holder()}, HERE, Site(None))
    assert verdict.state == "unknown"
    assert "no answer in 30 s" in verdict.why


def test_a_persons_lock_on_another_machine_is_never_dead() -> None:
    assert judge(lock(), {"deploy-1": holder(run=None)}, HERE, Site("finished")).state == "unknown"
    assert judge(lock(), {"deploy-1": holder(run=None)}, HERE, None).state == "unknown"


def test_a_lock_without_a_record_in_a_pipeline_is_never_dead() -> None:
    assert judge(lock(HERE, process=2**22 + 1), {}, HERE, Site("finished")).state == "unknown"


def test_on_this_machine_the_process_tells(child: subprocess.Popen[bytes]) -> None:
    started = holders.process_start(child.pid)
    assert started
    mine = {"deploy-1": holder(HERE, process=child.pid, started=started)}
    # Whatever the site says: the job may be cancelled, and its process be at work still.
    assert judge(lock(HERE, child.pid), mine, HERE, Site("finished")).state == "alive"
    another = {"deploy-1": holder(HERE, process=child.pid, started="1")}
    assert judge(lock(HERE, child.pid), another, HERE, Site("running")).state == "dead"
    child.kill()
    # A zombie until its parent asks for it.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert judge(lock(HERE, child.pid), mine, HERE, None).state == "dead"


def test_a_container_with_the_same_name_elsewhere_is_not_this_machine() -> None:
    twin = HERE.model_copy(update={"processes": "pid:[1]"})
    assert judge(lock(twin, 2**22 + 1), {"deploy-1": holder(twin, process=2**22 + 1)}, HERE, None).state == "unknown"


def test_on_a_laptop_a_lock_without_a_record_is_dead_once_its_process_is_gone(child: subprocess.Popen[bytes]) -> None:
    verdict = judge(lock(HERE, child.pid), {}, HERE, None)
    assert verdict.state == "dead", "a process of this id that is not pulumi"
    assert "python" in verdict.why
    assert judge(lock(HERE, 2**22 + 1), {}, HERE, None).state == "dead"
    assert judge(lock(ELSEWHERE, 2**22 + 1), {}, HERE, None).state == "unknown"


def test_a_record_is_found_by_host_and_process_and_before_the_lock() -> None:
    records = {
        "deploy-other-host": holder(HERE),
        "deploy-later": holder(began=NOW + timedelta(seconds=1)),
        "deploy-other-process": holder(process=24),
        "deploy-earlier": holder(began=NOW - timedelta(hours=1)),
        "deploy-starting": holder(process=None),
        "deploy-right": holder(began=NOW - timedelta(seconds=1)),
    }
    assert judge(lock(), records, HERE, Site("finished")).record == "deploy-right"


def test_a_run_that_was_killed_before_it_told_its_process_is_found_if_it_is_the_only_one() -> None:
    records = {"deploy-1": holder(process=None)}
    assert judge(lock(), records, HERE, Site("finished")).state == "dead"
    records["deploy-2"] = holder(process=None)
    assert judge(lock(), records, HERE, Site("finished")).state == "unknown"


def gate(backend: Tags, time: Time, said: list[str], state: RunState, wait_seconds: float = 100) -> Gate:
    return Gate(
        backend,
        Register(backend),
        site=Site(state),
        wait_seconds=wait_seconds,
        say=said.append,
        clock=time,
        sleep=time.sleep,
    )


def recorded(*names: str) -> Tags:
    backend = Tags()
    for name in names:
        backend.set_tag(name, holder(began=datetime.now(UTC)).model_dump_json())
    return backend


def now_lock() -> Lock:
    return Lock(url="file:///x", user="root", host=ELSEWHERE.host, process=23, since=datetime.now(UTC))


def test_a_dead_runs_lock_is_cancelled_by_name_and_its_record_goes() -> None:
    backend, said = recorded("deploy-1"), list[str]()
    gate(backend, Time(), said, "finished").meet([now_lock()])
    assert backend.__dict__["cancelled"] == 1
    assert backend.tags() == {}
    assert said == [
        f"cancelling the lock of a dead run: {RUN.name} {RUN.url} (the site says that this run is finished)"
    ]


def test_of_two_that_want_to_cancel_only_the_last_to_say_so_does() -> None:
    backend, time, said = recorded("deploy-1"), Time(), list[str]()
    sleep = time.sleep

    def somebody_else_claims(seconds: float) -> None:
        sleep(seconds)
        if seconds == locks.CLAIM_SECONDS:
            backend.set_tag("cancel-claim", "somebody else")

    time.sleep = somebody_else_claims  # type: ignore[method-assign]
    gate(backend, time, said, "finished").meet([now_lock()])
    assert backend.__dict__["cancelled"] == 0
    assert said == ["another job is cancelling the lock; trying again"]


def test_a_dead_lock_beside_a_living_one_is_left_because_cancelling_takes_both() -> None:
    backend, said = recorded("deploy-1"), list[str]()
    unknown = Lock(url="file:///y", user="root", host="laptop", process=1, since=datetime.now(UTC))
    gate(backend, Time(), said, "finished").meet([now_lock(), unknown])
    assert backend.__dict__["cancelled"] == 0
    assert "root@laptop" in said[0]


def test_a_living_run_is_waited_for_with_progress_and_up_to_a_deadline() -> None:
    backend, time, said = recorded("deploy-1"), Time(), list[str]()
    waiting = gate(backend, time, said, "running", wait_seconds=130)
    while time.now < 130:
        waiting.meet([now_lock()])
    with pytest.raises(Failure, match="Run this job again when the other is done") as refusal:
        waiting.meet([now_lock()])
    assert time.now == 130
    assert set(time.slept) == {locks.POLL_SECONDS}, "no busy loop"
    assert len(said) == 3, said
    assert RUN.url in str(refusal.value)
    assert "pulumi cancel --yes --stack dev" in str(refusal.value)


def test_records_are_written_found_by_others_and_removed() -> None:
    backend = Tags()
    mine, other = Register(backend), Register(backend)
    record = holder(HERE, began=datetime.now(UTC))
    mine.write(record)
    assert mine.others() == {}
    assert list(other.others().values()) == [record]
    mine.remove()
    assert backend.tags() == {}


def test_records_of_another_version_are_left_and_old_ones_go() -> None:
    backend = recorded("deploy-1")
    backend.set_tag("deploy-2", '{"unknown": 1}')
    backend.set_tag("deploy-3", holder(began=datetime.now(UTC) - timedelta(days=2)).model_dump_json())
    backend.set_tag("team", "models")
    assert list(Register(backend).others()) == ["deploy-1"]
    assert set(backend.tags()) == {"deploy-1", "deploy-2", "team"}


def test_a_record_that_another_writer_overwrote_is_written_again() -> None:
    backend = Tags()
    real = backend.set_tag
    lost: list[str] = []

    def lossy(name: str, value: str) -> None:
        if not lost:
            lost.append(name)
        else:
            real(name, value)

    backend.__dict__["set_tag"] = lossy
    Register(backend).write(holder())
    assert list(backend.tags()) == lost
