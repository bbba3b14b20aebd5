"""Which files of a release's folder are part of it."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

IGNORED: Final = (".*", "__pycache__")
"""Names of files and folders, at any depth, that are no part of a release: not hashed, not put into an image."""


def is_ignored(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in IGNORED)


def files(folder: Path) -> Iterator[Path]:
    """Every file of a folder that counts, in no order."""
    for path in folder.iterdir():
        if is_ignored(path.name):
            continue
        if path.is_dir():
            yield from files(path)
        else:
            yield path
