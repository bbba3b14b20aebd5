"""On GitHub, what asks for an approval is deployed with one, or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model_serving import __main__ as command_line
from model_serving.pipelines import stacks
from tests.hosts import Server, github, gitlab, serving

STARTED_BY_HAND = {
    "GITHUB_EVENT_NAME": "workflow_dispatch",
    "GITHUB_WORKFLOW_REF": "owner/models/.github/workflows/mlops-deploy.yml@refs/heads/main",
    "GITHUB_ACTOR": "octocat",
}
ALL_BY_HAND = STARTED_BY_HAND | {
    "GITHUB_WORKFLOW_REF": "owner/models/.github/workflows/mlops.yml@refs/heads/main",
}
PUSHED = {"GITHUB_EVENT_NAME": "push", "GITHUB_WORKFLOW_REF": ALL_BY_HAND["GITHUB_WORKFLOW_REF"]}
NO_REVIEWERS: dict[str, Any] = {"name": "production", "protection_rules": [], "deployment_branch_policy": None}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(stacks, "FOLDER", tmp_path)
    own = {"model-serving:registry": "registry.example", "model-serving:gateway": {"className": "contour"}}
    for name, approval in (("dev", False), ("production", True)):
        ci = {"model-serving:ci": {"order": 1, "approval": approval}}
        (tmp_path / f"Pulumi.{name}.yaml").write_text(json.dumps({"config": own | ci}))
    with serving() as server:
        server.github.setup = github.ready()
        yield server


@pytest.fixture(params=[PUSHED], ids=["pushed"])
def started(
    request: pytest.FixtureRequest, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """How the job was started."""
    for name, value in server.github.environ(tmp_path, **request.param).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CI_API_V4_URL", raising=False)
    return dict(request.param)


def told(capsys: pytest.CaptureFixture[str], stack: str = "production") -> tuple[int, str]:
    code = command_line.main(["approval", "--stack", stack])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_reviewers_of_the_environment_are_enough(started: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys) == (0, "production: approved; the environment's reviewers are octocat.\n")


@pytest.mark.parametrize("started", [PUSHED, ALL_BY_HAND], indirect=True, ids=["pushed", "all by hand"])
def test_an_open_environment_is_refused_with_the_way_to_go_on(
    started: object, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.github.setup["/environments/production"] = NO_REVIEWERS
    code, said = told(capsys)
    assert code == 1
    assert "the environment production has no required reviewers" in said
    assert "Settings > Environments > production" in said
    assert "A private repository has them with GitHub Enterprise. Without, start" in said


@pytest.mark.parametrize("started", [STARTED_BY_HAND], indirect=True, ids=["by hand"])
def test_where_the_plan_has_no_reviewers_a_person_picks_the_stack(
    started: object, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.github.setup["/environments/production"] = NO_REVIEWERS
    code, said = told(capsys)
    assert (code, said) == (
        0,
        "production: octocat has picked this stack by hand; the environment has no reviewers.\n",
    )


@pytest.mark.parametrize("started", [STARTED_BY_HAND], indirect=True, ids=["by hand"])
def test_a_public_repository_can_have_reviewers_and_must(
    started: object, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.github.setup["/environments/production"] = NO_REVIEWERS
    server.github.setup[""]["private"] = False
    code, said = told(capsys)
    assert code == 1
    assert "Enterprise" not in said


@pytest.mark.parametrize("status", [403, 404])
def test_an_environment_that_cannot_be_read_is_no_approval(
    status: int, started: object, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.github.setup["/environments/production"] = status
    code, said = told(capsys)
    assert code == 1
    assert "Nothing is deployed, because it is not known whether someone has to approve it." in said


def test_a_stack_without_approval_asks_nothing(
    started: object, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(capsys, "dev") == (0, "dev: no approval is needed.\n")
    assert not server.received


def test_gitlabs_job_is_started_by_a_person(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in server.gitlab.environ(MODEL_SERVING_GITLAB_TOKEN=gitlab.TOKEN).items():
        monkeypatch.setenv(name, value)
    assert told(capsys)[0] == 0
    assert not server.received
