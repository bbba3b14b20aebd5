"""A slim Debian with Python, bootstrapped here because the embedded default pulls from no public registry."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from local.cluster import locks, mounts, oci
from local.cluster.errors import LocalError
from local.cluster.layout import REGISTRY, Layout

BASE_IMAGE = f"{REGISTRY}/base/python:3.11-bookworm"
SUITE = "bookworm"
PACKAGES = ("python3", "python3-venv", "libgomp1", "ca-certificates")
# What nothing in a container reads, a third of the image, and what debootstrap copies from this machine.
LEFT_OUT = (
    "./dev/*",
    "./etc/*-",
    "./etc/hostname",
    "./etc/resolv.conf",
    "./proc/*",
    "./sys/*",
    "./var/cache/*",
    "./var/lib/apt/lists/*",
    "./var/log/*",
    "./tmp/*",
    "./usr/share/doc/*",
    "./usr/share/info/*",
    "./usr/share/locale/*",
    "./usr/share/man/*",
    "./usr/share/i18n/*",
)
REVISION = 2  # raise it when what this module does with the packages changes
CONFIGURATION = {
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
    "Cmd": ["python3"],
}
PROGRESS_SECONDS = 10

Report = Callable[[str], None]


def ensure_pushed(layout: Layout, report: Report) -> None:
    content = f"{BASE_IMAGE.rpartition(':')[0]}:{_key()}"  # the other tag stays the same when the content changes
    if oci.is_pushed(content):
        return
    folder = ensure_made(layout, report)
    layer = oci.Layer(**json.loads((folder / "layer.json").read_text()))
    began = time.monotonic()
    for image in (BASE_IMAGE, content):
        oci.push(image, layer, folder / "layer.tar.gz", CONFIGURATION)
    report(f"pushed {BASE_IMAGE} ({layer.size / 1e6:.0f} MB) in {time.monotonic() - began:.1f} s")


def ensure_made(layout: Layout, report: Report) -> Path:
    """The folder of the cached layer, made if it is not there yet. Needs no registry."""
    cache = layout.shared_cache / "base-images"
    with locks.held(cache / "lock", waiting="base image: another command is making it, waiting", report=report):
        return _ensure_made(cache, report)


def _ensure_made(cache: Path, report: Report) -> Path:
    """A half-made one never gets that name."""
    folder = cache / _key()
    if folder.exists():
        return folder
    if not shutil.which("debootstrap"):
        raise LocalError(
            f"The command debootstrap is missing, which makes {BASE_IMAGE}.\n"
            "  On Debian and Ubuntu: apt-get install debootstrap debian-archive-keyring\n"
            "  Or set model-serving:images.base in the stack to an image that this machine can pull."
        )
    temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=cache))
    try:
        _make(temporary, report)
        temporary.rename(folder)
    finally:
        if temporary.exists():
            mounts.unmount_below((temporary,))
            shutil.rmtree(temporary)
    return folder


def _key() -> str:
    content = json.dumps([SUITE, PACKAGES, LEFT_OUT, CONFIGURATION, REVISION])
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _make(folder: Path, report: Report) -> None:
    root = folder / "root"
    _bootstrap(root, folder / "debootstrap.log", report)
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")  # the name that public Python images have
    began = time.monotonic()
    layer = _pack(root, folder / "layer.tar.gz")
    report(f"base image: packed into {layer.size / 1e6:.0f} MB in {time.monotonic() - began:.0f} s")
    (folder / "layer.json").write_text(layer.to_json())
    mounts.unmount_below((root,))  # debootstrap leaves /proc mounted when it is interrupted
    shutil.rmtree(root)


def _bootstrap(root: Path, log: Path, report: Report) -> None:
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root)]
    began = time.monotonic()
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            while _runs(process):
                report(f"base image: {_last_line(log)} ({time.monotonic() - began:.0f} s)")
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        lines = "\n".join(f"    {line}" for line in log.read_text(errors="replace").splitlines()[-12:])
        raise LocalError(
            f"debootstrap could not make the base image; its last lines:\n{lines}\n"
            "  It downloads Debian packages: check this machine's network, then run images again.\n"
            "  Or set model-serving:images.base in the stack to an image that this machine can pull."
        )


def _runs(process: subprocess.Popen[bytes]) -> bool:
    """Wait a while for its end; whether it still runs."""
    try:
        process.wait(PROGRESS_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return False


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return lines[-1].removeprefix("I: ") if lines else "bootstrapping Debian"


def _pack(root: Path, target: Path) -> oci.Layer:
    """The same packages give the same bytes: order and owners are fixed, and times up to those of the packages.

    All times could be one, if compiled Python did not carry its source's: it would be compiled anew at every start.
    """
    exclusions = [f"--exclude={pattern}" for pattern in LEFT_OUT]
    newest = max(int(path.stat().st_mtime) for path in root.rglob("*.py"))
    fixed = ["--sort=name", f"--mtime=@{newest}", "--clamp-mtime", "--numeric-owner"]
    form = ["--format=posix", "--pax-option=delete=atime,delete=ctime"]
    command = [
        "tar",
        "--create",
        "--directory",
        str(root),
        *fixed,
        *form,
        "--anchored",
        "--wildcards",
        *exclusions,
        ".",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        if process.stdout is None:
            raise LocalError("tar was started without a pipe to read from.")
        layer = oci.compress(process.stdout, target)
    if process.returncode:
        raise LocalError(f"tar could not pack the base image from {root}; see its message above.")
    return layer
