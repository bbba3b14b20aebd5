"""The pipelines keep step with the stack files, and what keeps main safe is in both systems."""

from __future__ import annotations

import json
import re
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from local.cluster import base_image
from model_serving import __main__ as command_line
from model_serving.pipelines import generate, stacks
from model_serving.problems import Failure, InvalidInput
from tests.cluster import tool_image

PROJECT = stacks.PROJECT
WORKFLOWS = sorted((PROJECT / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
OWN_CLUSTER = {"registry": "registry.example", "gateway": {"className": "contour"}}
GOOGLE = {"gcp": {"project": "acme-dev", "region": "europe-west1", "name": "serving"}}


def write_stack(folder: Path, name: str, **sections: Any) -> None:
    config = {f"model-serving:{key}": value for key, value in (OWN_CLUSTER | sections).items()}
    (folder / f"Pulumi.{name}.yaml").write_text(json.dumps({"config": config}))


def generated(folder: Path) -> dict[str, Any]:
    """The included file of the stacks in a folder."""
    content: dict[str, Any] = yaml.safe_load(generate.gitlab(generate.environments(folder), "tag"))
    return content


def workflow(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with its own stack files and the workflows of this one."""
    shutil.copytree(PROJECT / ".github", tmp_path / ".github")
    shutil.copy(PROJECT / generate.INCLUDING, tmp_path)
    (tmp_path / "stacks").mkdir()
    monkeypatch.setattr(stacks, "PROJECT", tmp_path)
    monkeypatch.setattr(stacks, "FOLDER", tmp_path / "stacks")
    return tmp_path


def test_the_pipelines_are_in_step_with_the_stack_files_and_the_tool_image() -> None:
    assert generate.run(Namespace(check=True)) == 0, "run: make pipelines"


def test_a_new_stack_file_and_one_command_are_all_that_an_environment_needs(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stack(copy / "stacks", "blue", ci={"order": 1})
    assert command_line.main(["pipelines", "--check"]) == 1
    assert "Run `make pipelines`" in capsys.readouterr().err
    assert generate.run(Namespace(check=False)) == 0
    assert generate.run(Namespace(check=True)) == 0
    jobs = yaml.safe_load((copy / generate.GITLAB).read_text())
    assert {"preview blue", "note", "deploy blue", "drift blue"} <= jobs.keys()
    mlops = workflow(copy / ".github" / "workflows" / "mlops.yml")["jobs"]
    assert mlops["deploy-blue"]["with"]["stack"] == "blue"
    assert mlops["preview"]["strategy"]["matrix"] == mlops["drift"]["strategy"]["matrix"] == {"stack": ["blue"]}
    assert [name for name in mlops if name.startswith("deploy-")] == ["deploy-blue"], "the others are gone"


def test_a_site_whose_files_are_deleted_gets_none(copy: Path) -> None:
    write_stack(copy / "stacks", "blue", ci={"order": 1, "review": {}})
    (copy / generate.INCLUDING).unlink()
    assert generate.run(Namespace(check=False)) == 0
    assert (copy / generate.REVIEWS).exists()
    assert not (copy / ".gitlab").exists()
    shutil.rmtree(copy / ".github")
    shutil.copy(PROJECT / generate.INCLUDING, copy)
    assert generate.run(Namespace(check=False)) == 0
    assert generate.run(Namespace(check=True)) == 0
    assert (copy / generate.GITLAB).exists()
    assert not (copy / ".github").exists()


@pytest.mark.parametrize("name", ["eu.west", "1.10", "on", "null", "-x", "1e3", "blüe"])
def test_a_name_that_a_workflow_cannot_have_is_refused_where_there_are_workflows(copy: Path, name: str) -> None:
    write_stack(copy / "stacks", name, ci={"order": 1})
    with pytest.raises(InvalidInput, match=rf"GitHub has no jobs for an environment named {name}\n"):
        generate.run(Namespace(check=False))
    shutil.rmtree(copy / ".github")
    assert generate.run(Namespace(check=False)) == 0
    assert f"deploy {name}" in yaml.safe_load((copy / generate.GITLAB).read_text(encoding="utf-8"))


def test_a_stack_without_a_ci_section_is_left_alone(tmp_path: Path) -> None:
    write_stack(tmp_path, "mine")
    assert generated(tmp_path).keys() == {"variables"}


def test_an_environment_waits_for_the_next_lower_order_and_equal_ones_go_together(tmp_path: Path) -> None:
    for name, order in {"a": 1, "b": 5, "c": 5, "d": 9}.items():
        write_stack(tmp_path, name, ci={"order": order})
    jobs = generated(tmp_path)
    deploys = {
        name: [need for need in job["needs"] if need.startswith("deploy")]
        for name, job in jobs.items()
        if name.startswith("deploy")
    }
    assert deploys == {
        "deploy a": [],
        "deploy b": ["deploy a"],
        "deploy c": ["deploy a"],
        "deploy d": ["deploy b", "deploy c"],
    }


def test_all_but_development_waits_for_tests_and_a_preview_of_main(tmp_path: Path) -> None:
    write_stack(tmp_path, "dev", ci={"order": 1})
    write_stack(tmp_path, "next", ci={"order": 2, "tier": "staging"})
    write_stack(tmp_path, "asked", ci={"order": 3, "approval": True})
    jobs = generated(tmp_path)
    assert jobs["deploy dev"]["needs"] == ["tools"]
    for name in ("next", "asked"):
        assert {"test", f"preview {name}"} <= set(jobs[f"deploy {name}"]["needs"])
        assert jobs[f"preview {name}"]["extends"] == [".preview of main"]
        assert jobs[f"deploy {name}"]["variables"] == {"STACK": name, "PREVIEWED": "previews"}, "and no other commit"


def test_who_wants_an_approval_gets_a_job_that_somebody_starts(tmp_path: Path) -> None:
    write_stack(tmp_path, "asked", ci={"order": 1, "approval": True, "tier": "production"})
    assert generated(tmp_path)["deploy asked"]["extends"][0] == ".deploy by hand"
    rules = workflow(PROJECT / ".gitlab-ci.yml")[".deploy by hand"]["rules"]
    assert [(rule["when"], rule["allow_failure"]) for rule in rules] == [("manual", False)], "the pipeline waits"


def test_docker_comes_along_where_a_stack_names_no_builder(tmp_path: Path) -> None:
    write_stack(tmp_path, "docker", ci={"order": 1})
    write_stack(tmp_path, "own", ci={"order": 1}, images={"builder": "mine"})
    jobs = generated(tmp_path)
    assert jobs["deploy docker"]["extends"] == [".deploy", ".docker"]
    assert jobs["deploy own"]["extends"] == [".deploy"]


def test_a_stack_that_serves_reviews_gets_the_jobs_for_it_and_no_other_stack_does(tmp_path: Path) -> None:
    write_stack(tmp_path, "dev", ci={"order": 1, "review": {"hours": 8}})
    write_stack(tmp_path, "next", ci={"order": 2}, images={"builder": "mine"})
    jobs = generated(tmp_path)
    assert {name for name in jobs if re.search(r"\breview", name)} == {
        "review dev",
        "remove review dev",
        "expired reviews dev",
    }
    served, removed = jobs["review dev"], jobs["remove review dev"]
    assert served["extends"] == [".review", ".docker"]
    assert served["environment"]["on_stop"] == "remove review dev"
    assert served["environment"]["auto_stop_in"] == "8 hours"
    assert removed["environment"]["action"] == "stop"
    for job in (served, removed):
        assert job["environment"]["name"] == job["resource_group"] == "review/dev-$CI_MERGE_REQUEST_IID", (
            "one at a time"
        )
    assert "id_tokens" not in str([served, removed]), "without a platform, it acts as nobody in the cloud"


def test_a_review_on_google_cloud_has_a_token_and_no_duty_but_its_own(tmp_path: Path) -> None:
    write_stack(tmp_path, "dev", **GOOGLE, gateway={}, ci={"order": 1, "review": {}, "projectNumber": 4711})
    jobs = generated(tmp_path)
    own = workflow(PROJECT / ".gitlab-ci.yml")
    for name in ("review", "remove review", "expired reviews"):
        assert jobs[f"{name} dev"]["id_tokens"] == jobs["preview dev"]["id_tokens"]
        (template,) = (each for each in jobs[f"{name} dev"]["extends"] if each != ".docker")
        assert re.findall(r"--duty (\w+)", str(own[template]["script"])) == ["review"]


def test_forks_are_served_nothing() -> None:
    own = workflow(PROJECT / ".gitlab-ci.yml")
    for name in (".review", ".remove review"):
        (rule,) = own[name]["rules"]
        assert "$CI_MERGE_REQUEST_SOURCE_PROJECT_ID == $CI_MERGE_REQUEST_PROJECT_ID" in rule["if"], name
        assert rule["changes"] == ["models/**/*"], "GitLab can only start the one if the other has the same"
    reviews = yaml.safe_load(generate.REVIEWS_OF_GITHUB)
    assert "head.repo.full_name == github.repository" in reviews["jobs"]["tools"]["if"]


def test_githubs_workflow_of_reviews_is_there_while_a_stack_serves_some(copy: Path) -> None:
    write_stack(copy / "stacks", "dev", ci={"order": 1, "review": {}})
    assert generate.run(Namespace(check=False)) == 0
    jobs = workflow(copy / generate.REVIEWS)["jobs"]
    assert jobs["review-dev"]["needs"] == "tools"
    assert jobs["review-dev"]["with"]["stack"] == "dev"
    asked = workflow(copy / ".github" / "workflows" / "mlops-review.yml")["jobs"]["review"]
    allowed = jobs["review-dev"]["permissions"]
    assert asked["permissions"] == allowed == {"contents": "read", "id-token": "write", "packages": "read"}
    commands = [step["run"] for step in asked["steps"] if "model_serving" in step.get("run", "")]
    assert [re.findall(r"--duty (\w+)", command) for command in commands] == [["review"]] * 3
    write_stack(copy / "stacks", "dev", ci={"order": 1})
    assert command_line.main(["pipelines", "--check"]) == 1
    assert generate.run(Namespace(check=False)) == 0
    assert not (copy / generate.REVIEWS).exists()
    assert generate.run(Namespace(check=True)) == 0


def test_a_jobs_token_is_meant_for_the_stacks_own_provider(tmp_path: Path) -> None:
    write_stack(tmp_path, "dev", **GOOGLE, ci={"order": 1, "projectNumber": 4711})
    write_stack(tmp_path, "new", **GOOGLE, ci={"order": 2})
    jobs = generated(tmp_path)
    audience = "//iam.googleapis.com/projects/4711/locations/global/workloadIdentityPools/serving/providers/gitlab"
    for kind in ("preview", "deploy", "drift"):
        assert jobs[f"{kind} dev"]["id_tokens"] == {"GOOGLE_ID_TOKEN": {"aud": audience}}
        assert "id_tokens" not in jobs[f"{kind} new"], "the job itself says what is missing"


def test_the_mistakes_of_all_stacks_are_told_at_once(tmp_path: Path) -> None:
    write_stack(tmp_path, "one", ci={"order": 0})
    write_stack(tmp_path, "two", ci={})
    with pytest.raises(InvalidInput) as raised:
        generate.environments(tmp_path)
    assert [problem.file for problem in raised.value.problems] == ["stacks/Pulumi.one.yaml", "stacks/Pulumi.two.yaml"]


def test_the_images_tag_follows_what_it_is_made_of_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "local" / "tools" / "pulumi").mkdir(parents=True)
    (tmp_path / "local" / "tools" / "etcd").mkdir()
    made_of, other = (
        tmp_path / "local" / "tools" / "pulumi" / "go.sum",
        tmp_path / "local" / "tools" / "etcd" / "go.sum",
    )
    made_of.write_text("1")
    other.write_text("1")
    before = generate.image_tag(tmp_path)
    other.write_text("2")
    assert generate.image_tag(tmp_path) == before
    made_of.write_text("2")
    assert generate.image_tag(tmp_path) != before


def test_the_image_can_copy_what_its_tag_covers_and_nothing_else() -> None:
    lines = (PROJECT / "local" / "tools" / "ci.Dockerfile.dockerignore").read_text().splitlines()
    let_through = {line.removeprefix("!") for line in lines if line.startswith("!")}
    covered = {pattern.removesuffix("/**/*") for pattern in generate.IMAGE_INPUTS if "Dockerfile" not in pattern}
    assert lines[0] == "*"
    assert let_through == covered


def test_the_image_builds_tools_whose_sources_it_has() -> None:
    only = re.search(r"--only ([\w -]+)", (PROJECT / "local" / "tools" / "ci.Dockerfile").read_text())
    assert only
    assert {f"local/tools/{name}/**/*" for name in only[1].split()} <= set(generate.IMAGE_INPUTS)


def test_what_stands_for_public_images_in_the_images_test_stands_for_all_that_it_downloads() -> None:
    text = (PROJECT / "local" / "tools" / "ci.Dockerfile").read_text()
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == [*tool_image.BASES]
    (installed,) = re.findall(r"apt-get install --yes --no-install-recommends ([\w -]+)", text)
    assert set(installed.split()) <= {*base_image.PACKAGES, *tool_image.PACKAGES}
    (plugins,) = re.findall(r"^RUN for name in ([\w ]+); do", text, re.MULTILINE)
    assert plugins.split() == [*tool_image.NOT_MODULES]


def test_a_region_without_its_end_is_no_region() -> None:
    with pytest.raises(Failure, match="# end deployments"):
        generate.github("  # begin deployments: written\n", [], "tag")


class TestGitLab:
    own: ClassVar = workflow(PROJECT / ".gitlab-ci.yml")
    included: ClassVar = workflow(PROJECT / generate.GITLAB)
    jobs: ClassVar = {
        name: job
        for name, job in (own | included).items()
        if isinstance(job, dict) and {"script", "extends", "services"} & job.keys()
    }

    def full(self, name: str) -> dict[str, Any]:
        """A job with what it extends."""
        job = self.jobs[name]
        extended = job.get("extends", [])
        whole: dict[str, Any] = {}
        for template in [extended] if isinstance(extended, str) else extended:
            whole |= self.full(template)
        return whole | job

    def test_every_job_that_another_one_names_is_there(self) -> None:
        for name in self.jobs:
            for need in self.full(name).get("needs", []):
                assert (need["job"] if isinstance(need, dict) else need) in self.jobs, name

    def test_a_deployment_is_never_interrupted_and_one_at_a_time(self) -> None:
        deploys = [self.full(name) for name in self.jobs if name.startswith("deploy ")]
        assert deploys
        for job in deploys:
            assert job["interruptible"] is False
            assert job["resource_group"] == job["environment"]["name"] == job["variables"]["STACK"]

    def test_a_deployment_may_take_longer_than_a_jobs_default_of_an_hour(self) -> None:
        assert {self.full(name)["timeout"] for name in self.jobs if name.startswith("deploy ")} == {"2 hours"}

    def test_a_newer_commit_ends_what_an_older_one_of_its_merge_request_does_and_nothing_on_main(self) -> None:
        assert self.own["workflow"]["auto_cancel"] == {"on_new_commit": "none"}
        for rule in self.own["workflow"]["rules"]:
            of_a_request = "merge_request_event" in rule["if"]
            assert (rule.get("auto_cancel") == {"on_new_commit": "interruptible"}) == of_a_request, rule["if"]

    def test_only_main_gets_the_identity_that_changes_something(self) -> None:
        for name in self.jobs:
            job = self.full(name)
            for rule in job.get("rules", []):
                if "--duty apply" in str(job.get("script")) or rule.get("variables", {}).get("DUTY") == "apply":
                    assert "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH" in rule["if"], name

    def test_only_a_deployment_to_the_stacks_environment_gets_the_identity_that_changes_something(self) -> None:
        duties = {name: self.duties(name) for name in self.jobs if not name.startswith(".")}
        for name, found in duties.items():
            environment = self.full(name).get("environment", {})
            deploys = environment.get("action", "start") == "start" and "name" in environment
            assert ("apply" in found) == deploys, name
        assert {duty for name, found in duties.items() if name.startswith("drift ") for duty in found} == {"verify"}
        assert duties["preview production"] == {"plan", "verify"}

    def duties(self, name: str) -> set[str]:
        job = self.full(name)
        chosen = {rule.get("variables", {}).get("DUTY") for rule in job.get("rules", [])} - {None}
        return chosen | set(re.findall(r"--duty (\w+)", str(job.get("script"))))

    def test_the_image_that_main_runs_is_not_the_one_that_branches_push(self) -> None:
        repositories = [rule["variables"]["TOOL_REPOSITORY"] for rule in self.own["workflow"]["rules"]]
        assert [repository.rpartition("/")[2] for repository in repositories] == ["preview", "preview", "main"]

    def test_no_job_hides_the_kubeconfig_that_gitlab_gives_it(self) -> None:
        assert "KUBECONFIG" not in str(self.own) + str(self.included)


class TestGitHub:
    @pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
    def test_actions_are_pinned_by_commit_and_say_their_version(self, path: Path) -> None:
        used = [
            line.strip()
            for line in path.read_text(encoding="utf-8").splitlines()
            if "uses: " in line and "./.github" not in line
        ]
        assert used
        assert [line for line in used if not PINNED.search(line)] == []

    @pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
    def test_a_job_may_do_what_it_says_and_nothing_else(self, path: Path) -> None:
        content = workflow(path)
        assert content["permissions"] == {}
        assert [name for name, job in content["jobs"].items() if "permissions" not in job] == []

    @pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
    def test_nothing_that_deploys_is_cancelled(self, path: Path) -> None:
        content = workflow(path)
        for job in content["jobs"].values():
            if "model_serving deploy " in str(job.get("steps")):
                assert job["concurrency"]["cancel-in-progress"] is False
                assert job["concurrency"]["queue"] == "max", "nor one that waits"
                assert "environment" in job, "its reviewers are asked"
        cancelled = content.get("concurrency", {}).get("cancel-in-progress", False)
        assert cancelled in {False, "${{ github.event_name == 'pull_request' }}"}

    @pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
    def test_only_a_job_in_the_stacks_environment_gets_the_identity_that_changes_something(self, path: Path) -> None:
        for name, job in workflow(path)["jobs"].items():
            applies = "--duty apply" in str(job.get("steps"))
            assert applies == ("environment" in job), f"{name}: its reviewers are asked before Google lets it in"
            assert not applies or job["environment"] == "${{ inputs.stack }}"

    def test_some_job_deploys(self) -> None:
        assert "model_serving deploy " in str(workflow(WORKFLOWS[0].with_name("mlops-deploy.yml"))["jobs"]["deploy"])

    def test_drift_and_deployment_of_a_stack_exclude_each_other_and_throw_none_out(self) -> None:
        drift = workflow(WORKFLOWS[0].with_name("mlops.yml"))["jobs"]["drift"]["concurrency"]
        deploy = workflow(WORKFLOWS[0].with_name("mlops-deploy.yml"))["jobs"]["deploy"]["concurrency"]
        assert (drift["group"], deploy["group"]) == ("deploy-${{ matrix.stack }}", "deploy-${{ inputs.stack }}")
        assert drift["queue"] == deploy["queue"] == "max"

    def test_the_linter_overlooks_what_it_is_too_old_for_and_nothing_else(self) -> None:
        ignored = workflow(PROJECT / ".github" / "actionlint.yaml")["paths"][".github/workflows/*.yml"]["ignore"]
        assert ignored == ['^unexpected key "queue" for "concurrency" section']


def test_every_command_that_a_pipeline_calls_is_there() -> None:
    files = [PROJECT / ".gitlab-ci.yml", *WORKFLOWS]
    called = {name for path in files for name in re.findall(r"python -m model_serving (\w+)", path.read_text())}
    assert called >= {"credentials", "preview", "note", "post", "pending", "deploy", "drift"}
    assert called <= set(command_line.COMMANDS)


@pytest.mark.parametrize("name", command_line.COMMANDS)
def test_every_command_shows_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        command_line.main([name, "--help"])
    assert f"python -m model_serving {name}" in capsys.readouterr().out.partition("xample")[2]
