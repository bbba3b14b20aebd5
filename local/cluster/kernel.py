"""Kernel settings that the cluster needs or that its processes change, and their previous values."""

import json
import subprocess
from pathlib import Path

from local.cluster.layout import Layout, write_atomically

_SETTINGS = Path("/proc/sys")
# The second exists only where br_netfilter is loaded; it lets the firewall see packets that stay on the pods' bridge.
_NEEDED = {"net/ipv4/ip_forward": "1", "net/bridge/bridge-nf-call-iptables": "1"}
# By the kubelet, which would refuse to start with protectKernelDefaults.
_CHANGED = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops")


def prepare(layout: Layout) -> None:
    """Save the previous values, then set those that are needed."""
    if not (_SETTINGS / "net/bridge").exists():
        subprocess.run(["modprobe", "br_netfilter"], capture_output=True, check=False)
    if not layout.kernel.exists():
        values = {name: _read(name) for name in (*_NEEDED, *_CHANGED) if (_SETTINGS / name).exists()}
        write_atomically(layout.kernel, json.dumps(values))
    _write(_NEEDED)


def restore(layout: Layout) -> None:
    if layout.kernel.exists():
        _write(json.loads(layout.kernel.read_text()))


def _read(name: str) -> str:
    return (_SETTINGS / name).read_text().strip()


def _write(values: dict[str, str]) -> None:
    for name, value in values.items():
        if (_SETTINGS / name).exists() and _read(name) != value:
            (_SETTINGS / name).write_text(value)
