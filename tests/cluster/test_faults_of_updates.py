"""Updates that are killed, that meet each other, or that find the disk full: the next plain `make up` gets over it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.conftest import CLUSTER, Project
from tests.cluster.faults import load_of, version
from tests.cluster.stack import MODEL, UPDATE, Stack, name_of
from tests.conftest import Figure

pytestmark = pytest.mark.as_left

MOMENTS: Final = 2
MOMENTS_IN_ALL: Final = 10
RELEASE_SECONDS: Final = 8
"""About what a release takes, the moments are within it."""
FASTEST_SECONDS: Final = 4
"""No release is faster: each of few moments is to be within it."""
STATE_BYTES: Final = 512 << 20
"""etcd alone sets aside 64 MiB for its log."""


def objects(project: Project) -> set[str]:
    """What of the model is in the cluster, but for pods that are still on their way out."""
    listed = project.kubectl("get", "deployments,services,networkpolicies,httproutes", "--output=name").stdout
    return {name for name in listed.split() if f"/{MODEL}" in name}


def route_names(version: str) -> tuple[str, str, str]:
    """The model's own routes, and that of a version."""
    return f"/{MODEL}", f"/{MODEL}.grpc", f"/{MODEL}.{version.replace('.', '-')}"


def kill_pulumi(project: Project) -> bool:
    """`kill -9` of the process that a person started, whatever its children make of it; whether there was one."""
    found = [pid for pid in _processes("pulumi") if _folder_of(pid) == project.folder]
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    return bool(found)


def _processes(name: str) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if folder.joinpath("comm").read_text().strip() == name:
                yield int(folder.name)
        except OSError:
            continue


def _folder_of(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None


def test_killed_updates_are_got_over_by_the_next_one(stack: Stack, figure: Figure, *, is_thorough: bool) -> None:
    count, span = (MOMENTS_IN_ALL, RELEASE_SECONDS) if is_thorough else (MOMENTS, FASTEST_SECONDS)
    seed = time.time_ns() % 1_000_000
    chance = random.Random(seed)  # noqa: S311 - moments, no secrets
    moments = sorted(chance.uniform(0.3, span) for _ in range(count))
    print(f"seed {seed}: killed after", *(f"{moment:.1f}" for moment in moments), "s")
    recovered, killed = [], 0
    with load_of(stack.project) as load:
        for moment in moments:
            new = stack.release()
            with stack.update(*UPDATE):
                time.sleep(moment)
                # A release that was faster than its moment is not killed, which is one of the ways it can go.
                killed += kill_pulumi(stack.project)
            began = time.monotonic()
            stack.project.make("up")
            recovered.append(time.monotonic() - began)
            assert version() == new, f"after a kill at {moment:.1f} s, seed {seed}"
        stack.await_pods(1)
    load.report.check(stack.gateway_log)
    stack.project.up("--expect-no-changes")
    assert killed >= count / 2
    left = {name for name in objects(stack.project) if name_of(new) not in name and not name.endswith(route_names(new))}
    assert not left
    figure(
        f"{killed} of {count} killed, seed {seed}, after {', '.join(f'{moment:.1f}' for moment in moments)} s; "
        f"the next update took {max(recovered):.1f} s at most; {load.report}"
    )


@pytest.mark.thorough("killed updates that go on, above; tests/unit/test_interrupted.py and test_recover.py")
def test_a_killed_release_that_is_taken_back_leaves_nothing(stack: Stack) -> None:
    stack.project.clean()
    before = objects(stack.project)
    new = stack.release()
    with stack.update(*UPDATE) as update:
        update.read_until(f"apps/v1:Deployment {name_of(new)} creating")
        time.sleep(1)
        assert kill_pulumi(stack.project)
    stack.take_back(new)
    stack.project.make("up")
    assert version() == "1.0"
    assert objects(stack.project) == before


@pytest.mark.thorough("tests/engine/test_deploy.py, where one of two deployments waits")
def test_the_second_of_two_updates_waits_or_is_refused(stack: Stack, figure: Figure) -> None:
    new = stack.release()
    with load_of(stack.project) as load, stack.update() as first:
        first.read_until("Updating (local)")
        second = stack.project.make("up", check=False)
        assert first.wait() == 0, first.said
    if second.returncode:
        assert "stack local is being updated by" in second.stdout
        assert "Run this command again when the update has finished." in second.stdout
        assert "Traceback" not in second.stdout
    assert version() == new
    stack.project.up("--expect-no-changes")
    load.report.check(stack.gateway_log)
    figure(f"the second was {'refused' if second.returncode else 'let through after the first'}; {load.report}")


@contextmanager
def small_state_folder(stack: Stack) -> Iterator[Path]:
    """The checkout's state folder on a small file system of its own, with the cluster running from there."""
    project = stack.project
    state, aside = project.folder / ".state", project.folder / ".aside"
    project.run("python", "-m", "local.cluster", "stop", "--name", CLUSTER)
    state.rename(aside)
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={STATE_BYTES}", "tmpfs", str(state)], check=True)
    try:
        subprocess.run(["cp", "--archive", f"{aside}/.", str(state)], check=True)
        # `make up` would first ask for more room than there is; of a cluster that runs it does not.
        project.run("python", "-m", "local.cluster", "start", "--name", CLUSTER)
        yield state
        # What happened to the state is what the next tests go on with.
        project.run("python", "-m", "local.cluster", "stop", "--name", CLUSTER)
        shutil.rmtree(aside)
        subprocess.run(["cp", "--archive", f"{state}/.", f"{aside}/"], check=True)
    finally:
        project.run("python", "-m", "local.cluster", "stop", "--name", CLUSTER, check=False)
        subprocess.run(["umount", str(state)], check=True)
        state.rmdir()
        aside.rename(state)


def fill(folder: Path) -> Path:
    """Takes all the room that is left."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(b"x" * size)
            except OSError:
                size //= 2
    return filler


def test_a_full_disk_loses_nothing(stack: Stack, figure: Figure) -> None:
    with small_state_folder(stack) as state:
        stack.project.make("up")
        new = stack.release()
        with load_of(stack.project) as load:
            filler = fill(state)
            full = stack.project.make("up", check=False)
            assert full.returncode != 0
            assert "no space left on device" in full.stdout.lower(), full.stdout
            assert "Traceback" not in full.stdout, full.stdout
            filler.unlink()
            began = time.monotonic()
            stack.project.make("up")
            seconds = time.monotonic() - began
            assert version() == new
        load.report.check(stack.gateway_log)
        stack.project.up("--expect-no-changes")
    stack.project.make("cluster")
    figure(f"with room again, the next update took {seconds:.1f} s; {load.report}")


@pytest.fixture(autouse=True)
def enough_room() -> None:
    free = shutil.disk_usage("/tmp").free
    assert free > 2 * STATE_BYTES, f"{free >> 20} MiB are free in /tmp, which the tests would fill"
