"""The wheels of the models' and the portal's locked requirements, downloaded once: image builds need no network."""

import hashlib
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from local.cluster import locks
from local.cluster.layout import PROJECT, Layout
from local.tools.build import replace_link
from local.tools.recipe import cache_folder
from model_serving.problems import Failure

PYTHON = "3.11"
ABIS = ("cp311", "abi3", "none")
NEWEST_GLIBC = 36  # 2.36, Debian bookworm's
OLDEST_GLIBC = 5
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(NEWEST_GLIBC, OLDEST_GLIBC - 1, -1)),
    *("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"),
)
PROGRESS_SECONDS = 5
PORTAL = "server/portal/requirements.lock"


def ensure(layout: Layout) -> None:
    """Download missing wheels and link the folder of each lock into the state folder."""
    layout.wheels.mkdir(parents=True, exist_ok=True)
    for lock in sorted([*(PROJECT / "models").rglob("requirements.lock"), PROJECT / PORTAL]):
        name = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
        folder = cache_folder() / "wheels" / name
        locks.ensure_folder(
            folder, partial(_download, lock), waiting="wheels: another command is downloading some, waiting"
        )
        replace_link(layout.wheels / name, folder)


def _download(lock: Path, folder: Path) -> None:
    shown = lock.relative_to(PROJECT)
    wanted = len(re.findall(r"^[A-Za-z0-9].*==", lock.read_text(encoding="utf-8"), re.MULTILINE))
    began = shown_at = time.monotonic()
    print(f"wheels of {shown}: {wanted} to download")
    lines = []
    with subprocess.Popen(_command(lock, folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        for line in pip.stdout or ():
            lines.append(line)
            if time.monotonic() - shown_at > PROGRESS_SECONDS:
                shown_at = time.monotonic()
                count = sum(seen.startswith("Collecting ") for seen in lines)
                print(f"wheels of {shown}: {count} of {wanted}, {shown_at - began:.0f} s")
    if pip.returncode:
        end = "".join(f"    {line}" for line in lines[-12:])
        raise Failure(
            f"The wheels of {shown} could not be downloaded; pip's last lines:\n{end}"
            f"  Each must exist as a wheel for Python {PYTHON} on Linux x86_64 with the hash in the lock.\n"
            "  Check the network or lock the requirements again, then run images again."
        )
    print(f"wheels of {shown}: {wanted} downloaded in {time.monotonic() - began:.0f} s")


def _command(lock: Path, folder: Path) -> list[str]:
    """For the image's Python and C library, not this machine's."""
    target = [f"--python-version={PYTHON}", "--implementation=cp"]
    target += [f"--abi={abi}" for abi in ABIS] + [f"--platform={platform}" for platform in PLATFORMS]
    checked = ["--require-hashes", "--no-deps", "--only-binary=:all:", "--progress-bar=off"]
    return [sys.executable, "-m", "pip", "download", *checked, *target, "--dest", str(folder), "-r", str(lock)]
