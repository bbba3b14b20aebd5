from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.engine.harness import Cloud, Project, copy_of_project, pulumi_home, small_project

SmallProject = Callable[..., Project]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PULUMI_HOME in which every provider is a stand-in."""
    return pulumi_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def small(tmp_path: Path, home: Path) -> SmallProject:
    """Makes a project from the text of a program."""

    def make(program: str, config: Mapping[str, str] | None = None, *, name: str = "small") -> Project:
        config = {"gcp:project": "acme-models", "gcp:region": "europe-west1", **(config or {})}
        folder = small_project(tmp_path / name, program, config)
        return Project(folder, home, Cloud(tmp_path / f"{name}-cloud"), "test")

    return make


@pytest.fixture
def whole(tmp_path: Path, home: Path) -> Callable[[str], Project]:
    """Makes a copy of this project with one of its stacks."""

    def make(stack: str) -> Project:
        folder = copy_of_project(tmp_path / stack)
        return Project(folder, home, Cloud(tmp_path / f"{stack}-cloud"), stack)

    return make
