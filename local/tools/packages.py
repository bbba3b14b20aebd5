"""Installs the system packages that the local cluster needs, or reports which are missing and the alternative.

Uses only the standard library, because it runs before there is a virtual environment.
"""

import importlib.util
import os
import shutil
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


def install(packages: list[str]) -> int:
    print(f"installing the Debian packages {', '.join(packages)}", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "--yes", "--no-install-recommends", "-qq", *packages]
    # No services, because Debian's registry would use the port of the local cluster's.
    if starts_services := not START_NO_SERVICES.exists():
        START_NO_SERVICES.write_text("#!/bin/sh\nexit 101\n")
        START_NO_SERVICES.chmod(0o755)
    try:
        # It may fail, because apt may already know the packages.
        subprocess.run(["apt-get", "update", "-qq"], env=environment, check=False, capture_output=True)
        result = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    finally:
        if starts_services:
            START_NO_SERVICES.unlink(missing_ok=True)
    if result.returncode:
        tail = "\n".join((result.stdout + result.stderr).splitlines()[-15:])
        print(f"make tools: apt-get could not install {', '.join(packages)}:\n{tail}\n{WITHOUT}", file=sys.stderr)
    return result.returncode


def main() -> int:
    if not (packages := missing()):
        return 0
    if os.geteuid() == 0 and shutil.which("apt-get"):
        return install(packages)
    # Not an error, because all other parts of the project work without the local cluster.
    print(f"These system packages are missing (Debian's names): {', '.join(packages)}\n{WITHOUT}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
