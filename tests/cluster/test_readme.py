"""The commands in the documents, run as they stand."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.cluster.conftest import Project

pytestmark = pytest.mark.documents
RUN_ELSEWHERE = {
    "make test": "runs this test",
    "make down": "ends the tests of this folder",
}


def commands(path: Path) -> str:
    """The shell blocks of a document, one after the other."""
    blocks = re.findall(r"^```sh\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line not in RUN_ELSEWHERE]
    return "\n".join(lines)


def test_the_python_of_the_readme_asks_over_grpc(project: Project) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", (project.folder / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert project.run("python", "-c", code).stdout == "[[0]]\n"


def test_the_commands_of_the_readme_work_one_after_the_other(project: Project) -> None:
    try:
        project.run("bash", "-euo", "pipefail", "-c", commands(project.folder / "README.md"))
        # 1.1 was released, and then taken back.
        assert "iris-dtc                1.0" in project.run("python", "-m", "model_serving", "show").stdout
    finally:
        project.run("git", "checkout", "--quiet", "stacks")
        subprocess.run(["rm", "-rf", str(project.folder / "models" / "iris-dtc" / "1.1")], check=True)
        project.left.append("what the README's commands deployed")
