"""The wheels of every model's locked requirements, downloaded once, so that image builds need no network."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from local.cluster import locks
from local.cluster.errors import LocalError
from local.cluster.layout import PROJECT, Layout

PYTHON = "3.11"
ABIS = ("cp311", "abi3", "none")
NEWEST_GLIBC = 36  # 2.36, Debian bookworm's
OLDEST_GLIBC = 5
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(NEWEST_GLIBC, OLDEST_GLIBC - 1, -1)),
    "manylinux2014_x86_64",
    "manylinux2010_x86_64",
    "manylinux1_x86_64",
    "linux_x86_64",
)
PROGRESS_SECONDS = 5

Report = Callable[[str], None]


def ensure(layout: Layout, report: Report) -> None:
    """Download what is missing and link each lock's folder into the state folder."""
    cache = layout.shared_cache / "wheels"
    requirements = {key(lock): lock for lock in sorted((PROJECT / "models").rglob("requirements.lock"))}
    for name, lock in requirements.items():
        folder = cache / name
        if not folder.exists():
            with locks.held(cache / "lock", waiting="wheels: another command is loading some, waiting", report=report):
                _ensure_downloaded(lock, folder, report)
        _link(layout.wheels / name, folder)


def key(lock: Path) -> str:
    """Name of the folder that holds a lock's wheels."""
    return hashlib.sha256(lock.read_bytes()).hexdigest()[:12]


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and link.readlink() == target:
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def _ensure_downloaded(lock: Path, folder: Path, report: Report) -> None:
    """Into a temporary folder first: one that has its name is complete."""
    if folder.exists():
        return
    temporary = Path(tempfile.mkdtemp(prefix=".loading-", dir=folder.parent))
    try:
        _run_pip(lock, temporary, report)
        temporary.chmod(0o755)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _run_pip(lock: Path, folder: Path, report: Report) -> None:
    shown = lock.relative_to(PROJECT)
    wanted = len(re.findall(r"^[A-Za-z0-9].*==", lock.read_text(), re.MULTILINE))
    began = shown_at = time.monotonic()
    report(f"wheels of {shown}: {wanted} to download")
    lines = []
    with subprocess.Popen(_command(lock, folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        for line in pip.stdout or ():
            lines.append(line)
            if time.monotonic() - shown_at > PROGRESS_SECONDS:
                shown_at = time.monotonic()
                count = sum(1 for seen in lines if seen.startswith("Collecting "))
                report(f"wheels of {shown}: {count} of {wanted}, {shown_at - began:.0f} s")
    if pip.returncode:
        end = "".join(f"    {line}" for line in lines[-12:])
        raise LocalError(
            f"The wheels of {shown} could not be downloaded; pip's last lines:\n{end}"
            f"  Each has to exist as a wheel for Python {PYTHON} on Linux x86_64 with the hash in the lock.\n"
            "  Check the network, or make the lock anew, then run images again."
        )
    report(f"wheels of {shown}: {wanted} downloaded in {time.monotonic() - began:.0f} s")


def _command(lock: Path, folder: Path) -> list[str]:
    """For the image's Python and C library, whatever this machine's own are."""
    target = [f"--python-version={PYTHON}", "--implementation=cp"]
    target += [f"--abi={abi}" for abi in ABIS] + [f"--platform={platform}" for platform in PLATFORMS]
    checked = ["--require-hashes", "--no-deps", "--only-binary=:all:", "--progress-bar=off"]
    return [sys.executable, "-m", "pip", "download", *checked, *target, "--dest", str(folder), "-r", str(lock)]
