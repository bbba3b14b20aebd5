"""The commands in the documents, run as they stand."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cluster.conftest import Project
from tests.documents import shell_lines
from tests.release.repositories import IDENTITY
from tests.release.templates import prepared

pytestmark = pytest.mark.documents
RUN_ELSEWHERE = {
    "make test": "runs this test",
    "make down": "ends the tests of this folder",
    "make doctor": "tests/unit/test_machine.py",
    "make format": "checked by what runs this test",
    "make lint": "beside this test",
    "make test-unit": "beside this test",
}
NEED_A_SITE = ("git push ", "git tag ")


def commands(path: Path) -> list[str]:
    """The shell commands of a document that can be run here."""
    lines = shell_lines(path.read_text(encoding="utf-8"))
    return [line for line in lines if line not in RUN_ELSEWHERE and not line.startswith(NEED_A_SITE)]


def run(project: Project, lines: Sequence[str]) -> str:
    """Runs commands one after the other in one shell, as somebody; returns what they print."""
    identity = [f"export {name}={value}" for name, value in IDENTITY.items()]
    return project.run("bash", "-euo", "pipefail", "-c", "\n".join([*identity, *lines])).stdout


def test_the_python_of_the_readme_asks_over_grpc(project: Project) -> None:
    readme = (project.folder / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert project.run("python", "-c", code).stdout == "[[0]]\n"


def test_the_commands_of_the_readme_work_one_after_the_other(project: Project) -> None:
    try:
        run(project, commands(project.folder / "README.md"))
        # 1.1 was released, and then taken back.
        assert "iris-dtc                1.0" in project.run("python", "-m", "model_serving", "show").stdout
    finally:
        project.run("git", "checkout", "--quiet", "stacks")
        subprocess.run(["rm", "-rf", str(project.folder / "models" / "iris-dtc" / "1.1")], check=True)
        project.left.append("what the README's commands deployed")


@pytest.mark.thorough("tests/unit/test_docs_commands.py; the README, and releases from a model's repository")
def test_the_data_scientists_tutorial_ends_with_an_answer(project: Project) -> None:
    model = project.folder / ".state" / "first-iris"
    prepared(model, "iris-decision-tree")
    lines = commands(project.folder / "docs" / "tutorials" / "data-scientist.md")
    try:
        said = run(project, [line.replace("../first-iris", str(model)) for line in lines])
        assert '"model_name":"first-iris","model_version":"v1.0.0"' in said.replace(" ", "")
    finally:
        project.run("git", "checkout", "--quiet", "stacks")
        for folder in (model, project.folder / "models" / "first-iris"):
            shutil.rmtree(folder, ignore_errors=True)
        project.left.append("what the data scientist's tutorial deployed")


@pytest.mark.thorough("tests/unit/test_docs_commands.py; the README")
def test_the_contributors_tutorial_changes_the_page(project: Project) -> None:
    try:
        said = run(project, commands(project.folder / "docs" / "tutorials" / "contributor.md"))
        assert "<h1>Models of this cluster</h1>" in said
        assert "Say on the page" in project.run("git", "log", "-1", "--format=%s").stdout
    finally:
        project.run("git", "switch", "--quiet", "--discard-changes", "main")
        project.left.append("what the contributor's tutorial deployed")
