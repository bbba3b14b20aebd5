"""The machine's mounts, and unmounting all of those below a folder."""

import ctypes
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from model_serving.problems import Failure

DETACH = 2  # MNT_DETACH: works even if a process that is about to end still has a file open
PATH_FIELD = 4


class Mount(NamedTuple):
    path: Path
    kind: str


def all_mounts() -> list[Mount]:
    """The mounts, oldest first."""
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        path = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), before.split()[PATH_FIELD])
        mounts.append(Mount(path=Path(path), kind=after.split()[0]))
    return mounts


def unmount_below(folders: Iterable[Path]) -> None:
    library = ctypes.CDLL(None)
    parents = [folder.resolve() for folder in folders]
    for path in reversed(_below(parents)):
        library.umount2(os.fsencode(path), DETACH)
    if left := _below(parents):  # instead of checking results, because the kernel removes copies of a mount itself
        raise Failure(f"These cannot be unmounted: {', '.join(map(str, left))}")


def _below(parents: Iterable[Path]) -> list[Path]:
    return [mount.path for mount in all_mounts() if any(mount.path.is_relative_to(parent) for parent in parents)]
