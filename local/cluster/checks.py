"""Checks of a machine before anything is started on it."""

import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import NamedTuple

from local.cluster import network
from local.cluster.layout import Layout
from local.cluster.probes import POLL_SECONDS
from local.cluster.processes import Process, mark_of, owner_of
from local.cluster.programs import cni_folder
from local.machine import firewalld
from local.tools import packages
from model_serving.problems import Failure

RELEASE_SECONDS = 5
OTHER_CLUSTER = (
    "Or use your own cluster and registry: set model-serving:kubeContext and model-serving:registry in the stack."
)
TOOLS = (
    *("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubeadm"),
    *("kube-router", "buildkitd", "contour"),
)


class Listener(NamedTuple):
    """A socket that waits for connections, and its process, if that is visible."""

    address: IPv4Address | IPv6Address
    port: int
    pid: int | None


def require_root() -> None:
    if os.geteuid():
        raise Failure(
            "The local cluster needs root to mount, route and filter for its pods.\n"
            "  Run it with make, which uses sudo for this step only, or the same command as root.\n"
            f"  {OTHER_CLUSTER}"
        )


def check_machine(layout: Layout) -> None:
    """Report everything that is missing in one message."""
    problems = list(_missing(layout))
    if not problems and (overlaps := network.overlaps()):
        remedy = "  Set free POD_RANGE and SERVICE_RANGE in local/cluster/layout.py, then run stop --delete and start."
        problems = [*(f"  {overlap}." for overlap in overlaps), remedy]
    if problems:
        raise Failure("\n".join(["This machine cannot run the local cluster yet:", *problems, f"  {OTHER_CLUSTER}"]))


def _missing(layout: Layout) -> Iterator[str]:
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        yield f"  It is {system} on {machine}; the tools and wheels are for Linux on x86_64."
    missing = {command: package for command, package in packages.CLUSTER.items() if not shutil.which(command)}
    if not cni_folder():
        missing["the CNI plugins"] = "containernetworking-plugins"
    if missing:
        yield f"  Missing: {', '.join(missing)}."
        packages_of_debian = " ".join(sorted(set(missing.values())))
        yield f"  Debian and Ubuntu have them in {packages_of_debian}. As root: {packages.COMMAND}"
    if remedy := (firewall := firewalld()).remedy:
        yield f"  firewalld {firewall.found}."
        yield f"  {remedy}"
    if tools := [tool for tool in TOOLS if not (layout.bin / tool).exists()]:
        yield f"  Missing in {layout.bin}: {', '.join(tools)}."
        yield "  Build them: make tools"


def check_ports(processes: Sequence[Process]) -> None:
    """Report all ports that other processes use in one message, before anything starts."""
    deadline = time.monotonic() + RELEASE_SECONDS
    # A killed process keeps its sockets until the last of its threads has ended.
    while None in (taken := _taken(processes)).values() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    if taken:
        what = "The local cluster cannot start, because other processes listen on its ports:"
        remedy = "Nothing was started. End the processes above and run start again."
        raise Failure("\n".join([what, *taken, remedy, OTHER_CLUSTER]))


def _taken(processes: Iterable[Process]) -> dict[str, int | None]:
    """Line about a port that another process uses -> that process, if it is visible."""
    listeners = _listeners()
    # Without duplicates: two sockets of one process may share a port, as Envoy's do.
    return {
        f"  {port}, wanted for {purpose}: {_describe(listener.pid)}": listener.pid
        for process in processes
        for port, purpose in process.ports.items()
        for listener in listeners
        if listener.port == port and _covers(listener.address, ip_address(process.address))
    }


def _covers(listener: IPv4Address | IPv6Address, wanted: IPv4Address | IPv6Address) -> bool:
    """Whether both cannot share a port; a socket on every address, of either family, conflicts with all others."""
    mapped = listener.ipv4_mapped if isinstance(listener, IPv6Address) else None
    return listener.is_unspecified or wanted.is_unspecified or (mapped or listener) == wanted


def _listeners() -> list[Listener]:
    """Each line of ss: state, two queues, local address and port, the peer's, and users:(("name",pid=1,fd=2))."""
    command = ["ss", "--no-header", "--listening", "--tcp", "--numeric", "--processes"]
    listeners = []
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        address, _, port = line.split()[3].rpartition(":")
        address = address.strip("[]").partition("%")[0].replace("*", "::")
        pid = re.search(r"\bpid=(\d+)", line)
        listeners.append(Listener(address=ip_address(address), port=int(port), pid=int(pid[1]) if pid else None))
    return listeners


def _describe(pid: int | None) -> str:
    if pid is None:
        return "held by a process that is not visible here"
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()[:100]
        return f"held by process {pid} ({command}); end it with: {_remedy(pid)}"
    except OSError:
        return f"held by process {pid}, which has just ended"


def _remedy(pid: int) -> str:
    """A command that also stops the rest of a cluster, or keeps a service from being started again."""
    if folder := mark_of(pid):
        return f"python -m local.cluster stop --name {folder.name} --state {owner_of(folder).get('state', 'FOLDER')}"
    for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines():
        unit = line.rpartition("/")[2]
        if "/system.slice/" in line and unit.endswith(".service"):
            return f"systemctl disable --now {unit}"
    return f"kill {pid}"
