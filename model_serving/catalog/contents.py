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


def is_ignored(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in IGNORED)


def files(folder: Path) -> Iterator[Path]:
    """Every file of a folder without wrong links that counts, in no order."""
    for path in folder.iterdir():
        if is_ignored(path.name):
            continue
        if path.is_dir():
            yield from files(path)
        else:
            yield path


def wrong_links(folder: Path, *, inside: Path, copied: bool = False) -> Iterator[tuple[Path, str]]:
    """Every link in a folder that cannot be part of a release, and what is wrong with it.

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
    """What is wrong with one path if it is a link, see `wrong_links`; None if nothing is."""
    if not path.is_symlink():
        return None
    target, real, root = path.readlink(), Path(os.path.realpath(path)), Path(os.path.realpath(inside))
    why = _why_wrong(path, target, real, root, copied=copied)
    return f"is a link to {target}, {why}" if why else None


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
