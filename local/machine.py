"""Looks in a second at everything a machine needs for the local cluster: ``python3 -m local.machine``.

It uses only the standard library, and nothing newer than Python 3.9, because an old Python is one of its findings.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterable, Iterator  # noqa: UP035 - collections.abc's are newer than this file may need

from local.cluster import ports
from local.tools import packages

PROJECT = Path(__file__).resolve().parents[1]
OLDEST_PYTHON = (3, 11)
CONTROLLERS = ("cpu", "memory", "pids")
GIGABYTE = 1e9
DISK_GB, DISK_AGAIN_GB = 14, 3
"""Free space for the first `make up`, most of it for compiling, and with full caches."""
MEMORY_GB = 3.5
"""The compiler's largest steps need as much; the cluster with one model uses 1.3."""
NETWORK_SECONDS = 0.8
HOSTS = {"publishers": "https://github.com", "package index": "https://pypi.org"}
BRIDGE = "ms-pods"  # as in local/cluster/layout.py
FIREWALLD = f"firewall-cmd --zone=trusted --add-interface={BRIDGE}"
LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}
"""127.0.0.1 in /proc/net/tcp, and in tcp6."""
OTHER_CLUSTER = """\
Or use a cluster and a registry of your own, which needs none of this: set model-serving:kubeContext and
model-serving:registry in stacks/Pulumi.<stack>.yaml and run `make up STACK=<stack>`."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        remedy: what to do about it; empty if all is well.
    """

    what: str
    found: str
    remedy: str = ""


def python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        return Finding("Python", f"{version}, older than {wanted}", "Name a newer one: make PYTHON=python3.11 …")
    if importlib.util.find_spec("ensurepip") is None and not packages.can_install():
        return Finding("Python", f"{version} without ensurepip", "Install python3-venv.")
    return Finding("Python", version)


def processor() -> Finding:
    system, machine = platform.system(), platform.machine()
    remedy = "The local cluster's base image and wheels are for Linux on x86_64." if system != "Linux" else ""
    if system == "Linux" and machine != "x86_64":
        remedy = f"The base image and the wheels of models/ exist only for x86_64, not for {machine}."
    return Finding("platform", f"{system} on {machine}", remedy)


def root() -> Finding:
    if os.geteuid() == 0:
        return Finding("root", "yes")
    if shutil.which("sudo"):
        return Finding("root", "through sudo, which asks once")
    return Finding("root", "neither root nor sudo", "Pods need mounts, routes and a firewall: run it as root.")


def system_packages() -> Finding:
    missing = packages.missing()
    if not missing:
        return Finding("packages", "installed")
    if packages.can_install():
        return Finding("packages", f"{', '.join(missing)}: will be installed")
    remedy = f"Install what has them; these are Debian's names. On Debian, as root: {packages.COMMAND}"
    return Finding("packages", f"{', '.join(missing)} missing", remedy)


def control_groups(system: Path = Path("/")) -> Finding:
    unified = system / "sys/fs/cgroup/cgroup.controllers"
    if unified.exists():
        found, version = unified.read_text(encoding="utf-8").split(), 2
    else:
        table = system / "proc/cgroups"  # name, hierarchy, number of groups, whether it is enabled
        rows = [line.split() for line in table.read_text(encoding="utf-8").splitlines()] if table.exists() else []
        found, version = [row[0] for row in rows if row[-1] == "1"], 1
    if lacking := [name for name in CONTROLLERS if name not in found]:
        remedy = f"The kernel needs the parameter cgroup_enable={lacking[0]}, or the container these controllers."
        return Finding("control groups", f"version {version} without {', '.join(lacking)}", remedy)
    return Finding("control groups", f"version {version}")


def modules(system: Path = Path("/")) -> Finding:
    release = platform.release()
    available = set()
    for name in ("modules.dep", "modules.builtin"):
        listed = system / "lib/modules" / release / name
        if listed.exists():
            lines = listed.read_text(encoding="utf-8").splitlines()
            available |= {Path(line.partition(":")[0]).name.partition(".")[0] for line in lines}
    has_overlay = "overlay" in (system / "proc/filesystems").read_text(encoding="utf-8").split()
    if not (has_overlay or "overlay" in available):
        return Finding("kernel modules", "overlay is missing", f"Install the modules of the kernel {release}.")
    if not ((system / "proc/sys/net/bridge").exists() or "br_netfilter" in available):
        return Finding("kernel modules", "overlay, not br_netfilter: rules between pods of one node do not apply")
    return Finding("kernel modules", "overlay, br_netfilter")


def memory(system: Path = Path("/")) -> Finding:
    lines = (system / "proc/meminfo").read_text(encoding="utf-8").splitlines()
    kilobytes = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
    total = kilobytes["MemTotal"] * 1024 / GIGABYTE
    remedy = f"At least {MEMORY_GB} GB are needed." if total < MEMORY_GB else ""
    return Finding("memory", f"{total:.1f} GB", remedy)


def cache() -> Path:
    """As local/tools/recipe.py has it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "model-serving"


def disk(state: Path) -> Finding:
    is_first = not any((cache() / "tools").glob("*"))
    needed = DISK_GB if is_first else DISK_AGAIN_GB
    free = {path: shutil.disk_usage(_existing(path)).free / GIGABYTE for path in (state, cache())}
    low = {path: size for path, size in free.items() if size < needed}
    found = f"{min(free.values()):.0f} GB free"
    if low:
        where = ", ".join(str(_existing(path)) for path in low)
        why = "the first time" if is_first else "with full caches"
        return Finding("disk", found, f"At least {needed} GB are needed {why}: make room in {where}.")
    return Finding("disk", found)


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def free_ports(name: str, system: Path = Path("/")) -> Finding:
    if (system / "run/model-serving" / name / "state").exists():
        return Finding("ports", "the cluster's own, which runs or has run since the machine started")
    wanted = {number: name.lower().replace("_", " ") for name, number in vars(ports).items() if type(number) is int}
    taken = sorted(set(_taken(system)) & set(wanted))
    if not taken:
        return Finding("ports", "free")
    found = ", ".join(f"{port} ({wanted[port]})" for port in taken)
    service = system / "etc/systemd/system/multi-user.target.wants/docker-registry.service"
    if ports.IMAGE_REGISTRY in taken and service.is_symlink():
        return Finding("ports", f"{found} taken", "Run: sudo systemctl disable --now docker-registry.service")
    return Finding("ports", f"{found} taken", "End what listens there; `sudo ss -ltnp` names it.")


def _taken(system: Path) -> Iterator[int]:
    """Ports that something listens on where the cluster has to: on every address, or on loopback."""
    for name in ("tcp", "tcp6"):
        table = system / "proc/net" / name
        for line in table.read_text(encoding="utf-8").splitlines()[1:] if table.exists() else ():
            _, local, _, state = line.split()[:4]
            address, _, port = local.partition(":")
            number = int(port, 16)
            is_loopback = address in LOOPBACK and number not in ports.ELSEWHERE
            if state == LISTENING and (is_loopback or not address.strip("0")):
                yield number


def firewalld() -> Finding:
    """Firewalld rejects what it does not know, so that pods would reach neither each other nor the gateway."""
    if not shutil.which("firewall-cmd") or _asks_firewalld("--state").returncode:
        return Finding("firewalld", "does not run")
    zone = _asks_firewalld(f"--get-zone-of-interface={BRIDGE}").stdout.strip()
    if zone == "trusted":
        return Finding("firewalld", "lets pods through")
    return Finding("firewalld", f"runs and rejects packets of {BRIDGE}", f"Run: sudo {FIREWALLD}")


def _asks_firewalld(option: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["firewall-cmd", option], capture_output=True, text=True, check=False, timeout=10)


def address_ranges() -> Finding:
    if sys.version_info[:2] < OLDEST_PYTHON or not shutil.which("ip"):
        return Finding("address ranges", "looked at when the cluster starts")
    from local.cluster import network  # noqa: PLC0415 - needs a newer Python than this module

    if overlaps := network.overlaps():
        remedy = "Set free POD_RANGE and SERVICE_RANGE in local/cluster/layout.py."
        return Finding("address ranges", "; ".join(overlaps), remedy)
    return Finding("address ranges", "free")


def reached(hosts: dict[str, str] | None = None) -> Finding:
    """What answers decides how long the first run takes; with full caches, nothing has to."""
    found: list[str] = []

    def ask(what: str, url: str) -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=NETWORK_SECONDS)  # noqa: S310
        except urllib.error.HTTPError:
            found.append(what)  # it has answered
        except OSError:
            return
        else:
            found.append(what)

    threads = [threading.Thread(target=ask, args=item, daemon=True) for item in (hosts or HOSTS).items()]
    deadline = time.monotonic() + NETWORK_SECONDS
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if "publishers" in found:
        return Finding("network", "github.com answers: tools are downloaded")
    return Finding("network", "github.com does not answer: tools are compiled, from package registries")


def look(state: Path, name: str, *, is_slow: bool = False) -> list[Finding]:
    """All findings; with the network's only if there is time for it."""
    looks: Iterable[Callable[[], Finding]] = [python, processor, root, system_packages]
    found = [look() for look in looks]
    if platform.system() == "Linux":
        found += [control_groups(), modules(), memory(), disk(state), free_ports(name), firewalld(), address_ranges()]
    return [*found, reached()] if is_slow else found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], epilog="Example: python3 -m local.machine --table"
    )
    parser.add_argument("--state", type=Path, default=PROJECT / ".state", help="data folder (default: .state)")
    parser.add_argument("--name", default="local", help="of the cluster (default: local)")
    parser.add_argument("--table", action="store_true", help="show every finding, not only what is wrong")
    options = parser.parse_args()
    findings = look(options.state, options.name, is_slow=options.table)
    if options.table:
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            print(f"{'no' if finding.remedy else 'ok'}  {finding.what:{width}}  {finding.found}")
    if wrong := [finding for finding in findings if finding.remedy]:
        lines = [f"  {finding.what}: {finding.found}\n    {finding.remedy}" for finding in wrong]
        print("\n".join(["This machine cannot run the local cluster yet:", *lines, OTHER_CLUSTER]), file=sys.stderr)
        return 1
    return 0 if options.table else packages.main()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # A request that had no time to end would use what OpenSSL frees at a regular exit, and crash.
    os._exit(code)
