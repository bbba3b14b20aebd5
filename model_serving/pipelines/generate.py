"""The command ``pipelines``: generates the jobs that the pipelines of GitLab and GitHub need per environment.

The rest of the pipelines is written by hand. Static jobs are reviewed like any other change, and a child pipeline would
bypass GitLab's limit of one deployment at a time; docs/ci.md compares both.
"""

import argparse
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import indent
from typing import Any, Final

import yaml

from model_serving.pipelines import credentials, stacks
from model_serving.problems import Failure, InvalidInput, Problem
from model_serving.stack.pipelines import CiSettings
from model_serving.stack.reviews import URL_VARIABLE
from model_serving.stack.settings import file_of

HELP: Final = "generate the pipeline jobs of each stack with a ci section"
GITLAB: Final = Path(".gitlab/environments.yml")
INCLUDING: Final = Path(".gitlab-ci.yml")
"""The file that includes `GITLAB`; a repository on GitHub has neither."""
REVIEWS: Final = Path(".github/workflows/mlops-reviews.yml")
"""Only there if a stack serves reviews: without a job, it would be no workflow."""
GITHUB: Final = (Path(".github/workflows/mlops.yml"), Path(".github/workflows/mlops-tools.yml"))
IMAGE_INPUTS: Final = (
    "local/tools/ci.Dockerfile",
    "local/tools/ci.Dockerfile.dockerignore",
    "model_serving/pipelines/google_token.py",
    "requirements*.txt",
    "local/tools/build.py",
    "local/tools/download.py",
    "local/tools/golang.py",
    "local/tools/recipe.py",
    "local/tools/tools.toml",
    "local/tools/actionlint/**/*",
    "local/tools/pulumi/**/*",
    "local/tools/pulumi-language-python/**/*",
    "local/tools/pulumi-resource-docker-build/**/*",
    "local/tools/pulumi-resource-kubernetes/**/*",
)
"""Files in the tool image, as in local/tools/ci.Dockerfile.dockerignore."""
HEAD: Final = "# Written by `make pipelines` from stacks/Pulumi.*.yaml. Do not edit.\n"
JOB: Final = re.compile(r"[A-Za-z][\w-]*", re.ASCII)
"""What GitHub takes in the name of a job."""
REGION: Final = r"(?P<begin>^(?P<indent> *)# begin {name}:.*\n)(?:.*\n)*?(?P<end>^ *# end {name}\n)"
"""Generated part of a workflow, between two comments: GitHub's workflows cannot include files."""

REVIEWS_OF_GITHUB: Final = """\
# Serves what pull requests add until they are closed, or their time is over. docs/ci.md says how.
name: mlops-reviews

on:
  pull_request:
    types: [opened, synchronize, reopened, closed]
    paths: [models/**]
  schedule:
    - cron: "47 * * * *"

permissions: {}

concurrency:
  # One run at a time serves a pull request, or removes what is served. A newer commit ends what an older one does.
  group: mlops-reviews-${{ github.event.pull_request.number || 'expired' }}
  cancel-in-progress: ${{ github.event_name == 'pull_request' }}

jobs:
  tools:
    # Never a fork's: it would run its author's code, and the other jobs need this one.
    if: github.event_name == 'schedule' || github.event.pull_request.head.repo.full_name == github.repository
    permissions:
      contents: read
      packages: write
    uses: ./.github/workflows/mlops-tools.yml
"""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A stack that the pipelines deploy, to the environment of the same name.

    Attributes:
        audience: of GitLab's token; empty without a Google project, or if its number is not set.
        builder: builds images; None stands for Docker, which then runs as a service of the job.
    """

    name: str
    ci: CiSettings
    audience: str
    builder: str | None

    @property
    def is_guarded(self) -> bool:
        """Whether tests and a preview of main run first: a merge request has passed both, but main may not have."""
        return self.ci.tier != "development" or self.ci.approval


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Example: python -m model_serving pipelines"
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")


def run(options: argparse.Namespace) -> int:
    found, changed = environments(stacks.FOLDER), stale()
    names = ", ".join(str(path.relative_to(stacks.PROJECT)) for path in changed)
    if options.check:
        if changed:
            raise Failure(
                f"{names}: out of date with the stack files or the tool image.\n"
                "  Pipelines would miss an environment, or use another commit's tool image.\n"
                "  Run `make pipelines` and commit the files that it writes."
            )
        return 0
    for path, text in changed.items():
        if text is None:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(f"{', '.join(each.name for each in found) or 'no environment'}: {names or 'nothing to change'}")
    return 0


def stale() -> dict[Path, str | None]:
    """The files that are not in step with the stack files and the tool image, with what they should be.

    None stands for a file that should not be there.
    """
    project, tag, found = stacks.PROJECT, image_tag(stacks.PROJECT), environments(stacks.FOLDER)
    # A team deletes the files of the site that it does not use.
    workflows = {project / path: text for path in GITHUB if (text := _content(project / path)) is not None}
    files: dict[Path, str | None] = {path: github(text, found, tag) for path, text in workflows.items()}
    if workflows:
        _refuse_names(found)
        files[project / REVIEWS] = github_reviews(found)
    if (project / INCLUDING).exists():
        files[project / GITLAB] = gitlab(found, tag)
    return {path: text for path, text in files.items() if _content(path) != text}


def _content(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def environments(folder: Path) -> list[Environment]:
    """The stacks with a ``ci`` section, in the order of deployment."""
    problems: list[Problem] = []
    found = []
    for stack in stacks.names(folder):
        try:
            chosen = stacks.read(stack, folder)
        except InvalidInput as error:
            problems += error.problems
            continue
        if chosen.ci:
            audience = credentials.provider_of(chosen, "gitlab")
            found.append(Environment(name=stack, ci=chosen.ci, audience=audience, builder=chosen.images.builder))
    if problems:
        raise InvalidInput(problems)
    return sorted(found, key=lambda each: (each.ci.order, each.name))


def _refuse_names(found: Sequence[Environment]) -> None:
    """Refuses stacks that GitHub's workflows cannot name: in jobs, and as YAML that is no text, e.g. ``on``."""
    problems = [
        Problem(
            file=file_of(name),
            what=f"GitHub has no jobs for an environment named {name}",
            consequence="The workflow would be invalid, so nothing would be previewed or deployed.",
            remedy="Rename the stack: a letter, then letters, digits, - and _, and no word of YAML such as on or null.",
        )
        for name in (each.name for each in found)
        if not JOB.fullmatch(name) or yaml.safe_load(name) != name
    ]
    if problems:
        raise InvalidInput(problems)


def image_tag(project: Path) -> str:
    """Hash of the files in the tool image."""
    digest = hashlib.sha256()
    paths = {path for pattern in IMAGE_INPUTS for path in project.glob(pattern) if path.is_file()}
    for path in sorted(paths):
        if "__pycache__" not in path.parts:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(project)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def gitlab(found: Sequence[Environment], tag: str) -> str:
    """The file that .gitlab-ci.yml includes: jobs that extend its templates."""
    content: dict[str, Any] = {"variables": {"TOOL_TAG": tag}}
    for each in found:
        content[f"preview {each.name}"] = _gitlab_job(
            each,
            ".preview of main" if each.is_guarded else ".preview",
            artifacts={"reports": {"terraform": f"previews/{each.name}.terraform.json"}},
        )
    if found:
        content["note"] = {"extends": ".note", "needs": [f"preview {each.name}" for each in found]}
    for each in found:
        before = [f"deploy {name}" for name in _before(each, found)]
        guards = ["test", f"preview {each.name}"] if each.is_guarded else []
        templates = [".deploy by hand" if each.ci.approval else ".deploy", *([] if each.builder else [".docker"])]
        content[f"deploy {each.name}"] = _gitlab_job(
            each,
            *templates,
            resource_group=each.name,
            environment={"name": each.name, "deployment_tier": each.ci.tier},
            needs=["tools", *guards, *before],
            variables={"STACK": each.name} | ({"PREVIEWED": "previews"} if each.is_guarded else {}),
        )
    for each in found:
        content[f"drift {each.name}"] = _gitlab_job(
            each,
            ".drift",
            # Shared with deployments: an unfinished one would look like drift.
            resource_group=each.name,
            environment={"name": each.name, "deployment_tier": each.ci.tier, "action": "verify"},
        )
        content |= _gitlab_reviews(each)
    return HEAD + yaml.dump(content, sort_keys=False, width=120)


def _gitlab_reviews(each: Environment) -> dict[str, Any]:
    """The jobs that serve what a merge request adds, and remove it: at its end, by hand, or when its time is over."""
    if each.ci.review is None:
        return {}
    name = f"review/{each.name}-$CI_MERGE_REQUEST_IID"
    # GitLab stops it with the merge request, or after its time, by starting the job that `on_stop` names.
    environment = {"name": name, "deployment_tier": "development"}
    served = {"url": f"${URL_VARIABLE}", "on_stop": f"remove review {each.name}"}
    served["auto_stop_in"] = f"{each.ci.review.hours} hours"
    return {
        f"review {each.name}": _gitlab_job(
            each,
            *(".review", *([] if each.builder else [".docker"])),
            resource_group=name,
            environment={**environment, **served},
        ),
        f"remove review {each.name}": _gitlab_job(
            each, ".remove review", resource_group=name, environment={**environment, "action": "stop"}
        ),
        f"expired reviews {each.name}": _gitlab_job(
            each, ".expired reviews", environment={"name": each.name, "action": "verify"}
        ),
    }


def _gitlab_job(each: Environment, *templates: str, **further: Any) -> dict[str, Any]:
    job: dict[str, Any] = {"extends": [*templates], "variables": {"STACK": each.name}}
    if each.audience:
        job["id_tokens"] = {credentials.GITLAB_TOKEN: {"aud": each.audience}}
    return job | further


def _before(each: Environment, found: Sequence[Environment]) -> list[str]:
    """The environments of the next lower order."""
    lower = [other.ci.order for other in found if other.ci.order < each.ci.order]
    return [other.name for other in found if lower and other.ci.order == max(lower)]


def github(text: str, found: Sequence[Environment], tag: str) -> str:
    """A workflow with new content in its regions."""
    regions = {
        "tool image": f"TOOL_TAG: {tag}\n",
        "environments": f"stack: [{', '.join(each.name for each in found)}]\n",
        "deployments": "\n".join(_github_deploy(each, found) for each in found),
    }
    for name, content in regions.items():
        begun = len(re.findall(rf"^ *# begin {name}:", text, re.MULTILINE))
        text, filled = re.subn(REGION.format(name=name), partial(_filled, content), text, flags=re.MULTILINE)
        if begun != filled:
            raise Failure(
                f"a workflow in .github/workflows has a line `# begin {name}` without `# end {name}`\n"
                "  Where the generated part ends is not known, so nothing was written.\n"
                "  Restore the line, e.g. from the history of the file."
            )
    return text


def _filled(content: str, region: re.Match[str]) -> str:
    """A region with new content, indented like the comment before it."""
    return region["begin"] + indent(content, region["indent"]) + region["end"]


def _github_deploy(each: Environment, found: Sequence[Environment]) -> str:
    before = [f"deploy-{name}" for name in _before(each, found)]
    needs = ", ".join(["tools", *(["test"] if each.is_guarded else []), *before])
    return f"""\
deploy-{each.name}:
  needs: [{needs}]
  if: github.ref == 'refs/heads/main' && (github.event_name == 'push' || github.event_name == 'workflow_dispatch')
  permissions:
    actions: read # who has to approve
    contents: read
    id-token: write # Google's identity
    packages: write # the tool image
  uses: ./.github/workflows/mlops-deploy.yml
  with:
    stack: {each.name}
    image: ${{{{ needs.tools.outputs.image }}}}
    preview: {str(each.is_guarded).lower()}
"""


def github_reviews(found: Sequence[Environment]) -> str | None:
    """The workflow that calls mlops-review.yml for each stack that serves reviews; None if there is none."""
    serving = [each for each in found if each.ci.review]
    return HEAD + REVIEWS_OF_GITHUB + "".join(map(_github_review, serving)) if serving else None


def _github_review(each: Environment) -> str:
    return f"""
  review-{each.name}:
    needs: tools
    permissions:
      contents: read
      id-token: write # Google's identity
      packages: read # the tool image
    uses: ./.github/workflows/mlops-review.yml
    with:
      stack: {each.name}
      image: ${{{{ needs.tools.outputs.image }}}}
"""
