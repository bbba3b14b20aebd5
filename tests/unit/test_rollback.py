"""A rollback changes one value of a stack file, to what served before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model_serving.catalog import Catalog, Release
from model_serving.pipelines import rollback, stacks
from model_serving.pipelines.backend import Backend
from model_serving.problems import Failure, InvalidInput
from tests.unit import releases

STACK = """\
# what clients rely on
config:
  model-serving:registry: localhost:5000
  model-serving:gateway: {className: contour}
  # A promotion is a change of one line.
  model-serving:models:
    iris: {}
    flow: {replicas: 2}  # kept
    block:
      # pinned
      versions: {"1.1": 100}  # this one
      replicas: 2
    lines:
      versions:
        "1.0": 90
        "1.1": 10
      # after it
      replicas: 2
    bare:
      replicas: 2
encryptionsalt: v1:abc
"""


@pytest.mark.parametrize(
    ("model", "old", "new"),
    [
        ("iris", "    iris: {}\n", '    iris: {versions: {"1.0": 100}}\n'),
        ("flow", "{replicas: 2}  # kept", '{versions: {"1.0": 100}, replicas: 2}  # kept'),
        ("block", '{"1.1": 100}  # this one', '{"1.0": 100}  # this one'),
        ("lines", 'versions:\n        "1.0": 90\n        "1.1": 10\n', 'versions: {"1.0": 100}\n'),
        ("bare", "    bare:\n      replicas", '    bare:\n      versions: {"1.0": 100}\n      replicas'),
    ],
)
def test_only_the_versions_of_the_model_change(model: str, old: str, new: str) -> None:
    assert rollback.pinned(STACK, model, {"1.0": 100}) == STACK.replace(old, new)


def test_several_versions_are_written_with_their_weights() -> None:
    assert 'iris: {versions: {"1.0": 90, "1.1": 10}}' in rollback.pinned(STACK, "iris", {"1.0": 90, "1.1": 10})


def test_what_cannot_be_changed_in_its_place_is_left_alone() -> None:
    text = STACK.replace("    iris: {}\n", "    iris: &same {}\n    other: *same\n")
    with pytest.raises(InvalidInput, match="Write it by hand"):
        rollback.pinned(text, "missing", {"1.0": 100})


def release(version: str) -> Release:
    return releases.release("iris", version)


RELEASED = Catalog(by_name={"iris": tuple(release(version) for version in ("1.0", "1.1", "1.2", "1.3"))})


def update(versions: dict[str, int], *, result: str = "succeeded", kind: str = "update", head: str = "") -> Any:
    value = json.dumps({"iris": {"versions": versions} if versions else {}})
    return {
        "kind": kind,
        "result": result,
        "config": {"model-serving:models": {"value": value}},
        "environment": {"git.head": head},
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stacks, "FOLDER", tmp_path)
    monkeypatch.setattr(stacks.read, "__defaults__", (tmp_path,))
    return tmp_path


def target(folder: Path, monkeypatch: pytest.MonkeyPatch, now: str, *history: Any) -> dict[str, int]:
    lines = ["config:", "  model-serving:registry: r", "  model-serving:gateway: {className: contour}"]
    (folder / "Pulumi.test.yaml").write_text("\n".join([*lines, f"  model-serving:models: {{iris: {now}}}"]))
    monkeypatch.setattr(Backend, "history", lambda _: [*history])
    return dict(rollback.find("test", "iris", RELEASED).weights)


@pytest.mark.parametrize(
    ("now", "history", "expected"),
    [
        ('{versions: {"1.3": 100}}', [update({"1.3": 100}), update({"1.1": 100})], {"1.1": 100}),
        ('{versions: {"1.3": 100}}', [update({"1.2": 100}, result="failed"), update({"1.1": 100})], {"1.1": 100}),
        ('{versions: {"1.3": 100}}', [update({"1.2": 100}, kind="destroy"), update({"1.0": 100})], {"1.0": 100}),
        ('{versions: {"1.2": 50, "1.3": 50}}', [update({"1.1": 90, "1.2": 10})], {"1.1": 90, "1.2": 10}),
        ('{versions: {"1.3": 100}}', [update({"1.2": 0, "1.1": 100})], {"1.1": 100}),
        ('{versions: {"1.3": 100}}', [update({"0.9": 100})], {"1.2": 100}),
        ("{}", [], {"1.2": 100}),
        ("{}", [update({})], {"1.2": 100}),
    ],
)
def test_it_goes_back_to_what_served_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch, now: str, history: list[Any], expected: dict[str, int]
) -> None:
    assert target(folder, monkeypatch, now, *history) == expected


def test_a_prerelease_is_gone_back_to_only_if_a_stack_named_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = ("1.0", "1.1", "1.2.0-rc.1", "1.2", "1.3.0-rc.1")
    monkeypatch.setitem(globals(), "RELEASED", Catalog(by_name={"iris": tuple(release(each) for each in versions)}))
    assert target(folder, monkeypatch, "{}") == {"1.1": 100}
    assert target(folder, monkeypatch, '{versions: {"1.3.0-rc.1": 100}}') == {"1.2": 100}
    assert target(folder, monkeypatch, "{}", update({"1.2.0-rc.1": 100})) == {"1.2.0-rc.1": 100}


def test_a_second_rollback_goes_further_back_and_not_forth(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = [update({"1.1": 100}), update({"1.2": 100}), update({"1.1": 100}), update({"1.0": 100})]
    assert target(folder, monkeypatch, '{versions: {"1.1": 100}}', *history) == {"1.0": 100}


def test_without_named_versions_the_commit_of_the_update_tells_the_newest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollback, "_newest_at", lambda commit, _: {"abc": "1.3", "def": "1.1"}.get(commit))
    assert target(folder, monkeypatch, "{}", update({}, head="abc"), update({}, head="def")) == {"1.1": 100}


def test_the_newest_release_of_a_commit_is_read_from_git() -> None:
    assert rollback._newest_at("HEAD", "iris-dtc") is not None
    assert rollback._newest_at("HEAD", "no-model") is None
    assert rollback._newest_at("no-commit", "iris-dtc") is None


def test_a_stack_without_a_history_goes_by_the_releases(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: Backend) -> list[Any]:
        raise Failure("no backend")

    lines = ["config:", "  model-serving:registry: r", "  model-serving:gateway: {className: contour}"]
    (folder / "Pulumi.test.yaml").write_text("\n".join([*lines, "  model-serving:models: {iris: {}}"]))
    monkeypatch.setattr(Backend, "history", nobody)
    found = rollback.find("test", "iris", RELEASED)
    assert found.weights == {"1.2": 100}
    assert found.source.startswith("the release before 1.3")


@pytest.mark.parametrize(
    ("model", "now", "told"),
    [
        ("rose", "{}", "Name one of iris, e.g. make rollback MODEL=iris"),
        ("iris", '{versions: {"1.0": 100}}', "there is no full release before it"),
    ],
)
def test_what_cannot_go_back_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, model: str, now: str, told: str
) -> None:
    lines = ["config:", "  model-serving:registry: r", "  model-serving:gateway: {className: contour}"]
    (folder / "Pulumi.test.yaml").write_text("\n".join([*lines, f"  model-serving:models: {{iris: {now}}}"]))
    monkeypatch.setattr(Backend, "history", lambda _: [])
    with pytest.raises(InvalidInput, match=told):
        rollback.find("test", model, RELEASED)
