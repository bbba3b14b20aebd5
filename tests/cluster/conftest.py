"""A copy of the project with a cluster of its own, brought up and taken down as a newcomer would."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

PROJECT: Final = Path(__file__).resolve().parents[2]
ENDPOINT: Final = "http://127.0.0.1:8080"
CLUSTER: Final = "test"
COMMAND_SECONDS: Final = 600


@dataclass(frozen=True, kw_only=True)
class Project:
    """A checkout in a folder of its own.

    Attributes:
        folder: where it is.
        environment: what `make env` prints, for commands of one's own.
    """

    folder: Path
    environment: Mapping[str, str]

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command in the checkout; what it printed is in ``stdout``, both streams in their order."""
        result = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if check:
            assert result.returncode == 0, f"{' '.join(command)} ended with {result.returncode}:\n{result.stdout}"
        return result

    def make(self, *targets: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("make", *targets, check=check)

    def up(self, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("pulumi", "up", "--yes", "--skip-preview", "--stack", "local", *options, check=check)

    def kubectl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("kubectl", "--namespace", "models", *arguments, check=check)

    def outputs(self) -> dict[str, Any]:
        outputs: dict[str, Any] = json.loads(self.run("pulumi", "stack", "output", "--json", "--stack", "local").stdout)
        return outputs

    def release(self, model: str, version: str, *, like: str) -> Path:
        """Releases a copy of a version under another number."""
        folder = self.folder / "models" / model / version
        subprocess.run(["cp", "--recursive", str(folder.with_name(like)), str(folder)], check=True)
        settings = folder / "model-settings.json"
        settings.write_text(settings.read_text().replace(f'"{like}"', f'"{version}"'))
        return folder


def ask(path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
    """A request through the gateway: status and answer."""
    request = urllib.request.Request(
        ENDPOINT + path,
        data=json.dumps(body).encode() if body is not None else None,
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def copy_project(folder: Path) -> None:
    """A clone of the working tree with what is not committed yet, and with the virtual environment that is there."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=PROJECT,
        check=True,
        capture_output=True,
    ).stdout
    subprocess.run(
        ["cp", "--parents", "--target-directory", str(folder), *listed.decode().split("\0")[:-1]],
        cwd=PROJECT,
        check=True,
    )
    (folder / ".venv").symlink_to(PROJECT / ".venv")
    for command in (
        ["git", "init", "--quiet"],
        ["git", "add", "--all"],
        ["git", "-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "-m", "Copy"],
    ):
        subprocess.run(command, cwd=folder, check=True)


def make_environment(folder: Path) -> dict[str, str]:
    """What the README's `eval "$(make env)"` gives a shell."""
    script = 'eval "$(make env)" && env -0'
    printed = subprocess.run(["bash", "-c", script], cwd=folder, check=True, capture_output=True, text=True).stdout
    return dict(entry.split("=", 1) for entry in printed.split("\0")[:-1])


@pytest.fixture(scope="session")
def checkout() -> Iterator[Project]:
    """A checkout whose cluster runs, and nothing on it yet."""
    # Not pytest's own temporary folder, which it may clear away while a cluster still has mounts in it.
    folder = Path(tempfile.mkdtemp(prefix="model-serving-"))
    copy_project(folder)
    checkout = Project(folder=folder, environment=os.environ | make_environment(folder) | {"CLUSTER": CLUSTER})
    try:
        checkout.make("cluster", "stack")
        yield checkout
    finally:
        # After a failure as well: the processes of a cluster outlive the tests.
        checkout.run("python", "-m", "local", "stop", "--delete", "--name", CLUSTER)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def project(checkout: Project) -> Iterator[Project]:
    """The stack local, brought up and taken down with the commands of the README."""
    checkout.make("up")
    yield checkout
    checkout.make("down")
