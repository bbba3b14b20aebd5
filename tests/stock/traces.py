"""What a machine has that the local cluster could leave behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from local.cluster import kernel
from tests.stock.guest import Guest

PARAMETERS: Final = r"^(net\.ipv4\.(ip_forward|conf\.(all|default))|net\.bridge|vm\.overcommit_memory|kernel\.panic)"
PROGRAMS: Final = "etcd|kube|containerd|runc|buildkit|envoy|contour|registry|pause|mlserver"
EMPTY: Final = (
    r"^\s*(\}|table ip6? \w+ \{|chain (INPUT|OUTPUT|FORWARD|PREROUTING|POSTROUTING) \{|type .* policy accept;)?$"
)
"""Lines of tables without a rule, which iptables makes when it is first asked anything, and which let all through."""
MODULES: Final = "|".join(kernel.LOADED)
"""Others are loaded by the kernel when something is first used, and stay until the next boot."""
LOOKS: Final = {
    "units that start at boot": "systemctl --root=/ list-unit-files --state=enabled | awk '/enabled/{print $1}'",
    "listening sockets": "ss -Hltn | awk '{print $4}'",
    "kernel modules": f"lsmod | cut -d' ' -f1 | grep -xE '{MODULES}'",
    "kernel parameters": f"sysctl --all 2> /dev/null | grep -E '{PARAMETERS}'",
    "network interfaces": "ip -brief link | awk '{print $1}'",
    "routes": "ip route",
    "firewall": f"nft list ruleset | grep -vE '{EMPTY}'; ipset list -name 2> /dev/null",
    "mounts": "findmnt --raw --noheadings --output TARGET | grep -v '^/run/user'",
    "control groups": "find /sys/fs/cgroup -mindepth 1 -maxdepth 1 -type d",
    "processes": f"ps -e -o comm= | grep -E '{PROGRAMS}'",
    "AppArmor profiles": "cut -d' ' -f1 /sys/kernel/security/apparmor/profiles",
    "runtime folders": "ls -d /run/*containerd* /run/model-serving* /run/netns 2> /dev/null",
}
"""What is looked at -> the shell command, as root, that lists it."""
Traces = Mapping[str, frozenset[str]]


def listed(guest: Guest, what: str) -> frozenset[str]:
    """One of LOOKS."""
    return frozenset(guest.run(LOOKS[what], user="root").said.splitlines())


def seen(guest: Guest) -> Traces:
    """All of LOOKS; the firewall twice, because looking at it loads modules of the kernel."""
    listed(guest, "firewall")
    return {what: listed(guest, what) for what in LOOKS}


def differences(before: Traces, after: Traces) -> list[str]:
    """What came and what went, one line for each."""
    lines = []
    for what in before:
        lines += [f"{what}: {line} is new" for line in sorted(after[what] - before[what])]
        lines += [f"{what}: {line} is gone" for line in sorted(before[what] - after[what])]
    return lines
