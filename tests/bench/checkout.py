"""A copy of the checkout, in which the benchmark releases versions and changes stacks; the checkout stays as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from model_serving.pipelines import show
from tests.engine import harness

STACK: Final = "local"
MODEL: Final = "iris-dtc"
LIKE: Final = "1.0"
"""The release of the model that is copied."""
PROJECT: Final = Path(__file__).resolve().parents[2]
ENVIRONMENT: Final = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
"""Where that is set, every run would compile the program anew."""
STAMP: Final = int(time.time())
"""In each version, because a version that the registry has already is not built."""


class Failed(Exception):
    """A command of the benchmark failed; the text is the command and what it said."""


def run(*command: str, folder: Path = PROJECT, text: str | None = None) -> str:
    """Runs a command to its end, with a text as its standard input; returns its standard output.

    Raises:
        Failed: if it did not succeed.
    """
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def seconds(*command: str, folder: Path = PROJECT) -> float:
    """How long a command takes."""
    start = time.perf_counter()
    run(*command, folder=folder)
    return time.perf_counter() - start


def kubectl(*arguments: str, text: str | None = None) -> str:
    return run("kubectl", "--namespace", "models", *arguments, text=text)


class Checkout:
    """The copy. It has the checkout's `.state`, and so the same cluster, registry and state of the stack local."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._settings = folder / "stacks" / f"Pulumi.{STACK}.yaml"

    def up(self) -> float:
        return seconds("pulumi", "up", "--yes", "--skip-preview", "--stack", STACK, folder=self.folder)

    def preview(self) -> float:
        """A preview that shows no change."""
        return seconds("pulumi", "preview", "--expect-no-changes", "--stack", STACK, folder=self.folder)

    def release(self, version: str, *, model: str = MODEL) -> Path:
        """Releases a copy of the small model under another version, and maybe another name."""
        target = self.folder / "models" / model / version
        copy_release(self.folder / "models" / MODEL / LIKE, target)
        return target

    @contextmanager
    def restored(self) -> Iterator[None]:
        """After the block the stack serves again what it served before."""
        before = self._settings.read_text()
        try:
            yield
        finally:
            if self._settings.read_text() != before:
                self._settings.write_text(before)
                self.up()

    def serve(self, models: Mapping[str, Any]) -> None:
        """Writes into the stack file that it serves these models and no others."""
        content = yaml.safe_load(self._settings.read_text())
        content["config"]["model-serving:models"] = models
        self._settings.write_text(yaml.safe_dump(content))

    @property
    def outputs(self) -> dict[str, Any]:
        return show.stack_outputs(STACK)


def copy_release(source: Path, target: Path) -> None:
    """Copies a release to where its new name and version are the last two parts of the path."""
    shutil.copytree(source, target)
    settings = target / "model-settings.json"
    text = settings.read_text()
    for old, new in ((source.parent.name, target.parent.name), (source.name, target.name)):
        text = text.replace(f'"{old}"', f'"{new}"')
    settings.write_text(text)


@contextmanager
def checkout() -> Iterator[Checkout]:
    """A copy for a while; afterwards the stack serves again what the checkout says."""
    with tempfile.TemporaryDirectory() as name:
        folder = harness.copy_of_project(Path(name) / "checkout")
        # With the key of the stack's state, which is left out of the copies that engine tests make.
        shutil.copy2(PROJECT / "stacks" / f"Pulumi.{STACK}.yaml", folder / "stacks")
        (folder / ".state").symlink_to(PROJECT / ".state")
        copy = Checkout(folder)
        copy.up()  # as the checkout says; it also compiles the program
        try:
            yield copy
        finally:
            run("pulumi", "up", "--yes", "--skip-preview", "--stack", STACK)


@contextmanager
def empty_program() -> Iterator[Path]:
    """A program that declares nothing, in the same virtual environment and backend: what Pulumi costs by itself."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = f"{{name: python, options: {{virtualenv: {PROJECT / '.venv'}}}}}"
        (folder / "Pulumi.yaml").write_text(f"name: empty\nruntime: {options}\n")
        (folder / "__main__.py").touch()
        run("pulumi", "stack", "select", "--create", "bench", folder=folder)
        try:
            preview_of_empty(folder)  # compiles it
            yield folder
        finally:
            run("pulumi", "stack", "rm", "--yes", "bench", folder=folder)


def preview_of_empty(folder: Path) -> float:
    return seconds("pulumi", "preview", "--stack", "bench", folder=folder)
