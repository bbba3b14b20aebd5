"""The real DVC reads what a release stores, and a release's image gets what DVC has stored."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from local.tools import environments
from model_serving.images import large_files
from model_serving.images.remotes import open_remote

LOCK = Path(__file__).with_name("dvc.txt")
WEIGHTS = bytes(range(256)) * 20_000

Dvc = Callable[..., str]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    return folder


@pytest.fixture
def dvc(repository: Path, tmp_path: Path) -> Dvc:
    """DVC in a repository of its own, whose remote is the folder beside it."""
    program = environments.provide(LOCK) / "bin" / "dvc"
    # Settings, cache and analytics of whoever runs the tests stay out of it.
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "DVC_NO_ANALYTICS": "1"}
    environment |= {f"DVC_{kind}_CONFIG_DIR": str(tmp_path / "home") for kind in ("GLOBAL", "SYSTEM")}
    environment["DVC_SITE_CACHE_DIR"] = str(tmp_path / "site")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [str(program), *arguments],
            cwd=repository,
            env=environment,
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("init", "--quiet")
    run("remote", "add", "--quiet", "--default", "models", str(tmp_path / "remote"))
    return run


def test_dvc_pulls_what_a_release_has_stored(dvc: Dvc, repository: Path, tmp_path: Path) -> None:
    release = repository / "models" / "doubler" / "v1.0.0"
    release.mkdir(parents=True)
    (release / "weights.bin").write_bytes(WEIGHTS)
    large_files.replace_large(release, largest=1000, remote=(tmp_path / "remote").as_uri(), say=print)
    assert not (release / "weights.bin").exists()
    dvc("pull", "--quiet")
    assert (release / "weights.bin").read_bytes() == WEIGHTS
    assert dvc("status", "--json").strip() == "{}"


def test_what_dvc_has_pushed_is_fetched_by_its_own_pointer(dvc: Dvc, repository: Path, tmp_path: Path) -> None:
    release, target = repository / "v1.0.0", tmp_path / "target"
    release.mkdir()
    (release / "weights.bin").write_bytes(WEIGHTS)
    dvc("add", "--quiet", "v1.0.0/weights.bin")
    dvc("push", "--quiet")
    (release / "weights.bin").unlink()
    large_files.fetch(release, open_remote((tmp_path / "remote").as_uri()), target, say=print)
    assert (target / "weights.bin").read_bytes() == WEIGHTS
