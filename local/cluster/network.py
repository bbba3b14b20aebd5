"""This machine's address, and the network interfaces of the cluster."""

import contextlib
import json
import re
import subprocess
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from local.cluster.layout import BRIDGE, BRIDGE_ADDRESS, FALLBACK_ADDRESS, POD_RANGE, SERVICE_RANGE, Layout

OWN_INTERFACE = "ms-address"
CNI_RESULTS = Path("/var/lib/cni/results")  # fixed in libcni


def own_address() -> str:
    """The address of the default route's interface, else any global one, else the fallback, to work offline."""
    addresses = {
        entry["ifname"]: entry["addr_info"][0]["local"]
        for entry in _ip("-4", "address", "show", "up", "scope", "global")
        if entry.get("addr_info") and entry["ifname"] not in {BRIDGE, OWN_INTERFACE}
    }
    for route in _ip("-4", "route", "show", "default"):
        if route.get("dev") in addresses:
            return str(addresses[route["dev"]])
    return str(next(iter(addresses.values()), FALLBACK_ADDRESS))


def has_address(address: str) -> bool:
    entries = _ip("-4", "address", "show", "up")
    return any(info.get("local") == address for entry in entries for info in entry.get("addr_info", []))


def overlaps() -> list[str]:
    """Routes of this machine that overlap the cluster's own ranges."""
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


def others_bridges() -> set[str]:
    """Bridges of container engines, virtual machines and other clusters."""
    return {entry["ifname"] for entry in _ip("link", "show", "type", "bridge")} - {BRIDGE, OWN_INTERFACE}


def ensure_address(address: str) -> None:
    """Add the fallback address if it is the chosen one and missing."""
    if address != FALLBACK_ADDRESS or has_address(address):
        return
    with contextlib.suppress(subprocess.CalledProcessError):  # it may exist without its address
        # A bridge without ports, because not every kernel has dummy interfaces.
        _run("ip", "link", "add", OWN_INTERFACE, "type", "bridge")
    _run("ip", "address", "replace", f"{FALLBACK_ADDRESS}/32", "dev", OWN_INTERFACE)
    _run("ip", "link", "set", OWN_INTERFACE, "up")


def ensure_bridge() -> None:
    """Make the pods' bridge, which Envoy listens on before the bridge plugin would make it for the first pod."""
    if not any(entry["ifname"] == BRIDGE for entry in _ip("link", "show")):
        _run("ip", "link", "add", BRIDGE, "type", "bridge")
        # A fixed hardware address; otherwise it would change to the lowest of its pods'.
        _run("ip", "link", "set", BRIDGE, "address", _ip("link", "show", BRIDGE)[0]["address"])
    _run("ip", "address", "replace", f"{BRIDGE_ADDRESS}/{POD_RANGE.prefixlen}", "dev", BRIDGE)
    _run("ip", "link", "set", BRIDGE, "up")


def remove(layout: Layout) -> None:
    """Remove the interfaces of the pods and of the fallback address, and CNI's results for the pods."""
    names = {entry["ifname"] for entry in _ip("link", "show")}
    attached = [entry["ifname"] for entry in _ip("link", "show", "master", BRIDGE)] if BRIDGE in names else []
    for name in [*attached, *({BRIDGE, OWN_INTERFACE} & names)]:
        with contextlib.suppress(subprocess.CalledProcessError):  # the kernel removes it with its pod
            _run("ip", "link", "delete", name)
    own = re.compile(rf"{re.escape(layout.network)}-[0-9a-f]{{64}}-")  # not those of an instance with a longer name
    for path in CNI_RESULTS.glob(f"{layout.network}-*"):
        if own.match(path.name):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty: others use it
        CNI_RESULTS.rmdir()
        CNI_RESULTS.parent.rmdir()


def _ip(*arguments: str) -> list[dict[str, Any]]:
    return [entry for entry in json.loads(_run("ip", "-json", *arguments) or "[]") if entry]


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
