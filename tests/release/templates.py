"""Model repositories made from the template, trained in the environments of their locks."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local.tools.environments import provide
from tests.release.repositories import IDENTITY, PROJECT, git

TEMPLATE: Final = PROJECT / "templates" / "model-repository"
ANSWERS: Final = PROJECT / "templates" / "examples"
EXAMPLES: Final = tuple(sorted(path.stem for path in ANSWERS.glob("*.yml")))
LOCKS: Final = ("requirements.lock", "requirements-tools.txt")
TOOLS: Final = PROJECT / ".venv" / "bin"
MYPY_CACHE: Final = PROJECT / ".mypy_cache" / "templates"
RESULTS: Final = ("build", "metrics.json", "plots")
ARITHMETIC: Final = {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "2"}
"""On other processors and in other numbers of threads, OpenBLAS adds in another order, and the last bits differ."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a command did; its output and its messages in one."""

    code: int
    said: str


def copier(target: Path, example: str, *options: str) -> Done:
    """Makes a model's repository as a person does."""
    command = [str(TOOLS / "copier"), "copy", "--defaults", "--data-file", str(ANSWERS / f"{example}.yml"), *options]
    return _run([*command, str(TEMPLATE), str(target)], target.parent)


def rendered(target: Path, example: str, **answers: str) -> Path:
    """Makes one whose answers are right."""
    done = copier(target, example, *(word for item in answers.items() for word in ("--data", "=".join(item))))
    assert done.code == 0, done.said
    return target


def prepared(folder: Path, example: str) -> None:
    """Puts the environment that `make` would install for an example where its repository is going to be made."""
    scratch = folder.with_name(f"{folder.name}-scratch")
    made = Example(name=example, folder=rendered(scratch, example), tools=PROJECT)
    made.provide_environment()
    folder.mkdir()
    shutil.move(scratch / ".venv", folder)
    shutil.rmtree(scratch)


def serving_tools(folder: Path) -> Path:
    """A checkout of what installs model-serving; a copy, because building it leaves files in it."""
    for package in ("model_serving", "server"):
        shutil.copytree(PROJECT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", folder)
    return folder


@dataclass(frozen=True, kw_only=True)
class Example:
    """A model's repository.

    Attributes:
        name: the model's and the example's.
        folder: the checkout.
        tools: where it gets model-serving from.
    """

    name: str
    folder: Path
    tools: Path

    def make(self, *words: str, **variables: str) -> Done:
        """Runs make there, as on a laptop."""
        return _run(["make", *words], self.folder, self.environ(variables))

    def must(self, *words: str) -> str:
        done = self.make(*words)
        assert done.code == 0, done.said
        return done.said

    def environ(self, variables: Mapping[str, str] | None = None) -> dict[str, str]:
        """Of a laptop, or a runner, that has uv."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("CI_", "GITHUB_", "PYTHON"))}
        path = f"{TOOLS}:{kept['PATH']}"
        own = {"PATH": path, "SERVING_TOOLS": str(self.tools), **(variables or {})}
        return kept | IDENTITY | ARITHMETIC | own

    def git(self, *arguments: str) -> str:
        return git(self.folder, *arguments)

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "A change")

    def replace(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def provide_environment(self) -> None:
        """Puts the environment of its locks there, as `make` would install it."""
        locks = [self.folder / name for name in LOCKS]
        # Links: what is installed besides, model-serving, must not come into the cache.
        subprocess.run(["cp", "--archive", "--link", str(provide(*locks)), self.folder / ".venv"], check=True)
        mark = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest()[:12]
        (self.folder / ".venv" / f"locked-{mark}").touch()

    def copy(self, folder: Path) -> Example:
        """Another checkout in the same state; the environment is shared."""
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns(".venv"))
        (folder / ".venv").symlink_to(self.folder / ".venv")
        return Example(name=self.name, folder=folder, tools=self.tools)

    def results(self) -> dict[str, bytes]:
        """What training has left, by its path."""
        folders = [self.folder / name for name in RESULTS]
        files = [path for folder in folders for path in (folder, *folder.rglob("*")) if path.is_file()]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in files}

    def forget(self) -> None:
        """Takes away what training has left, and DVC's memory of it."""
        for name in (*RESULTS, ".dvc/cache", ".dvc/tmp"):
            path = self.folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _run(command: list[str], folder: Path, environ: Mapping[str, str] | None = None) -> Done:
    done = subprocess.run(
        command,
        cwd=folder,
        env=environ,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=600,
        check=False,
    )
    return Done(code=done.returncode, said=done.stdout)


def lint(folder: Path) -> Done:
    """Checks the Python of a model's repository as this project's own is checked, from its own root."""
    files = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*.py"))]
    rules = ["--config", str(PROJECT / "pyproject.toml")]
    for command in (
        ["ruff", "format", "--check", *rules, *files],
        ["ruff", "check", *rules, "--per-file-ignores", "tests/*:S101", *files],
        # What it is trained with is not installed beside mypy. It keeps what it knows of the packages that are.
        ["mypy", "--strict", "--ignore-missing-imports", "--cache-dir", str(MYPY_CACHE), *files],
    ):
        done = _run([sys.executable, "-m", *command], folder)
        if done.code:
            return done
    return Done(code=0, said="")
