"""The release that a CI job is about, and whether it is allowed: the tag, its commit, and the checkout.

Variables: https://docs.gitlab.com/ci/variables/predefined_variables/ and
https://docs.github.com/en/actions/reference/workflows-and-actions/variables.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from model_serving import catalog
from model_serving.git import SHORT, Git, without_account
from model_serving.problems import InvalidInput, Problem, first_few
from model_serving.releases.project import FILE, Project

TAGS: Final = "tags of this repository"
CHECKOUT: Final = "checkout"
"""Both take the place of a file in messages."""
_PROTECT: Final[Mapping[str, str]] = {
    "GitLab": "Protect the pattern v* (Settings > Repository > Protected tags), and run the job again.",
    "GitHub": "Add a tag ruleset for v* (Settings > Rules > Rulesets), and push the tag again.",
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """The origin of a release; on a laptop, site and commit are empty.

    Attributes:
        tag: None if it is not a tag pipeline.
        is_protected: whether the site keeps others from pushing this tag.
        pipeline: its address.
        repository: address of the model's repository, without an account.
    """

    site: str
    tag: str | None
    commit: str
    is_protected: bool
    pipeline: str | None
    repository: str | None


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A release to make; the tag is its version, and the commit is checked out."""

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
    """The release of a job."""
    if job is None:
        raise InvalidInput.of(
            TAGS,
            "this is not a job of GitLab or GitHub",
            "A release from a laptop could contain commits that no one else has, and no account stands behind it.",
            "Push a tag v*: its pipeline publishes. `publish --dry-run` builds and checks everything here.",
        )
    if job.tag is None:
        raise InvalidInput.of(
            TAGS,
            f"this pipeline of {job.site} is not a tag pipeline",
            "The tag is the version, so there would be none.",
            "Run this only in tag pipelines: `rules: - if: $CI_COMMIT_TAG`, on GitHub `on: push: tags: ['v*']`.",
        )
    head = _head(git)
    problems = [*_problems_of_tag(job.tag), *_unprotected(job), *_elsewhere(git, job.tag, head, job.commit)]
    if changed := _changed(project, git):
        problems.append(
            Problem(
                file=CHECKOUT,
                what=f"there are changes that are in no commit: {first_few(changed)}",
                consequence="The released content could not be found in the repository later.",
                remedy="Commit them and tag that commit, or find out what changes them in the job.",
            )
        )
    if problems:
        raise InvalidInput(problems)
    return Subject(job=job, tag=job.tag, commit=head)


def rehearsal(project: Project, git: Git, job: Job | None, tag: str | None) -> tuple[Subject, Sequence[str]]:
    """The release that a tag, by default that of HEAD, would make, and why its checkout would be refused then."""
    origin = job or Job(site="", tag=None, commit="", is_protected=False, pipeline=None, repository=_origin(git))
    head = _head(git)
    chosen = tag or origin.tag or _only_tag(git)
    if problems := [*_problems_of_tag(chosen)]:
        raise InvalidInput(problems)
    changed = _changed(project, git)
    notes = [f"not committed, which a release refuses: {first_few(changed)}"] if changed else []
    return Subject(job=origin, tag=chosen, commit=head), notes


def _problems_of_tag(tag: str) -> Iterator[Problem]:
    form = catalog.meant(tag)
    wanted = f"v{(form or tag).lstrip('-_/').removeprefix('v')}"
    if not tag.startswith("v"):
        yield Problem(
            file=TAGS,
            what=f"the tag {tag} does not begin with v",
            consequence="Only tags v* are protected, so anyone could release with this one.",
            remedy=f"Tag the commit {wanted} or with the next version, and remove the tag {tag}.",
        )
    if catalog.order(tag) is None:
        yield Problem(
            file=TAGS,
            what=f"the tag {tag} is not a semantic version",
            consequence="It would be unclear which release is the newest and takes the traffic.",
            remedy=f"Tag the commit {wanted}, and remove the tag {tag}."
            if form
            else "Tag the commit like v1.0.1 or v1.1.0-rc.1, numbers without leading zeros.",
        )


def _unprotected(job: Job) -> Iterator[Problem]:
    if not job.is_protected:
        yield Problem(
            file=TAGS,
            what=f"the tag {job.tag} is not protected",
            consequence="Anyone who may push a branch could release a model with it.",
            remedy=_PROTECT[job.site],
        )


def _elsewhere(git: Git, tag: str, head: str, commit: str) -> Iterator[Problem]:
    """Whether HEAD is another commit than that of the tag or the job."""
    # A shallow checkout of a job may lack the tag; and a site may name an annotated tag instead of its commit.
    tagged, of_job = (
        git.run("rev-parse", "--verify", "--quiet", f"{each}^{{commit}}").text for each in (f"refs/tags/{tag}", commit)
    )
    for what, other in ((f"the tag {tag}", tagged), ("the job", of_job or commit)):
        if other and other != head:
            yield Problem(
                file=CHECKOUT,
                what=f"HEAD is {head[:SHORT]}, and {what} is about {other[:SHORT]}",
                consequence="The release would not be what the tag says.",
                remedy="Check out the tag's commit; if the tag was moved, tag a new version instead.",
            )
            return


def _head(git: Git) -> str:
    done = git.run("rev-parse", "--verify", "HEAD")
    if done.code:
        raise InvalidInput.of(
            CHECKOUT,
            f"{git.folder} is not a git checkout with a commit: {done.last_words}",
            "The released content could not be found again.",
            "Run this in a clone of the model's repository.",
        )
    return done.text


def _changed(project: Project, git: Git) -> list[str]:
    """Uncommitted files that are released as they are in git, or hashed."""
    return git.changed(FILE, project.settings, project.lock, *project.data)


def _only_tag(git: Git) -> str:
    tags = git.run("tag", "--points-at", "HEAD", "--list", "v*").text.split()
    if len(tags) != 1:
        raise InvalidInput.of(
            TAGS,
            f"HEAD has the tags {', '.join(tags)}" if tags else "HEAD has no tag v*",
            "The version is unknown.",
            "Name it: publish --dry-run --tag v1.0.1",
        )
    return tags[0]


def _origin(git: Git) -> str | None:
    done = git.run("remote", "get-url", "origin")
    return None if done.code else without_account(done.text)
