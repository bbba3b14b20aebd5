"""From a tag in a model's repository to a served version: train, test, publish, merge, deploy; nobody copies a file.

Both projects are bare repositories; gitlab-ci-local runs the real jobs of both .gitlab-ci.yml; tests/hosts is GitLab.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.cluster.clone import STACK, Clone, cloned, run_jobs
from tests.cluster.conftest import ENDPOINT, Project, ask
from tests.cluster.load import Load, Report
from tests.cluster.test_serving import IRIS
from tests.conftest import Figure
from tests.hosts.gitlab import SERVING, TOKEN
from tests.release.repositories import git
from tests.release.templates import Example, rendered, serving_tools

MODEL: Final = "iris-decision-tree"
FIRST, SECOND = "v1.0.0", "v1.0.1"
PATH: Final = f"/mlapi/v2/models/{MODEL}"


@dataclass
class Timeline:
    """How long each step of one release took, in seconds."""

    steps: dict[str, float] = field(default_factory=dict)

    def took(self, step: str, since: float) -> None:
        self.steps[step] = time.monotonic() - since

    @property
    def besides_training(self) -> float:
        return sum(seconds for step, seconds in self.steps.items() if step not in ("train", "test"))

    def __str__(self) -> str:
        return ", ".join(f"{step} {seconds:.1f} s" for step, seconds in self.steps.items())


@dataclass(frozen=True, kw_only=True)
class Team:
    """A model's repository with its remote, and the clone of the serving repository that its releases go to."""

    model: Example
    serving: Clone

    def run(self, tag: str, *jobs: str, check: bool = True, **variables: str) -> str:
        """Runs jobs of the model's pipeline of a tag, which is protected unless the variables say otherwise."""
        api = self.serving.site.gitlab.environ()["CI_API_V4_URL"]
        given = {
            "CI_API_V4_URL": api,
            "CI_COMMIT_TAG": tag,
            "CI_COMMIT_BRANCH": "",
            "CI_COMMIT_REF_PROTECTED": "true",
            "CI_PIPELINE_SOURCE": "push",
            "CI_PIPELINE_URL": f"https://gitlab.example.com/group/{MODEL}/-/pipelines/7",
            "CI_PROJECT_URL": f"https://gitlab.example.com/group/{MODEL}",
            "MODEL_SERVING_TOKEN": TOKEN,
            **variables,
        }
        return run_jobs(self.model.folder, self.model.environ(), given, *jobs, check=check)

    def push(self, tag: str) -> None:
        self.model.git("tag", tag)
        self.model.git("push", "--quiet", "origin", "main", "--tags")

    def release(self, tag: str) -> Timeline:
        """Pushes a tag and lets everything happen that follows."""
        timeline = Timeline()
        began = time.monotonic()
        self.push(tag)
        timeline.took("push", began)
        for job in ("train", "test", "release"):
            began = time.monotonic()
            log = self.run(tag, job)
            timeline.took(job, began)
        assert f"{MODEL} {tag}" in log, log
        began = time.monotonic()
        self.merge(tag)
        timeline.took("merge", began)
        began = time.monotonic()
        self.serving.run("deploy local", CI_PIPELINE_SOURCE="push")
        timeline.took("deploy", began)
        return timeline

    def merge(self, tag: str) -> None:
        """What a person does with the merge request; the first one of a model also says that the stack serves it."""
        git_ = self.serving.git
        git_("switch", "--quiet", "main")
        git_("fetch", "--quiet", "origin")
        git_("merge", "--quiet", "--ff-only", f"origin/release/{MODEL}/{tag}")
        self._serve()
        git_("push", "--quiet", "origin", "main")

    def _serve(self) -> None:
        path = self.serving.folder / "stacks" / f"Pulumi.{STACK}.yaml"
        content = yaml.safe_load(path.read_text())
        models = content["config"]["model-serving:models"]
        if MODEL not in models:
            # The version before is kept, so that it can be seen to be left alone.
            models[MODEL] = {"keepWarm": 1}
            path.write_text(yaml.safe_dump(content))
            self.serving.git("commit", "--quiet", "--all", "--message", f"Serve {MODEL}")


@pytest.fixture(scope="module")
def team(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    scratch = tmp_path_factory.mktemp("team")
    with cloned(project, scratch) as serving:
        folder = rendered(scratch / MODEL, MODEL, serving_repository=f"file://{scratch / 'remote'}")
        model = Example(name=MODEL, folder=folder, tools=serving_tools(scratch / "tools"))
        settings = yaml.safe_load((folder / "release.yaml").read_text())
        api = serving.site.gitlab.environ()["CI_API_V4_URL"]
        # A folder's name does not tell which project it is on GitLab.
        settings["serving"] |= {"api": api, "project": SERVING}
        (folder / "release.yaml").write_text(yaml.safe_dump(settings))
        git(scratch, "init", "--quiet", "--bare", "--initial-branch", "main", "model.git")
        model.git("init", "--quiet", "--initial-branch", "main")
        model.git("remote", "add", "origin", str(scratch / "model.git"))
        model.provide_environment()
        model.must("train")
        model.commit()
        yield Team(model=model, serving=serving)


@pytest.fixture(scope="module")
def first(team: Team) -> Timeline:
    return team.release(FIRST)


@dataclass(frozen=True, kw_only=True)
class Second:
    """The second release, and what the first one's clients saw of it."""

    timeline: Timeline
    old: Report


@pytest.fixture(scope="module")
def second(team: Team, first: Timeline) -> Second:
    assert first.steps
    body = team.serving.folder / "models" / MODEL / FIRST / "request.json"
    with Load(f"{ENDPOINT}{PATH}/versions/{FIRST}/infer", body, connections=1, pause_milliseconds=20) as load:
        timeline = team.release(SECOND)
    return Second(timeline=timeline, old=load.report)


def test_a_tag_is_served(first: Timeline, figure: Figure) -> None:
    status, answer = ask(f"{PATH}/infer", IRIS)
    assert (status, answer["model_version"]) == (200, FIRST)
    figure(str(first))


@pytest.mark.usefixtures("first")
def test_a_merge_request_was_opened_for_the_release(team: Team) -> None:
    titles = [request["title"] for request in team.serving.site.gitlab.requests]
    assert titles == [f"Release {MODEL} {FIRST}"]


@pytest.mark.usefixtures("first")
def test_a_release_tells_where_it_comes_from(team: Team) -> None:
    folder = team.serving.folder / "models" / MODEL / FIRST
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["commit"] == team.model.git("rev-parse", FIRST)
    assert provenance["repository"] == f"https://gitlab.example.com/group/{MODEL}"
    assert json.loads((folder / "model-settings.json").read_text())["parameters"]["version"] == FIRST


@pytest.mark.usefixtures("first")
def test_the_same_job_again_changes_nothing(team: Team) -> None:
    before = git(team.serving.folder, "ls-remote", "origin")
    log = team.run(FIRST, "release")
    assert re.search(r"already", log), log
    assert git(team.serving.folder, "ls-remote", "origin") == before


@pytest.mark.thorough("the release before it, and test_zero_failures.py for what clients of the old version see")
def test_the_version_before_is_left_alone(second: Second, team: Team, project: Project, figure: Figure) -> None:
    second.old.check(project.folder / ".state" / "local" / "logs" / "envoy.log")
    assert set(second.old.versions) == {FIRST}
    status, answer = ask(f"{PATH}/versions/{FIRST}/infer", IRIS)
    assert (status, answer["model_version"]) == (200, FIRST)
    assert ask(f"{PATH}/infer", IRIS)[1]["model_version"] == SECOND
    titles = [request["title"] for request in team.serving.site.gitlab.requests]
    assert titles == [f"Release {MODEL} {FIRST}", f"Release {MODEL} {SECOND}"]
    figure(f"{second.timeline}; besides training {second.timeline.besides_training:.1f} s; {second.old}")


@pytest.mark.usefixtures("first")
def test_a_tag_that_is_not_protected_is_refused_with_the_reason(team: Team) -> None:
    team.push("v1.0.2")
    log = team.run("v1.0.2", "release", check=False, CI_COMMIT_REF_PROTECTED="false")
    assert "Protect the pattern v*" in log
    assert not git(team.serving.folder, "ls-remote", "origin", "refs/heads/release/*/v1.0.2")


def test_no_token_is_in_a_repository(team: Team) -> None:
    remote = Path(git(team.serving.folder, "remote", "get-url", "origin"))
    # The stand-in for GitLab, which has the token from its source, is a part of the serving repository here.
    source = team.serving.folder / "tests"
    for folder in (team.model.folder, team.serving.folder, remote):
        found = [path for path in folder.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
        # gitlab-ci-local keeps the variables that it is given on its command line, as GitLab does.
        kept = [path for path in found if ".gitlab-ci-local" in path.parts]
        assert [path for path in found if path not in kept and not path.is_relative_to(source)] == []
