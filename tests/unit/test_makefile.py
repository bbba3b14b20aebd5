"""The Makefile asks for root where it is needed only, and for a cluster of one's own nowhere."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from local.cluster.layout import PROJECT

WHO = "who:\n\t@echo $$HOME; echo '$(ROOT)'\n"
FAKES = {
    "id": "echo {uid}",
    "stat": "echo 1234",
    "getent": "echo alice:x:1234:1234::/home/alice:/bin/bash",
    # The command is the last of its arguments.
    "setpriv": 'echo "$@" >> {notes}; while [ $# -gt 1 ]; do shift; done; exec bash -c "$1"',
}


def make(*arguments: str, path: Path | None = None, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SUDO_", "MAKE", "XDG_"))}
    found = f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]
    command = ["make", "--no-print-directory", *arguments]
    done = subprocess.run(
        command, cwd=PROJECT, env=kept | {"PATH": found} | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def fakes(folder: Path, uid: int) -> Path:
    """Programs by which the Makefile sees another user; returns their folder."""
    (folder / "bin").mkdir()
    for name, script in FAKES.items():
        program = folder / "bin" / name
        program.write_text("#!/bin/sh\n" + script.replace("{uid}", str(uid)).replace("{notes}", f"{folder}/notes"))
        program.chmod(0o755)
    (folder / "who.mk").write_text(WHO)
    return folder / "bin"


@pytest.mark.parametrize("target", ["up", "preview", "down", "prune"])
def test_a_cluster_of_ones_own_needs_neither_root_nor_the_local_cluster(tmp_path: Path, target: str) -> None:
    told = make("--dry-run", target, "STACK=dev", path=fakes(tmp_path, 1000))
    for word in ("local.cluster", "local.machine", "sudo", "--purpose program cluster"):
        assert word not in told
    assert "--purpose program" in told


def test_a_user_starts_the_local_cluster_through_sudo_with_their_own_cache(tmp_path: Path) -> None:
    told = make("--dry-run", "cluster", path=fakes(tmp_path, 1000), HOME="/home/alice")
    root = "sudo --preserve-env env HOME=/home/alice XDG_CACHE_HOME=/home/alice/.cache"
    assert f"{root} .venv/bin/python -m local.cluster start --name local" in told
    assert f"{root} .venv/bin/python -m local.tools.build" not in told


def test_root_needs_no_sudo(tmp_path: Path) -> None:
    assert "sudo" not in make("--dry-run", "cluster", path=fakes(tmp_path, 0))


def test_sudo_make_acts_for_the_user_of_the_checkout(tmp_path: Path) -> None:
    path = fakes(tmp_path, 0)
    options = ("--file", "Makefile", "--file", str(tmp_path / "who.mk"), "who")
    told = make(*options, path=path, SUDO_UID="1234", SUDO_GID="1235", HOME="/root")
    assert told.splitlines()[0] == "/home/alice"
    assert (tmp_path / "notes").read_text().startswith("--reuid=1234 --regid=1235 --init-groups -- /bin/bash -c")
    # A root shell that sudo has opened, in a checkout of root's own.
    assert make(*options, path=path, SUDO_UID="77", SUDO_GID="77", HOME="/root") == "/root\n\n"


def test_the_machine_is_looked_at_before_anything_is_installed() -> None:
    told = make("--dry-run", "cluster", "CLUSTER=never-started").splitlines()
    first = next(number for number, line in enumerate(told) if "local.machine" in line)
    assert not [line for line in told[:first] if "pip" in line or "local.tools.build" in line]
