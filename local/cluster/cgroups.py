"""The control group under which all of an instance's containers run, in either version of the kernel's interface."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from local.cluster import mounts
from local.cluster.errors import LocalError
from local.cluster.layout import Layout

CONTROLLERS = ("cpu", "cpuset", "memory", "pids", "io", "hugetlb")
END_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class Hierarchy:
    mount: Path
    unified: bool


def make(layout: Layout) -> None:
    """The kubelet demands that its root exists and has the controllers that it limits pods with."""
    hierarchies = _hierarchies()
    only_unified = all(hierarchy.unified for hierarchy in hierarchies)
    for hierarchy in hierarchies:
        group = hierarchy.mount / layout.cgroup
        if not hierarchy.unified:
            group.mkdir(exist_ok=True)
            _inherit_cpus(group)
        elif only_unified:
            _enable_controllers(hierarchy.mount)
            group.mkdir(exist_ok=True)
            _enable_controllers(group)


def _inherit_cpus(group: Path) -> None:
    """A new group of version 1 has no processor and no memory node until it is given some."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = group / name
        if file.exists() and not file.read_text().strip():
            file.write_text((group.parent / name).read_text())


def _enable_controllers(group: Path) -> None:
    for controller in CONTROLLERS:
        with contextlib.suppress(OSError):  # one that this kernel does not have
            (group / "cgroup.subtree_control").write_text(f"+{controller}")


def remove(layout: Layout) -> None:
    """Kill what runs in the instance's groups, then remove them from the innermost outwards."""
    deadline = time.monotonic() + END_SECONDS
    while members := set(_members(layout)):
        if time.monotonic() > deadline:
            raise LocalError(f"Processes in containers do not end: {', '.join(map(str, sorted(members)))}")
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    for group in _groups(layout):
        _remove_group(group, deadline)


def _remove_group(group: Path, deadline: float) -> None:
    """A group stays busy for an instant after the end of its last process."""
    while True:
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise LocalError(f"The control group {group} cannot be removed: something still runs in it.") from None
            time.sleep(0.02)
        else:
            return


def _members(layout: Layout) -> Iterator[int]:
    for group in _groups(layout):
        with contextlib.suppress(OSError):
            yield from map(int, (group / "cgroup.procs").read_text().split())


def _groups(layout: Layout) -> Iterator[Path]:
    for hierarchy in _hierarchies():
        for folder, _, _ in os.walk(hierarchy.mount / layout.cgroup, topdown=False):
            yield Path(folder)


def _hierarchies() -> list[Hierarchy]:
    return [
        Hierarchy(mount=mount.path, unified=mount.kind == "cgroup2")
        for mount in mounts.all_mounts()
        if mount.kind in {"cgroup", "cgroup2"}
    ]
