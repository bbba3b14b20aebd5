"""The control group of an instance's containers, for versions 1 and 2 of the kernel's interface."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from local.cluster import mounts
from local.cluster.layout import Layout
from local.cluster.probes import wait_until

CONTROLLERS = ("cpu", "cpuset", "memory", "pids", "io", "hugetlb")
END_SECONDS = 10
VERSION_2 = "cgroup2"


def make(layout: Layout) -> None:
    """Make the group, with the controllers by which the kubelet limits pods."""
    hierarchies = _hierarchies()
    only_version_2 = all(hierarchy.kind == VERSION_2 for hierarchy in hierarchies)
    for hierarchy in hierarchies:
        group = hierarchy.path / layout.cgroup
        if hierarchy.kind != VERSION_2:
            group.mkdir(exist_ok=True)
            _inherit_cpus(group)
        elif only_version_2:
            _enable_controllers(hierarchy.path)
            group.mkdir(exist_ok=True)
            _enable_controllers(group)


def _inherit_cpus(group: Path) -> None:
    """Assign processors and memory nodes, of which a new group of version 1 has none."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = group / name
        if file.exists() and not file.read_text().strip():
            file.write_text((group.parent / name).read_text())


def _enable_controllers(group: Path) -> None:
    for controller in CONTROLLERS:
        with contextlib.suppress(OSError):  # this kernel lacks it
            (group / "cgroup.subtree_control").write_text(f"+{controller}")


def remove(layout: Layout) -> None:
    """Kill the processes in the instance's groups, then remove the groups, innermost first."""
    wait_until(
        lambda: _kill(layout), END_SECONDS, lambda: f"Processes in containers keep running: {sorted(members(layout))}"
    )
    for group in _groups(layout):
        _remove_group(group)


def _kill(layout: Layout) -> bool:
    """Kill all members; whether there were none."""
    found = set(members(layout))
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return not found


def _remove_group(group: Path) -> None:
    def is_removed() -> bool:
        with contextlib.suppress(OSError):  # it stays busy for an instant after its last process ended
            group.rmdir()
        return not group.exists()

    wait_until(is_removed, END_SECONDS, lambda: f"The control group {group} still has a process and cannot be removed.")


def members(layout: Layout) -> Iterator[int]:
    """What runs in the instance's containers and builds."""
    for group in _groups(layout):
        with contextlib.suppress(OSError):
            yield from map(int, (group / "cgroup.procs").read_text().split())


def _groups(layout: Layout) -> Iterator[Path]:
    for hierarchy in _hierarchies():
        for folder, _, _ in os.walk(hierarchy.path / layout.cgroup, topdown=False):
            yield Path(folder)


def _hierarchies() -> list[mounts.Mount]:
    return [mount for mount in mounts.all_mounts() if mount.kind in {"cgroup", VERSION_2}]
