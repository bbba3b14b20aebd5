"""A release that a converter has found but not written yet, and how the files of other tools are read."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from model_serving.problems import InvalidInput, Problem
from model_serving.releases import yaml_files

NUMPY_DATATYPES: Final[Mapping[str, str]] = {
    "bool": "BOOL",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
"""NumPy's data type -> that of the V2 protocol."""
LOSS: Final = "There would be no release that can be served."


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A release that is not written yet.

    Attributes:
        name: of the model.
        version: of the release.
        settings: for MLServer, with `parameters`; name and version may be missing.
        files: path in the release -> file or folder to copy.
        request: of the V2 protocol, that the model can answer.
        lock: of the source, used if the command line names none.
        trained_with: known packages of the training: name -> exact version.
        requirements: further requirements of the source, as lines.
        remarks: for people, a sentence each.
    """

    name: str
    version: str
    settings: Mapping[str, Any]
    files: Mapping[str, Path]
    request: Mapping[str, Any] | None = None
    lock: Path | None = None
    trained_with: Mapping[str, str] = field(default_factory=dict)
    requirements: Sequence[str] = ()
    remarks: Sequence[str] = ()


class Converter(Protocol):
    """The module of a converter."""

    HELP: str
    EXAMPLE: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def draft(self, options: argparse.Namespace, scratch: Path) -> Draft:
        """Reads the source.

        Args:
            options: of the command line.
            scratch: temporary folder for downloads.

        Raises:
            InvalidInput: with everything that is missing.
        """
        ...


class Foreign(BaseModel):
    """A part of another tool's file, with the tool's own keys; keys that are not needed here are ignored."""

    model_config = ConfigDict(alias_generator=str, extra="ignore", frozen=True, protected_namespaces=())


_File = TypeVar("_File", bound=Foreign)


def read_yaml(path: Path, form: type[_File]) -> _File:
    """Reads another tool's file; raises InvalidInput with every mistake."""
    return yaml_files.read_yaml(
        path, form, file=str(path), consequence=LOSS, remedy="Correct the path, or save the model again."
    )


def read_settings(path: Path) -> dict[str, Any]:
    """Reads MLServer's settings of a model; adds ``parameters`` if they are missing.

    Raises:
        InvalidInput: if the file is missing or not a JSON object, or its parameters are not one.
    """
    remedy = "Write MLServer's settings of the model there, a JSON object."
    try:
        content = json.loads(path.read_bytes().decode())
    except OSError as error:
        raise unusable(path, f"cannot be read: {error.strerror}", remedy) from None
    except (ValueError, RecursionError) as error:
        raise unusable(path, f"is not JSON: {error}", remedy) from None
    if not isinstance(content, dict) or not isinstance(content.setdefault("parameters", {}), dict):
        raise unusable(path, "is not a JSON object with an object as its parameters", remedy)
    return content


def unusable(path: Path, what: str, remedy: str) -> InvalidInput:
    """The error of a source with one mistake."""
    return InvalidInput([lacking(path, what, remedy)])


def lacking(path: Path, what: str, remedy: str) -> Problem:
    """One mistake of a source."""
    return Problem(file=str(path), what=what, consequence=LOSS, remedy=remedy)


def nested(content: object, *keys: str) -> Any:
    """The value under nested keys; None if one of them is missing."""
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content
