"""The data scientist's tutorial, run as it stands as far as it needs no cluster: from the template to a release.

tests/cluster/test_readme.py has the rest.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.documents import TUTORIALS, shell_lines
from tests.release.repositories import IDENTITY, PROJECT, git
from tests.release.templates import TOOLS, prepared

pytestmark = pytest.mark.documents
SERVED: Final = "Serve it on this machine"
RELEASE: Final = Path("released", "first-iris", "v1.0.0")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clone of this project's files as they are, on main, and the environment that `make train` would install."""
    folder = tmp_path / "model-serving"
    folder.mkdir()
    listed = git(PROJECT, "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    there = [name for name in listed if (PROJECT / name).is_file()]
    subprocess.run(["cp", "--parents", "--target-directory", str(folder), *there], cwd=PROJECT, check=True)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "As it is")
    (folder / ".venv").symlink_to(PROJECT / ".venv")
    prepared(tmp_path / "first-iris", "iris-decision-tree")
    return folder


@pytest.mark.thorough("test_templates.py, which does the same with this example; tests/unit/test_docs_commands.py")
def test_a_data_scientist_gets_from_the_template_to_a_release(checkout: Path) -> None:
    lines = shell_lines((TUTORIALS / "data-scientist.md").read_text(encoding="utf-8"), before=SERVED)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CI_", "GITHUB_"))}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
        cwd=checkout,
        env=environment | IDENTITY | {"PATH": f"{TOOLS}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert f"first-iris v1.0.0 can be released: {RELEASE}" in done.stdout
    model = checkout.parent / "first-iris"
    assert "| `leaves` | `10` | `5` | -5 |" in (model / "report.md").read_text(encoding="utf-8")
    assert json.loads((model / "metrics.json").read_text(encoding="utf-8"))["accuracy"] == 1
    assert {"request.json", "response.json"} <= {path.name for path in (model / RELEASE).iterdir()}
