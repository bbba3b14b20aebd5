"""The jobs of .gitlab-ci.yml as a runner runs them: a model bump is previewed, noted, merged, and takes the traffic.

tests/cluster/clone.py says what stands for GitLab and what that leaves out.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.clone import STACK, Clone, cloned
from tests.cluster.conftest import Project, ask
from tests.cluster.test_serving import IRIS
from tests.cluster.tool_image import ToolImage
from tests.conftest import Figure

MODEL: Final = "/mlapi/v2/models/iris-dtc/infer"
VERSION: Final = "1.0.7"
"""Of other content than the releases of other files' tests, which may have the same registry."""
"""The merge request's."""
REVIEWED: Final = "/mlapi/review/3/v2/models/iris-dtc/infer"
REVIEW_SECONDS: Final = 60
"""From a push to the first answer, on a runner that has the tool image."""
GONE_SECONDS: Final = 30
"""For the gateway to forget a route."""
POLL_SECONDS: Final = 0.05


@pytest.fixture(scope="module")
def clone(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    with cloned(project, tmp_path_factory.mktemp("serving")) as clone:
        yield clone


def test_a_preview_of_an_unchanged_stack_shows_no_change(clone: Clone, figure: Figure) -> None:
    began = time.monotonic()
    clone.run_for_request("preview local")
    took = time.monotonic() - began
    report = json.loads((clone.folder / "previews" / f"{STACK}.terraform.json").read_text())
    assert report == {"create": 0, "update": 0, "delete": 0}
    figure(f"the job took {took:.1f} s")


@pytest.fixture(scope="module")
def bump(clone: Clone) -> str:
    """A merge request's branch with a new version of a model; the stack follows the newest."""
    clone.git("switch", "--quiet", "--create", "bump")
    clone.release(VERSION)
    return "bump"


@pytest.mark.usefixtures("bump")
def test_a_merge_request_is_tested_previewed_and_noted(clone: Clone) -> None:
    # A few of them: all run in `make test`, of which this one is a part.
    log = clone.run_for_request("test", TESTS="test-unit", PYTEST_ADDOPTS="-k test_settings")
    assert re.search(r"\d+ passed", log), log
    clone.run_for_request("preview local")
    clone.run_for_request("note")
    report = json.loads((clone.folder / "previews" / f"{STACK}.terraform.json").read_text())
    assert report["create"] > 0
    assert set(report) == {"create", "update", "delete"}
    (text,) = clone.site.gitlab.texts()
    assert "iris-dtc" in text
    assert VERSION in text
    assert ask(MODEL, IRIS)[1]["model_version"] == "1.0", "a preview changes nothing"


@pytest.mark.thorough("tests/unit/test_pending.py and test_note.py")
def test_a_newer_commit_marks_the_note_as_stale_until_it_is_previewed(clone: Clone, bump: str) -> None:
    before = clone.git("rev-parse", "HEAD")
    (clone.folder / "README.md").write_text("another\n")
    clone.commit("Write another README")
    clone.run_for_request("pending")
    (text,) = clone.site.gitlab.texts()
    assert "Out of date" in text
    clone.run_for_request("preview local")
    clone.run_for_request("note")
    (text,) = clone.site.gitlab.texts()
    assert "Out of date" not in text
    assert clone.git("rev-parse", "HEAD")[:8] in text
    assert before[:8] not in text
    assert clone.git("branch", "--show-current") == bump


def review(clone: Clone, job: str) -> float:
    """Runs a job of the merge request's review; returns its seconds."""
    began = time.monotonic()
    clone.run_for_request(job, CI_MERGE_REQUEST_TARGET_BRANCH_NAME="main")
    return time.monotonic() - began


def left_of_reviews(project: Project) -> list[str]:
    kinds = "httproutes,deployments,services,jobs,networkpolicies,configmaps"
    return project.kubectl("get", kinds, "--selector=model-serving/review", "--output=name").stdout.split()


def test_a_merge_requests_release_is_served_under_a_path_of_its_own_until_the_request_ends(
    clone: Clone, bump: str, project: Project, figure: Figure
) -> None:
    first = review(clone, "review local")
    assert ask(REVIEWED, IRIS)[1]["model_version"] == VERSION
    assert ask(REVIEWED.replace("/infer", f"/versions/{VERSION}/infer"), IRIS)[0] == 200
    assert ask(MODEL, IRIS)[1]["model_version"] == "1.0", "which serves what is merged"
    assert (clone.folder / "review.env").read_text() == f"REVIEW_URL=http://127.0.0.1:8080{REVIEWED}\n"

    # Before it is merged, a release may still change; afterwards no version ever does.
    (clone.folder / "models" / "iris-dtc" / VERSION / "README.md").write_text("more about it\n")
    clone.commit("Write more about the release")
    again = review(clone, "review local")
    assert ask(REVIEWED, IRIS)[1]["model_version"] == VERSION
    assert clone.git("branch", "--show-current") == bump
    assert clone.git("status", "--porcelain") == "", "the review's stack is forgotten"
    figure(f"push to answer {first:.1f} s, of the next push {again:.1f} s")
    assert max(first, again) <= REVIEW_SECONDS

    took = review(clone, "remove review local")
    assert left_of_reviews(project) == []
    deadline = time.monotonic() + GONE_SECONDS
    while ask(REVIEWED, IRIS)[0] != 404:
        assert time.monotonic() < deadline
        time.sleep(POLL_SECONDS)
    assert ask(MODEL, IRIS)[1]["model_version"] == "1.0"
    figure(f"removed in {took:.1f} s")


@pytest.mark.thorough("the review above; tests/engine/test_review.py, where one fails")
def test_a_release_that_breaks_its_contract_is_told_and_not_left_in_the_cluster(
    clone: Clone, bump: str, project: Project
) -> None:
    clone.git("switch", "--quiet", "--create", "broken", "main")
    folder = clone.release("1.0.2")
    response = folder / "response.json"
    response.write_text(response.read_text().replace('"data": [0]', '"data": [7]'))
    clone.commit("Expect what no model answers")
    log = clone.run_for_request("review local", check=False, CI_MERGE_REQUEST_TARGET_BRANCH_NAME="main")
    assert "does not work on local" in log
    assert left_of_reviews(project) == []
    clone.git("switch", "--quiet", bump)


def test_a_fork_is_told_that_it_has_no_identity(clone: Clone) -> None:
    log = clone.run_for_request("preview local", "note", CI_MERGE_REQUEST_SOURCE_PROJECT_ID="8", CI_PROJECT_ID="8")
    preview = json.loads((clone.folder / "previews" / f"{STACK}.json").read_text())
    assert preview["outcome"] == "no-identity"
    assert "fork" in log


def test_a_note_that_cannot_be_posted_is_a_warning(clone: Clone) -> None:
    clone.site.fail("GET", "/notes", 403)
    clone.run_for_request("preview local")
    assert "scope" in clone.run_for_request("note")


class FirstAnswer:
    """Asks the model until another version answers; when that was is in ``at``."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.at: float | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> FirstAnswer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(POLL_SECONDS):
            status, body = ask(MODEL, IRIS)
            if status == 200 and body["model_version"] == self.version:
                self.at = time.monotonic()
                return


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Seconds of one deployment.

    Attributes:
        traffic: from the merge to the first answer of the new version; it moves at once.
        job: from the merge to the end of the job.
        runner: what the stand-in of a runner takes by itself, which is no part of this project.
        phases: what the job says of itself.
    """

    traffic: float
    job: float
    runner: float
    phases: Mapping[str, float]

    @property
    def overhead(self) -> float:
        """All but the runner's start, Pulumi's start, images and rollout."""
        return (
            self.job - self.runner - sum(self.phases.get(name, 0) for name in ("Pulumi's start", "images", "rollout"))
        )

    def __str__(self) -> str:
        own = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.phases.items())
        return (
            f"merge to traffic {self.traffic:.1f} s; merge to end of job {self.job:.1f} s, of which runner "
            f"{self.runner:.1f} s, {own}; overhead {self.overhead:.1f} s"
        )


def merge(clone: Clone, branch: str, version: str) -> Figures:
    """Merges a branch into main and runs what GitLab would run then."""
    began = time.monotonic()
    clone.run("--list", CI_PIPELINE_SOURCE="push")
    runner = time.monotonic() - began
    clone.git("switch", "--quiet", "main")
    clone.git("merge", "--quiet", "--ff-only", branch)
    with FirstAnswer(version) as answer:
        merged = time.monotonic()
        clone.git("push", "--quiet", "origin", "main")
        log = clone.run("deploy local", CI_PIPELINE_SOURCE="push")
        ended = time.monotonic()
    assert answer.at is not None, log
    (told,) = re.findall(r"took [\d.]+ s: (.*)", log)
    phases = {name: float(seconds) for name, seconds in re.findall(r"([A-Za-z][A-Za-z' ]*) ([\d.]+) s", told)}
    return Figures(traffic=answer.at - merged, job=ended - merged, runner=runner, phases=phases)


def test_a_merge_reaches_all_of_the_traffic(clone: Clone, bump: str, figure: Figure) -> None:
    figures = merge(clone, bump, VERSION)
    answers = {ask(MODEL, IRIS)[1]["model_version"] for _ in range(20)}
    assert answers == {VERSION}
    figure(str(figures))


@pytest.mark.thorough("the same job beside the image, and tests/unit/test_pipelines.py on what the image is made of")
def test_a_preview_job_runs_in_the_tool_image(clone: Clone, project: Project, tmp_path: Path, figure: Figure) -> None:
    checkout = tmp_path / "checkout"
    clone.git("clone", "--quiet", "--branch", "main", clone.git("remote", "get-url", "origin"), str(checkout))
    image = ToolImage(project=project, checkout=checkout, scratch=tmp_path)
    began = time.monotonic()
    image.build()
    built = time.monotonic()
    assert image.run_preview() == {"create": 0, "update": 0, "delete": 0}
    figure(f"built in {built - began:.0f} s, a preview job in it took {time.monotonic() - built:.0f} s")
