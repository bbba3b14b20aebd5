"""The command ``review`` with the real engine: what a branch adds is served beside the stack, and is gone again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.engine.checkout import Ended, commit, git, run
from tests.engine.conftest import Whole
from tests.engine.empty_registry import EmptyRegistry
from tests.engine.harness import AUTHORITY, ENDPOINT, ROOT, Project
from tests.unit.conftest import serving

MODEL = "iris-dtc"


@pytest.fixture
def project(whole: Whole, tmp_path: Path) -> Iterator[Project]:
    """A branch of a serving repository that adds a release; its stack has an encryption salt of its own."""
    project = whole("local")
    kubeconfig = {
        "clusters": [
            {
                "name": "c",
                "cluster": {
                    "server": f"https://{os.environ[ENDPOINT]}",
                    "certificate-authority": os.environ[AUTHORITY],
                },
            }
        ],
        "users": [{"name": "u", "user": {"token": str(project.cloud.folder)}}],
        "contexts": [{"name": "model-serving-local", "context": {"cluster": "c", "user": "u"}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    project.environment["KUBECONFIG"] = str(tmp_path / "kubeconfig")
    with serving(EmptyRegistry) as registry:
        project.edit_settings("localhost:5000\n", f"{registry}\n")
        project.edit_settings("config:\n", "config:\n  model-serving:ci: {order: 1, review: {}}\n")
        add_release(project, tmp_path)
        yield project


def add_release(project: Project, folder: Path) -> None:
    """On a branch; what was there before is the main branch of the remote."""
    commit(project)
    origin = str(folder / "origin")
    git(project, "clone", "--quiet", "--bare", ".", origin)
    git(project, "remote", "add", "origin", origin)
    git(project, "switch", "--quiet", "--create", "branch")
    release = project.folder / "models" / MODEL / "1.1"
    shutil.copytree(release.with_name("1.0"), release)
    settings = release / "model-settings.json"
    settings.write_text(settings.read_text().replace('"1.0"', '"1.1"'))
    commit(project)


def review(project: Project, *options: str) -> Ended:
    return run(project, "review", "--stack", project.stack, "--request", "12", *options)


def served(project: Project) -> set[str]:
    return {each["outputs"]["metadata"]["name"] for each in project.cloud.resources("kubernetes").values()}


def test_what_a_branch_adds_is_served_until_it_is_removed_and_no_state_remembers_it(project: Project) -> None:
    before = project.export()
    for _ in range(2):
        ended = review(project)
        assert ended.code == 0, ended
        assert "http://127.0.0.1:8080/mlapi/review/12/v2/models/iris-dtc/infer" in ended.text
        assert {f"review-12-{MODEL}-1-1", f"review-12-{MODEL}", "review-12-contract"} <= served(project)
        assert all(name.startswith("review-12-") for name in served(project)), "nothing of the stack's own"
    assert project.export() == before
    assert git(project, "status", "--porcelain", "--", "stacks") == ""
    removed = review(project, "--remove")
    assert removed.code == 0, removed
    assert served(project) == set()
    assert "nothing to remove" in review(project, "--remove").text


def test_what_does_not_work_is_told_and_removed(project: Project) -> None:
    project.cloud.fail({"fault": "permission-denied", "token": "kubernetes:batch/v1:Job", "operation": "create"})
    ended = review(project)
    assert ended.code == 1
    assert "permission" in ended.text.lower()
    assert "Correct the release and push again." in ended.text
    assert served(project) == set()


def test_on_google_cloud_it_is_served_with_what_the_job_may_do_there_and_nothing_at_google(
    whole: Whole, tmp_path: Path
) -> None:
    project = whole("dev")
    project.set_settings("ci", {"review": {}}, over=True)
    add_release(project, tmp_path)
    ended = review(project)
    assert ended.code == 0, ended
    assert "http://10.10.0.9/mlapi/review/12/v2/models/iris-dtc/infer" in ended.text
    places = {each["outputs"]["metadata"]["namespace"] for each in project.cloud.resources("kubernetes").values()}
    assert places == {"models-review"}
    may = yaml.safe_load((ROOT / "components" / "google" / "permissions.yaml").read_text())["review"]["owned"]
    for token in (each["token"] for each in project.cloud.resources("kubernetes").values()):
        _, version, kind = token.split(":")
        group = version.rpartition("/")[0].replace("core", "")
        assert any(name.startswith(kind.lower().removesuffix("y")) for name in may[group]), token
    assert project.cloud.resources() == {}
    assert review(project, "--remove").code == 0
    assert served(project) == set()
