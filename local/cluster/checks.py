"""What has to be true of a machine before anything is started on it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from local.cluster import network
from local.cluster.errors import LocalError
from local.cluster.layout import Layout
from local.cluster.node import cni_folder
from local.cluster.owner import owner_of
from local.cluster.processes import Process, mark_of, running

OTHER_CLUSTER = (
    "Or use a cluster and a registry that you have: set model-serving:kubeContext and model-serving:registry in the "
    "stack."
)
PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ip6tables": "iptables",
    "ipset": "ipset",
    "ip": "iproute2",
    "mount": "mount",
    "docker-registry": "docker-registry",
}
TOOLS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubeadm",
    "kube-router",
    "buildkitd",
    "contour",
)
_LISTENING = "0A"


@dataclass(frozen=True, kw_only=True)
class Listener:
    """A socket that waits for connections."""

    address: IPv4Address | IPv6Address
    port: int
    inode: str


def require_root() -> None:
    if os.geteuid():
        raise LocalError(
            "The local cluster needs root: it mounts, routes and filters for its pods.\n"
            "  Run the same command with sudo -E.\n"
            f"  {OTHER_CLUSTER}"
        )


def check_machine(layout: Layout) -> None:
    """Everything that is missing, in one message."""
    problems = [*_wrong_platform(), *_missing_commands(), *_missing_tools(layout)]
    if not problems:
        problems = _overlapping_routes()
    if problems:
        raise LocalError("\n".join(["This machine cannot run the local cluster yet:", *problems, f"  {OTHER_CLUSTER}"]))


def _wrong_platform() -> list[str]:
    if (platform.system(), platform.machine()) == ("Linux", "x86_64"):
        return []
    return [f"  It is {platform.system()} on {platform.machine()}; the tools and wheels are for Linux on x86_64."]


def _missing_commands() -> list[str]:
    missing = {command: package for command, package in PACKAGES.items() if not shutil.which(command)}
    if not cni_folder():
        missing["the CNI plugins"] = "containernetworking-plugins"
    if not missing:
        return []
    packages = " ".join(sorted(set(missing.values())))
    return [
        f"  Missing: {', '.join(missing)}.",
        f"  On Debian and Ubuntu: apt-get install {packages}",
    ]


def _missing_tools(layout: Layout) -> list[str]:
    missing = [tool for tool in TOOLS if not (layout.bin / tool).exists()]
    return [f"  Missing in {layout.bin}: {', '.join(missing)}.", "  Build them: make tools"] if missing else []


def _overlapping_routes() -> list[str]:
    overlaps = network.overlaps()
    if not overlaps:
        return []
    remedy = (
        "  Choose free ranges for POD_RANGE and SERVICE_RANGE in local/cluster/layout.py, "
        "then run stop --delete and start."
    )
    return [*(f"  {overlap}." for overlap in overlaps), remedy]


def check_ports(processes: Iterable[Process]) -> None:
    """Every port that somebody else holds, in one message, before anything starts."""
    listeners = list(_listeners())
    taken = [
        (process, port, listener)
        for process in processes
        for port in process.ports
        for listener in listeners
        if listener.port == port and _covers(listener.address, ip_address(process.address))
    ]
    if not taken:
        return
    holders = _holders({listener.inode for _, _, listener in taken})
    # Two sockets of one process may share a port, as Envoy's do.
    lines = dict.fromkeys(
        f"  {port}, wanted for {process.ports[port]}: {_describe(holders.get(listener.inode))}"
        for process, port, listener in taken
    )
    raise LocalError(
        "\n".join(
            [
                "The local cluster cannot start, because something else listens on its ports:",
                *lines,
                "Nothing was started. End what is named above and run start again.",
                OTHER_CLUSTER,
            ]
        )
    )


def _covers(listener: IPv4Address | IPv6Address, wanted: IPv4Address | IPv6Address) -> bool:
    """A socket on every address, of either family, takes the port of each, and needs it free on each."""
    mapped = listener.ipv4_mapped if isinstance(listener, IPv6Address) else None
    return listener.is_unspecified or wanted.is_unspecified or (mapped or listener) == wanted


def _listeners() -> Iterator[Listener]:
    for file in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in file.read_text().splitlines()[1:] if file.exists() else []:
            fields = line.split()
            address, _, port = fields[1].partition(":")
            if fields[3] == _LISTENING:
                yield Listener(address=_address(address), port=int(port, 16), inode=fields[9])


def _address(text: str) -> IPv4Address | IPv6Address:
    """The kernel writes words of four bytes, each in the machine's byte order."""
    words = [bytes.fromhex(text[index : index + 8])[::-1] for index in range(0, len(text), 8)]
    return ip_address(b"".join(words))


def _holders(inodes: set[str]) -> dict[str, int]:
    """Inode of a socket -> process that has it open."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    holders: dict[str, int] = {}
    for pid in running():
        try:
            for handle in Path(f"/proc/{pid}/fd").iterdir():
                if inode := wanted.get(str(handle.readlink())):
                    holders.setdefault(inode, pid)
        except OSError:
            continue  # it ended, or one of its files was closed, while we looked
    return holders


def _describe(pid: int | None) -> str:
    if pid is None:
        return "held by a process that cannot be seen from here"
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()[:100]
        return f"held by process {pid} ({command}); end it with: {_remedy(pid)}"
    except OSError:
        return f"held by process {pid}, which has just ended"


def _remedy(pid: int) -> str:
    """A service would be started again by its manager, and a cluster has more than this one process."""
    if folder := mark_of(pid):
        return f"python -m local.cluster stop --name {folder.name} --state {owner_of(folder).get('state', 'FOLDER')}"
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        unit = line.rpartition("/")[2]
        if "/system.slice/" in line and unit.endswith(".service"):
            return f"systemctl disable --now {unit}"
    return f"kill {pid}"
