"""Versions never go backwards, and the same release twice is one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest

from model_serving.problems import InvalidInput
from model_serving.releases.deliver import Delivery, problem_of_order
from model_serving.releases.project import Project
from model_serving.releases.release import Built
from model_serving.releases.serving_repository import ServingRepository

PROJECT = Project.model_validate({"name": "iris", "serving": {"repository": "https://gitlab.com/g/s.git"}})


def repository(**answers: Any) -> Any:
    made = create_autospec(ServingRepository, instance=True)
    made.place.side_effect = lambda name, version: f"models/{name}/{version}"
    for name, answer in answers.items():
        getattr(made, name).return_value = answer
    return made


@pytest.mark.parametrize(
    ("released", "version", "newest"),
    [
        ([], "v0.0.1", None),
        (["v0.0.9"], "v0.0.10", None),
        (["v1.0.0-rc.1"], "v1.0.0", None),
        (["v1.0.0", "v2.0.0"], "v1.0.0", None),
        (["v1.0.0", "v1.1.0-rc.1"], "v1.0.1", None),
        (["v1.0.0", "v1.1.0-rc.1"], "v1.1.0-rc.2", None),
        (["v1.0.0", "v1.1.0-rc.1"], "v0.9.9", "v1.0.0"),
        (["latest"], "v0.1", None),
        (["v0.0.10", "v0.0.9"], "v0.0.9-x", "v0.0.10"),
        (["1.0"], "v1.0.0", "1.0"),
        (["v1.0.0"], "v1.0.0-rc.2", "v1.0.0"),
    ],
)
def test_a_version_has_to_be_newer_than_all_that_are_released(
    released: Sequence[str], version: str, newest: str | None
) -> None:
    problem = problem_of_order(repository(versions=released), "tip", "iris", version)
    assert (problem is None) == (newest is None)
    if problem:
        assert f"{newest} is released already" in problem.what


def provenance(**changes: Any) -> bytes:
    return json.dumps({"commit": "c", "pipeline": "https://p/7", "packages": {}} | changes).encode()


def delivery(folder: Path, theirs: dict[str, str], content: bytes) -> Delivery:
    (folder / "provenance.json").write_bytes(provenance())
    built = Built(name="iris", version="v1", folder=folder, provenance={})
    ours = {"provenance.json": "p1", "iris.joblib": "a1"}
    there = repository(files=theirs, ids=ours, content=content)
    return Delivery(repository=there, project=PROJECT, built=built, say=lambda _: None)


@pytest.mark.parametrize(
    ("theirs", "content", "is_there"),
    [
        ({}, b"", False),
        ({"provenance.json": "p1", "iris.joblib": "a1"}, b"", True),
        ({"provenance.json": "p2", "iris.joblib": "a1"}, provenance(pipeline="https://p/8"), True),
    ],
)
def test_only_the_pipeline_may_differ(
    tmp_path: Path, theirs: dict[str, str], content: bytes, *, is_there: bool
) -> None:
    assert delivery(tmp_path, theirs, content).is_there("tip") == is_there


@pytest.mark.parametrize(
    ("theirs", "content", "files"),
    [
        ({"provenance.json": "p1", "iris.joblib": "a2"}, b"", "iris.joblib"),
        ({"provenance.json": "p1"}, b"", "iris.joblib"),
        ({"provenance.json": "p1", "iris.joblib": "a1", "more": "m"}, b"", "more"),
        ({"provenance.json": "p2", "iris.joblib": "a1"}, provenance(commit="d"), "provenance.json"),
        ({"provenance.json": "p2", "iris.joblib": "a1"}, b"no JSON", "provenance.json"),
        ({"iris.joblib": "a1"}, b"", "provenance.json"),
    ],
)
def test_any_other_difference_is_refused_with_the_file(
    tmp_path: Path, theirs: dict[str, str], content: bytes, files: str
) -> None:
    with pytest.raises(InvalidInput, match=f"with other content: {files}\n"):
        delivery(tmp_path, theirs, content).is_there("tip")
