"""Installs the system packages that the local cluster needs; their services neither start nor run at boot.

Uses only the standard library, because it runs before there is a virtual environment.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

CLUSTER: Final = {
    # An installed command counts, whatever its package: Debian's containerd would replace Docker's.
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ipset": "ipset",
    "ip": "iproute2",
    "docker-registry": "docker-registry",
}
"""Command without which the local cluster cannot start -> Debian package."""
COMMANDS: Final = {
    **CLUSTER,
    "debootstrap": "debootstrap",
    # Used by gitlab-ci-local in the tests.
    "rsync": "rsync",
    # The load generator of the cluster tests and of `make bench`.
    "wrk": "wrk",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "/usr/share/doc/ca-certificates": "ca-certificates",
}
"""Command or path -> Debian package, for everything on this machine."""
START_NO_SERVICES: Final = Path("/usr/sbin/policy-rc.d")
"""Program that Debian's packages ask, if it exists, whether they may start their services."""
NO: Final = "#!/bin/sh\n# Of `make tools`, for as long as it installs packages.\nexit 101\n"
"""Its answer. The content tells one that a killed `make tools` left from one of the machine's own."""
STOPPED: Final = 130
"""Exit code of what a person or a runner has stopped."""
COMMAND: Final = "python3 local/tools/packages.py"
"""What an administrator can run as root in a checkout; unlike apt-get alone, it leaves no service running."""


def can_install() -> bool:
    return shutil.which("apt-get") is not None and (os.geteuid() == 0 or shutil.which("sudo") is not None)


def missing(more: Sequence[str] = ()) -> list[str]:
    """Debian packages of what is not there.

    Args:
        more: commands that are wanted as well, each of the package of its name, or of PACKAGE in COMMAND=PACKAGE.
    """
    path = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"  # a user's PATH may lack sbin
    packages = {
        package
        for name, package in {**COMMANDS, **dict(map(_wanted, more))}.items()
        if not (Path(name).exists() if name.startswith("/") else shutil.which(name, path=path))
    }
    # Debian packages this module of the standard library separately; virtual environments need it.
    if importlib.util.find_spec("ensurepip") is None:
        packages.add("python3-venv")
    return sorted(packages)


def _wanted(text: str) -> tuple[str, str]:
    command, _, package = text.partition("=")
    return command, package or command


class Apt:
    """Runs apt-get until the end of everything that it has started, also when it is told to stop."""

    def __init__(self) -> None:
        self.is_stopped = False
        self._process: subprocess.Popen[str] | None = None

    def stop(self, *_: object) -> None:
        """Handler of SIGTERM and Ctrl-C."""
        self.is_stopped = True
        if self._process:
            self._process.terminate()

    def run(self, *arguments: str) -> tuple[int, str]:
        """Returns the exit code and what was printed."""
        if self.is_stopped:
            return STOPPED, ""
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        self._process = subprocess.Popen(
            ["apt-get", *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if self.is_stopped:  # while it was being started
            self._process.terminate()
        # Until dpkg, which has the same output, has ended too: it would go on, and start services.
        said, _ = self._process.communicate()
        return STOPPED if self.is_stopped else self._process.returncode, said


def enabled_units() -> set[str]:
    """What systemd starts at boot, also read where systemd does not run."""
    command = ["systemctl", "--root=/", "list-unit-files", "--state=enabled", "--no-legend", "--plain", "--no-pager"]
    if not shutil.which("systemctl"):
        return set()
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return {line.split()[0] for line in listed.splitlines()}


def install(packages: list[str], apt: Apt) -> int:
    print(f"installing the Debian packages {', '.join(packages)}", flush=True)
    # No services, because Debian's registry would use the port of the local cluster's, on all addresses.
    starts_services = (
        not START_NO_SERVICES.exists() or START_NO_SERVICES.read_text(encoding="utf-8", errors="replace") == NO
    )
    enabled = enabled_units()
    try:
        if starts_services:
            START_NO_SERVICES.write_text(NO, encoding="utf-8")
            START_NO_SERVICES.chmod(0o755)
        # It may fail, because apt may already know the packages.
        apt.run("update", "-qq")
        code, said = apt.run("install", "--yes", "--no-install-recommends", "-qq", *packages)
    finally:
        if new := sorted(enabled_units() - enabled):
            # They would start at the next boot. Upgrades of the packages leave them disabled.
            subprocess.run(["systemctl", "--root=/", "disable", "--quiet", *new], check=False)
        if starts_services:
            START_NO_SERVICES.unlink(missing_ok=True)
    if code == STOPPED:
        print("\nstopped; run it again to install the rest", file=sys.stderr)
    elif code:
        tail = "\n".join(said.splitlines()[-15:])
        print(f"apt-get could not install {', '.join(packages)}:\n{tail}", file=sys.stderr)
    return code


def main(more: Sequence[str] = ()) -> int:
    """Exit code 0 if nothing is missing any more; see `missing`."""
    if not (packages := missing(more)):
        return 0
    if not can_install():
        print(f"These system packages are missing (Debian's names): {', '.join(packages)}", file=sys.stderr)
        return 1
    if os.geteuid():
        return subprocess.run(["sudo", sys.executable, __file__, *more], check=False).returncode
    apt = Apt()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, apt.stop)
    return install(packages, apt)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
