"""Installs the system packages that the local cluster needs, or reports which are missing and the alternative.

Uses only the standard library, because it runs before there is a virtual environment.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
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
WITHOUT: Final = """\
The local cluster needs them. Install them, or use a cluster and a registry of your own: set model-serving:kubeContext
and model-serving:registry in stacks/Pulumi.<stack>.yaml and run `make up STACK=<stack>`."""


def missing() -> list[str]:
    path = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"  # a user's PATH may lack sbin
    packages = {
        package
        for name, package in COMMANDS.items()
        if not (Path(name).exists() if name.startswith("/") else shutil.which(name, path=path))
    }
    # Debian packages this module of the standard library separately; virtual environments need it.
    if importlib.util.find_spec("ensurepip") is None:
        packages.add("python3-venv")
    return sorted(packages)


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


def install(packages: list[str], apt: Apt) -> int:
    print(f"installing the Debian packages {', '.join(packages)}", flush=True)
    # No services, because Debian's registry would use the port of the local cluster's.
    starts_services = not START_NO_SERVICES.exists() or START_NO_SERVICES.read_text(errors="replace") == NO
    try:
        if starts_services:
            START_NO_SERVICES.write_text(NO)
            START_NO_SERVICES.chmod(0o755)
        # It may fail, because apt may already know the packages.
        apt.run("update", "-qq")
        code, said = apt.run("install", "--yes", "--no-install-recommends", "-qq", *packages)
    finally:
        if starts_services:
            START_NO_SERVICES.unlink(missing_ok=True)
    if code == STOPPED:
        print("\nmake tools: stopped; run it again to install the rest", file=sys.stderr)
    elif code:
        tail = "\n".join(said.splitlines()[-15:])
        print(f"make tools: apt-get could not install {', '.join(packages)}:\n{tail}\n{WITHOUT}", file=sys.stderr)
    return code


def main() -> int:
    if not (packages := missing()):
        return 0
    if os.geteuid() == 0 and shutil.which("apt-get"):
        apt = Apt()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, apt.stop)
        return install(packages, apt)
    # Not an error, because all other parts of the project work without the local cluster.
    print(f"These system packages are missing (Debian's names): {', '.join(packages)}\n{WITHOUT}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
