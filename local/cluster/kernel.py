"""Kernel settings that the cluster needs or that its processes change, and their previous values."""

import json
import subprocess
from pathlib import Path

from local.cluster import network
from local.cluster.layout import Layout, write_atomically

_SETTINGS = Path("/proc/sys")
# The second exists only where br_netfilter is loaded; it lets the firewall see packets that stay on the pods' bridge.
_NEEDED = {"net/ipv4/ip_forward": "1", "net/bridge/bridge-nf-call-iptables": "1"}
# By the kubelet, which would refuse to start with protectKernelDefaults.
_CHANGED = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops")
_BRIDGES = "bridges"
"""Key of the bridges that did without the needed settings."""


def prepare(layout: Layout) -> None:
    """Save the previous values, then set those that are needed."""
    if not (_SETTINGS / "net/bridge").exists():
        subprocess.run(["modprobe", "br_netfilter"], capture_output=True, check=False)
    if not layout.kernel.exists():
        values = {name: _read(name) for name in (*_NEEDED, *_CHANGED) if (_SETTINGS / name).exists()}
        write_atomically(layout.kernel, json.dumps({**values, _BRIDGES: sorted(network.others_bridges())}))
    _write(_NEEDED)


def restore(layout: Layout) -> None:
    """Restore the previous values, except what somebody else may rely on by now.

    Docker, for example, sets ``ip_forward`` when it starts, and does not notice that it is set back.
    """
    if not layout.kernel.exists():
        return
    saved = json.loads(layout.kernel.read_text())
    newer = network.others_bridges() - {*saved.pop(_BRIDGES, ())}
    if newer and (kept := [name for name, value in _NEEDED.items() if saved.get(name, value) != value]):
        saved = {name: value for name, value in saved.items() if name not in kept}
        shown = ", ".join(sorted(newer))
        print(f"{', '.join(kept)} stays 1: the bridge {shown} is newer than the cluster and may need it")
    _write(saved)


def _read(name: str) -> str:
    return (_SETTINGS / name).read_text().strip()


def _write(values: dict[str, str]) -> None:
    for name, value in values.items():
        if (_SETTINGS / name).exists() and _read(name) != value:
            (_SETTINGS / name).write_text(value)
