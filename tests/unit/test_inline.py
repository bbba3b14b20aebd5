"""The program served to Pulumi by a process beside it, with a small program in Pulumi's place."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import grpc  # type: ignore[import-untyped]
import pytest
from pulumi.runtime.proto import language_pb2, language_pb2_grpc

from ci.program import MODULES, PROGRAM

PROJECT: Final = Path(__file__).resolve().parents[2]
COMMAND: Final = (sys.executable, "-m", "ci.inline", "up", "--stack", "dev")


@pytest.fixture
def pulumi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts a program into Pulumi's place that says who it is and with what it was called, and waits for a line."""
    path = tmp_path / "pulumi"
    path.write_text('#!/bin/sh\necho $$ "$@"\nread -r code\nexit $code\n')
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return path


def start() -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        COMMAND, cwd=PROJECT, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def said(child: subprocess.Popen[str]) -> tuple[int, list[str], str]:
    """Process id of what was started, its arguments, and the address of the program."""
    assert child.stdout
    pid, *arguments, client = child.stdout.readline().split()
    return int(pid), arguments, client.removeprefix("--client=")


@pytest.mark.usefixtures("pulumi")
def test_it_becomes_pulumi_and_ends_as_pulumi_does() -> None:
    child = start()
    pid, arguments, _ = said(child)
    child.communicate("7\n", timeout=20)
    assert (pid, arguments, child.returncode) == (child.pid, ["up", "--stack", "dev"], 7)


@pytest.mark.usefixtures("pulumi")
def test_pulumi_is_told_of_no_packages_to_look_for() -> None:
    child = start()
    _, _, address = said(child)
    with grpc.insecure_channel(address) as channel:
        host = language_pb2_grpc.LanguageRuntimeStub(channel)
        assert not host.GetRequiredPackages(language_pb2.GetRequiredPackagesRequest(), timeout=20).packages
    child.communicate("0\n", timeout=20)


@pytest.mark.usefixtures("pulumi")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_program_outlives_no_pulumi(number: signal.Signals) -> None:
    child = start()
    said(child)
    child.send_signal(number)
    # To the end of the output, which the program's process has open as well.
    child.communicate(timeout=20)
    assert child.returncode == -number


def test_an_interrupt_of_the_terminal_is_left_to_pulumi(pulumi: Path) -> None:
    pulumi.write_text(pulumi.read_text().replace("echo", "trap '' INT\necho"))
    child = start()
    _, _, address = said(child)
    os.killpg(child.pid, signal.SIGINT)
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(timeout=20)
    child.communicate("0\n", timeout=20)
    assert child.returncode == 0


@pytest.mark.usefixtures("pulumi")
def test_an_interrupt_that_ends_pulumi_ends_the_program_without_a_word() -> None:
    child = start()
    said(child)
    os.killpg(child.pid, signal.SIGINT)
    _, errors = child.communicate(timeout=20)
    assert (child.returncode, errors) == (-signal.SIGINT, "")


def test_a_missing_pulumi_is_said_with_the_remedy(tmp_path: Path) -> None:
    ended = subprocess.run(
        COMMAND, cwd=PROJECT, env={"PATH": str(tmp_path)}, check=False, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert "Run `make tools`" in ended.stderr


def test_what_is_imported_ahead_is_what_the_program_imports() -> None:
    """One that is not there would only be slow."""
    imported = set()
    for statement in ast.walk(ast.parse(PROGRAM.read_text())):
        if isinstance(statement, ast.ImportFrom):
            imported.add(statement.module)
        elif isinstance(statement, ast.Import):
            imported.update(name.name for name in statement.names)
    assert imported.issuperset(MODULES)
