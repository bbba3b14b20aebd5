"""A rollback changes one value of a stack file, to what served before."""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from model_serving import catalog
from model_serving.catalog import Catalog, Release
from model_serving.pipelines import rollback, stacks
from model_serving.pipelines.backend import Backend
from model_serving.problems import Failure, InvalidInput
from model_serving.stack import live
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


def test_what_is_said_of_the_versions_stays_above_them() -> None:
    said = 'versions:  # canary\n        "1.0": 90  # old\n        # new\n        "1.1": 10\n'
    now = STACK.replace('versions:\n        "1.0": 90\n        "1.1": 10\n', said)
    after = '# canary\n      # old\n      # new\n      versions: {"1.0": 100}\n'
    assert rollback.pinned(now, "lines", {"1.0": 100}) == now.replace(said, after)


def test_several_versions_are_written_with_their_weights() -> None:
    assert 'iris: {versions: {"1.0": 90, "1.1": 10}}' in rollback.pinned(STACK, "iris", {"1.0": 90, "1.1": 10})


def test_a_text_that_would_say_something_else_is_not_written() -> None:
    text = STACK.replace("    iris: {}", "    iris: &same {}\n    other: *same")
    with pytest.raises(InvalidInput, match="by hand"):
        rollback.pinned(text, "iris", {"1.2": 100})


def test_what_cannot_be_changed_in_its_place_is_left_alone() -> None:
    text = STACK.replace("    iris: {}\n", "    iris: &same {}\n    other: *same\n")
    with pytest.raises(InvalidInput, match="Write it by hand"):
        rollback.pinned(text, "missing", {"1.0": 100})


SHADOWED = """\
config:
  model-serving:registry: localhost:5000
  model-serving:gateway: {className: contour}
  model-serving:models:
    iris:
      versions: {"1.3": 100, "1.4": 0}
      # on real requests
      shadow: "1.2"  # since Monday
      keepWarm: 1
    flow: {versions: {"1.3": 100}, shadow: "1.2"}
"""


def test_a_setting_that_is_refused_with_these_versions_goes_and_the_others_stay() -> None:
    after, told = rollback.rolled_back(SHADOWED, "test", "iris", {"1.2": 100}, WITH_1_4)
    expected = SHADOWED.replace('versions: {"1.3": 100, "1.4": 0}', 'versions: {"1.2": 100, "1.4": 0}')
    assert after == expected.replace('      shadow: "1.2"  # since Monday\n', "")
    assert [*told] == [
        "1.4 stays deployed without traffic.",
        "shadow is removed: model-serving:models.iris.shadow is 1.2, which has a weight in versions as well.",
        "keepWarm stays as it is.",
    ]


@pytest.mark.parametrize(
    ("now", "after"),
    [
        ('{shadow: "1.2", versions: {"1.3": 100}}', '{versions: {"1.2": 100}}'),
        ('{versions: {"1.3": 100}, shadow: "1.2", replicas: 2}', '{versions: {"1.2": 100}, replicas: 2}'),
        ('{shadow: "1.2"}', '{versions: {"1.2": 100}}'),
        ('{versions: {"1.3": 100}, shadow: "1.1"}', '{versions: {"1.2": 100}, shadow: "1.1"}'),
    ],
)
def test_a_shadow_goes_only_if_it_gets_the_traffic(now: str, after: str) -> None:
    text = SHADOWED.replace('{versions: {"1.3": 100}, shadow: "1.2"}', now).replace("    flow:", "    iris2:")
    released = Catalog(by_name={"iris": WITH_1_4.releases("iris"), "iris2": WITH_1_4.releases("iris")})
    assert f"    iris2: {after}\n" in rollback.rolled_back(text, "test", "iris2", {"1.2": 100}, released)[0]


def test_what_is_refused_nevertheless_is_not_left_in_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "Pulumi.test.yaml"
    path.write_text(SHADOWED.partition("    flow:")[0])
    monkeypatch.setattr(Backend, "history", lambda _: [])
    monkeypatch.setattr(stacks, "PROJECT", folder)
    monkeypatch.setattr(catalog, "read", lambda _: WITH_1_4)

    def refused(*_: object, **__: object) -> None:
        raise InvalidInput.of("stacks/Pulumi.test.yaml", "model-serving:models is wrong", "It would fail.", "Mend it.")

    before = path.read_text()
    with monkeypatch.context() as patched:
        patched.setattr(live, "resolve", refused)
        with pytest.raises(InvalidInput, match="Mend it"):
            rollback.run(argparse.Namespace(stack="test", model="iris"))
    assert path.read_text() == before
    assert [*folder.iterdir()] == [path], "nothing half-written stays"
    assert rollback.run(argparse.Namespace(stack="test", model="iris")) == 0
    assert stacks.read("test", folder).models["iris"].versions == {"1.2": 100, "1.4": 0}


VERSIONS = ("1.0", "1.1", "1.2", "1.3", "1.4")
LIVE: st.SearchStrategy[dict[str, int]] = st.one_of(
    st.just({}),
    st.sampled_from(VERSIONS).map(lambda each: {each: 100}),
    st.tuples(st.sampled_from(VERSIONS), st.sampled_from(VERSIONS), st.sampled_from([0, 1, 10, 50])).map(
        lambda drawn: {drawn[0]: 100} if drawn[0] == drawn[1] else {drawn[0]: 100 - drawn[2], drawn[1]: drawn[2]}
    ),
)
OTHERS = st.fixed_dictionaries(
    {},
    optional={
        "shadow": st.sampled_from(VERSIONS),
        "keepWarm": st.integers(0, 4),
        "autoscaling": st.just({"minimum": 2, "maximum": 5}),
        "resources": st.sampled_from([{"memory": "2Gi"}, {"cpu": "500m"}]),
        "requestSize": st.sampled_from(["1Mi", "8Mi", "64Mi"]),
        "contract": st.just({"check": False}),
        "environment": st.just({"NAME": "a text\nof two lines"}),
    },
)


# How long an example takes depends on the machine.
@settings(deadline=None)
@given(now=LIVE, others=OTHERS, before=LIVE, is_flow=st.booleans(), is_versions_first=st.booleans())
def test_whatever_was_live_the_result_is_accepted(
    now: dict[str, int], others: dict[str, Any], before: dict[str, int], is_flow: bool, is_versions_first: bool
) -> None:
    versions = {"versions": now} if now else {}
    model = versions | others if is_versions_first else others | versions
    models = yaml.dump({"iris": model, "rose": {}}, default_flow_style=is_flow, sort_keys=False)
    head = "config:\n  model-serving:registry: r\n  model-serving:gateway: {className: contour}\n"
    text = f"{head}  model-serving:models:\n{textwrap.indent(models, ' ' * 4)}"
    released = Catalog(
        by_name={name: tuple(releases.release(name, each) for each in VERSIONS) for name in ("iris", "rose")}
    )
    try:
        live.resolve(stacks.parse("test", text), released, file="stacks/Pulumi.test.yaml")
    except InvalidInput:
        return
    weights = {version: weight for version, weight in before.items() if weight} or {"1.0": 100}
    after, told = rollback.rolled_back(text, "test", "iris", weights, released)
    found = live.resolve(stacks.parse("test", after), released, file="stacks/Pulumi.test.yaml")
    iris, rose = found
    assert {each.release.version: each.weight for each in iris.versions if each.weight} == weights
    assert rose.settings == stacks.parse("test", text).models["rose"]
    kept = yaml.safe_load(after)["config"]["model-serving:models"]["iris"].keys() - {"versions"}
    assert {line.split()[0] for line in told} >= model.keys() - {"versions"}, "a line about each"
    assert model.keys() - {"versions", "shadow"} == kept - {"shadow"}, "only a shadow cannot stay"


def release(version: str) -> Release:
    return releases.release("iris", version)


RELEASED = Catalog(by_name={"iris": tuple(release(version) for version in ("1.0", "1.1", "1.2", "1.3"))})
WITH_1_4 = Catalog(by_name={"iris": (*RELEASED.releases("iris"), release("1.4")), "flow": RELEASED.releases("iris")})


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
    monkeypatch.setattr(rollback, "_newest_at", lambda commit, *_: {"abc": "1.3", "def": "1.1"}.get(commit))
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
    "value", ["{", "[]", '{"iris": 5}', '{"iris": {"versions": {"1.1": "all"}}}', '{"iris": null}']
)
def test_a_history_that_is_not_understood_is_passed_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    strange = update({"1.1": 100}) | {"config": {"model-serving:models": {"value": value}}}
    assert target(folder, monkeypatch, '{versions: {"1.3": 100}}', strange, update({"1.0": 100})) == {"1.0": 100}


def test_a_shadow_was_not_what_served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollback, "_newest_at", lambda _, __, shadow: "1.1" if shadow == "1.2" else "1.2")
    value = json.dumps({"iris": {"shadow": "1.2"}})
    shadowed = update({}, head="abc") | {"config": {"model-serving:models": {"value": value}}}
    assert target(folder, monkeypatch, '{versions: {"1.3": 100}}', shadowed) == {"1.1": 100}


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
