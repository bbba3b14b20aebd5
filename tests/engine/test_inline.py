"""The program handed to the engine by a process of the project's: nothing but the time is different."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.conftest import Whole
from tests.engine.harness import Project


def state(project: Project) -> dict[str, Any]:
    """What the program decides of each resource."""
    keys = ("id", "inputs", "parent", "provider", "protect", "retainOnDelete")
    return {each["urn"]: {key: each.get(key) for key in keys} for each in project.resources()}


@pytest.mark.parametrize(
    "first_inline", [True, pytest.param(False, marks=pytest.mark.thorough("the same the other way round"))]
)
def test_what_one_way_made_the_other_leaves_as_it_is(whole: Whole, first_inline: bool) -> None:
    project = whole("dev")
    made = project.up(inline=first_inline)
    before = state(project)
    again = project.up(inline=not first_inline)
    assert made.changes.keys() == {"create"}, made
    assert again.changes == {}, again
    assert state(project) == before


def test_mistakes_are_told_alike_and_without_a_traceback(whole: Whole) -> None:
    project = whole("dev")
    project.edit_settings("model-serving:models:", "model-serving:modells:")
    plain, inline = (project.up(inline=each, fails=True) for each in (False, True))
    assert "modells" in inline.text
    assert "Traceback" not in inline.text
    # A language host adds that the program has ended.
    assert inline.errors == plain.errors[:-1]
    assert inline.code == plain.code


def test_a_secret_setting_stays_one(whole: Whole) -> None:
    project = whole("dev")
    project.run("config", "set", "--secret", "model-serving:namespace", "hidden-away")
    plain, inline = (project.up(inline=each, fails=True) for each in (False, True))
    assert "hidden-away" not in inline.text
    assert inline.errors == plain.errors[:-1]


def test_a_mistake_in_the_program_is_told_by_its_place(whole: Whole) -> None:
    project = whole("dev")
    module = project.folder / "serving.py"
    module.write_text(f"{module.read_text()}\nnot_there()\n")
    failed = project.up(inline=True, fails=True)
    assert "serving.py" in failed.text
    assert "name 'not_there' is not defined" in failed.text


def test_a_program_that_cannot_be_served_ends_pulumi_before_anything_is_changed(whole: Whole) -> None:
    project = whole("dev")
    # A setting that gRPC's servers do not start with.
    project.environment["GRPC_POLL_STRATEGY"] = "none"
    failed = project.up(inline=True, fails=True)
    assert "connection" in failed.text
    assert project.resources() == []
