"""What is mounted where, and how to unmount everything below a folder."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from local.cluster.errors import LocalError

DETACH = 2  # MNT_DETACH: also where a process that is about to end still has a file open
PATH_FIELD = 4


@dataclass(frozen=True, kw_only=True)
class Mount:
    path: Path
    kind: str


def all_mounts() -> list[Mount]:
    """In the order in which they were made."""
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        mounts.append(Mount(path=Path(_unescape(before.split()[PATH_FIELD])), kind=after.split()[0]))
    return mounts


def unmount_below(folders: Iterable[Path]) -> None:
    library = ctypes.CDLL(None)
    parents = [folder.resolve() for folder in folders]
    for path in reversed(_below(parents)):
        library.umount2(os.fsencode(path), DETACH)
    if left := _below(parents):  # judged by what is left: the kernel removes copies of a mount by itself
        raise LocalError(f"These cannot be unmounted: {', '.join(map(str, left))}")


def _below(parents: Iterable[Path]) -> list[Path]:
    return [mount.path for mount in all_mounts() if any(mount.path.is_relative_to(parent) for parent in parents)]


def _unescape(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)
