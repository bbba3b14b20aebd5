"""What a file of locked requirements says: which packages, in which versions, and whether each has a hash."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

LOCK_COMMAND: Final = "uv pip compile --python-version 3.11 --generate-hashes --override requirements-overrides.txt"
LOCK_HELP: Final = "docs/runtimes.md, How a lock is made"
_LINE: Final = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(?:===?\s*(?P<version>[^\s;,\\]+))?"
)
_COMMENT: Final = re.compile(r"(^|\s)#.*")
_OF_OTHER_FILES: Final = re.compile(r"-[erc]|--(editable|requirement|constraint)\b")


@dataclass(frozen=True, kw_only=True)
class Package:
    """One package of a lock.

    Attributes:
        versions: in which it is locked; more than one where markers choose between them, none where it is not pinned.
        hashed: whether each of its lines has a hash.
    """

    versions: frozenset[str]
    hashed: bool


def normal(name: str) -> str:
    """A package's name as indexes compare it: ``Scikit_Learn`` is ``scikit-learn``."""
    # https://packaging.python.org/en/latest/specifications/name-normalization/
    return re.sub(r"[-_.]+", "-", name).lower()


# Releases of one team mostly share a few locks; each text is taken apart once.
@lru_cache
def locked(text: str) -> Mapping[str, Package]:
    """The packages of a file of requirements by their normal name."""
    packages: dict[str, Package] = {}
    for line in _lines(text):
        if match := _LINE.match(line):
            name, version = normal(match["name"]), match["version"]
            before = packages.get(name, Package(versions=frozenset(), hashed=True))
            packages[name] = Package(
                versions=before.versions | ({version} if version else set()),
                hashed=before.hashed and "--hash=" in line,
            )
    return packages


@lru_cache
def unlocked(text: str) -> tuple[str, ...]:
    """The lines that are no package in one exact version, with which an image could not install the lock."""
    return tuple(line for line in map(_without_hashes, _lines(text)) if line and not _is_locked(line))


def _lines(text: str) -> Iterator[str]:
    yield from text.removeprefix("\ufeff").replace("\\\n", " ").splitlines()


def _without_hashes(line: str) -> str:
    return _COMMENT.sub("", line).partition("--hash=")[0].strip()


def _is_locked(line: str) -> bool:
    if line.startswith("-"):
        return not _OF_OTHER_FILES.match(line)  # those that remain name an index
    match = _LINE.match(line)
    return match is not None and ("://" in line or not (match["version"] or "*").endswith("*"))
