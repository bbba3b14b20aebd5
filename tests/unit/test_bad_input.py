"""What every command says of a stack that is not there, or not in order: one message, and no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_serving.__main__ import main
from model_serving.pipelines import stacks
from model_serving.pipelines.backend import Backend

READ_THE_FILE = (
    ("credentials", "--duty", "plan", "--", "true"),
    ("rollback", "--model", "iris-dtc"),
    ("prune",),
    ("agent",),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stack files, of which production is in order."""
    (tmp_path / "Pulumi.production.yaml").write_text("config: {}\n")
    monkeypatch.setattr(stacks, "FOLDER", tmp_path)
    return tmp_path


def told(command: tuple[str, ...], capsys: pytest.CaptureFixture[str], *, stack: str) -> str:
    name, *rest = command
    assert main([name, "--stack", stack, *rest]) == 1
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return said.err


@pytest.mark.parametrize("command", READ_THE_FILE, ids=lambda command: command[0])
@pytest.mark.usefixtures("folder")
def test_an_unknown_stack_is_told_with_the_nearest(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    said = told(command, capsys, stack="prodction")
    assert "stacks/Pulumi.prodction.yaml: does not exist" in said
    assert "Did you mean production?" in said


@pytest.mark.parametrize("command", READ_THE_FILE, ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("config: [", "cannot be read: while parsing"),
        ("- a\n", "is not a mapping with the key config"),
        ("config: text\n", "is not a mapping with the key config"),
        ("\xff", "cannot be read: 'utf-8' codec"),
    ],
)
def test_a_malformed_stack_file_is_told(
    command: tuple[str, ...], content: str, what: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "Pulumi.dev.yaml").write_bytes(content.encode("latin-1"))
    assert f"stacks/Pulumi.dev.yaml: {what}" in told(command, capsys, stack="dev")


def test_a_stack_without_outputs_is_told_with_what_brings_it_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Backend, "outputs", lambda _: {})
    assert "Run `make up STACK=dev`" in told(("show",), capsys, stack="dev")
