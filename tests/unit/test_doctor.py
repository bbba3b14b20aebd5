"""Every setup step of docs/ci.md: done, not done, not readable; on both sites, which are only read."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from model_serving import __main__ as command_line
from model_serving.pipelines import doctor, stacks
from model_serving.problems import Failure
from tests.hosts import Server, github, gitlab, serving

PROJECT = stacks.PROJECT
OWN = {"registry": "registry.example", "gateway": {"className": "contour"}}
TIED: dict[str, dict[str, Any]] = {
    "gcp": {
        "project": "acme-dev",
        "region": "europe-west1",
        "name": "serving",
        "state": {"bucket": "acme-state", "key": "projects/a/locations/b/keyRings/c/cryptoKeys/d"},
        "identity": {"gitlab": {"projectId": 7}, "github": {"repositoryId": 34, "ownerId": 56}},
    }
}
Setup = dict[str, Any]
Change = Callable[[Setup], object]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        server.gitlab.setup = gitlab.ready()
        server.gitlab.tokens = {"glpat-notes": dict(gitlab.NOTES)}
        server.github.setup = github.ready()
        yield server


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with the stacks dev, which needs a passphrase, and production, which needs an approval."""
    shutil.copytree(PROJECT / ".github", tmp_path / ".github")
    (tmp_path / "stacks").mkdir()
    monkeypatch.setattr(stacks, "PROJECT", tmp_path)
    monkeypatch.setattr(stacks, "FOLDER", tmp_path / "stacks")
    for name in ("CI_API_V4_URL", "GITHUB_API_URL", "GITHUB_TOKEN", "GH_TOKEN", "MODEL_SERVING_GITLAB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GITLAB_TOKEN", gitlab.TOKEN)
    monkeypatch.setenv("GITHUB_TOKEN", github.TOKEN)
    write(tmp_path, "dev", {"ci": {"order": 1, "backend": "gs://state"}, **OWN}, encryptionsalt="v1:x")
    write(
        tmp_path, "production", {"ci": {"order": 2, "approval": True, "projectNumber": 1, "tier": "production"}} | TIED
    )
    assert command_line.main(["pipelines"]) == 0
    return tmp_path


def write(folder: Path, name: str, sections: dict[str, Any], **others: Any) -> None:
    config = {f"model-serving:{key}": value for key, value in sections.items()}
    (folder / "stacks" / f"Pulumi.{name}.yaml").write_text(json.dumps({"config": config} | others))


@dataclass(frozen=True)
class Doctor:
    """The command, with a stand-in for the sites."""

    server: Server
    capsys: pytest.CaptureFixture[str]

    def setup(self, site: str) -> Setup:
        return self.server.gitlab.setup if site == "gitlab" else self.server.github.setup

    def run(self, site: str) -> tuple[int, list[str], str]:
        """The exit code, the lines about what is not done, each with its remedy, and the errors."""
        self.capsys.readouterr()
        # GitLab takes a path or a number for a project; the stand-in knows the number.
        name, api = (gitlab.PROJECT, "v4") if site == "gitlab" else (github.REPOSITORY, "v3")
        url = self.server.url
        code = command_line.main(
            ["doctor", "--site", site, "--repository", f"{url}/{name}", "--api", f"{url}/api/{api}"]
        )
        said = self.capsys.readouterr()
        for secret in ("never shown", gitlab.TOKEN, github.TOKEN, "glpat-notes"):
            assert secret not in said.out + said.err
        return code, [line for line in said.out.splitlines() if line and not line.startswith("done")], said.err


@pytest.fixture
def doctors(server: Server, folder: Path, capsys: pytest.CaptureFixture[str]) -> Doctor:
    return Doctor(server, capsys)


@pytest.mark.parametrize(("site", "steps"), [("gitlab", 13), ("github", 9)])
def test_what_is_all_done_is_told_with_exit_code_0(site: str, steps: int, doctors: Doctor) -> None:
    code, lines, _ = doctors.run(site)
    assert lines[1:] == [f"All {steps} steps are done."]
    assert code == 0
    assert {call.method for call in doctors.server.received} == {"GET"}, "nothing is changed"


def setting(path: str, **values: Any) -> Change:
    """Changes the first entry of a list, or the mapping, that a path is answered."""

    def change(setup: Setup) -> None:
        entry = setup[path]
        (entry[0] if isinstance(entry, list) else entry).update(values)

    return change


def instead(path: str, content: Any) -> Change:
    return lambda setup: setup.update({path: content})


RULES = "/registry/protection/repository/rules"
NOT_DONE: list[tuple[str, Change, str]] = [
    ("gitlab", instead("/protected_branches", []), "protected branch: main is not protected"),
    ("gitlab", setting("/protected_branches", allow_force_push=True), "protected branch: force pushes are allowed"),
    ("gitlab", instead("/protected_environments", []), "protected environment production: it is not protected"),
    (
        "gitlab",
        setting("/protected_environments", deploy_access_levels=[]),
        "protected environment production: no one is named",
    ),
    ("gitlab", setting("/resource_groups", process_mode="unordered"), "order of deployments of dev: .* is unordered"),
    (
        "gitlab",
        setting("", resource_group_default_process_mode="unordered"),
        "order of deployments of production: .* does not exist yet, and the project's default is unordered",
    ),
    ("gitlab", setting("/variables", key="OTHER"), "token for notes: the variable MODEL_SERVING_GITLAB_TOKEN does not"),
    ("gitlab", setting("/variables", masked=False), "token for notes: the variable is not masked"),
    ("gitlab", setting("/variables", protected=True), "token for notes: the variable is protected, and merge requests"),
    ("gitlab", setting("/variables", value="revoked"), "token for notes: the token is wrong, expired or revoked"),
    ("gitlab", setting("/access_tokens", access_level=40), r"token for notes: its role is 40, above Reporter \(20\)"),
    ("gitlab", instead("/access_tokens", []), "token for notes: it is not an access token of this project"),
    (
        "gitlab",
        lambda setup: setup["/variables"][1].update(masked=False),
        "PULUMI_CONFIG_PASSPHRASE: the variable is not masked",
    ),
    (
        "gitlab",
        lambda setup: setup["/variables"].pop(),
        "PULUMI_CONFIG_PASSPHRASE: the variable does not exist",
    ),
    ("gitlab", setting("/pipeline_schedules", active=False), "schedule: the schedule is not active"),
    ("gitlab", setting("/pipeline_schedules", ref="refs/heads/not-main"), "schedule: main has no schedule"),
    ("gitlab", setting("/runners", status="offline"), "runners: none of 1 runners is online"),
    ("gitlab", instead(RULES, []), "protected container repository: group/models/ci/main is not protected"),
    (
        "gitlab",
        setting(RULES, repository_path_pattern="group/models/ci/preview"),
        "protected container repository: group/models/ci/main is not protected",
    ),
    (
        "gitlab",
        setting(RULES, minimum_access_level_for_push=None),
        "protected container repository: group/models/ci/main is not protected",
    ),
    (
        "gitlab",
        setting("", ci_allow_fork_pipelines_to_run_in_parent_project=True),
        "fork pipelines: a member can run a fork's pipeline here",
    ),
    ("github", setting("/branches/main", protected=False), "protected branch: main is not protected"),
    ("github", instead("/environments/dev", 404), "environment dev: it does not exist; the first deployment"),
    (
        "github",
        setting("/environments/dev", deployment_branch_policy=None),
        "environment dev: any branch can deploy",
    ),
    (
        "github",
        setting(
            "/environments/dev",
            deployment_branch_policy={"protected_branches": True, "custom_branch_policies": False},
        ),
        "environment dev: every protected branch can deploy",
    ),
    (
        "github",
        instead("/environments/dev/deployment-branch-policies", {"branch_policies": [{"name": "*"}]}),
        r"environment dev: \* can deploy",
    ),
    (
        "github",
        setting("/environments/production", protection_rules=[{"type": "branch_policy"}]),
        "environment production: it has no required reviewers, and model-serving:ci.approval is true",
    ),
    ("github", instead("/actions/secrets", {"secrets": []}), "PULUMI_CONFIG_PASSPHRASE: the secret does not exist"),
    (
        "github",
        setting("/actions/workflows/mlops.yml", state="disabled_inactivity"),
        "schedule: mlops.yml is disabled_inactivity",
    ),
    ("github", instead("/actions/workflows/mlops.yml", 404), "schedule: main has no workflow mlops.yml"),
    (
        "github",
        setting("/actions/permissions/fork-pr-workflows-private-repos", send_write_tokens_to_workflows=True),
        "fork pipelines: a fork's workflow gets a token that can write",
    ),
    ("github", setting("", owner={"id": 57}), "settings of production: .*github.ownerId is 56, .* is 57"),
]


@pytest.mark.parametrize(("site", "change", "expected"), NOT_DONE, ids=[f"{site}-{text}" for site, _, text in NOT_DONE])
def test_what_is_not_done_is_told_with_the_way_to_do_it_and_exit_code_1(
    site: str, change: Change, expected: str, doctors: Doctor
) -> None:
    change(doctors.setup(site))
    code, (_, step, remedy, summary), _ = doctors.run(site)
    assert code == 1
    assert re.match(f"not done      {expected}", step)
    assert re.match(r"  +\S+", remedy)
    assert "1 are not, none is unread" in summary


def test_a_token_without_the_scope_is_told(doctors: Doctor) -> None:
    doctors.server.gitlab.tokens["glpat-notes"]["scopes"] = ["read_api"]
    _, lines, _ = doctors.run("gitlab")
    assert lines[1] == "not done      token for notes: its scopes are read_api, without api"


NOT_READABLE: list[tuple[str, str, Any, str]] = [
    ("gitlab", "/protected_branches", 403, "protected branch: GitLab answered 403"),
    ("gitlab", "/protected_environments", 404, "protected environment production: GitLab answered 404"),
    ("gitlab", "/resource_groups", 403, "order of deployments of dev: GitLab answered 403"),
    ("gitlab", "/variables", 403, "token for notes: GitLab answered 403"),
    ("gitlab", "/access_tokens", 403, "token for notes: GitLab answered 403"),
    ("gitlab", "/pipeline_schedules", 403, "schedule: GitLab answered 403"),
    ("gitlab", "/runners", 403, "runners: GitLab answered 403"),
    ("gitlab", RULES, 404, "protected container repository: GitLab answered 404"),
    ("github", "/branches/main", 404, "protected branch: GitHub answered 404"),
    ("github", "/environments/production", 403, "environment production: GitHub answered 403"),
    ("github", "/environments/dev/deployment-branch-policies", 403, "environment dev: GitHub answered 403"),
    ("github", "/actions/secrets", 403, "PULUMI_CONFIG_PASSPHRASE: GitHub answered 403"),
    ("github", "/actions/workflows/mlops.yml", 403, "schedule: GitHub answered 403"),
    (
        "github",
        "/actions/permissions/fork-pr-workflows-private-repos",
        403,
        "fork pipelines: GitHub answered 403",
    ),
]


@pytest.mark.parametrize(
    ("site", "path", "status", "expected"), NOT_READABLE, ids=[f"{row[0]}{row[1]}" for row in NOT_READABLE]
)
def test_what_the_token_may_not_read_is_told_and_not_guessed(
    site: str, path: str, status: int, expected: str, doctors: Doctor
) -> None:
    doctors.setup(site)[path] = status
    code, lines, _ = doctors.run(site)
    assert code == 1
    assert lines[1].startswith(f"not readable  {expected}")
    assert "token" in lines[2]
    assert "cannot be read with this token" in lines[-1]
    assert not [line for line in lines if line.startswith("not done")]


@pytest.mark.parametrize(
    ("site", "path", "answer"),
    [
        ("gitlab", "/pipeline_schedules", [{"id": 1}]),
        ("gitlab", "/pipeline_schedules", "<html>"),
        ("github", "/actions/workflows/mlops.yml", []),
    ],
)
def test_an_answer_that_is_not_understood_keeps_no_other_step_from_being_read(
    site: str, path: str, answer: object, doctors: Doctor
) -> None:
    doctors.setup(site)[path] = answer
    code, lines, error = doctors.run(site)
    assert (code, error) == (1, "")
    (unread,) = (line for line in lines if line.startswith("not readable"))
    assert unread.startswith("not readable  schedule: ")
    assert "answered something that its API does not document" in unread


def test_settings_that_gitlab_only_shows_to_maintainers_are_not_guessed(doctors: Doctor) -> None:
    doctors.setup("gitlab")[""] = {"id": gitlab.PROJECT, "path_with_namespace": "group/models"}
    doctors.setup("gitlab")["/variables"][0]["value"] = None
    _, lines, _ = doctors.run("gitlab")
    steps = [line.partition(":")[0] for line in lines if line.startswith("not readable")]
    assert steps == [
        "not readable  order of deployments of production",
        "not readable  token for notes",
        "not readable  fork pipelines",
    ]


def test_a_public_repositorys_forks_need_no_setting(doctors: Doctor) -> None:
    doctors.setup("github")[""]["private"] = False
    del doctors.setup("github")["/actions/permissions/fork-pr-workflows-private-repos"]
    assert doctors.run("github")[0] == 0


def test_the_stack_files_are_part_of_the_setup(doctors: Doctor, folder: Path) -> None:
    write(folder, "dev", {"ci": {"order": 1}, **OWN})
    write(folder, "blue", {"ci": {"order": 1, "backend": "gs://state"}, **OWN})
    _, lines, _ = doctors.run("gitlab")
    assert (
        "not done      settings of dev: model-serving:ci.backend is missing, and so is model-serving:gcp.state" in lines
    )
    assert any(line.startswith("not done      jobs per environment: .github/workflows/mlops.yml is") for line in lines)


def test_the_ids_of_another_repository_are_told(doctors: Doctor, folder: Path) -> None:
    identity = TIED["gcp"] | {"identity": {"gitlab": {"projectId": 9}}}
    write(folder, "production", {"ci": {"order": 2, "approval": True, "projectNumber": 1}, "gcp": identity})
    command_line.main(["pipelines"])
    _, lines, _ = doctors.run("gitlab")
    assert lines[1] == (
        "not done      settings of production: "
        "model-serving:gcp.identity.gitlab.projectId is 9, and that of this repository is 7"
    )


def test_a_token_that_sees_nothing_gets_one_error(doctors: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITLAB_TOKEN", "expired")
    code, lines, error = doctors.run("gitlab")
    assert (code, lines) == (1, [])
    assert "GitLab answered 401" in error
    assert "Set GITLAB_TOKEN to a token that may see 7" in error


def test_without_a_token_it_says_how_to_get_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITLAB_TOKEN")
    with pytest.raises(Failure, match=r"GITLAB_TOKEN and MODEL_SERVING_GITLAB_TOKEN are not set(.|\n)*Maintainer"):
        doctor.place_of("auto", "https://gitlab.example/a/b.git", None, {})


@pytest.mark.parametrize(
    ("address", "kind", "api", "name"),
    [
        ("https://gitlab.com/a/b/c.git", "gitlab", "https://gitlab.com/api/v4", "a/b/c"),
        ("https://me:secret@gitlab.acme.example:8443/a/b", "gitlab", "https://gitlab.acme.example:8443/api/v4", "a/b"),
        ("git@gitlab.com:a/b.git", "gitlab", "https://gitlab.com/api/v4", "a/b"),
        ("ssh://git@gitlab.acme.example:2222/a/b.git", "gitlab", "https://gitlab.acme.example/api/v4", "a/b"),
        ("git@github.com:owner/models.git", "github", "https://api.github.com", "owner/models"),
        ("ssh://gitlab.com/a/b.git", "gitlab", "https://gitlab.com/api/v4", "a/b"),
        ("https://github.acme.example/o/m", "github", "https://github.acme.example/api/v3", "o/m"),
    ],
)
def test_the_site_follows_from_the_address_of_the_repository(address: str, kind: str, api: str, name: str) -> None:
    environ = {"GITLAB_TOKEN": "x", "GH_TOKEN": "y"}
    place = doctor.place_of("auto", address, None, environ)
    assert (place.kind, place.api, place.name) == (kind, api, name)
    assert "secret" not in repr(place)


@pytest.mark.parametrize("address", ["git@[2001:db8::1]:a/b.git", "ssh://git@[2001:db8::1]:22/a/b.git"])
def test_a_host_may_be_an_address_of_ipv6(address: str) -> None:
    place = doctor.place_of("gitlab", address, None, {"GITLAB_TOKEN": "x"})
    assert (place.api, place.name) == ("https://[2001:db8::1]/api/v4", "a/b")


@pytest.mark.parametrize(
    "address", ["/srv/git/secret.git", "../secret.git", "https://me:secret@[::1/a/b", "file:///secret"]
)
def test_an_address_that_is_on_no_site_is_refused_and_not_shown(address: str) -> None:
    with pytest.raises(Failure, match="Write --repository https://") as caught:
        doctor.place_of("gitlab", address, None, {"GITLAB_TOKEN": "x"})
    assert "secret" not in str(caught.value)


def test_a_host_that_does_not_tell_is_asked_for() -> None:
    with pytest.raises(Failure, match="--site gitlab"):
        doctor.place_of("auto", "https://code.example/a/b", None, {"GITLAB_TOKEN": "x"})
    assert doctor.place_of("gitlab", "https://code.example/a/b", None, {"GITLAB_TOKEN": "x"}).kind == "gitlab"


def test_in_a_job_it_is_the_jobs_own_project() -> None:
    place = doctor.place_of(
        "auto", None, None, {"CI_API_V4_URL": "https://g/api/v4", "CI_PROJECT_ID": "7", "GITLAB_TOKEN": "x"}
    )
    assert (place.api, place.name) == ("https://g/api/v4", "7")
