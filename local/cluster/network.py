"""This machine's address, and the interfaces that the cluster makes."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from local.cluster.errors import LocalError
from local.cluster.layout import (
    BRIDGE,
    BRIDGE_ADDRESS,
    FALLBACK_ADDRESS,
    OWN_INTERFACE,
    POD_RANGE,
    SERVICE_RANGE,
    Layout,
)

CNI_RESULTS = Path("/var/lib/cni/results")  # fixed in libcni


def own_address() -> str:
    """The address of the default route's interface, or else any that others can reach.

    A machine without any gets one by `ensure_address`, so that the cluster works offline too.
    """
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


def namespace() -> str:
    """Identity of the network namespace that this command runs in."""
    return str(Path("/proc/self/ns/net").readlink())


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


def ensure_address(address: str) -> None:
    """Make the fallback address if it is the one that was chosen and is not there yet."""
    if address == FALLBACK_ADDRESS and not has_address(address):
        _make_address()


def _make_address() -> None:
    with contextlib.suppress(subprocess.CalledProcessError):  # it may be there, but without its address
        # A bridge with nothing on it, because not every kernel has dummy interfaces.
        _run("ip", "link", "add", OWN_INTERFACE, "type", "bridge")
    _run("ip", "address", "replace", f"{FALLBACK_ADDRESS}/32", "dev", OWN_INTERFACE)
    _run("ip", "link", "set", OWN_INTERFACE, "up")


def ensure_bridge() -> None:
    """Make the pods' bridge, as the bridge plugin would with the first pod: Envoy has a listener on it before that."""
    if not any(entry["ifname"] == BRIDGE for entry in _ip("link", "show")):
        _run("ip", "link", "add", BRIDGE, "type", "bridge")
        # Its own, or it would take that of the pod with the lowest and change as pods come and go.
        _run("ip", "link", "set", BRIDGE, "address", _ip("link", "show", BRIDGE)[0]["address"])
    _run("ip", "address", "replace", f"{BRIDGE_ADDRESS}/{POD_RANGE.prefixlen}", "dev", BRIDGE)
    _run("ip", "link", "set", BRIDGE, "up")


def remove(layout: Layout) -> None:
    """Remove the interfaces of the pods and of the fallback address, and forget the pods' addresses."""
    names = {entry["ifname"] for entry in _ip("link", "show")}
    attached = [entry["ifname"] for entry in _ip("link", "show", "master", BRIDGE)] if BRIDGE in names else []
    for name in [*attached, *({BRIDGE, OWN_INTERFACE} & names)]:
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
