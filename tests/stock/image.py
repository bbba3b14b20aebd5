"""The disk of the virtual machine: a stock Debian, a user with sudo, this checkout and this machine's caches."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from local.cluster import mounts
from local.tools.recipe import cache_folder

PROJECT: Final = Path(__file__).resolve().parents[2]
SUITE: Final = "bookworm"
SIZE: Final = "24G"
"""Of the disk, whose file has holes: what is free in there takes no space here."""
PACKAGES: Final = (
    *("systemd-sysv", "dbus", "linux-image-amd64", "openssh-server", "apparmor", "ca-certificates"),
    # What README's first lines ask for.
    *("sudo", "git", "make", "python3", "curl"),
)
USER: Final = "alexander.konstantinopoulos"
"""A long name: sockets below a folder of this length would not fit into the kernel's 108 bytes."""
HOME: Final = f"/home/{USER}"
CHECKOUT: Final = f"{HOME}/projects/model-serving"
SERVED: Final = "iris-dtc"
CARRIED: Final = (
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("PIP_INDEX_URL", "PIP_CERT", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
    *("GOPROXY", "GOSUMDB"),
)
"""Variables of this machine by which package registries are reached; their values are never printed."""
CACHES: Final = ("model-serving/tools", "model-serving/base-images", "model-serving/wheels", "uv")
"""Of this machine; not the environments of tests, nor what its clusters have built, which are large."""
SLOWER: Final = 20
LIMITS: Final = {
    "local/cluster/steps.py": ("START_SECONDS",),
    "local/cluster/gateway.py": ("SERVED_SECONDS",),
    "local/cluster/probes.py": ("TIMEOUT_SECONDS",),
    "local/cluster/api.py": ("TIMEOUT_SECONDS",),
    "local/cluster/processes.py": ("END_SECONDS",),
    "local/cluster/cgroups.py": ("END_SECONDS",),
    "server/contract.py": ("ROW_SECONDS",),
}
"""File -> the limits of time that an emulated processor needs SLOWER times as long, in its checkout only."""


@dataclass(frozen=True)
class Image:
    """What QEMU boots.

    Attributes:
        key: private key of root and of the user, for SSH.
    """

    disk: Path
    kernel: Path
    initrd: Path
    key: Path


def make(folder: Path, *, is_emulated: bool) -> Image:
    """Makes the disk in an empty folder.

    Args:
        is_emulated: what says nothing about the machine, and takes an emulated processor very long, is done here.

    Raises:
        subprocess.CalledProcessError: a command failed, whose output is on the terminal.
    """
    root = folder / "root"
    try:
        _run("debootstrap", f"--include={','.join(PACKAGES)}", SUITE, str(root))
        key = _set_up(root, folder)
        _check_out(root, is_emulated=is_emulated)
    finally:
        mounts.unmount_below((root,))  # debootstrap may leave /proc mounted
    # QEMU is handed both, and does not look for them on the disk.
    kernel, initrd = (
        shutil.copy(next((root / "boot").glob(f"{name}-*")), folder / name) for name in ("vmlinuz", "initrd.img")
    )
    disk = folder / "disk.raw"
    _run("mke2fs", "-q", "-t", "ext4", "-d", str(root), str(disk), SIZE)
    shutil.rmtree(root)
    return Image(disk, Path(kernel), Path(initrd), key)


def _set_up(root: Path, folder: Path) -> Path:
    """Network, certificates, the user; returns the key for SSH."""
    (root / "etc/hostname").write_text("stock\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 stock\n")
    (root / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\n")
    (root / "etc/network/interfaces.d/eth0").write_text("auto eth0\niface eth0 inet dhcp\n")
    variables = {name: os.environ[name] for name in CARRIED if name in os.environ}
    (root / "etc/environment").write_text("".join(f'{name}="{value}"\n' for name, value in variables.items()))
    for source in Path("/usr/local/share/ca-certificates").glob("*.crt"):
        shutil.copy(source, root / "usr/local/share/ca-certificates")
    _run("chroot", str(root), "update-ca-certificates")
    _run("chroot", str(root), "useradd", "--create-home", "--groups", "sudo", "--shell", "/bin/bash", "--badname", USER)
    (root / "etc/sudoers.d/stock").write_text("%sudo ALL=(ALL) NOPASSWD: ALL\n")
    key = folder / "key"
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    for home in ("root", HOME.lstrip("/")):
        keys = root / home / ".ssh"
        keys.mkdir(mode=0o700, exist_ok=True)
        shutil.copy(key.with_suffix(".pub"), keys / "authorized_keys")
    return key


def _check_out(root: Path, *, is_emulated: bool) -> None:
    checkout = root / CHECKOUT.lstrip("/")
    _run("git", "clone", "--quiet", f"file://{PROJECT}", str(checkout))
    for name in LIMITS if is_emulated else ():
        _raise_limits(checkout / name, LIMITS[name])
    _serve_one_model(checkout / "stacks/Pulumi.local.yaml")
    for name in CACHES:
        shutil.copytree(cache_folder().parent / name, root / HOME.lstrip("/") / ".cache" / name, symlinks=True)
    _run("chroot", str(root), "chown", "--recursive", f"{USER}:", HOME)
    if is_emulated:
        _install_python_packages(root)


def _install_python_packages(root: Path) -> None:
    """The checkout's environment, whose compiling to bytecode takes half an hour on an emulated processor."""
    _run("mount", "-t", "proc", "proc", str(root / "proc"))
    _run("chroot", str(root), "apt-get", "install", "--yes", "-qq", "python3-venv")
    environment = ("make", "--directory", CHECKOUT, "--eval", "environment: ; @$(MAKE) $(VENV)", "environment")
    _run("chroot", f"--userspec={USER}:{USER}", str(root), "env", f"HOME={HOME}", *environment)


def _raise_limits(file: Path, names: tuple[str, ...]) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    for place, line in enumerate(lines):
        target, _, value = line.partition(" = ")
        if target.partition(":")[0] in names:
            lines[place] = f"{target} = {float(value) * SLOWER}"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _serve_one_model(stack: Path) -> None:
    """The others would be built and started in the same way, for as long again."""
    content = yaml.safe_load(stack.read_text(encoding="utf-8"))
    content["config"]["model-serving:models"] = {SERVED: {}}
    stack.write_text(yaml.safe_dump(content), encoding="utf-8")


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
