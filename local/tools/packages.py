"""Installs the system packages that the local cluster needs, or says which are missing and what to do without them.

Standard library only: it runs before there is a virtual environment.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

COMMANDS: Final = {
    # A command that is there counts, whoever packaged it: installing Debian's containerd would remove Docker's.
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ipset": "ipset",
    "ip": "iproute2",
    "docker-registry": "docker-registry",
    "debootstrap": "debootstrap",
    # With it gitlab-ci-local copies a job's files, in the tests.
    "rsync": "rsync",
    # The load generator of the cluster tests and of `make bench`.
    "wrk": "wrk",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "/usr/share/doc/ca-certificates": "ca-certificates",
}
"""Command, or path of a file, -> the Debian package that has it."""
START_NO_SERVICES: Final = Path("/usr/sbin/policy-rc.d")
"""Debian asks this program, if it is there, whether a service may be started when its package is installed."""
WITHOUT: Final = """\
The local cluster needs them. Install them, or do without it: name a cluster and a registry that you have in
stacks/Pulumi.<stack>.yaml (model-serving:kubeContext, model-serving:registry) and run `make up STACK=<stack>`."""


def missing() -> list[str]:
    packages = {package for name, package in COMMANDS.items() if not _is_there(name)}
    # Debian leaves this module of the standard library out, and without it there is no virtual environment.
    if importlib.util.find_spec("ensurepip") is None:
        packages.add("python3-venv")
    return sorted(packages)


def _is_there(name: str) -> bool:
    # Some of these live in sbin, which a user's PATH may lack.
    path = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
    return Path(name).exists() if name.startswith("/") else shutil.which(name, path=path) is not None


@contextlib.contextmanager
def no_services_started() -> Iterator[None]:
    """The packages' own services stay off: Debian's registry would take the port of ours."""
    if START_NO_SERVICES.exists():
        yield
        return
    START_NO_SERVICES.write_text("#!/bin/sh\nexit 101\n")
    START_NO_SERVICES.chmod(0o755)
    try:
        yield
    finally:
        START_NO_SERVICES.unlink(missing_ok=True)


def install(packages: list[str]) -> int:
    print(f"installing the Debian packages {', '.join(packages)}", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with no_services_started():
        # A list that cannot be refreshed is no reason to stop: the packages may be known already.
        subprocess.run(["apt-get", "update", "-qq"], env=environment, check=False, capture_output=True)
        command = ["apt-get", "install", "--yes", "--no-install-recommends", "-qq", *packages]
        result = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if result.returncode:
        tail = "\n".join((result.stdout + result.stderr).splitlines()[-15:])
        print(f"make tools: apt-get could not install {', '.join(packages)}:\n{tail}\n{WITHOUT}", file=sys.stderr)
    return result.returncode


def main() -> int:
    if not (packages := missing()):
        return 0
    if os.geteuid() == 0 and shutil.which("apt-get"):
        return install(packages)
    # Not an error: every other part of the project works without the local cluster.
    print(f"These system packages are missing (Debian's names): {', '.join(packages)}\n{WITHOUT}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
