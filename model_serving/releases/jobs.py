"""Which release this job is about, and whether it may be made: the tag, its commit, and the checkout.

https://docs.gitlab.com/ci/variables/predefined_variables/ and
https://docs.github.com/en/actions/reference/workflows-and-actions/variables have the variables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from model_serving import catalog
from model_serving.git import Git, without_account
from model_serving.problems import InvalidInput, Problem
from model_serving.releases.project import FILE, Project

TAGS: Final = "tags of this repository"
"""In the place of a file, where a tag is wrong."""
CHECKOUT: Final = "checkout"
SHORT: Final = 10
"""Digits of a commit for people."""
_SHOWN_FILES: Final = 5
_PROTECT: Final[Mapping[str, str]] = {
    "GitLab": "Protect the pattern v* (Settings > Repository > Protected tags), and run the job again.",
    "GitHub": "Add a tag ruleset for v* (Settings > Rules > Rulesets), and push the tag anew.",
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a release comes from.

    Attributes:
        site: GitLab or GitHub; empty on a laptop.
        tag: that the pipeline is about; None if it is about none.
        commit: of the tag; empty on a laptop, where it is HEAD.
        is_protected: whether the site keeps others from pushing this tag.
        pipeline: address of the pipeline; None on a laptop.
        repository: address of the model's repository, without an account; None if it has none.
    """

    site: str
    tag: str | None
    commit: str
    is_protected: bool
    pipeline: str | None
    repository: str | None


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is released.

    Attributes:
        job: that does it.
        tag: which is the version, as it is.
        commit: that is checked out.
    """

    job: Job
    tag: str
    commit: str


def here(environ: Mapping[str, str]) -> Job | None:
    """The job in which this runs; None on a laptop."""
    if environ.get("CI_API_V4_URL"):
        return Job(
            site="GitLab",
            tag=environ.get("CI_COMMIT_TAG") or None,
            commit=environ.get("CI_COMMIT_SHA", ""),
            is_protected=environ.get("CI_COMMIT_REF_PROTECTED") == "true",
            pipeline=environ.get("CI_PIPELINE_URL") or None,
            repository=environ.get("CI_PROJECT_URL") or None,
        )
    if environ.get("GITHUB_API_URL"):
        repository = f"{environ.get('GITHUB_SERVER_URL')}/{environ.get('GITHUB_REPOSITORY')}"
        return Job(
            site="GitHub",
            tag=environ.get("GITHUB_REF_NAME") if environ.get("GITHUB_REF_TYPE") == "tag" else None,
            commit=environ.get("GITHUB_SHA", ""),
            is_protected=environ.get("GITHUB_REF_PROTECTED") == "true",
            pipeline=f"{repository}/actions/runs/{environ.get('GITHUB_RUN_ID')}",
            repository=repository,
        )
    return None


def subject(project: Project, git: Git, job: Job | None) -> Subject:
    """What a job releases.

    Args:
        project: of the checkout.
        git: in the checkout.
        job: in which this runs.

    Raises:
        InvalidInput: with every reason for which it must not be released.
    """
    if job is None:
        raise InvalidInput([_refused("this is no job of GitLab or GitHub", *_NO_JOB)])
    if job.tag is None:
        raise InvalidInput([_refused(f"this pipeline of {job.site} is about no tag", *_NO_TAG)])
    head = _head(git)
    problems = [*_problems_of_tag(job.tag), *_unprotected(job), *_elsewhere(git, job.tag, head, job.commit)]
    if changed := _changed(project, git):
        problems.append(
            Problem(
                file=CHECKOUT,
                what=f"there are changes that are in no commit: {_listed(changed)}",
                consequence="What would be released could not be found in the repository later.",
                remedy="Commit them and tag that commit, or see what in the job changes them.",
            )
        )
    if problems:
        raise InvalidInput(problems)
    return Subject(job=job, tag=job.tag, commit=head)


def rehearsal(project: Project, git: Git, job: Job | None, tag: str | None) -> tuple[Subject, Sequence[str]]:
    """What would be released if a tag were pushed, and what would be refused then because of the checkout.

    Args:
        project: of the checkout.
        git: in the checkout.
        job: in which this runs; None on a laptop.
        tag: that would be pushed; by default the one that HEAD has.

    Raises:
        InvalidInput: if the tag is none of a release.
    """
    origin = job or Job(site="", tag=None, commit="", is_protected=False, pipeline=None, repository=_origin(git))
    head = _head(git)
    chosen = tag or origin.tag or _only_tag(git)
    if problems := [*_problems_of_tag(chosen)]:
        raise InvalidInput(problems)
    notes = (
        [f"not committed, which a release refuses: {_listed(changed)}"] if (changed := _changed(project, git)) else []
    )
    return Subject(job=origin, tag=chosen, commit=head), notes


_NO_JOB: Final = (
    "A release from a laptop would come from a commit that others may not have, by nobody's account.",
    "Push a tag v*: its pipeline publishes. `publish --dry-run` builds and checks everything here.",
)
_NO_TAG: Final = (
    "The tag is the version, so there would be none.",
    "Run this in the pipeline of a tag alone: `rules: - if: $CI_COMMIT_TAG`, on GitHub `on: push: tags: ['v*']`.",
)


def _problems_of_tag(tag: str) -> Iterator[Problem]:
    if not tag.startswith("v"):
        yield _refused(
            f"the tag {tag} does not begin with v",
            "Only tags v* are protected, so that anybody could release by this one.",
            f"Tag the commit v{tag.lstrip('-_/')} or as the next version is called, and remove the tag {tag}.",
        )
    if catalog.order(tag) is None:
        yield _refused(
            f"the tag {tag} is no semantic version",
            "Which release is the newest, and takes the traffic, could not be told.",
            "Tag the commit like v1.0.1 or v1.1.0-rc.1, numbers without leading zeros.",
        )


def _unprotected(job: Job) -> Iterator[Problem]:
    if not job.is_protected:
        yield _refused(
            f"the tag {job.tag} is not protected",
            "Whoever may push a branch could release a model by it.",
            _PROTECT[job.site],
        )


def _elsewhere(git: Git, tag: str, head: str, commit: str) -> Iterator[Problem]:
    """Whether something else is checked out than the job and the tag say."""
    # A shallow checkout of a job may lack the tag; and a site may name an annotated tag where the commit is meant.
    tagged, of_job = (
        git.run("rev-parse", "--verify", "--quiet", f"{each}^{{commit}}").text for each in (f"refs/tags/{tag}", commit)
    )
    for what, other in ((f"the tag {tag}", tagged), ("the job", of_job or commit)):
        if other and other != head:
            yield Problem(
                file=CHECKOUT,
                what=f"HEAD is {head[:SHORT]}, and {what} is about {other[:SHORT]}",
                consequence="Something else would be released than the tag says.",
                remedy="Check the tag's commit out; if the tag was moved, tag a new version instead.",
            )
            return


def _head(git: Git) -> str:
    done = git.run("rev-parse", "--verify", "HEAD")
    if done.code:
        raise InvalidInput(
            [
                Problem(
                    file=CHECKOUT,
                    what=f"{git.folder} is no git checkout with a commit: {done.last_words}",
                    consequence="Nobody could say later what was released.",
                    remedy="Run this in a clone of the model's repository.",
                )
            ]
        )
    return done.text


def _changed(project: Project, git: Git) -> list[str]:
    """What is released, or told of, as it is in git, and is not as it is there."""
    paths = [FILE, project.settings, project.lock, *project.data]
    listed = git.run("status", "--porcelain", "-z", "--untracked-files=all", "--no-renames", "--", *paths).bytes
    return [entry[3:] for entry in listed.decode(errors="replace").split("\0") if entry]


def _only_tag(git: Git) -> str:
    tags = git.run("tag", "--points-at", "HEAD", "--list", "v*").text.split()
    if len(tags) != 1:
        raise InvalidInput(
            [
                _refused(
                    f"HEAD has the tags {', '.join(tags)}" if tags else "HEAD has no tag v*",
                    "Which version this is about is not known.",
                    "Say it: publish --dry-run --tag v1.0.1",
                )
            ]
        )
    return tags[0]


def _origin(git: Git) -> str | None:
    done = git.run("remote", "get-url", "origin")
    return None if done.code else without_account(done.text)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN_FILES} more" if len(names) > _SHOWN_FILES else ""
    return f"{', '.join(names[:_SHOWN_FILES])}{more}"


def _refused(what: str, consequence: str, remedy: str) -> Problem:
    return Problem(file=TAGS, what=what, consequence=consequence, remedy=remedy)
