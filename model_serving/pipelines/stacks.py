"""The stack files, read without the engine: what the pipelines have to know before there is an identity to ask with."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from model_serving.problems import InvalidInput, Problem
from model_serving.stack import settings
from model_serving.stack.settings import Settings

PROJECT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = PROJECT / "stacks"


def names(folder: Path | None = None) -> list[str]:
    """The stacks that have a file, in the order of the alphabet."""
    return sorted(
        path.name.removeprefix("Pulumi.").removesuffix(".yaml") for path in (folder or FOLDER).glob("Pulumi.*.yaml")
    )


def read(stack: str, folder: Path | None = None) -> Settings:
    """Reads a stack file; secrets stay encrypted and count as texts.

    Raises:
        InvalidInput: with every mistake of the stack, or because there is no such file.
    """
    return settings.read(
        stack, {key: _as_the_engine_says(value) for key, value in _config(stack, folder or FOLDER).items()}
    )


def _config(stack: str, folder: Path) -> Mapping[str, Any]:
    """The section ``config`` of a stack file."""
    path = folder / f"Pulumi.{stack}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = names(folder)
        near = difflib.get_close_matches(stack, known, n=1)
        remedy = f"Did you mean {near[0]}?" if near else f"The stacks are {', '.join(known) or 'none yet'}."
        raise _refusal(stack, "does not exist", "There is no stack of that name.", remedy) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        what = f"cannot be read: {' '.join(str(error).split())}"
        raise _refusal(stack, what, "Nothing is known of the stack.", "Correct the file.") from None
    config = content.get("config") if isinstance(content, Mapping) else content
    if config is None or isinstance(config, Mapping):
        return config or {}
    what = "is not a mapping with the key config"
    raise _refusal(stack, what, "Nothing is known of the stack.", "Indent the settings below `config:`.")


def _refusal(stack: str, what: str, consequence: str, remedy: str) -> InvalidInput:
    file = settings.file_of(stack)
    return InvalidInput([Problem(file=file, what=what, consequence=consequence, remedy=remedy)])


def _as_the_engine_says(value: Any) -> str:
    """A value as Pulumi hands it to a program: lists and mappings as JSON, a secret as its text."""
    plain = _without_secrets(value)
    return plain if isinstance(plain, str) else json.dumps(plain)


def _without_secrets(value: Any) -> Any:
    match value:
        case {"secure": _, **rest} if not rest:
            return "secret"
        case Mapping():
            return {key: _without_secrets(part) for key, part in value.items()}
        case list():
            return [_without_secrets(part) for part in value]
        case _:
            return value
