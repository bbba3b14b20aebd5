"""Reads stack files without Pulumi: pipelines need them before they have an identity."""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from model_serving.problems import InvalidInput
from model_serving.stack import settings
from model_serving.stack.settings import Settings

PROJECT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = PROJECT / "stacks"
UNKNOWN: Final = "The stack's settings are not known, so nothing was changed."


def names(folder: Path | None = None) -> list[str]:
    """The stacks that have a file, sorted."""
    return sorted(
        path.name.removeprefix("Pulumi.").removesuffix(".yaml") for path in (folder or FOLDER).glob("Pulumi.*.yaml")
    )


def read(stack: str, folder: Path | None = None) -> Settings:
    """Reads a stack file; secrets stay encrypted and count as text.

    Raises:
        InvalidInput: with all mistakes of the stack, or if there is no such file.
    """
    config = _config(stack, folder or FOLDER)
    return settings.read(stack, {key: _as_pulumi_passes_it(value) for key, value in config.items()})


def sections(stack: str, folder: Path | None = None) -> frozenset[str]:
    """The project's own keys in a stack file, without their prefix; their values may be wrong.

    Raises:
        InvalidInput: if there is no such file, or it cannot be read.
    """
    prefix = f"{settings.NAMESPACE}:"
    keys = (key.removeprefix(prefix) for key in _config(stack, folder or FOLDER) if key.startswith(prefix))
    return frozenset(keys)


def _config(stack: str, folder: Path) -> Mapping[str, Any]:
    """The section ``config`` of a stack file."""
    try:
        content = yaml.safe_load((folder / f"Pulumi.{stack}.yaml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = names(folder)
        near = difflib.get_close_matches(stack, known, n=1)
        remedy = f"Did you mean {near[0]}?" if near else f"The stacks are {', '.join(known) or 'none yet'}."
        raise _refusal(stack, "does not exist", remedy) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _refusal(stack, f"cannot be read: {' '.join(str(error).split())}", "Correct the file.") from None
    config = content.get("config") if isinstance(content, Mapping) else content
    if config is None or isinstance(config, Mapping):
        return config or {}
    raise _refusal(stack, "is not a mapping with the key config", "Indent the settings below `config:`.")


def _refusal(stack: str, what: str, remedy: str) -> InvalidInput:
    return InvalidInput.of(settings.file_of(stack), what, UNKNOWN, remedy)


def _as_pulumi_passes_it(value: Any) -> str:
    """A value as Pulumi passes it to a program: lists and mappings as JSON, a secret as its text."""
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
