"""A stack with a cluster, a registry and a builder of one's own, for a user who is not root.

The local cluster plays the foreign one: its code is gone from the checkout, and what leads to it is in the user's home.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.cluster.conftest import ENDPOINT, Project, ask, copy_project
from tests.cluster.test_serving import IRIS

NOT_ROOT = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
"""Whoever runs the tests, as user 1000 of a namespace in which it has no capability and cannot become root."""
MINE = {
    "kubeContext": "model-serving-local",
    "registry": "localhost:5000/mine",
    "images": {
        "base": "localhost:5000/base/python:3.11-bookworm",
        "builder": "model-serving",
        # There is no package index in the tests' network.
        "wheels": ".state/wheels",
    },
    "gateway": {"className": "contour", "endpoint": ENDPOINT},
    "models": {"iris-dtc": {}},
}


@pytest.fixture
def mine(vacated: Project) -> Iterator[Project]:
    """A checkout without local/cluster, and the environment of a user with what leads to the cluster."""
    scratch = Path(tempfile.mkdtemp(prefix="model-serving-mine-"))
    home, folder = scratch / "home", scratch / "checkout"
    for each in (home / ".kube", home / "states", folder / ".state"):
        each.mkdir(parents=True)
    copy_project(folder)
    shutil.rmtree(folder / "local" / "cluster")
    (folder / "local" / "machine.py").unlink()
    config = {f"model-serving:{key}": value for key, value in MINE.items()}
    (folder / "stacks" / "Pulumi.mine.yaml").write_text(yaml.safe_dump({"config": config}))
    state = vacated.folder / ".state"
    (folder / ".state" / "wheels").symlink_to(state / "wheels")
    shutil.copy(state / "kubeconfig", home / ".kube" / "config")
    shutil.copytree(state / "buildx", home / ".docker" / "buildx")
    environment = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
        "PULUMI_BACKEND_URL": f"file://{home / 'states'}",
        "PULUMI_CONFIG_PASSPHRASE": "mine",
        "PULUMI_SKIP_CONFIRMATIONS": "true",
    }
    user = replace(vacated, folder=folder, environment=environment)
    yield user
    # After a failure as well: another stack would find its namespace taken.
    make(user, "down", check=False)
    shutil.rmtree(scratch)


def make(user: Project, target: str, *, check: bool = True) -> str:
    return user.run(*NOT_ROOT, "make", target, "STACK=mine", check=check).stdout


@pytest.mark.thorough("tests/unit/test_plugins.py for the tools of a stack; the stack local for all else")
def test_a_user_without_root_serves_from_a_cluster_of_their_own(vacated: Project, mine: Project) -> None:
    before = namespaces(vacated)
    assert ENDPOINT in make(mine, "up")
    assert ask("/mlapi/v2/models/iris-dtc/infer", IRIS)[1]["model_version"] == "1.0"
    assert re.search(r"Resources:\s+\d+ unchanged\n\n", make(mine, "up"))

    make(mine, "down")
    assert namespaces(vacated) == before
    state = mine.folder.with_name("home") / "states" / ".pulumi" / "stacks" / "model-serving" / "mine.json"
    assert not json.loads(state.read_text())["checkpoint"]["latest"].get("resources")


def namespaces(project: Project) -> set[str]:
    return set(project.run("kubectl", "get", "namespaces", "--output", "name").stdout.split())
