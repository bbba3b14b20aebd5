"""Kernel settings, modules and profiles that the cluster needs or its processes bring, and what was before them."""

import json
import subprocess
from pathlib import Path

from local.cluster import network
from local.cluster.layout import Layout, write_atomically

_SETTINGS = Path("/proc/sys")
_MODULES = Path("/proc/modules")
_PROFILES = Path("/sys/kernel/security/apparmor/profiles")
# The second exists only where br_netfilter is loaded; it lets the firewall see packets that stay on the pods' bridge.
_NEEDED = {"net/ipv4/ip_forward": "1", "net/bridge/bridge-nf-call-iptables": "1"}
# By the kubelet, which would refuse to start with protectKernelDefaults.
_CHANGED = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
LOADED = ("br_netfilter", "xt_nfacct", "nfnetlink_acct")
"""Modules that nothing but the cluster is likely to want, in the order in which they can be removed."""
_PROFILE = "cri-containerd.apparmor.d"
"""AppArmor profile that containerd loads for its containers."""
_BRIDGES, _BEFORE = "bridges", "before"
"""Keys of the bridges that did without the needed settings, and of the modules and profiles that were there."""


def prepare(layout: Layout) -> None:
    """Save what was before, then set what is needed."""
    if not layout.kernel.exists():
        values = {name: _read(name) for name in (*_NEEDED, *_CHANGED) if (_SETTINGS / name).exists()}
        others = {_BRIDGES: sorted(network.others_bridges()), _BEFORE: sorted(_present())}
        write_atomically(layout.kernel, json.dumps(values | others))
    if not (_SETTINGS / "net/bridge").exists():
        subprocess.run(["modprobe", "br_netfilter"], capture_output=True, check=False)
    _write(_NEEDED)


def restore(layout: Layout) -> None:
    """Restore what is still as the cluster has set it, except what somebody else may rely on by now.

    Docker, for example, sets ``ip_forward`` when it starts, and does not notice that it is set back.
    """
    if not layout.kernel.exists():
        return
    saved = json.loads(layout.kernel.read_text(encoding="utf-8"))
    newer = network.others_bridges() - {*saved.pop(_BRIDGES, ())}
    added = _present() - {*saved.pop(_BEFORE, _present())}
    if newer and (kept := [name for name, value in _NEEDED.items() if saved.get(name, value) != value]):
        saved = {name: value for name, value in saved.items() if name not in kept}
        shown = ", ".join(sorted(newer))
        print(f"{', '.join(kept)} stays 1: the bridge {shown} is newer than the cluster and may need it")
    ours = _NEEDED | _CHANGED
    _write({name: value for name, value in saved.items() if _is(name, ours[name])})
    if _PROFILE in added:
        (_PROFILES.parent / ".remove").write_text(_PROFILE, encoding="utf-8")
    if not newer:
        for module in (each for each in LOADED if each in added):  # which fails if something else uses it by now
            subprocess.run(["modprobe", "--remove", module], capture_output=True, check=False)


def _present() -> set[str]:
    """Which of the cluster's modules and profiles there are."""
    lines = [line for table in (_MODULES, _PROFILES) if table.exists() for line in table.read_text().splitlines()]
    return {line.split()[0] for line in lines if line} & {*LOADED, _PROFILE}


def _read(name: str) -> str:
    return (_SETTINGS / name).read_text(encoding="utf-8").strip()


def _is(name: str, value: str) -> bool:
    return (_SETTINGS / name).exists() and _read(name) == value


def _write(values: dict[str, str]) -> None:
    for name, value in values.items():
        if (_SETTINGS / name).exists() and _read(name) != value:
            (_SETTINGS / name).write_text(value, encoding="utf-8")
