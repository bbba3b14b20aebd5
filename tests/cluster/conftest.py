"""A copy of the project with a cluster of its own, brought up and taken down as a newcomer would.

Each process that runs tests has a network of its own, so that several can run at once, and beside `make up`.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from local.cluster.layout import Layout
from local.cluster.locks import held
from local.cluster.processes import owner_of
from tests.cluster.stack import PULUMI_UP, Stack, changed

PROJECT: Final = Path(__file__).resolve().parents[2]
ENDPOINT: Final = "http://127.0.0.1:8080"
CLUSTER: Final = "-".join(filter(None, ["test", os.environ.get("PYTEST_XDIST_WORKER")]))
CLONE_NEWNET: Final = 0x40000000
"""https://man7.org/linux/man-pages/man2/unshare.2.html; Python has the call from 3.12 on."""
COMMAND_SECONDS: Final = 600
FIRST: Final = (
    # They need a cluster on which the stack local is not up yet.
    "test_agent",
    "test_cloud_stack",
    "test_own_cluster",
    # The longest ones: whoever is free takes the next file, and the short ones fill what is left.
    "test_faults_of_models",
    "test_faults_of_the_cluster",
    "test_end_to_end",
    "test_faults_of_updates",
    "test_pipelines",
    "test_traffic",
    "test_zero_failures",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return FIRST.index(item.path.stem) if item.path.stem in FIRST else len(FIRST)

    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def network_of_its_own() -> None:
    """Every port is free in it, and nothing outside can be reached; it ends with the last process in it."""
    if os.geteuid() != 0:
        pytest.exit("The cluster tests need root, as the local cluster does: sudo make test-cluster", returncode=1)
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no network namespace of its own")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


@dataclass(frozen=True, kw_only=True)
class Project:
    """A checkout in a folder of its own.

    Attributes:
        folder: where it is.
        environment: what `make env` prints, for commands of one's own.
        left: what tests have left in the cluster that is no longer in the checkout.
    """

    folder: Path
    environment: Mapping[str, str]
    left: list[str] = field(default_factory=list)

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
        return self.run(*PULUMI_UP, *options, check=check)

    def clean(self) -> None:
        """Lets the cluster serve what is in the checkout, if it may be something else."""
        if self.left:
            # `make up` also starts what has died and recovers a killed update, which is rarely needed.
            if self.up(check=False).returncode:
                self.make("up")
            self.left.clear()

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


def ask(path: str, body: Mapping[str, Any] | None = None, *, timeout: float = 10) -> tuple[int, Any]:
    """A request through the gateway: status and answer."""
    request = urllib.request.Request(
        ENDPOINT + path,
        data=json.dumps(body).encode() if body is not None else None,
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
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
        ["git", "init", "--quiet", "--initial-branch", "main"],
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
def name_of_its_own() -> Iterator[None]:
    """The cluster's name is that of one run at a time; what an earlier one left when it was killed is stopped."""
    lock = Path(tempfile.gettempdir()) / f"model-serving-{CLUSTER}.lock"
    with held(lock, waiting="another run of these tests is under way: waiting for it", report=print):
        left = owner_of(Path("/run/model-serving") / CLUSTER).get("state")
        if left and Path(left).exists():
            stop = ("stop", "--delete", "--name", CLUSTER, "--state", left)
            subprocess.run([sys.executable, "-m", "local.cluster", *stop], cwd=PROJECT, check=True)
            shutil.rmtree(Path(left).parent)
        yield


@pytest.fixture(scope="session")
def left() -> list[str]:
    """Of the project, see there."""
    return []


@pytest.fixture(scope="session")
def checkout(name_of_its_own: None, left: list[str]) -> Iterator[Project]:
    """A checkout whose cluster runs, and nothing on it yet."""
    # Not pytest's own temporary folder, which it may clear away while a cluster still has mounts in it.
    folder = Path(tempfile.mkdtemp(prefix="model-serving-"))
    copy_project(folder)
    # Images stay when a cluster is deleted, and what another commit has published under a version refuses this one's.
    layout = Layout(name=CLUSTER, state=folder / ".state", bin=folder / ".state" / "bin")
    shutil.rmtree(layout.cache / "registry", ignore_errors=True)
    environment = os.environ | make_environment(folder) | {"CLUSTER": CLUSTER}
    checkout = Project(folder=folder, environment=environment, left=left)
    try:
        checkout.make("cluster", "stack")
        yield checkout
    finally:
        # After a failure as well: the processes of a cluster outlive the tests.
        checkout.run("python", "-m", "local.cluster", "stop", "--delete", "--name", CLUSTER)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def vacated(checkout: Project) -> Iterator[Project]:
    """The checkout while the stack local is down, for stacks that have the same namespace and gateway."""
    was_up = checkout.run("pulumi", "stack", "output", "endpoint", "--stack", "local", check=False).returncode == 0
    if was_up:
        checkout.run("pulumi", "destroy", "--yes", "--skip-preview", "--stack", "local")
    yield checkout
    if was_up:
        checkout.make("up")


@pytest.fixture(scope="session")
def project(checkout: Project) -> Iterator[Project]:
    """The stack local, brought up and taken down with the commands of the README."""
    checkout.make("up")
    yield checkout
    # Once is enough: the others go with their clusters.
    if CLUSTER in ("test", "test-gw0"):
        checkout.make("down")


@pytest.fixture(scope="module", autouse=True)
def as_committed(request: pytest.FixtureRequest, left: list[str]) -> None:
    """The tests of a file begin with what is committed, if those before them have had the stack local."""
    if left and not request.node.get_closest_marker("as_left"):
        request.getfixturevalue("project").clean()


@pytest.fixture
def stack(project: Project, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The stack local, whose files are put back afterwards; with the mark ``as_left`` it begins with what is served."""
    with changed(project, as_left=bool(request.node.get_closest_marker("as_left"))) as stack:
        yield stack
