"""Which files of a release's folder are part of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

IGNORED: Final = (".*", "__pycache__")
"""Names of files and folders, at any depth, that are no part of a release: not hashed, not put into an image."""

_LFS_BYTES: Final = 1024
"""Pointers of Git LFS are smaller."""


def is_ignored(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in IGNORED)


def exists(path: Path) -> bool:
    """Whether there is something at a path, be it one that no file can have or that this account may not look at."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises errors for such


def files(folder: Path) -> Iterator[Path]:
    """Every file of a folder without wrong links that counts, in no order."""
    for path in folder.iterdir():
        if is_ignored(path.name):
            continue
        if path.is_dir():
            yield from files(path)
        else:
            yield path


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is what Git LFS puts in place of one that was not downloaded."""
    # https://github.com/git-lfs/git-lfs/blob/v3.7.0/docs/spec.md
    if path.stat().st_size >= _LFS_BYTES:
        return False
    return path.read_bytes().startswith(b"version https://git-lfs.github.com/spec/")


def unreadable(path: Path) -> Iterator[tuple[Path, str]]:
    """A file, or everything in a folder, whose content cannot be had, wherever links lead, and why."""
    if what := _why_unreadable(path):
        yield path, what
    elif path.is_dir():
        for each in sorted(path.iterdir()):
            if not is_ignored(each.name):
                yield from unreadable(each)


def wrong_links(folder: Path, *, inside: Path, copied: bool = False) -> Iterator[tuple[Path, str]]:
    """Every link in a folder that cannot be part of a release, or what is no file at all, and what is wrong with it.

    Args:
        folder: searched through links as well, since they are followed.
        inside: folder that links must not lead out of.
        copied: whether links become files, so that they may be absolute or lead to hidden files.
    """
    for path in sorted(folder.iterdir()):
        if is_ignored(path.name):
            continue
        if what := wrong_link(path, inside=inside, copied=copied):
            yield path, what
        elif path.is_dir():
            yield from wrong_links(path, inside=inside, copied=copied)


def wrong_link(path: Path, *, inside: Path, copied: bool = False) -> str | None:
    """What is wrong with one path, see `wrong_links`; None if nothing is."""
    if not path.is_symlink():
        return _why_unreadable(path)
    target, real, root = path.readlink(), Path(os.path.realpath(path)), Path(os.path.realpath(inside))
    why = _why_wrong(path, target, real, root, copied=copied)
    return f"is a link to {target}, {why}" if why else _why_unreadable(path)


def _why_unreadable(path: Path) -> str | None:
    if not path.exists():
        return "is a link to nothing, or to itself"
    if not path.is_dir() and not path.is_file():
        return "is a pipe, a socket or a device"  # to open a pipe is to wait for ever
    kind, mode = ("folder", os.R_OK | os.X_OK) if path.is_dir() else ("file", os.R_OK)
    return None if os.access(path, mode) else f"is a {kind} that this account may not read: allow it, chmod a+rX"


def _why_wrong(path: Path, target: Path, real: Path, root: Path, *, copied: bool) -> str | None:
    try:
        path.stat()
    except OSError as error:
        return "which leads back to itself" if error.errno == errno.ELOOP else "which does not exist"
    if not real.is_relative_to(root):
        return "which is outside"
    if Path(os.path.realpath(path.parent)).is_relative_to(real):
        return "which is a folder that it is in"
    parts = real.relative_to(root).parts
    if ".git" in parts:
        return "which is git's own"
    if not copied and (target.is_absolute() or any(is_ignored(part) for part in parts)):
        return "which other machines and the image do not have"
    return None
