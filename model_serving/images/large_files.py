"""Large files of releases: their way into a remote when a release is made, and out of it when its image is built."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from model_serving.catalog import contents, pointers
from model_serving.catalog.pointers import MEBIBYTE, Pointer, mebibytes
from model_serving.images.remotes import Remote, RemoteError, Say, md5_of, open_remote, replacing
from model_serving.problems import InvalidInput, Problem


def replace_large(folder: Path, *, largest: int, remote: str | None, say: Say) -> list[Pointer]:
    """Stores large files in a remote, and puts pointers in their place once all of them are there.

    Args:
        folder: of a release.
        largest: bytes that a file may have to stay as it is.
        remote: address, see `remotes.open_remote`; None if there is none.
        say: is told of each file.

    Raises:
        InvalidInput: if one is too large and there is no remote, or the remote does not take it. No file was replaced.
    """
    large = sorted(path for path in contents.files(folder) if path.stat().st_size > largest)
    if problems := [*_unreplaceable(folder, large, largest, remote)]:
        raise InvalidInput(problems)
    if not large or remote is None:
        return []
    stored = _stored(folder, large, remote, say)
    for path, pointer in zip(large, stored, strict=True):
        _write(pointers.place_for(path), pointer)
        path.unlink()
    return stored


def fetch(folder: Path, remote: Remote, target: Path, *, say: Say) -> None:
    """Makes a folder hold what the pointers of a release stand for, and nothing else.

    What is there already is looked at and not fetched again.

    Args:
        folder: of the release.
        remote: where its large files are.
        target: folder to write to, each file below it at its path in the release.
        say: is told of each file.

    Raises:
        InvalidInput: with every pointer that is none, and every file that cannot be had.
    """
    wanted = pointers.of(folder)
    _remove_strays(target, {target / pointer.path for pointer in wanted})
    missing = [pointer for pointer in wanted if not _is_there(target / pointer.path, pointer)]
    problems = []
    for number, pointer in enumerate(missing, 1):
        say(f"fetching {pointer.title}, {number} of {len(missing)}, from {remote}")
        try:
            remote.get(pointer.md5, target / pointer.path)
        except RemoteError as error:
            problems.append(_unfetched(folder, pointer, error))
    if problems:
        raise InvalidInput(problems)


def _write(path: Path, pointer: Pointer) -> None:
    with replacing(path, scratch=path.parent) as file:
        file.write(pointer.text.encode())


def _unreplaceable(folder: Path, large: list[Path], largest: int, remote: str | None) -> Iterator[Problem]:
    for path in large:
        name = path.relative_to(folder).as_posix()
        what = f"has {mebibytes(path.stat().st_size)}, and artefacts.largestMebibytes is {largest / MEBIBYTE:g}"
        if name in pointers.READ_BEFORE:
            yield Problem(
                file=name,
                what=what,
                consequence="It is read before any remote is asked, so no pointer can stand for it.",
                remedy="Make it smaller; an example of a request needs no more than a few rows.",
            )
        elif remote is None:
            yield Problem(
                file=name,
                what=what,
                consequence="Git would keep it for ever, and every clone would fetch it.",
                remedy="Write artefacts.remote in release.yaml, e.g. gs://my-models-dvc, or a higher largestMebibytes.",
            )


def _stored(folder: Path, large: list[Path], address: str, say: Say) -> list[Pointer]:
    """Puts files into the remote, one after the other; one that is there is not sent again."""
    stored, name = [], "release.yaml"
    try:
        remote = open_remote(address, say=say)
        for number, path in enumerate(large, 1):
            name = path.relative_to(folder).as_posix()
            pointer = Pointer(path=name, md5=md5_of(path), size=path.stat().st_size)
            say(f"storing {pointer.title}, {number} of {len(large)}, in {address}")
            remote.put(path, pointer.md5)
            stored.append(pointer)
    except RemoteError as error:
        consequence = "The release would point to a file that nobody has; it was not delivered."
        raise InvalidInput(
            [Problem(file=name, what=error.what, consequence=consequence, remedy=error.remedy)]
        ) from None
    return stored


def _unfetched(folder: Path, pointer: Pointer, error: RemoteError) -> Problem:
    return Problem(
        file=pointers.place_for(folder / pointer.path).as_posix(),
        what=f"md5 {pointer.md5}: {error.what}",
        consequence="The image would lack the file, so it is not built, and what served before serves on.",
        remedy=error.remedy,
    )


def _is_there(path: Path, pointer: Pointer) -> bool:
    return path.is_file() and path.stat().st_size == pointer.size and md5_of(path) == pointer.md5


def _remove_strays(folder: Path, wanted: set[Path]) -> None:
    """Removes what no pointer names: of a run that was killed, or of whoever was here."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path in wanted and path.is_file() and not path.is_symlink():
            continue
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        elif any(path in file.parents for file in wanted):
            _remove_strays(path, wanted)
        else:
            shutil.rmtree(path)
