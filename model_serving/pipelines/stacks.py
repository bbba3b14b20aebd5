"""The stack files, read without the engine: what the pipelines have to know before there is an identity to ask with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from model_serving.stack import settings
from model_serving.stack.settings import Settings

PROJECT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = PROJECT / "stacks"


def names(folder: Path = FOLDER) -> list[str]:
    """The stacks that have a file, in the order of the alphabet."""
    return sorted(path.name.removeprefix("Pulumi.").removesuffix(".yaml") for path in folder.glob("Pulumi.*.yaml"))


def read(stack: str, folder: Path = FOLDER) -> Settings:
    """Reads a stack file; secrets stay encrypted and count as texts.

    Raises:
        InvalidInput: with every mistake of the stack.
        FileNotFoundError: if there is no such file.
    """
    content = yaml.safe_load((folder / f"Pulumi.{stack}.yaml").read_text()) or {}
    return settings.read(stack, {key: _as_the_engine_says(value) for key, value in content.get("config", {}).items()})


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
