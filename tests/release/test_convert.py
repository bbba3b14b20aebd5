"""Conversions of what other tools really write, served afterwards by a real MLServer."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.tools.environments import provide
from model_serving import catalog
from model_serving.__main__ import main
from model_serving.releases import trial
from tests.release.repositories import IDENTITY, LOCK, PROJECT, RELEASED, interpreter

ARTEFACT = RELEASED / "iris-decision-tree.joblib"
TOOLS = PROJECT / "templates" / "model-repository" / "locks" / "dvc.txt"
NAMED = ("--name", "iris", "--version", "v1.0.0")
APPEARS_SECONDS = 60


def served(out: Path, python: str) -> bool:
    """The release in MLServer, with the contract that lies beside it."""
    folder = catalog.read(out).get("iris", "v1.0.0").folder
    return trial.run(folder, name="iris", version="v1.0.0", python=python)


@pytest.fixture(scope="module")
def dvc() -> Path:
    return provide(TOOLS) / "bin" / "dvc"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, dvc: Path) -> Path:
    """A git repository in which DVC keeps the artefact of two revisions; nothing changes it."""
    scratch = tmp_path_factory.mktemp("dvc")
    folder, remote = scratch / "repository", scratch / "remote"
    folder.mkdir()
    run(folder, "git", "init", "--quiet")
    run(folder, dvc, "init", "--quiet")
    run(folder, dvc, "remote", "add", "--quiet", "--default", "store", remote)
    for tag, content in (("v0.9.0", b"an earlier one"), ("v1.0.0", ARTEFACT.read_bytes())):
        (folder / "build").mkdir(exist_ok=True)
        (folder / "build" / "model.joblib").write_bytes(content)
        run(folder, dvc, "add", "--quiet", "build/model.joblib")
        run(folder, dvc, "push", "--quiet")
        run(folder, "git", "add", "--all")
        run(folder, "git", "commit", "--quiet", "--message", tag)
        run(folder, "git", "tag", tag)
    return folder


def run(folder: Path, *command: str | Path) -> None:
    subprocess.run(command, cwd=folder, env=os.environ | IDENTITY, check=True, capture_output=True)


def from_dvc(dvc: Path, repository: Path, out: Path, revision: str, path: str = "build/model.joblib") -> int:
    chosen = ("--implementation", "mlserver_sklearn.SKLearnModel", "--lock", str(LOCK), "--dvc", str(dvc))
    return main(["convert", "dvc", str(repository), path, "--rev", revision, *chosen, *NAMED, "--out", str(out)])


def refusal(*arguments: Any) -> str:
    """What is said of a fetch that fails."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        assert from_dvc(*arguments) == 1
    return said.getvalue()


def test_what_dvc_keeps_is_fetched_at_its_revision_and_served(dvc: Path, repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert from_dvc(dvc, repository, out, "v1.0.0") == 0
    folder = out / "iris" / "v1.0.0"
    assert (folder / "model.joblib").read_bytes() == ARTEFACT.read_bytes()
    for name in ("request.json", "response.json"):
        shutil.copy(RELEASED / name, folder)
    assert served(out, interpreter()) is True


@pytest.mark.parametrize(("revision", "path"), [("v2.0.0", "build/model.joblib"), ("v1.0.0", "build/lost.joblib")])
def test_what_dvc_does_not_have_is_said_in_its_own_words(
    dvc: Path, repository: Path, tmp_path: Path, revision: str, path: str
) -> None:
    out = tmp_path / "out"
    said = refusal(dvc, repository, out, revision, path)
    assert f"{path} cannot be fetched at {revision}. DVC says:" in said
    assert (revision if revision == "v2.0.0" else path) in said.partition("DVC says:")[2]
    assert not out.exists()


def test_a_model_that_mlem_saved_is_served(tmp_path: Path) -> None:
    shutil.copy(ARTEFACT, tmp_path / "tree")
    content = ARTEFACT.read_bytes()
    artefact = {
        "uri": "tree",
        "size": len(content),
        "hash": hashlib.md5(content, usedforsecurity=False).hexdigest(),
    }
    metadata = {
        "artifacts": {"data": artefact},
        "object_type": "model",
        "processors": {"model": {"type": "sklearn", "methods": {}}},
        "requirements": [{"module": "sklearn", "package_name": "scikit-learn", "version": "1.9.1"}],
    }
    (tmp_path / "tree.mlem").write_text(yaml.safe_dump(metadata))
    out = tmp_path / "out"
    assert main(["convert", "mlem", str(tmp_path / "tree.mlem"), *NAMED, "--lock", str(LOCK), "--out", str(out)]) == 0
    for name in ("request.json", "response.json"):
        shutil.copy(RELEASED / name, out / "iris" / "v1.0.0")
    assert served(out, interpreter()) is True


def test_a_killed_conversion_leaves_no_release_and_the_next_one_makes_it(tmp_path: Path) -> None:
    """Killed as soon as its first file is there; a program that never ends stands for a slow DVC."""
    slow = tmp_path / "dvc"
    slow.write_text(
        '#!/bin/sh\nfor word; do [ "$before" = --out ] && echo half > "$word"; before=$word; done\nsleep 60\n'
    )
    slow.chmod(0o755)
    out, temporary = tmp_path / "out", tmp_path / "temporary"
    temporary.mkdir()
    arguments = ["older", str(RELEASED), *NAMED, "--out", str(out)]
    command = ["dvc", ".", "model.joblib", "--implementation", "mlserver_sklearn.SKLearnModel", *NAMED]
    process = subprocess.Popen(
        [sys.executable, "-m", "model_serving", "convert", *command, "--dvc", str(slow), "--out", str(out)],
        cwd=PROJECT,
        env=os.environ | {"TMPDIR": str(temporary)},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + APPEARS_SECONDS
        while not list(temporary.rglob("model.joblib")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not out.exists()
    assert main(["convert", *arguments]) == 0
    assert [path.name for path in out.iterdir()] == ["iris"]
    assert catalog.read(out).get("iris", "v1.0.0")
