from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from local.cluster.locks import held
from tests.engine.harness import AUTHORITY, Cloud, Project, cluster_api, pulumi_home, small_project, twin, whole_project
from tests.engine.residents import Residents

SmallProject = Callable[..., Project]
Whole = Callable[[str], Project]
Edits = tuple[tuple[str, str], ...]
"""Old and new text of the stack's settings."""
Standing = Callable[..., Project]


def pytest_configure(config: pytest.Config) -> None:
    """Starts the one API server of a run, which pytest-xdist's workers inherit, as they do what the SDK says."""
    if AUTHORITY in os.environ:
        return
    block = ExitStack()
    block.enter_context(cluster_api())
    config.add_cleanup(block.close)


@pytest.fixture(scope="session")
def residents() -> Iterator[Residents]:
    """The stand-ins of a worker's tests."""
    # The path of a socket has to be short.
    with tempfile.TemporaryDirectory(prefix="standins-") as folder:
        residents = Residents(Path(folder) / "socket")
        yield residents
        residents.close()


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, residents: Residents) -> Path:
    """A PULUMI_HOME in which every provider is a stand-in."""
    return pulumi_home(tmp_path_factory.mktemp("home"), socket=residents.socket)


@pytest.fixture
def small(tmp_path: Path, home: Path) -> SmallProject:
    """Makes a project from the text of a program."""

    def make(program: str, config: Mapping[str, str] | None = None, *, name: str = "small") -> Project:
        config = {"gcp:project": "acme-models", "gcp:region": "europe-west1", **(config or {})}
        folder = small_project(tmp_path / name, program, config)
        return Project(folder, home, Cloud(tmp_path / f"{name}-cloud"), "test")

    return make


@pytest.fixture
def whole(tmp_path: Path, home: Path) -> Whole:
    """Makes a copy of this project with one of its stacks."""
    return lambda stack: whole_project(tmp_path, home, stack)


@pytest.fixture
def standing(tmp_path: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Standing:
    """Makes a copy of this project with one of its stacks, which is up: brought up once for all tests, then copied."""

    def make(stack: str, edits: Edits = (), environ: Mapping[str, str] | None = None) -> Project:
        key = hashlib.sha256(repr((stack, edits)).encode()).hexdigest()[:8]
        # Above what is each worker's own.
        original = tmp_path_factory.getbasetemp().parent / f"standing-{stack}-{key}"
        with held(original.with_suffix(".lock"), waiting=f"{original.name} is being made, waiting", report=print):
            if not original.exists():
                made = Path(tempfile.mkdtemp(dir=original.parent))
                project = whole_project(made, home, stack)
                project.environment |= environ or {}
                for old, new in edits:
                    project.edit_settings(old, new)
                project.up()
                made.rename(original)
        project = twin(original, tmp_path / "standing", home, stack)
        project.environment |= environ or {}
        return project

    return make
