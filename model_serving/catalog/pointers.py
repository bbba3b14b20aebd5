"""Pointers in a release's folder, in DVC's own format, for large files that are in a remote.

``<file>.dvc`` stands for ``<file>`` beside it. It names one file, by its MD5: no folder, and nothing of another place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import yaml
from pydantic import Field, ValidationError, ValidationInfo, field_validator

from model_serving import yaml_text
from model_serving.catalog import contents
from model_serving.problems import InvalidInput, Problem
from model_serving.sections import Section, problems_of, wrong

MEBIBYTE: Final = 1 << 20
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
    def text(self) -> str:
        """What its file holds, as DVC writes it."""
        out = {"md5": self.md5, "size": self.size, "hash": "md5", "path": Path(self.path).name}
        return yaml.safe_dump({"outs": [out]}, sort_keys=False, allow_unicode=True)

    @property
    def title(self) -> str:
        """For people: ``model.bin (123 MiB)``."""
        return f"{self.path} ({mebibytes(self.size)})"


class _Out(Section):
    """What DVC says of a file, https://dvc.org/doc/user-guide/project-structure/dvc-files."""

    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] = Field(
        examples=["a304afb96060aad90176268345e10355"], description="MD5 of the file, by which the remote knows it."
    )
    size: int = Field(ge=0, examples=[1048576], description="Bytes of the file.")
    hash: Literal["md5"] = Field(description="Where a remote has the file: DVC 3 writes md5.")
    isexec: bool = Field(False, description="Whether DVC makes it a program where it checks it out; no model needs it.")
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
        content = yaml_text.parse(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise InvalidInput([_no_pointer(shown, "holds no `outs`", by_itself)])
        return _Content.model_validate(content, context={"file": file}).outs[0]
    except ValidationError as error:
        raise InvalidInput(problems_of(error, _Content, file=shown)) from None
    except ValueError as error:
        raise InvalidInput([_no_pointer(shown, f"is no YAML: {error}", by_itself)]) from None


def _no_pointer(shown: str, what: str, remedy: str) -> Problem:
    consequence = "Nobody could tell which file it stands for."
    return Problem(file=shown, what=what, consequence=consequence, remedy=remedy)


def mebibytes(size: int) -> str:
    """For people: ``1,234.5 MiB``."""
    return f"{size / MEBIBYTE:,.1f} MiB"
