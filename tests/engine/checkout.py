"""A small project under git, in which the pipelines' commands run as processes of their own, as in a job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.engine.harness import ROOT, Project

SECONDS = 90


@dataclass(frozen=True, kw_only=True)
class Ended:
    code: int
    text: str

    def __str__(self) -> str:
        return f"exit code {self.code}\n{self.text}"


class Job:
    """A command that runs."""

    def __init__(self, project: Project, *words: str, **environ: str) -> None:
        self._log = project.folder.parent / f"job-{time.monotonic_ns()}.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "model_serving", *words],
                cwd=project.folder,
                env={**without_site(project.environment), "PYTHONPATH": str(ROOT), **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def text(self) -> str:
        return self._log.read_text()

    def says(self, *any_of: str) -> str:
        """Waits until its log has one of these."""
        until = time.monotonic() + SECONDS
        while not any(each in self.text for each in any_of):
            assert time.monotonic() < until, f"never said {any_of}:\n{self.text}"
            assert self.process.poll() is None or any(each in self.text for each in any_of), self.text
            time.sleep(0.1)
        return self.text

    def ends(self) -> Ended:
        return Ended(code=self.process.wait(SECONDS), text=self.text)

    def kill(self) -> None:
        """Ends it, its Pulumi and the plugins as a machine that goes does: at once."""
        for process in [self.process.pid, *descendants(self.process.pid)]:
            os.kill(process, signal.SIGKILL)
        self.process.wait(SECONDS)


def descendants(process: int) -> list[int]:
    """The processes that a process started, and those that they did."""
    # A child is listed with the thread that started it, and Pulumi is written in Go.
    listed = [each.read_text().split() for each in Path(f"/proc/{process}/task").glob("*/children")]
    return [each for children in listed for child in map(int, children) for each in (child, *descendants(child))]


def run(project: Project, *words: str, **environ: str) -> Ended:
    return Job(project, *words, **environ).ends()


def without_site(environ: Mapping[str, str]) -> dict[str, str]:
    """Without what says that this is a job of GitLab or GitHub, which the tests themselves may be."""
    return {key: value for key, value in environ.items() if not key.startswith(("CI_", "GITLAB_", "GITHUB_"))}


def commit(project: Project, program: str | None = None) -> str:
    """Commits the project, with another program if one is given."""
    if program is not None:
        (project.folder / "__main__.py").write_text(program)
    if not (project.folder / ".git").exists():
        git(project, "init", "--quiet", "--initial-branch", "main")
        (project.folder / ".gitignore").write_text(".venv\n__pycache__\n")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--allow-empty", "--message", "a change")
    return git(project, "rev-parse", "HEAD").strip()


def git(project: Project, *words: str) -> str:
    person = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.com")
    command = ["git", *person, *words]
    return subprocess.run(command, cwd=project.folder, check=True, capture_output=True, text=True).stdout
