"""Which tag a job releases, and for which reasons it must not."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from model_serving.git import TOKEN, Git, login, without_account
from model_serving.problems import InvalidInput
from model_serving.releases import jobs
from model_serving.releases.jobs import Job
from model_serving.releases.project import Project

PROJECT = Project.model_validate(
    {"name": "iris", "serving": {"repository": "https://gitlab.com/g/s.git"}, "data": ["data"]}
)
GITLAB = {
    "CI_API_V4_URL": "https://gitlab.com/api/v4",
    "CI_COMMIT_TAG": "v1.0.1",
    "CI_COMMIT_SHA": "a" * 40,
    "CI_COMMIT_REF_PROTECTED": "true",
    "CI_PIPELINE_URL": "https://gitlab.com/g/iris/-/pipelines/7",
    "CI_PROJECT_URL": "https://gitlab.com/g/iris",
}
GITHUB = {
    "GITHUB_API_URL": "https://api.github.com",
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "o/iris",
    "GITHUB_REF_TYPE": "tag",
    "GITHUB_REF_NAME": "v1.0.1",
    "GITHUB_REF_PROTECTED": "true",
    "GITHUB_SHA": "a" * 40,
    "GITHUB_RUN_ID": "9",
}


def test_gitlabs_job_is_about_its_tag() -> None:
    assert jobs.here(GITLAB) == Job(
        site="GitLab",
        tag="v1.0.1",
        commit="a" * 40,
        is_protected=True,
        pipeline="https://gitlab.com/g/iris/-/pipelines/7",
        repository="https://gitlab.com/g/iris",
    )


def test_githubs_job_is_about_its_tag() -> None:
    assert jobs.here(GITHUB) == Job(
        site="GitHub",
        tag="v1.0.1",
        commit="a" * 40,
        is_protected=True,
        pipeline="https://github.com/o/iris/actions/runs/9",
        repository="https://github.com/o/iris",
    )


def test_a_branchs_job_is_about_no_tag() -> None:
    for environ in (GITLAB | {"CI_COMMIT_TAG": ""}, GITHUB | {"GITHUB_REF_TYPE": "branch", "GITHUB_REF_NAME": "main"}):
        job = jobs.here(environ)
        assert job is not None
        assert job.tag is None


def test_a_laptop_has_no_job() -> None:
    assert jobs.here({}) is None


class Checkout:
    """A repository with one commit that has a tag."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git = Git(folder=folder)
        self._run("init", "--quiet", "--initial-branch", "main")
        for name in ("release.yaml", "model-settings.json", "requirements.lock", "data/rows.csv", "train.py"):
            self.write(name, "first")
        self.commit()
        self._run("tag", "v1.0.1")

    @property
    def head(self) -> str:
        return self.git.must("rev-parse", "HEAD").text

    def write(self, name: str, content: str) -> None:
        (self.folder / name).parent.mkdir(exist_ok=True)
        (self.folder / name).write_text(content)

    def commit(self) -> None:
        self._run("add", "--all")
        identity = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.com")
        self._run(*identity, "commit", "--quiet", "--message", "A change")

    def tag(self, *words: str) -> None:
        self._run("-c", "user.name=somebody", "-c", "user.email=somebody@example.com", "tag", *words)

    def job(self, **changes: Any) -> Job:
        kept: dict[str, Any] = {
            "site": "GitLab",
            "tag": "v1.0.1",
            "commit": self.head,
            "is_protected": True,
            "pipeline": "https://gitlab.com/g/iris/-/pipelines/7",
            "repository": "https://gitlab.com/g/iris",
        }
        return Job(**kept | changes)

    def _run(self, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=self.folder, check=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def refusal(checkout: Checkout, job: Job | None) -> str:
    with pytest.raises(InvalidInput) as refused:
        jobs.subject(PROJECT, checkout.git, job)
    return str(refused.value)


def test_a_protected_tag_that_is_checked_out_is_released(checkout: Checkout) -> None:
    subject = jobs.subject(PROJECT, checkout.git, checkout.job())
    assert (subject.tag, subject.commit) == ("v1.0.1", checkout.head)


def test_an_annotated_tag_is_its_commit(checkout: Checkout) -> None:
    checkout.tag("--annotate", "--message", "x", "v1.0.2")
    object_of_tag = checkout.git.must("rev-parse", "v1.0.2").text
    assert object_of_tag != checkout.head
    job = checkout.job(tag="v1.0.2", commit=object_of_tag)
    assert jobs.subject(PROJECT, checkout.git, job).commit == checkout.head


def test_a_checkout_without_the_tag_is_held_against_the_jobs_commit(checkout: Checkout) -> None:
    assert jobs.subject(PROJECT, checkout.git, checkout.job(tag="v9.0.0")).tag == "v9.0.0"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tag": None}, "`rules: - if: $CI_COMMIT_TAG`"),
        ({"tag": "1.0.1"}, "Tag the commit v1.0.1"),
        ({"tag": "release-1"}, "Only tags v* are protected"),
        ({"tag": "vanilla"}, "Tag the commit like v1.0.1"),
        ({"tag": "v1.0.0.0"}, "numbers without leading zeros"),
        ({"tag": "v01.0"}, "Tag the commit v1.0, and remove the tag v01.0."),
        ({"tag": "2024-9-1"}, "Tag the commit v2024.9.1 or with the next version, and remove the tag 2024-9-1."),
        ({"tag": "v2024-9-1"}, "Tag the commit v2024.9.1, and remove the tag v2024-9-1."),
        ({"is_protected": False}, "Protect the pattern v* (Settings > Repository > Protected tags)"),
        ({"is_protected": False, "site": "GitHub"}, "Add a tag ruleset for v*"),
        ({"commit": "f" * 40}, "Check out the tag's commit"),
    ],
)
def test_a_reason_against_a_tag_is_told_with_its_remedy(checkout: Checkout, changes: dict[str, Any], told: str) -> None:
    assert told in refusal(checkout, checkout.job(**changes))


def test_a_laptop_is_told_to_push_the_tag_or_to_rehearse(checkout: Checkout) -> None:
    assert "`publish --dry-run` builds and checks everything here." in refusal(checkout, None)


def test_a_tag_that_was_moved_after_the_checkout_is_refused(checkout: Checkout) -> None:
    checkout.write("train.py", "second")
    checkout.commit()
    assert "the tag v1.0.1 is about" in refusal(checkout, checkout.job())


def test_every_reason_is_told_at_once(checkout: Checkout) -> None:
    checkout.write("model-settings.json", "changed")
    told = refusal(checkout, checkout.job(tag="x", is_protected=False, commit="f" * 40))
    assert told.count("\n\n") == 4


@pytest.mark.parametrize("name", ["release.yaml", "requirements.lock", "data/rows.csv", "data/new.csv"])
def test_what_is_released_has_to_be_committed(checkout: Checkout, name: str) -> None:
    checkout.write(name, "changed")
    assert f"changes that are in no commit: {name}" in refusal(checkout, checkout.job())


def test_what_training_writes_may_differ_from_the_commit(checkout: Checkout) -> None:
    checkout.write("metrics.json", "{}")
    checkout.write("train.py", "with its outputs")
    assert jobs.subject(PROJECT, checkout.git, checkout.job()).tag == "v1.0.1"


def test_a_folder_without_git_is_refused(tmp_path: Path) -> None:
    git = Git(folder=tmp_path, environ=os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)})
    with pytest.raises(InvalidInput, match="is not a git checkout with a commit"):
        jobs.rehearsal(PROJECT, git, None, "v1.0.0")


def test_a_rehearsal_takes_the_tag_of_head_and_tells_what_is_not_committed(checkout: Checkout) -> None:
    checkout.write("requirements.lock", "changed")
    checkout.git.must("remote", "add", "origin", "https://oauth2:secret@gitlab.com/g/iris.git")
    subject, notes = jobs.rehearsal(PROJECT, checkout.git, None, None)
    assert subject.tag == "v1.0.1"
    assert subject.job.repository == "https://gitlab.com/g/iris.git"
    assert notes == ["not committed, which a release refuses: requirements.lock"]


@pytest.mark.parametrize(("tags", "told"), [((), "HEAD has no tag v*"), (("v1", "v2"), "HEAD has the tags v1, v2")])
def test_a_rehearsal_of_no_certain_version_is_refused(checkout: Checkout, tags: tuple[str, ...], told: str) -> None:
    checkout.tag("--delete", "v1.0.1")
    for tag in tags:
        checkout.tag(tag)
    with pytest.raises(InvalidInput) as refused:
        jobs.rehearsal(PROJECT, checkout.git, None, None)
    assert told in str(refused.value)
    assert "publish --dry-run --tag v1.0.1" in str(refused.value)


def test_git_is_led_to_no_other_repository_and_traces_nothing(tmp_path: Path) -> None:
    astray = {"GIT_DIR": "/nowhere", "GIT_TRACE": "1", "GIT_TRACE_CURL": "1", "GIT_ASKPASS": "/bin/false"}
    git = Git(folder=tmp_path, environ=os.environ | astray)
    git.must("init", "--quiet")
    assert git.must("rev-parse", "--git-dir").text == ".git"
    assert git.run("status").said == ""


def test_the_token_is_read_only_when_git_asks_for_that_host(tmp_path: Path) -> None:
    settings = login("https://gitlab.example.com/g/s.git", "oauth2")
    assert "secret" not in repr(settings)
    git = Git(folder=tmp_path, environ=os.environ | {TOKEN: "secret", "GIT_ASKPASS": "/bin/true"}, settings=settings)
    filled = git.must("credential", "fill", stdin=b"protocol=https\nhost=gitlab.example.com\n\n").text
    assert filled.splitlines()[2:] == ["username=oauth2", "password=secret"]
    other = git.run("credential", "fill", stdin=b"protocol=https\nhost=example.org\n\n")
    assert other.code
    assert "secret" not in other.text


def test_settings_that_the_job_has_already_are_kept(tmp_path: Path) -> None:
    given = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "x.y", "GIT_CONFIG_VALUE_0": "theirs"}
    git = Git(folder=tmp_path, environ=os.environ | given, settings=(("x.z", "ours"),))
    assert git.must("config", "--get", "x.y").text == "theirs"
    assert git.must("config", "--get", "x.z").text == "ours"


def test_a_message_of_gits_has_no_token(tmp_path: Path) -> None:
    git = Git(folder=tmp_path, environ=os.environ | {TOKEN: "secret"})
    done = git.run("secret")
    assert done.code
    assert "git: '[token]' is not a git command" in done.said


@pytest.mark.parametrize(
    ("url", "without"),
    [
        ("https://oauth2:secret@gitlab.com/g/s.git", "https://gitlab.com/g/s.git"),
        ("https://gitlab.com/g/s.git", "https://gitlab.com/g/s.git"),
        ("git@gitlab.com:g/s.git", "git@gitlab.com:g/s.git"),
    ],
)
def test_an_address_is_told_without_its_account(url: str, without: str) -> None:
    assert without_account(url) == without
