"""What a converter finds: a release that is not written yet, and how the files of other tools are read."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from model_serving.problems import InvalidInput, Problem
from model_serving.sections import problems_of

NUMPY_DATATYPES: Final[Mapping[str, str]] = {
    "bool": "BOOL",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
"""By NumPy's name of a type: that of the V2 protocol."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A release to be.

    Attributes:
        name: of the model.
        version: of the release.
        settings: for MLServer, with `parameters`; name and version may be left out.
        files: path in the release -> file or folder that it is copied from.
        lock: that the source has, used where the command line names none.
        trained_with: packages of the training, as far as the source says: name -> exact version.
        requirements: further lines of requirements that the source has, as they are there.
        remarks: what a person should know of it, a sentence each.
    """

    name: str
    version: str
    settings: Mapping[str, Any]
    files: Mapping[str, Path]
    lock: Path | None = None
    trained_with: Mapping[str, str] = field(default_factory=dict)
    requirements: Sequence[str] = ()
    remarks: Sequence[str] = ()


class Converter(Protocol):
    """What a converter's module has."""

    HELP: str
    EXAMPLE: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def draft(self, options: argparse.Namespace, scratch: Path) -> Draft:
        """Reads the source.

        Args:
            options: of the command line.
            scratch: folder for what has to be fetched first.

        Raises:
            InvalidInput: with everything that is missing.
        """
        ...


class Foreign(BaseModel):
    """A part of another tool's file, whose keys are as they are there; those that nobody needs here are passed over."""

    model_config = ConfigDict(alias_generator=str, extra="ignore", frozen=True, protected_namespaces=())


_File = TypeVar("_File", bound=Foreign)


def read_yaml(path: Path, form: type[_File]) -> _File:
    """Reads another tool's file.

    Raises:
        InvalidInput: if it is missing, is no YAML, or has another form; with every mistake.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise unusable(path, f"cannot be read: {error.strerror}", "Correct the path.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise unusable(path, f"is no YAML: {' '.join(str(error).split())}", "Save the model again.") from None
    if not isinstance(content, dict):
        raise unusable(path, "holds no keys", "Save the model again.")
    try:
        return form.model_validate(content)
    except ValidationError as error:
        raise InvalidInput(problems_of(error, form, file=str(path))) from None


def read_settings(path: Path) -> dict[str, Any]:
    """Reads MLServer's settings of a model, with an object under ``parameters`` in any case.

    Raises:
        InvalidInput: if they are missing or no JSON object, or their parameters are none.
    """
    remedy = "Write MLServer's settings of the model there, a JSON object."
    try:
        content = json.loads(path.read_bytes().decode())
    except OSError as error:
        raise unusable(path, f"cannot be read: {error.strerror}", remedy) from None
    except ValueError as error:
        raise unusable(path, f"is no JSON: {error}", remedy) from None
    if not isinstance(content, dict) or not isinstance(content.setdefault("parameters", {}), dict):
        raise unusable(path, "is no JSON object with an object as its parameters", remedy)
    return content


def unusable(path: Path, what: str, remedy: str) -> InvalidInput:
    """A source of which there is nothing more to say."""
    return InvalidInput([lacking(path, what, remedy)])


def lacking(path: Path, what: str, remedy: str) -> Problem:
    """One thing that a source lacks."""
    return Problem(
        file=str(path), what=what, consequence="There would be no release that can be served.", remedy=remedy
    )


def nested(content: object, *keys: str) -> Any:
    """What stands under keys inside each other; None where one of them is not there."""
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content
