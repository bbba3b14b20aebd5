"""Mistakes are refused by the real engine with one clear message, before anything is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import Project

Edit = Callable[[str, str], None]
ALIKE = pytest.mark.thorough("the tests below, and tests/unit/test_live.py and test_preflight.py for each text")


@pytest.fixture
def edit_stack(project: Project) -> Iterator[Edit]:
    path = project.folder / "stacks" / "Pulumi.local.yaml"
    before = path.read_text()

    def edit(old: str, new: str) -> None:
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    yield edit
    path.write_text(before)


def refusal(project: Project) -> str:
    refused = project.up(check=False)
    assert refused.returncode != 0
    assert "nothing was changed" in refused.stdout
    assert "Traceback" not in refused.stdout
    changes = refused.stdout.rpartition("Resources:")[2]
    assert not any(word in changes for word in ("created", "updated", "deleted", "replaced")), changes
    return refused.stdout


@pytest.mark.parametrize(
    ("old", "new", "remedy"),
    [
        pytest.param("iris-dtc: {}", "irs-dtc: {}", "Did you mean iris-dtc?", marks=ALIKE),
        pytest.param("iris-dtc: {}", 'iris-dtc: {versions: {"9.9": 100}}', "Write one of 1.0", marks=ALIKE),
        pytest.param("iris-dtc: {}", "iris-dtc: {replica: 2}", "Did you mean replicas?", marks=ALIKE),
        ("model-serving-local", "elsewhere", "Write one of its contexts: model-serving-local."),
        pytest.param("registry: localhost:5000", "registry: localhost:5009", "which does not answer", marks=ALIKE),
    ],
)
def test_a_stack_that_points_nowhere(project: Project, edit_stack: Edit, old: str, new: str, remedy: str) -> None:
    edit_stack(old, new)
    assert remedy in refusal(project)


def test_mistakes_of_stack_and_models_are_told_together(project: Project, edit_stack: Edit) -> None:
    edit_stack("iris-dtc: {}", "iris-dtc: {replicas: 0}")
    broken = Path(project.folder, "models", "iris-dtc", "1.0", "model-settings.json")
    before = broken.read_text(encoding="utf-8")
    broken.write_text('{"name": "iris-dtc",,}', encoding="utf-8")
    try:
        message = refusal(project)
    finally:
        broken.write_text(before, encoding="utf-8")
    assert "model-serving:models.iris-dtc.replicas is 0" in message
    assert "models/iris-dtc/1.0/model-settings.json" in message
    assert "line 1, column 21" in message
