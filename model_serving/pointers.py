"""Large files of a release: pointers in their place, in DVC's own format, and the files themselves in a remote.

``<file>.dvc`` stands for ``<file>`` beside it. It names one file, by its MD5: no folder, and nothing of another place.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import yaml
from pydantic import Field, ValidationError, ValidationInfo, field_validator

from model_serving import contents
from model_serving.problems import InvalidInput, Problem
from model_serving.remotes import MEBIBYTE, Remote, RemoteError, Say, md5_of, open_remote, replacing
from model_serving.sections import Section, problems_of, wrong

SUFFIX: Final = ".dvc"
READ_BEFORE: Final = frozenset(
    {"model-settings.json", "requirements.lock", "request.json", "response.json", "provenance.json"}
)
"""Files of a release's folder that are read where no remote is asked."""


@dataclass(frozen=True, kw_only=True)
class Pointer:
    """A file that is in a remote.

    Attributes:
        path: of the file, relative to the release's folder, with slashes.
        md5: of its content, in hexadecimal digits.
        size: bytes.
    """

    path: str
    md5: str
    size: int

    @property
    def title(self) -> str:
        """For people: ``model.bin (123 MiB)``."""
        return f"{self.path} ({_mebibytes(self.size)})"


class _Out(Section):
    """What DVC says of a file, https://dvc.org/doc/user-guide/project-structure/dvc-files."""

    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] = Field(
        examples=["a304afb96060aad90176268345e10355"], description="MD5 of the file, by which the remote knows it."
    )
    size: int = Field(ge=0, examples=[1048576], description="Bytes of the file.")
    hash: Literal["md5"] = Field(description="Where a remote has the file: DVC 3 writes md5.")
    path: str = Field(description="Name of the file, which is the pointer's without .dvc.")

    @field_validator("md5", mode="before")
    @classmethod
    def _of_a_file(cls, value: object) -> object:
        if str(value).endswith(".dir"):
            raise wrong(
                f"is {value}, which is a folder's",
                "Its files would not be fetched, and the model would not load.",
                "Add each of its files by itself, or pack them into one.",
            )
        return value

    @field_validator("path")
    @classmethod
    def _beside_the_pointer(cls, value: str, info: ValidationInfo) -> str:
        expected = (info.context or {})["file"]
        if value != expected:
            raise wrong(
                f"is {value}, and the pointer is {expected}{SUFFIX}",
                "The file would be put in another place than the one where it is looked for.",
                f"Write {expected}, or rename the pointer.",
            )
        return value


class _Content(Section):
    outs: list[_Out] = Field(min_length=1, max_length=1, description="One file, as `dvc add` writes it.")


def place_for(path: Path) -> Path:
    """Where the pointer of a file is."""
    return path.with_name(path.name + SUFFIX)


def of(folder: Path, *, shown: Callable[[Path], str] = Path.as_posix) -> list[Pointer]:
    """The pointers of a release.

    Args:
        folder: of the release.
        shown: how messages name a file.

    Raises:
        InvalidInput: with every mistake of every pointer.
    """
    found: list[Pointer] = []
    problems: list[Problem] = []
    for path in sorted(_pointer_files(folder)):
        try:
            found.append(_read(path, folder, shown(path)))
        except InvalidInput as error:
            problems += error.problems
    if problems:
        raise InvalidInput(problems)
    return found


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
    pointers = _stored(folder, large, remote, say)
    for path, pointer in zip(large, pointers, strict=True):
        _write(place_for(path), pointer)
        path.unlink()
    return pointers


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
    pointers = of(folder)
    _remove_strays(target, {target / pointer.path for pointer in pointers})
    missing = [pointer for pointer in pointers if not _is_there(target / pointer.path, pointer)]
    problems = []
    for number, pointer in enumerate(missing, 1):
        say(f"fetching {pointer.title}, {number} of {len(missing)}, from {remote}")
        try:
            remote.get(pointer.md5, target / pointer.path)
        except RemoteError as error:
            problems.append(_unfetched(folder, pointer, error))
    if problems:
        raise InvalidInput(problems)


def _pointer_files(folder: Path) -> Iterator[Path]:
    return (path for path in contents.files(folder) if path.suffix == SUFFIX)


def _read(path: Path, folder: Path, shown: str) -> Pointer:
    place = path.with_suffix("")
    out = _out(path, place.name, shown)
    if place.exists():
        what, remedy = f"has {place.name} beside it", "Remove the one of the two that is not released."
        raise InvalidInput([_no_pointer(shown, what, remedy)])
    return Pointer(path=place.relative_to(folder).as_posix(), md5=out.md5, size=out.size)


def _out(path: Path, file: str, shown: str) -> _Out:
    by_itself = "Let `dvc add` or a release write it."
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise InvalidInput([_no_pointer(shown, "holds no `outs`", by_itself)])
        return _Content.model_validate(content, context={"file": file}).outs[0]
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        told = " ".join(str(error).split())
        raise InvalidInput([_no_pointer(shown, f"is no YAML: {told}", by_itself)]) from None
    except ValidationError as error:
        raise InvalidInput(problems_of(error, _Content, file=shown)) from None


def _no_pointer(shown: str, what: str, remedy: str) -> Problem:
    consequence = "Nobody could tell which file it stands for."
    return Problem(file=shown, what=what, consequence=consequence, remedy=remedy)


def _write(path: Path, pointer: Pointer) -> None:
    out = {"md5": pointer.md5, "size": pointer.size, "hash": "md5", "path": Path(pointer.path).name}
    with replacing(path, scratch=path.parent) as file:
        file.write(yaml.safe_dump({"outs": [out]}, sort_keys=False, allow_unicode=True).encode())


def _unreplaceable(folder: Path, large: list[Path], largest: int, remote: str | None) -> Iterator[Problem]:
    for path in large:
        name = path.relative_to(folder).as_posix()
        what = f"has {_mebibytes(path.stat().st_size)}, and artefacts.largestMebibytes is {largest / MEBIBYTE:g}"
        if name in READ_BEFORE:
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
    pointers, name = [], "release.yaml"
    try:
        remote = open_remote(address, say=say)
        for number, path in enumerate(large, 1):
            name = path.relative_to(folder).as_posix()
            pointer = Pointer(path=name, md5=md5_of(path), size=path.stat().st_size)
            say(f"storing {pointer.title}, {number} of {len(large)}, in {address}")
            remote.put(path, pointer.md5)
            pointers.append(pointer)
    except RemoteError as error:
        consequence = "The release would point to a file that nobody has; it was not delivered."
        raise InvalidInput(
            [Problem(file=name, what=error.what, consequence=consequence, remedy=error.remedy)]
        ) from None
    return pointers


def _unfetched(folder: Path, pointer: Pointer, error: RemoteError) -> Problem:
    return Problem(
        file=place_for(folder / pointer.path).as_posix(),
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


def _mebibytes(size: int) -> str:
    return f"{size / MEBIBYTE:,.1f} MiB"
