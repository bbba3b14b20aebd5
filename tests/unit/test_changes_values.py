"""How differences are found and shown."""

from __future__ import annotations

from typing import Any

import pytest

from model_serving.pipelines import values
from model_serving.pipelines.values import LONGEST, parsed, shortened, text_of, written


def differences(
    old: Any, new: Any, kind: str = "kubernetes:core/v1:ConfigMap", **metadata: Any
) -> list[tuple[Any, ...]]:
    states = {"old": {"inputs": old}, "new": {"inputs": new}}
    found = values.differences(kind, {**states, **metadata}, lambda text: text)
    return [(each.path, each.old, each.new) for each in found]


def test_only_the_leaves_that_differ_are_told() -> None:
    old = {"spec": {"replicas": 1, "kept": True, "list": [1, 2]}}
    new = {"spec": {"replicas": 2, "kept": True, "list": [1, 3, 4], "added": {"a": False}}}
    assert differences(old, new) == [
        ("spec.added.a", None, "false"),
        ("spec.list[1]", "2", "3"),
        ("spec.list[2]", None, "4"),
        ("spec.replicas", "1", "2"),
    ]


def test_items_are_told_by_their_names_wherever_they_stand() -> None:
    old = {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}
    new = {"env": [{"name": "B", "value": "3"}, {"name": "A", "value": "1"}]}
    assert differences(old, new) == [("env[B].value", "2", "3")]


def test_where_the_provider_says_that_a_secret_differs_it_is_told_though_it_looks_the_same() -> None:
    where = {'data["a.b"]': {"diffKind": "update", "inputDiff": True}}
    both = {"data": {"a.b": "[secret]", "other": "x"}}
    assert differences(both, both, detailedDiff=where) == [('data["a.b"]', "[secret]", "[secret]")]


def test_the_data_of_kubernetes_secrets_is_hidden_though_the_program_calls_it_no_secret() -> None:
    old = {"data": {"token": "YQ=="}, "metadata": {"labels": {"a": "1"}, "annotations": {"b": "token"}}}
    new = {"data": {"token": "Yg=="}, "metadata": {"labels": {"a": "2"}, "annotations": {"b": "other"}}}
    assert differences(old, new, "kubernetes:core/v1:Secret") == [
        ("data.token", "[secret]", "[secret]"),
        ("metadata.annotations.b", "[secret]", "[secret]"),
        ("metadata.labels.a", "1", "2"),
    ]
    applied = {"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}}}
    assert differences({}, applied)[0][2] == "[secret]"


def test_what_the_engine_marks_is_shown_for_what_it_is() -> None:
    signature = "4dabf18193072939515e22adb298388d"
    assert text_of({"a": {signature: "1b47061264138c4ac30d75fd1eb44270", "plaintext": '"x"'}}) == '{"a": "[secret]"}'
    assert text_of({signature: "c44067f5952c0a294b673a41bacd8c17", "hash": "1"}) == "file"
    assert text_of(f'{{"kubeconfig": {{"{signature}": "1b47061264138c4ac30d75fd1eb44270"}}}}') == "[secret]"
    assert text_of("04da6b54-80e4-46f7-96ec-b56ff0331ba9") == "known after apply"


def test_long_values_are_shown_where_they_differ() -> None:
    same = "sha256:" + "0" * 300
    old, new = f"{same}a tail", f"{same}b tail"
    shown = shortened(old, new), shortened(new, old)
    assert all(each and len(each) <= LONGEST + 2 for each in shown)
    assert shown[0] != shown[1]
    assert shortened("short", None) == "short"
    assert shortened("x" * 1000, None) == "x" * LONGEST + "…"


@pytest.mark.parametrize(
    ("place", "path", "text"),
    [
        ("spec.rules[0].weight", ("spec", "rules", "0", "weight"), "spec.rules[0].weight"),
        ('["spec"]["a.b"][1]', ("spec", "a.b", "1"), 'spec["a.b"][1]'),
        ('labels["say \\"x\\""]', ("labels", 'say "x"'), 'labels["say \\"x\\""]'),
    ],
)
def test_paths_are_read_and_written_as_the_engine_writes_them(place: str, path: tuple[str, ...], text: str) -> None:
    assert parsed(place) == path
    assert written(path) == text
