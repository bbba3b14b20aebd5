"""This machine's address, the interfaces that the cluster makes, and what the kernel has to let through."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from local.errors import LocalError
from local.layout import BRIDGE, DUMMY, FALLBACK_ADDRESS, POD_RANGE, SERVICE_RANGE, Layout

CNI_RESULTS = Path("/var/lib/cni/results")  # fixed in libcni
# Per network namespace; the second exists only where the kernel's br_netfilter is loaded.
SETTINGS = {
    Path("/proc/sys/net/ipv4/ip_forward"): "1",
    Path("/proc/sys/net/bridge/bridge-nf-call-iptables"): "1",
}


def own_address() -> str | None:
    """The address of the default route's interface, or else any that others can reach; None for an offline machine."""
    addresses = {
        entry["ifname"]: entry["addr_info"][0]["local"]
        for entry in _ip("-4", "address", "show", "up", "scope", "global")
        if entry.get("addr_info") and entry["ifname"] not in {BRIDGE, DUMMY}
    }
    for route in _ip("-4", "route", "show", "default"):
        if route.get("dev") in addresses:
            return str(addresses[route["dev"]])
    return next(iter(addresses.values()), None)


def has_address(address: str) -> bool:
    entries = _ip("-4", "address", "show", "up")
    return any(info.get("local") == address for entry in entries for info in entry.get("addr_info", []))


def make_own_address() -> str:
    """Give a machine without any address one on a dummy interface, so that the cluster works offline too."""
    if not has_address(FALLBACK_ADDRESS):
        with contextlib.suppress(subprocess.CalledProcessError):  # it may be there, but without its address
            _run("ip", "link", "add", DUMMY, "type", "bridge")
        _run("ip", "address", "replace", f"{FALLBACK_ADDRESS}/32", "dev", DUMMY)
        _run("ip", "link", "set", DUMMY, "up")
    return FALLBACK_ADDRESS


def overlaps() -> list[str]:
    """Routes of this machine that lead where the cluster's own ranges are."""
    found = []
    for route in _ip("-4", "route", "show", "table", "main"):
        if route["dst"] == "default" or route.get("dev") == BRIDGE:
            continue
        destination = IPv4Network(route["dst"])
        found += [
            f"{destination} through {route.get('dev', 'a gateway')} overlaps {own}, the range for {what}"
            for own, what in ((POD_RANGE, "pods"), (SERVICE_RANGE, "services"))
            if destination.overlaps(own)
        ]
    return found


def prepare() -> None:
    """Let packets pass between pods, and let the firewall see those that stay on the bridge."""
    if not Path("/proc/sys/net/bridge").exists():
        subprocess.run(["modprobe", "br_netfilter"], capture_output=True, check=False)
    for path, value in SETTINGS.items():
        if path.exists() and path.read_text().strip() != value:
            path.write_text(value)


def remove(layout: Layout) -> None:
    """Remove the bridge, the pods' interfaces on it and the dummy interface, and forget the pods' addresses."""
    names = {entry["ifname"] for entry in _ip("link", "show")}
    attached = [entry["ifname"] for entry in _ip("link", "show", "master", BRIDGE)] if BRIDGE in names else []
    for name in [*attached, *({BRIDGE, DUMMY} & names)]:
        with contextlib.suppress(subprocess.CalledProcessError):  # the kernel may just have removed it with its pod
            _run("ip", "link", "delete", name)
    own = re.compile(rf"{re.escape(layout.network)}-[0-9a-f]{{64}}-")
    with contextlib.suppress(FileNotFoundError):
        for path in CNI_RESULTS.iterdir():
            if own.match(path.name):
                path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty: others use it
        CNI_RESULTS.rmdir()
        CNI_RESULTS.parent.rmdir()


def _ip(*arguments: str) -> list[dict[str, Any]]:
    output = _run("ip", "-json", *arguments)
    entries: list[dict[str, Any]] = json.loads(output or "[]")
    return [entry for entry in entries if entry]


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError as error:
        raise LocalError(f"The command {command[0]} is missing; install it with: apt-get install iproute2") from error
