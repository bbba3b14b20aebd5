from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from model_serving.pipelines import locks
from model_serving.pipelines.backend import Backend
from model_serving.pipelines.locks import Gate, Job, Lock, judge
from model_serving.problems import Failure
from tests.google_storage import storage

HERE = socket.gethostname()
ELSEWHERE = "runner-1-project-2-concurrent-0"
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
GONE = 2**22 - 1
"""No process has this ID."""
JOB = Job(name="job deploy dev of pipeline 7", commit="c", host=ELSEWHERE, process=23, began=NOW - timedelta(seconds=1))
FOLDER = ".pulumi/locks/organization/model-serving/dev"


def lock(host: str = ELSEWHERE, process: int = 23, since: datetime = NOW) -> Lock:
    return Lock(path="x", username="root", hostname=host, pid=process, timestamp=since)


def test_the_only_job_finds_another_jobs_lock_dead() -> None:
    verdict = judge(lock(), job=JOB, is_only_job=True, is_in_job=True)
    assert (verdict.state, verdict.who) == ("dead", JOB.name)


@pytest.mark.parametrize(
    "other",
    [
        lock(host="laptop"),
        lock(process=24),
        lock(since=JOB.began - timedelta(seconds=1)),
        Lock(path="unreadable"),
    ],
    ids=["machine", "process", "before", "unreadable"],
)
def test_a_lock_that_is_not_the_jobs_is_never_dead(other: Lock) -> None:
    assert judge(other, job=JOB, is_only_job=True, is_in_job=True).state == "unknown"


def test_no_lock_of_another_machine_is_dead_if_other_jobs_may_run() -> None:
    assert judge(lock(), job=JOB, is_in_job=True).state == "unknown"
    assert judge(lock(), job=JOB).state == "unknown"
    assert judge(lock(), is_only_job=True, is_in_job=True).state == "unknown", "no job has said that it is its own"


def test_a_process_that_runs_here_is_alive_whatever_else_is_known(update: subprocess.Popen[bytes]) -> None:
    mine = lock(HERE, update.pid)
    job = JOB.model_copy(update={"host": HERE, "process": update.pid})
    assert judge(mine, job=job, is_only_job=True, is_in_job=True).state == "alive"
    assert judge(mine).state == "alive"
    update.kill()
    # A zombie until its parent asks for it.
    os.waitid(os.P_PID, update.pid, os.WEXITED | os.WNOWAIT)
    assert judge(mine, job=job, is_only_job=True, is_in_job=True).state == "dead"
    assert judge(mine).state == "dead"


def test_on_a_laptop_a_lock_is_dead_once_its_process_is_gone_or_another() -> None:
    assert judge(lock(HERE, GONE)).state == "dead"
    assert judge(lock(HERE, os.getpid())).state == "dead", "this is not pulumi"
    # Runners reuse names for containers on different machines.
    assert judge(lock(HERE, GONE), is_in_job=True).state == "unknown"


class Folder(Backend):
    """The backend of a stack in a folder."""

    def __init__(self, folder: str | Path) -> None:
        url = folder if isinstance(folder, str) else f"file://{folder}?metadata=skip"
        super().__init__(stack="dev", environ={"PULUMI_BACKEND_URL": url})


class Time:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self.during: Callable[[], object] = lambda: None

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        self.during()


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / "Pulumi.yaml").write_text("name: model-serving\n")
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)


def content(of: Lock) -> str:
    # As Go writes a time: nanoseconds, and the zone.
    since = of.since.isoformat().replace("+00:00", ".123456789Z")
    return json.dumps({"pid": of.process, "username": of.user, "hostname": of.host, "timestamp": since})


def write(name: str, of: Lock) -> Path:
    path = Path(FOLDER) / f"{name}.json"
    path.write_text(content(of))
    return path


def gate(backend: Backend, time: Time, said: list[str], wait_seconds: float = 100) -> Gate:
    return Gate(
        backend=backend,
        wait_seconds=wait_seconds,
        is_only_job=True,
        is_in_job=True,
        say=said.append,
        clock=time,
        sleep=time.sleep,
    )


def test_a_dead_lock_is_removed_by_its_name_and_a_living_one_beside_it_is_waited_for(backend: Folder) -> None:
    mine, laptops = write("a", lock()), write("b", lock("laptop"))
    time, said = Time(), list[str]()
    time.during = laptops.unlink
    gate(backend, time, said).get_past(JOB)
    assert not mine.exists()
    assert time.slept == [locks.POLL_SECONDS]
    assert said[0].startswith(f"removing the lock of a dead run: {JOB.name} (it has ended")
    assert "waiting (0 s of at most 100 s): root@laptop, process 23" in said[1]


def test_the_lock_that_a_third_takes_while_two_meet_a_dead_one_is_never_removed(
    backend: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("dead", lock())
    verdict = locks.judge

    def judge_slowly(*arguments: Lock, **options: object) -> locks.Verdict:
        found = verdict(*arguments, **options)  # type: ignore[arg-type]
        if found.state == "dead":
            # The other removes it, and the third begins.
            (Path(FOLDER) / "dead.json").unlink()
            write("living", lock("laptop"))
        return found

    monkeypatch.setattr(locks, "judge", judge_slowly)
    with pytest.raises(Failure, match="still locked"):
        gate(backend, Time(), [], wait_seconds=10).get_past(JOB)
    assert [path.name for path in Path(FOLDER).iterdir()] == ["living.json"]


def test_a_living_run_is_waited_for_with_progress_and_up_to_a_deadline(backend: Folder) -> None:
    path = write("a", lock("laptop"))
    time, said = Time(), list[str]()
    with pytest.raises(Failure, match="Run this job again when the other update is done") as refusal:
        gate(backend, time, said, wait_seconds=132).get_past(JOB)
    assert time.now == 132
    assert set(time.slept) == {locks.POLL_SECONDS, 2}, "no busy loop"
    assert len(said) == 3, said
    assert str(path) in str(refusal.value)
    assert "pulumi cancel --yes --stack dev" in str(refusal.value)


def test_a_mark_is_read_as_it_was_written_and_one_of_another_version_is_none() -> None:
    assert Job.read({locks.TAG: JOB.model_dump_json()}) == JOB
    assert Job.read({locks.TAG: '{"unknown": 1}'}) is None
    assert Job.read({}) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"pid": "x"}', ""])
def test_a_lock_that_cannot_be_read_counts_as_an_update(backend: Folder, text: str) -> None:
    (Path(FOLDER) / "a.json").write_text(text)
    with pytest.raises(Failure, match=r"stack dev is being updated by someone whose lock \S+a.json cannot be read"):
        locks.dead(backend.url, "Nothing was changed.")


def test_only_the_stacks_own_locks_are_found_and_only_locks(backend: Folder) -> None:
    write("a", lock())
    (Path(FOLDER) / "a.json.attrs").write_text("{}")
    for other in ("model-serving/devel", "another/dev"):
        (Path(FOLDER).parents[1] / other).mkdir(parents=True)
        (Path(FOLDER).parents[1] / other / "b.json").write_text(content(lock()))
    assert len(locks.held(backend.url)) == 3
    (found,) = locks.held(backend.url, project="model-serving", stack="dev")
    assert (found.host, found.process, found.stack) == (ELSEWHERE, 23, "dev")
    assert found.since == NOW + timedelta(microseconds=123456)


def test_locks_in_a_bucket_are_found_and_removed_like_those_in_a_folder(
    backend: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with storage() as google:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{google.address}")
        google.objects |= {
            f"state/{FOLDER}/{name}.json": content(lock(host)).encode()
            for name, host in (("a", ELSEWHERE), ("b", "laptop"))
        }
        inside = Folder("gs://acme/state")
        with pytest.raises(Failure, match="root@laptop"):
            gate(inside, Time(), [], wait_seconds=0).get_past(JOB)
        assert [*google.objects] == [f"state/{FOLDER}/b.json"]


@pytest.mark.parametrize(
    ("url", "why"),
    [("s3://bucket", "s3fs"), ("https://api.pulumi.com", "api.pulumi.com"), ("", "PULUMI_BACKEND_URL is not set")],
)
def test_a_backend_that_cannot_be_read_is_said_with_the_way_on(backend: Folder, url: str, why: str) -> None:
    with pytest.raises(Failure, match=why) as refusal:
        gate(Folder(url), Time(), []).get_past(JOB)
    assert "pulumi" in str(refusal.value)
