"""What every command says of a stack that is not there, or not in order: one message, and no traceback."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_serving.__main__ import main
from model_serving.pipelines import stacks
from model_serving.pipelines.backend import Backend
from model_serving.problems import InvalidInput

READ_THE_FILE = (
    ("credentials", "--duty", "plan", "--", "true"),
    ("rollback", "--model", "iris-dtc"),
    ("prune",),
    ("agent",),
)

OF_A_STACK = (*READ_THE_FILE, ("preview",), ("deploy",), ("drift",), ("show",), ("recover",))


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


@pytest.mark.parametrize("command", OF_A_STACK, ids=lambda command: command[0])
@pytest.mark.usefixtures("folder")
def test_an_unknown_stack_is_told_with_the_nearest(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    said = told(command, capsys, stack="prodction")
    assert "stacks/Pulumi.prodction.yaml: does not exist" in said
    assert "Did you mean production? The stacks are production." in said


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("config: {1: 2}", "model-serving:registry is missing"),
        ("config: {model-serving:models: {iris: 2024-01-01}}", 'models.iris is "2024-01-01"'),
        ("config: {model-serving:models: {2024-01-01: {}}}", "model-serving:registry is missing"),
        ("config: {model-serving:models: 2024-13-01}", "cannot be read: month must be in 1..12"),
        ("config: {model-serving:models: !!binary aGk=}", "model-serving:models is"),
        ("config: {model-serving:models: !!set {a}}", "model-serving:models is"),
        ("config: &all {more: *all}", "contains itself through an anchor"),
        ("config: {model-serving:models: {a: {}, a: {}}}", "cannot be read: a is there twice"),
        (f"config: {'[' * 3000}", "nested too deeply"),
        (f"config: {{model-serving:models: 0x{'f' * 5000}}}", "Exceeds the limit (4300 digits)"),
    ],
)
def test_what_only_yaml_has_is_a_mistake_like_any_other(content: str, what: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(what)):
        stacks.parse("dev", content)


def test_a_merged_key_may_be_overridden() -> None:
    models = "model-serving:models: {a: &a {replicas: 1}, b: {<<: *a, replicas: 2}}"
    rest = "model-serving:registry: r, model-serving:gateway: {className: c}"
    assert stacks.parse("dev", f"config: {{{models}, {rest}}}").models["b"].replicas == 2


# How long an example takes depends on the machine.
@settings(deadline=None)
@given(st.text(alphabet="abc:{}[]&*!-\n \"'#?|>1.0%@,", max_size=60))
def test_no_text_of_a_stack_file_ends_in_a_traceback(text: str) -> None:
    with pytest.raises(InvalidInput):
        stacks.parse("dev", f"config:\n  model-serving:models: {text}")


def test_the_stacks_of_the_pipelines_are_known_in_spite_of_their_mistakes(tmp_path: Path) -> None:
    for name, content in {
        "dev": "config:\n  model-serving:ci: {order: 1}\n",
        "flow": '{"config": {"model-serving:ci": {"order": 1}}}',
        "broken": "config:\n  model-serving:models: [\n  model-serving:ci: {order: 1}\n",
        "bytes": "config:\n  model-serving:ci: {order: \xff}\n",
        "local": "config: {}  # no model-serving:ci: here\n",
    }.items():
        (tmp_path / f"Pulumi.{name}.yaml").write_bytes(content.encode("latin-1"))
    (tmp_path / "Pulumi.folder.yaml").mkdir()
    (tmp_path / "Pulumi.nowhere.yaml").symlink_to(tmp_path / "nothing")
    assert stacks.in_pipelines(tmp_path) == ["broken", "bytes", "dev", "flow"]


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
