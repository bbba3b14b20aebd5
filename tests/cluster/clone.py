"""A clone of a serving repository whose one environment is the local cluster, and the jobs of its pipelines.

gitlab-ci-local stands for the runner, with its shell executor; a bare repository is the remote, tests/hosts is GitLab.
It leaves out what only a real GitLab has: images, services, tokens, approvals, and one deployment at a time.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.hosts.server import Server, serving

if TYPE_CHECKING:
    from tests.cluster.conftest import Project

STACK: Final = "local"
SENT_BY_HAND: Final = ("CI_API_V4_URL", "CI_PROJECT_ID", "CI_PIPELINE_ID", "MODEL_SERVING_GITLAB_TOKEN")


@dataclass(frozen=True, kw_only=True)
class Clone:
    """A clone of a repository whose one environment is the local cluster.

    Attributes:
        folder: where it is.
        environment: of the runner.
        site: GitLab.
    """

    folder: Path
    environment: Mapping[str, str]
    site: Server

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.com")
        command = ["git", *identity, *arguments]
        return subprocess.run(command, cwd=self.folder, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        self.git("push", "--quiet", "origin", "HEAD")

    def release(self, version: str) -> Path:
        """Commits a copy of a model's version under another number; returns its folder."""
        folder = self.folder / "models" / "iris-dtc" / version
        subprocess.run(["cp", "--recursive", str(folder.with_name("1.0")), str(folder)], check=True)
        settings = folder / "model-settings.json"
        settings.write_text(settings.read_text().replace('"1.0"', f'"{version}"'))
        self.commit(f"Release iris-dtc {version}")
        return folder

    def run(self, *jobs: str, check: bool = True, **variables: str) -> str:
        """Runs jobs of the pipeline; returns their log."""
        known = self.site.gitlab.environ()
        given = {name: known[name] for name in SENT_BY_HAND} | variables
        return run_jobs(self.folder, self.environment, given, *jobs, check=check)

    def run_for_request(self, *jobs: str, check: bool = True, **variables: str) -> str:
        """Runs jobs of a merge request's pipeline, which has no branch."""
        known = self.site.gitlab.environ()
        given = {name: value for name, value in known.items() if name.startswith("CI_MERGE_REQUEST_")}
        event = {"CI_PIPELINE_SOURCE": "merge_request_event", "CI_COMMIT_BRANCH": ""}
        return self.run(*jobs, check=check, **(given | event | variables))


def run_jobs(
    folder: Path, environment: Mapping[str, str], given: Mapping[str, str], *jobs: str, check: bool = True
) -> str:
    """Runs jobs of a .gitlab-ci.yml.

    Args:
        folder: the checkout.
        environment: of the runner.
        given: what GitLab would tell the jobs.

    Returns:
        Their log.
    """
    options = [option for name, value in given.items() for option in ("--variable", f"{name}={value}")]
    options += [f"--ignore-predefined-vars={','.join(given)}", "--force-shell-executor", "--no-color"]
    done = subprocess.run(
        # The schema is checked by `make lint`, and takes longer than everything else here.
        ["gitlab-ci-local", *jobs, *options, "--no-json-schema-validation"],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=600,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout
    return done.stdout


@contextmanager
def cloned(project: Project, scratch: Path) -> Iterator[Clone]:
    """A clone of a project's repository, which deploys to the project's cluster; main has a ci section for it."""
    remote, folder = scratch / "remote", scratch / "clone"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(project.folder), str(remote)], check=True)
    subprocess.run(["git", "clone", "--quiet", str(remote), str(folder)], check=True)
    (folder / ".venv").symlink_to(project.folder / ".venv")
    (folder / ".state").mkdir()
    (folder / ".state" / "wheels").symlink_to(project.folder / ".state" / "wheels")
    with serving() as site:
        clone = Clone(folder=folder, environment=project.environment, site=site)
        clone.git("switch", "--quiet", "--force-create", "main")
        stack = folder / "stacks" / f"Pulumi.{STACK}.yaml"
        backend = f"file://{project.folder}/.state/backend?metadata=skip"
        section = f"  model-serving:ci: {{order: 1, backend: '{backend}', review: {{}}}}\n"
        stack.write_text(stack.read_text().replace("config:\n", f"config:\n{section}", 1))
        subprocess.run(["python", "-m", "model_serving", "pipelines"], cwd=folder, env=clone.environment, check=True)
        clone.commit("Let pipelines deploy to the local cluster")
        yield clone
    project.left.append("what a pipeline deployed")
