"""The command ``pipelines``: writes what the pipelines of GitLab and GitHub have once per environment.

Everything else in them is written by hand. Generated and not discovered by a running pipeline: static jobs are reviewed
like any other change, and a child pipeline would be in the way of GitLab's one deployment at a time. docs/ci.md has
the whole comparison.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from model_serving.pipelines import credentials, stacks
from model_serving.problems import InvalidInput, Problem

NAME: Final = "pipelines"
HELP: Final = "write the pipelines' jobs for each stack that has a ci section"
EXAMPLE: Final = """\
example:
  python -m model_serving pipelines

Each stack's `ci` section says its place in the order, its tier and whether a person approves.
"""
GITLAB: Final = Path(".gitlab/environments.yml")
GITHUB: Final = (Path(".github/workflows/mlops.yml"), Path(".github/workflows/mlops-tools.yml"))
IMAGE_INPUTS: Final = (
    "local/tools/ci.Dockerfile",
    "local/tools/ci.Dockerfile.dockerignore",
    "model_serving/pipelines/google_token.py",
    "requirements*.txt",
    "local/tools/build.py",
    "local/tools/tools.toml",
    "local/tools/actionlint/**/*",
    "local/tools/pulumi/**/*",
    "local/tools/pulumi-language-python/**/*",
    "local/tools/pulumi-resource-docker-build/**/*",
    "local/tools/pulumi-resource-kubernetes/**/*",
)
"""What the tool image is made of, as local/tools/ci.Dockerfile.dockerignore lets it through."""
HEAD: Final = "# Written by `make pipelines` from stacks/Pulumi.*.yaml. Do not edit.\n"
REGION: Final = r"(?P<begin>^ *# begin {name}:.*\n)(?:.*\n)*?(?P<end>^ *# end {name}\n)"
"""A part of a workflow between two comments, because GitHub's workflows cannot include a file."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A stack as the pipelines see it.

    Attributes:
        name: of the stack and of its environment.
        order: place in the sequence of deployments.
        tier: GitLab's word for what it is.
        approval: whether a person approves each deployment.
        audience: whom GitLab's token is for; empty without a Google project, or as long as its number is not known.
        builder: what builds images; None stands for Docker, which the job then brings along.
    """

    name: str
    order: int
    tier: str
    approval: bool
    audience: str
    builder: str | None

    @property
    def is_guarded(self) -> bool:
        """Whether tests and a preview of main come first: what is merged has passed them, main as a whole perhaps not.

        A deployment for development begins at once.
        """
        return self.tier != "development" or self.approval


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something is out of step")


def run(options: argparse.Namespace) -> int:
    found = environments(stacks.FOLDER)
    stale = {
        path: text
        for path, text in wanted(stacks.PROJECT, found).items()
        if not path.exists() or path.read_text() != text
    }
    names = ", ".join(str(path.relative_to(stacks.PROJECT)) for path in stale)
    if options.check and stale:
        print(
            f"{names}: out of step with the stack files or the tool image\n"
            "  Pipelines would leave out an environment, or use an image that is not what this commit says.\n"
            "  Run `make pipelines` and commit what it writes.",
            file=sys.stderr,
        )
        return 1
    for path, text in stale.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if not options.check:
        print(f"{', '.join(each.name for each in found) or 'no environment'}: {names or 'nothing to change'}")
    return 0


def environments(folder: Path) -> list[Environment]:
    """The stacks that have a ``ci`` section, in the order of their deployment.

    Raises:
        InvalidInput: with every mistake of every stack.
    """
    problems: list[Problem] = []
    found = []
    for stack in stacks.names(folder):
        try:
            chosen = stacks.read(stack, folder)
        except InvalidInput as error:
            problems += error.problems
            continue
        if chosen.ci:
            found.append(
                Environment(
                    name=stack,
                    order=chosen.ci.order,
                    tier=chosen.ci.tier,
                    approval=chosen.ci.approval,
                    audience=credentials.provider_of(chosen, "gitlab"),
                    builder=chosen.images.builder,
                )
            )
    if problems:
        raise InvalidInput(problems)
    return sorted(found, key=lambda each: (each.order, each.name))


def wanted(project: Path, found: Sequence[Environment]) -> dict[Path, str]:
    """Every file that this command writes -> what has to be in it."""
    tag = image_tag(project)
    texts = {project / GITLAB: gitlab(found, tag)}
    for path in GITHUB:
        texts[project / path] = github((project / path).read_text(), found, tag)
    return texts


def image_tag(project: Path) -> str:
    """Hash of everything that the tool image is made of."""
    digest = hashlib.sha256()
    paths = {path for pattern in IMAGE_INPUTS for path in project.glob(pattern) if path.is_file()}
    for path in sorted(paths):
        if "__pycache__" not in path.parts:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(project)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def gitlab(found: Sequence[Environment], tag: str) -> str:
    """What .gitlab-ci.yml includes: jobs that extend its templates."""
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
        templates = [".deploy by hand" if each.approval else ".deploy", *([] if each.builder else [".docker"])]
        content[f"deploy {each.name}"] = _gitlab_job(
            each,
            *templates,
            resource_group=each.name,
            environment={"name": each.name, "deployment_tier": each.tier},
            needs=["tools", *guards, *before],
            variables={"STACK": each.name} | ({"PREVIEWED": "previews"} if each.is_guarded else {}),
        )
    for each in found:
        content[f"drift {each.name}"] = _gitlab_job(
            each,
            ".drift",
            # With deployments: a half-made one would be taken for drift.
            resource_group=each.name,
            environment={"name": each.name, "deployment_tier": each.tier, "action": "verify"},
        )
    return HEAD + yaml.dump(content, sort_keys=False, width=120)


def _gitlab_job(each: Environment, *templates: str, **further: Any) -> dict[str, Any]:
    job: dict[str, Any] = {"extends": [*templates], "variables": {"STACK": each.name}}
    if each.audience:
        job["id_tokens"] = {credentials.GITLAB_TOKEN: {"aud": each.audience}}
    return job | further


def _before(each: Environment, found: Sequence[Environment]) -> list[str]:
    """The environments of the next lower order, which have waited for those below them."""
    lower = [other.order for other in found if other.order < each.order]
    return [other.name for other in found if lower and other.order == max(lower)]


def github(text: str, found: Sequence[Environment], tag: str) -> str:
    """A workflow with its regions written anew.

    Raises:
        ValueError: if a region lacks its end.
    """
    regions = {
        "tool image": f"TOOL_TAG: {tag}\n",
        "environments": f"stack: [{', '.join(each.name for each in found)}]\n",
        "deployments": "\n".join(_github_deploy(each, found) for each in found),
    }
    for name, content in regions.items():
        text = _replaced(text, name, content)
    return text


def _replaced(text: str, name: str, content: str) -> str:
    """The regions of a name with other content, which is moved to where the comment before it stands."""

    def fill(match: re.Match[str]) -> str:
        indent = match["begin"][: len(match["begin"]) - len(match["begin"].lstrip())]
        lines = (f"{indent}{line}" if line.strip() else line for line in content.splitlines(keepends=True))
        return match["begin"] + "".join(lines) + match["end"]

    begun = len(re.findall(rf"^ *# begin {name}:", text, re.MULTILINE))
    text, filled = re.subn(REGION.format(name=name), fill, text, flags=re.MULTILINE)
    if begun != filled:
        raise ValueError(f"a region {name!r} has no line `# end {name}`")
    return text


def _github_deploy(each: Environment, found: Sequence[Environment]) -> str:
    before = [f"deploy-{name}" for name in _before(each, found)]
    needs = ", ".join(["tools", *(["test"] if each.is_guarded else []), *before])
    return f"""\
deploy-{each.name}:
  needs: [{needs}]
  if: github.ref == 'refs/heads/main' && (github.event_name == 'push' || github.event_name == 'workflow_dispatch')
  permissions:
    actions: read # whether the run that holds a lock is alive
    contents: read
    id-token: write # Google's identity
    packages: write # the tool image
  uses: ./.github/workflows/mlops-deploy.yml
  with:
    stack: {each.name}
    image: ${{{{ needs.tools.outputs.image }}}}
    preview: {str(each.is_guarded).lower()}
"""
