"""Which releases a stack serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import live
from catalog import Catalog, Release
from problems import InvalidInput
from settings import Settings


def release(name: str, version: str) -> Release:
    folder = Path("models", name, version)
    return Release(
        name=name,
        version=version,
        folder=folder,
        implementation="mlserver_sklearn.SKLearnModel",
        lock=folder / "requirements.lock",
        request=None,
        response=None,
    )


CATALOG = Catalog(by_name={"iris": (release("iris", "1.9"), release("iris", "1.10")), "wine": (release("wine", "1"),)})


def resolve(models: dict[str, Any]) -> tuple[live.LiveModel, ...]:
    settings = Settings.model_validate({"registry": "r", "gateway": {"className": "contour"}, "models": models})
    return live.resolve(settings, CATALOG, file="stacks/Pulumi.test.yaml")


def weights(models: dict[str, Any]) -> dict[str, dict[str, int]]:
    return {
        model.name: {version.release.version: version.weight for version in model.versions} for model in resolve(models)
    }


def test_without_versions_the_newest_release_takes_all_traffic() -> None:
    assert weights({"iris": {}}) == {"iris": {"1.10": 100}}


def test_a_stack_pins_and_splits() -> None:
    assert weights({"iris": {"versions": {"1.9": 100}}}) == {"iris": {"1.9": 100}}
    assert weights({"iris": {"versions": {"1.10": 10, "1.9": 90}}}) == {"iris": {"1.9": 90, "1.10": 10}}


def test_models_that_the_stack_does_not_name_are_not_served() -> None:
    assert [model.name for model in resolve({"wine": {}})] == ["wine"]


def test_unknown_models_and_versions_are_refused_at_once() -> None:
    with pytest.raises(InvalidInput) as refused:
        resolve({"irsi": {}, "iris": {"versions": {"1.1": 100}}, "zebra": {}})
    messages = sorted(str(problem) for problem in refused.value.problems)
    assert len(messages) == 3
    assert "models.iris.versions.1.1 is not in the folder models/iris/" in messages[0]
    assert "Write one of 1.9, 1.10, in quotes" in messages[0]
    assert "models.irsi is not in the folder models/" in messages[1]
    assert "Did you mean iris?" in messages[1]
    assert "Add a release of it, or remove the model from the stack." in messages[2]
