"""What a killed update left is found by reading the folder of the state."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from model_serving.pipelines import recover as command
from model_serving.pipelines.backend import Backend
from model_serving.pipelines.lost_images import LostImage
from model_serving.problems import Failure

DEAD_PROCESS = 2**22 - 1
URN = "urn:pulumi:local::model-serving::a:b:C::iris"
PENDING = {"type": "updating", "resource": {"urn": URN, "type": "kubernetes:apps/v1:Deployment"}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The backend's folder, in a project."""
    folder = tmp_path / ".pulumi"
    (folder / "locks/organization/model-serving/local").mkdir(parents=True)
    (folder / "stacks/model-serving").mkdir(parents=True)
    (tmp_path / "Pulumi.yaml").write_text("name: model-serving\n")
    monkeypatch.chdir(tmp_path)
    return folder


def recover(folder: Path) -> int:
    url = f"file://{folder.parent}?metadata=skip"
    return command.recover(Backend(stack="local", environ={**os.environ, "PULUMI_BACKEND_URL": url}))


@pytest.fixture
def written() -> list[dict[str, Any]]:
    """The states that were written."""
    return []


@pytest.fixture
def commands(folder: Path, written: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What Pulumi is asked to do, instead of its doing it."""
    asked: list[list[str]] = []

    def note(command: list[str], *, input: str = "", **_: Any) -> subprocess.CompletedProcess[str]:  # noqa: A002 - as subprocess.run
        asked.append(command)
        if command[:3] == ["pulumi", "stack", "import"]:
            written.append(json.loads(input)["deployment"])
        return subprocess.CompletedProcess(command, 0, exported(folder) if "export" in command else "", "")

    monkeypatch.setattr(subprocess, "run", note)
    return asked


def exported(folder: Path) -> str:
    state = json.loads((folder / "stacks/model-serving/local.json").read_text())
    return json.dumps({"version": 3, "deployment": state["checkpoint"]["latest"]})


def write_lock(folder: Path, process: int, host: str = socket.gethostname()) -> None:
    # As Go writes a time: nanoseconds, and the zone.
    content = {"pid": process, "username": "me", "hostname": host, "timestamp": "2026-11-23T23:34:22.123456789+00:00"}
    (folder / "locks/organization/model-serving/local/a.json").write_text(json.dumps(content))


def write_state(folder: Path, *pending: dict[str, Any]) -> None:
    state = {"checkpoint": {"latest": {"resources": [], "pending_operations": [*pending]}}}
    (folder / "stacks/model-serving/local.json").write_text(json.dumps(state))


def test_nothing_to_do_takes_no_command(folder: Path, commands: list[list[str]]) -> None:
    assert recover(folder) == 0
    write_state(folder)
    assert recover(folder) == 0
    assert commands == []


def test_the_lock_of_a_dead_process_is_removed(
    folder: Path, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    write_lock(folder, DEAD_PROCESS)
    assert recover(folder) == 0
    assert commands == []
    assert [*(folder / "locks/organization/model-serving/local").iterdir()] == []
    assert "removing the lock of a killed update: me@" in capsys.readouterr().out


def test_the_lock_of_another_machine_is_left(folder: Path, commands: list[list[str]]) -> None:
    write_lock(folder, DEAD_PROCESS, host="elsewhere")
    with pytest.raises(Failure, match=r"Run this command again when the update has finished\."):
        recover(folder)
    assert commands == []


def test_a_living_update_is_not_disturbed(
    folder: Path, commands: list[list[str]], update: subprocess.Popen[bytes]
) -> None:
    write_lock(folder, update.pid)
    told = f"stack local is being updated by me@{socket.gethostname()}, process {update.pid}"
    with pytest.raises(Failure, match=told):
        recover(folder)
    assert commands == []


def test_a_lock_that_cannot_be_read_is_taken_for_an_update(folder: Path, commands: list[list[str]]) -> None:
    (folder / "locks/organization/model-serving/local/a.json").write_text('{"pid": 1}')
    with pytest.raises(Failure, match="stack local is being updated by someone"):
        recover(folder)
    assert commands == []


def test_what_was_being_changed_is_looked_up(folder: Path, commands: list[list[str]]) -> None:
    write_state(folder, PENDING)
    assert recover(folder) == 0
    assert [command[1] for command in commands] == ["stack", "refresh"]
    assert f"--target={URN}" in commands[-1]


def test_an_object_that_was_being_made_is_taken_into_the_state_and_looked_up(
    folder: Path, commands: list[list[str]], written: list[dict[str, Any]]
) -> None:
    object_ = {"metadata": {"name": "iris-1-0", "namespace": "models"}}
    made = {"urn": URN, "type": "kubernetes:apps/v1:Deployment", "inputs": object_}
    write_state(folder, {"type": "creating", "resource": made})
    assert recover(folder) == 0
    (deployment,) = written
    assert deployment["resources"] == [{**made, "id": "models/iris-1-0", "outputs": object_}]
    assert deployment["pending_operations"] == []
    assert [command[1:3] for command in commands][-2:] == [["stack", "import"], ["refresh", "--skip-preview"]]
    assert f"--target={URN}" in commands[-1]


def test_an_image_that_was_being_made_is_left_to_the_update_and_told_once(
    folder: Path, commands: list[list[str]], written: list[dict[str, Any]]
) -> None:
    write_state(folder, {"type": "creating", "resource": {"urn": URN, "type": "docker-build:index:Image"}})
    assert recover(folder) == 0
    assert written == [{"resources": [], "pending_operations": []}]
    assert commands[-1][:3] == ["pulumi", "stack", "import"]


def test_an_image_that_the_registry_has_lost_is_built_again(
    folder: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = LostImage(urn=URN, reference="localhost:5000/iris:1.0", digest="sha256:a")
    monkeypatch.setattr("model_serving.pipelines.lost_images.find", lambda state: [lost] if state else [])
    write_state(folder)
    assert recover(folder) == 0
    (command,) = commands
    # Not an update of the image alone, which can leave a state that Pulumi refuses to read.
    assert command == ["pulumi", "state", "taint", URN, "--yes", "--stack", "local"]
    assert "localhost:5000/iris:1.0 is no longer in the registry and will be rebuilt" in capsys.readouterr().out


def test_the_command_is_there() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "model_serving", "recover", "--help"], capture_output=True, text=True, check=True
    )
    assert "python -m model_serving recover --stack local" in shown.stdout
