"""The base image: a slim Debian with Python, bootstrapped here so that no public registry is needed."""

import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from local.cluster import locks, mounts, oci
from local.cluster.layout import REGISTRY
from local.cluster.processes import last_lines
from local.tools.recipe import cache_folder
from model_serving.problems import Failure

BASE_IMAGE = f"{REGISTRY}/base/python:3.11-bookworm"
SUITE = "bookworm"
PACKAGES = ("python3", "python3-venv", "libgomp1", "ca-certificates")
# Files that no container reads, a third of the image, and those that debootstrap copies from this machine.
LEFT_OUT = (
    *("./dev/*", "./etc/*-", "./etc/hostname", "./etc/resolv.conf", "./proc/*", "./sys/*", "./var/cache/*"),
    *("./var/lib/apt/lists/*", "./var/log/*", "./tmp/*", "./usr/share/doc/*", "./usr/share/info/*"),
    *("./usr/share/locale/*", "./usr/share/man/*", "./usr/share/i18n/*"),
)
REVISION = 2  # increase it when this module does something else with the packages
CONFIGURATION = {
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
    "Cmd": ["python3"],
}
PROGRESS_SECONDS = 10


def name_of(further: Sequence[str] = ()) -> str:
    """Name of the image with further packages of Debian's, which changes with its content."""
    return f"{BASE_IMAGE.rpartition(':')[0]}:{_key(further)}"


def ensure_pushed(further: Sequence[str] = ()) -> None:
    """Push the image to the local registry: under that name, and without further packages under its tag as well."""
    content = name_of(further)
    if oci.is_pushed(content):
        return
    folder = ensure_made(further)
    layer = oci.Layer(**json.loads((folder / "layer.json").read_text()))
    began = time.monotonic()
    for image in (*([] if further else [BASE_IMAGE]), content):
        oci.push(image, layer, folder / "layer.tar.gz", CONFIGURATION)
    print(f"pushed {BASE_IMAGE} ({layer.size / 1e6:.0f} MB) in {time.monotonic() - began:.1f} s")


def ensure_made(further: Sequence[str] = ()) -> Path:
    """Folder of the cached layer, which is made if it is missing. Needs no registry."""
    folder = cache_folder() / "base-images" / _key(further)
    make = partial(_make, packages=(*PACKAGES, *further))
    locks.ensure_folder(folder, make, waiting="base image: another command is making it, waiting")
    return folder


def _key(further: Sequence[str]) -> str:
    content = json.dumps([SUITE, (*PACKAGES, *further), LEFT_OUT, CONFIGURATION, REVISION])
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _make(folder: Path, *, packages: Sequence[str]) -> None:
    root = folder / "root"
    _bootstrap(root, packages, folder / "debootstrap.log")
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")  # as in public Python images
    began = time.monotonic()
    layer = _pack(root, folder / "layer.tar.gz")
    print(f"base image: packed into {layer.size / 1e6:.0f} MB in {time.monotonic() - began:.0f} s")
    (folder / "layer.json").write_text(layer.to_json())
    mounts.unmount_below((root,))  # debootstrap may leave /proc mounted
    shutil.rmtree(root)


def _bootstrap(root: Path, packages: Sequence[str], log: Path) -> None:
    if not shutil.which("debootstrap"):
        raise Failure(
            f"The command debootstrap is missing, which makes {BASE_IMAGE}.\n"
            "  On Debian and Ubuntu: apt-get install debootstrap debian-archive-keyring\n"
            "  Or set model-serving:images.base in the stack to an image that this machine can pull."
        )
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(packages)}", SUITE, str(root)]
    began = time.monotonic()
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            while process.returncode is None:
                try:
                    process.wait(PROGRESS_SECONDS)
                except subprocess.TimeoutExpired:
                    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
                    last = (lines or ["bootstrapping Debian"])[-1]
                    print(f"base image: {last.removeprefix('I: ')} ({time.monotonic() - began:.0f} s)")
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise Failure(
            f"debootstrap could not make the base image; its last lines:\n{last_lines(log)}\n"
            "  It downloads Debian packages: check this machine's network, then run images again.\n"
            "  Or set model-serving:images.base in the stack to an image that this machine can pull."
        )


def _pack(root: Path, target: Path) -> oci.Layer:
    """Pack the same packages into the same bytes: order and owners are fixed, and no time is later than the packages'.

    Times are not all the same, because compiled Python records its source's and would be compiled again at every start.
    """
    newest = max(int(path.stat().st_mtime) for path in root.rglob("*.py"))
    command = [
        *("tar", "--create", "--directory", str(root)),
        *("--sort=name", f"--mtime=@{newest}", "--clamp-mtime", "--numeric-owner"),
        *("--format=posix", "--pax-option=delete=atime,delete=ctime"),
        *("--anchored", "--wildcards", *(f"--exclude={pattern}" for pattern in LEFT_OUT), "."),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        if process.stdout is None:
            raise Failure("tar was started without a pipe to read from.")
        layer = oci.compress(process.stdout, target)
    if process.returncode:
        raise Failure(f"tar could not pack the base image from {root}; see its message above.")
    return layer
