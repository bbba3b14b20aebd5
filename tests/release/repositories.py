"""Repositories of models and of their releases, as git has them, and the release job of one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import yaml

from local.tools.environments import provide

PROJECT: Final = Path(__file__).resolve().parents[2]
RELEASED: Final = PROJECT / "models" / "iris-dtc" / "1.0"
LOCK: Final = RELEASED / "requirements.lock"
"""Has MLServer, and so all that a model of own code needs."""
OWN_CODE: Final = """
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Doubler(MLModel):
    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        doubled = [2 * each for each in payload.inputs[0].data]
        output = ResponseOutput(name="y", shape=[len(doubled)], datatype="FP32", data=doubled)
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
"""
REQUEST: Final = {"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}]}
RESPONSE: Final = {"outputs": [{"name": "y", "shape": [2], "datatype": "FP32", "data": [2, 4]}]}
IDENTITY: Final = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in {"NAME": "somebody", "EMAIL": "somebody@example.com"}.items()
}


def interpreter() -> str:
    """Of the environment of the lock."""
    return str(provide(LOCK) / "bin" / "python")


def git(folder: Path, *arguments: str) -> str:
    """Runs git; returns what it prints."""
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=os.environ | IDENTITY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip("\n")


@dataclass(frozen=True, kw_only=True)
class ServingRepository:
    """A bare repository with one release of iris-dtc on main."""

    folder: Path

    @property
    def url(self) -> str:
        return f"file://{self.folder}"

    @property
    def tip(self) -> str:
        return self.git("rev-parse", "main")

    def git(self, *arguments: str) -> str:
        return git(self.folder, *arguments)

    def commits(self) -> list[str]:
        """Of main, newest first."""
        return self.git("rev-list", "main").split()

    def files(self, commit: str = "main", place: str = "models") -> list[str]:
        return self.git("ls-tree", "-r", "--name-only", commit, place).splitlines()

    def content(self, path: str, commit: str = "main") -> str:
        return self.git("show", f"{commit}:{path}")

    def releases(self, commit: str = "main") -> set[str]:
        """``<name>/<version>`` of each."""
        return {"/".join(path.split("/")[1:3]) for path in self.files(commit)}

    def hook(self, name: str, *lines: str) -> None:
        """Puts a hook there, of shell."""
        path = self.folder / "hooks" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
        path.chmod(0o755)

    def add(self, scratch: Path, files: Mapping[str, str], *, branch: str = "main", parent: str = "main") -> str:
        """Somebody else's commit."""
        git(self.folder.parent, "clone", "--quiet", "--branch", parent, str(self.folder), str(scratch))
        for name, content in files.items():
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            (scratch / name).write_text(content)
        git(scratch, "add", "--all", "--force")
        git(scratch, "commit", "--quiet", "--message", "Somebody else's")
        git(scratch, "push", "--quiet", "origin", f"HEAD:refs/heads/{branch}")
        return git(scratch, "rev-parse", "HEAD")


def serving_repository(folder: Path) -> ServingRepository:
    """Makes one."""
    git(folder, "init", "--quiet", "--bare", "--initial-branch", "main", "serving.git")
    made = ServingRepository(folder=folder / "serving.git")
    # As GitLab and GitHub have it.
    made.git("config", "uploadpack.allowFilter", "true")
    seed = folder / "seed"
    git(folder, "init", "--quiet", "--initial-branch", "main", str(seed))
    (seed / "models" / "iris-dtc").mkdir(parents=True)
    subprocess.run(["cp", "-r", RELEASED, seed / "models" / "iris-dtc" / "1.0"], check=True)
    git(seed, "add", "--all")
    git(seed, "commit", "--quiet", "--message", "The first release")
    git(seed, "push", "--quiet", str(made.folder), "main")
    return made


@dataclass(frozen=True, kw_only=True)
class Published:
    """What the command did."""

    code: int
    output: str
    errors: str

    @property
    def last_line(self) -> str:
        return self.output.rstrip().splitlines()[-1]


@dataclass(frozen=True, kw_only=True)
class ModelRepository:
    """A checkout of a model's repository whose training has just run: own code that doubles what it is asked.

    Attributes:
        variables: of its release job, besides the tag's.
    """

    folder: Path
    name: str
    variables: dict[str, str] = field(default_factory=dict)

    def git(self, *arguments: str) -> str:
        return git(self.folder, *arguments)

    def copy(self, folder: Path) -> ModelRepository:
        """Another checkout in the same state, which releases to the same place."""
        shutil.copytree(self.folder, folder)
        return replace(self, folder=folder)

    def write(self, files: Mapping[str, str]) -> None:
        for name, content in files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(content)

    def commit(self) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "A change")
        return self.git("rev-parse", "HEAD")

    def tag(self, name: str) -> None:
        self.git("tag", name)

    def environ(self, tag: str, **others: str) -> dict[str, str]:
        """Of the release job of a tag on GitLab."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("CI_", "GITHUB_"))}
        return kept | {
            "CI_API_V4_URL": "http://127.0.0.1:1/api/v4",
            "CI_COMMIT_TAG": tag,
            "CI_COMMIT_SHA": self.git("rev-parse", "HEAD"),
            "CI_COMMIT_REF_PROTECTED": "true",
            "CI_PIPELINE_URL": "https://gitlab.example.com/group/model/-/pipelines/7",
            "CI_PROJECT_URL": f"https://gitlab.example.com/group/{self.name}",
            "PYTHONPATH": str(PROJECT),
            **self.variables,
            **others,
        }

    def command(self, *options: str) -> list[str]:
        return [sys.executable, "-m", "model_serving", "publish", "--python", interpreter(), *options]

    def start(self, tag: str, *options: str, **variables: str) -> subprocess.Popen[str]:
        """The release job, in a process group of its own."""
        return subprocess.Popen(
            self.command(*options),
            cwd=self.folder,
            env=self.environ(tag, **variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def publish(self, tag: str, *options: str, **variables: str) -> Published:
        """The release job, to its end."""
        with self.start(tag, *options, **variables) as process:
            output, errors = process.communicate(timeout=300)
        return Published(code=process.returncode, output=output, errors=errors)


def model_repository(
    folder: Path,
    url: str,
    *,
    name: str = "doubler",
    delivery: str = "push",
    tags: Sequence[str] = ("v1.0.1",),
    **more: Any,
) -> ModelRepository:
    """Makes one with a commit that has tags.

    Args:
        folder: that it becomes.
        url: of the serving repository.
        name: the model's.
        delivery: as in release.yaml.
        tags: of its commit.
        more: keys of ``serving``.
    """
    git(folder.parent, "init", "--quiet", "--initial-branch", "main", str(folder))
    made = ModelRepository(folder=folder, name=name)
    release = {"name": name, "serving": {"repository": url, "delivery": delivery, **more}}
    settings = {"name": name, "implementation": "own.Doubler", "parameters": {"version": "$VERSION"}}
    made.write(
        {
            "release.yaml": yaml.safe_dump(release),
            "model-settings.json": json.dumps(settings),
            "requirements.lock": LOCK.read_text(),
            ".gitignore": "build/\n",
            "build/own.py": OWN_CODE,
            "build/request.json": json.dumps(REQUEST),
            "build/response.json": json.dumps(RESPONSE),
        }
    )
    made.commit()
    for tag in tags:
        made.tag(tag)
    return made
