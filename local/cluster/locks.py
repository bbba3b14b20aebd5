"""Locks and cached folders that commands running at the same time share."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from local.cluster import mounts


@contextlib.contextmanager
def held(path: Path, *, waiting: str, report: Callable[[str], None] = print) -> Iterator[None]:
    """Hold a lock file; report what the command waits for if another process holds it.

    The kernel releases the lock when its process ends, however it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, fallback_to_soft=False)
    try:
        hold = lock.acquire(blocking=False)
    except Timeout:
        report(waiting)
        hold = lock.acquire()
    with hold:
        yield


def ensure_folder(
    folder: Path, make: Callable[[Path], None], *, waiting: str, report: Callable[[str], None] = print
) -> None:
    """Make a cached folder unless it exists; only a complete one gets this name."""
    if folder.exists():
        return
    with held(folder.parent / "lock", waiting=waiting, report=report):
        if folder.exists():
            return
        temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
        try:
            make(temporary)
            temporary.chmod(0o755)
            temporary.rename(folder)
        finally:
            if temporary.exists():
                mounts.unmount_below((temporary,))
                shutil.rmtree(temporary, ignore_errors=True)
