"""The folder that is made of a model's repository for a release."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from model_serving.problems import InvalidInput, Problem
from model_serving.releases import release, trial
from model_serving.releases.jobs import Job, Subject
from model_serving.releases.project import Project
from model_serving.releases.release import Built

LOCK = """\
# made by uv
mlserver==1.7.1 \\
    --hash=sha256:aa
scikit-learn==1.7.2 ; python_version >= "3.11" \\
    --hash=sha256:bb
uvicorn[standard]==0.30.0 --hash=sha256:cc
"""


def project(**more: Any) -> Project:
    return Project.model_validate({"name": "iris", "serving": {"repository": "https://gitlab.com/g/s.git"}, **more})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A model's repository after training."""
    root = tmp_path / "model"
    files = {
        "model-settings.json": '{"name": "iris", "parameters": {"version": "$VERSION", "uri": "./iris.joblib"}}',
        "requirements.lock": LOCK,
        "build/iris.joblib": "artefact",
        "build/request.json": "{}",
        "build/.ipynb_checkpoints/old": "",
        "build/__pycache__/old.pyc": "",
        "data/a.csv": "1",
        "data/b.csv": "2",
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def build(root: Path, *, tag: str = "v1.0.1", pipeline: str = "https://p/7", **more: Any) -> Built:
    job = Job(site="GitLab", tag=tag, commit="", is_protected=True, pipeline=pipeline, repository="https://p")
    target = root.parent / f"built-{len([*root.parent.iterdir()])}"
    return release.build(root, project(**more), Subject(job=job, tag=tag, commit="c" * 40), target)


def refusal(root: Path, **more: Any) -> str:
    with pytest.raises(InvalidInput) as refused:
        build(root, **more)
    return str(refused.value)


def test_a_release_holds_settings_lock_provenance_and_what_training_left(root: Path) -> None:
    built = build(root)
    assert built.folder.parts[-2:] == ("iris", "v1.0.1")
    names = {path.relative_to(built.folder).as_posix() for path in built.folder.rglob("*")}
    assert names == {"model-settings.json", "requirements.lock", "provenance.json", "iris.joblib", "request.json"}
    settings = json.loads((built.folder / "model-settings.json").read_text())
    assert settings["parameters"]["version"] == "v1.0.1"
    assert (built.folder / "requirements.lock").read_text() == LOCK


def test_the_provenance_says_where_it_comes_from(root: Path) -> None:
    built = build(root)
    assert json.loads((built.folder / "provenance.json").read_text()) == {
        "repository": "https://p",
        "commit": "c" * 40,
        "tag": "v1.0.1",
        "pipeline": "https://p/7",
        "data": None,
        "packages": {"mlserver": "1.7.1", "scikit-learn": "1.7.2", "uvicorn": "0.30.0"},
    }


def test_the_provenance_leaves_out_what_markers_choose(root: Path) -> None:
    both = "".join(f"numpy=={each} ; python_version {mark} '3.12'\n" for each, mark in (("1.26", "<"), ("2.0", ">=")))
    (root / "requirements.lock").write_text(LOCK + both)
    assert "numpy" not in build(root).provenance["packages"]


def test_a_link_into_dvcs_cache_becomes_a_file(root: Path) -> None:
    (root / "cache").write_text("large")
    (root / "build" / "iris.joblib").unlink()
    (root / "build" / "iris.joblib").symlink_to(root / "cache")
    copied = build(root).folder / "iris.joblib"
    assert not copied.is_symlink()
    assert copied.read_text() == "large"


def test_the_hash_of_the_data_is_of_names_and_bytes(root: Path) -> None:
    def hashed() -> str:
        return str(build(root, data=["data"]).provenance["data"])

    first = hashed()
    assert first.startswith("sha256:")
    assert hashed() == first
    (root / "data" / "b.csv").rename(root / "data" / "c.csv")
    renamed = hashed()
    (root / "data" / "c.csv").write_text("3")
    assert len({first, renamed, hashed()}) == 3


def test_data_that_dvc_keeps_counts_by_its_pointer_pulled_or_not(root: Path) -> None:
    (root / "data.dvc").write_text("outs: []")
    pulled = build(root, data=["data"]).provenance["data"]
    for path in (root / "data").iterdir():
        path.unlink()
    (root / "data").rmdir()
    assert build(root, data=["data"]).provenance["data"] == pulled


def test_everything_that_is_missing_is_told_at_once(tmp_path: Path) -> None:
    told = refusal(tmp_path, data=["data"])
    for each in ("model-settings.json: is missing", "requirements.lock: is missing", "build: is missing", "data[0]"):
        assert each in told


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("model-settings.json", "{}", '"version": "$VERSION" inside "parameters"'),
        ("build/provenance.json", "{}", "build/provenance.json: is what publishing itself writes"),
        ("build/model-settings.json", "{}", "Let training write no model-settings.json."),
        ("build/two\nlines", "", "it holds a file named 'two\\nlines'"),
    ],
)
def test_a_file_that_could_not_be_released_is_refused(root: Path, name: str, content: str, told: str) -> None:
    (root / name).write_text(content)
    assert told in refusal(root)


def test_a_link_to_nothing_is_refused(root: Path) -> None:
    (root / "build" / "weights").symlink_to(root / "nowhere")
    assert f"build/weights: is a link to {root / 'nowhere'}, which does not exist" in refusal(root)


def test_data_that_cannot_be_read_is_refused_by_its_name(root: Path) -> None:
    (root / "data" / "c.csv").symlink_to("lost")
    told = refusal(root, data=["data/"])
    assert told.startswith("data/c.csv: is a link to nothing, or to itself")
    assert "dvc pull" in told


def test_a_pipe_is_no_data(root: Path) -> None:
    os.mkfifo(root / "rows")
    assert refusal(root, data=["rows"]).startswith("rows: is a pipe, a socket or a device")


def test_data_may_be_behind_a_link_out_of_the_repository(root: Path, tmp_path: Path) -> None:
    before = build(root, data=["data/"]).provenance["data"]
    (root / "data").rename(tmp_path / "elsewhere")
    (root / "data").symlink_to(tmp_path / "elsewhere")
    assert build(root, data=["data/"]).provenance["data"] == before


def test_a_link_out_of_the_repository_is_refused_by_its_name(root: Path) -> None:
    (root / "data" / "deep").mkdir()
    (root / "data" / "deep" / "users").symlink_to("/etc/passwd")
    (root / "build" / "data").symlink_to("../data")
    (root / "build" / "notes.txt").symlink_to("/etc/passwd")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("token")
    (root / "build" / "config").symlink_to("../.git/config")
    (root / "build" / "loop").symlink_to("..")
    told = refusal(root)
    assert "build/data/deep/users: is a link to /etc/passwd, which is outside" in told
    assert "build/notes.txt: is a link to /etc/passwd, which is outside" in told
    assert "build/config: is a link to ../.git/config, which is git's own" in told
    assert "build/loop: is a link to .., which is a folder that it is in" in told


@pytest.mark.parametrize("name", ["build", "model-settings.json", "requirements.lock"])
def test_what_is_released_is_not_outside_behind_a_link(root: Path, tmp_path: Path, name: str) -> None:
    (root / name).rename(tmp_path / name)
    (root / name).symlink_to(tmp_path / name)
    assert refusal(root).startswith(f"{name}: is a link to {tmp_path / name}, which is outside")


def test_settings_and_locks_that_are_not_utf_8_are_left_to_the_catalog(root: Path) -> None:
    (root / "model-settings.json").write_bytes('{"name": "vestuário", "v": "$VERSION"}'.encode("latin-1"))
    (root / "requirements.lock").write_bytes("# não\nmlserver==1.7.1 --hash=sha256:aa\n".encode("latin-1"))
    built = build(root)
    assert b'"v": "v1.0.1"' in (built.folder / "model-settings.json").read_bytes()
    assert built.provenance["packages"]["mlserver"] == "1.7.1"


def test_an_empty_build_is_refused(root: Path) -> None:
    (root / "none").mkdir()
    assert "none: is empty" in refusal(root, build="none")


@pytest.mark.parametrize(
    ("there", "here"),
    [
        ("models/iris/v1.0.1/model-settings.json", "model-settings.json"),
        ("models/iris/v1.0.1/requirements.lock", "locks/model.lock"),
        ("models/iris/v1.0.1/request.json", "build/request.json"),
        ("models/iris/v1.0.1", "release.yaml"),
        ("models/iris", "models/iris"),
        ("models/iris/v1.0.10/request.json", "models/iris/v1.0.10/request.json"),
    ],
)
def test_a_problem_of_the_serving_side_names_the_file_of_this_repository(there: str, here: str) -> None:
    problem = Problem(file=there, what="w", consequence="c", remedy="r")
    moved = release.in_this_repository(problem, project(lock="locks/model.lock"), "models/iris/v1.0.1")
    assert moved.file == here


def test_a_remedy_names_the_files_of_this_repository(root: Path) -> None:
    lock = "--output-file models/iris/v1.0.1/requirements.lock"
    problem = Problem(
        file="models/iris/v1.0.1/model-settings.json",
        what='parameters.version is "1", and models/iris/v1.0.10 has the same',
        consequence="c",
        remedy=f'Write "version": "v1.0.1", lock {lock}, put it into models/iris/v1.0.1.',
    )
    moved = release.in_this_repository(problem, project(), "models/iris/v1.0.1")
    assert moved.what == problem.what
    assert moved.remedy == ('Write "version": "$VERSION", lock --output-file requirements.lock, put it into build.')


def test_a_contract_that_cannot_be_read_is_told_before_anything_is_tried(tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text('{"inputs": []}')
    (tmp_path / "response.json").write_text("{")
    with pytest.raises(InvalidInput, match=r"expected: response\.json to be JSON; there is: JSONDecodeError: "):
        trial.run(tmp_path, name="iris", version="v1", python="no-python")


@pytest.mark.parametrize(
    ("installed", "told"),
    [
        ({"mlserver": "1.7.1", "Scikit_Learn": "1.7.2"}, None),
        ({"mlserver": "1.7.1", "extra": "1"}, None),
        ({"scikit-learn": "1.7.2"}, "has no mlserver"),
        ({"mlserver": "1.7.1", "scikit.learn": "1.7.1"}, "scikit-learn is 1.7.1, locked 1.7.2"),
    ],
)
def test_an_environment_is_held_against_the_lock(
    tmp_path: Path, root: Path, installed: dict[str, str], told: str | None
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{json.dumps(installed)}'\n")
    python.chmod(0o755)
    problems = [str(each) for each in trial.problems(str(python), root / "requirements.lock")]
    assert not problems if told is None else told in problems[0]


@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/false"])
def test_a_python_that_does_not_run_is_refused(root: Path, python: str) -> None:
    [problem] = trial.problems(python, root / "requirements.lock")
    assert "does not run" in problem.what
    assert "--python PATH" in problem.remedy


def test_a_release_is_put_in_its_place_as_a_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, target = tmp_path / "built", tmp_path / "models" / "iris-dtc" / "1.0"
    built.mkdir()

    def copy_half(_: Path, place: Path) -> None:
        """What moving to another file system is, on one that is full."""
        place.mkdir()
        (place / "request.json").write_text("{")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(shutil, "move", copy_half)
        with pytest.raises(OSError, match="No space left"):
            release.put(built, target)
    assert list(target.parent.iterdir()) == []
    release.put(built, target)
    assert list(target.parent.iterdir()) == [target]
