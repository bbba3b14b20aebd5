"""Reads stack files without Pulumi: pipelines need them before they have an identity."""

import difflib
import json
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from model_serving import yaml_text
from model_serving.problems import InvalidInput
from model_serving.stack import settings
from model_serving.stack.settings import Settings

PROJECT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = PROJECT / "stacks"
_CI: Final = re.compile(rf"^[^#\n]*\b{settings.NAMESPACE}:ci[\"']?\s*:", re.MULTILINE)
UNKNOWN: Final = "The stack's settings are not known, so nothing was changed."


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, as Pulumi does; PyYAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            # A merged key is not in the node yet, and may be overridden.
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is there twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        return super().construct_mapping(node, deep)


def names(folder: Path | None = None) -> list[str]:
    """The stacks that have a file, sorted."""
    return sorted(
        path.name.removeprefix("Pulumi.").removesuffix(".yaml")
        for path in (folder or FOLDER).glob("Pulumi.*.yaml")
        if path.is_file()  # not a folder, nor a link to nowhere
    )


def require(stack: str) -> None:
    """Refuses a stack that has no file, for commands that do not read the file themselves.

    Only in a checkout of this project: Pulumi reads the stack files of the folder in which it runs.

    Raises:
        InvalidInput: with the stacks that there are.
    """
    if Path.cwd() == PROJECT and stack not in names():
        raise _missing(stack, FOLDER)


def in_pipelines(folder: Path | None = None) -> list[str]:
    """The stacks whose file has a ``ci`` section, sorted; those with mistakes or broken YAML as well."""
    place = folder or FOLDER
    return [
        name
        for name in names(place)
        if has_ci_section((place / f"Pulumi.{name}.yaml").read_bytes().decode("utf-8", "replace"))
    ]


def has_ci_section(text: str) -> bool:
    """Whether the text of a stack file, valid or not, has a ``ci`` section."""
    return _CI.search(text) is not None


def read(stack: str, folder: Path | None = None) -> Settings:
    """Reads a stack file; secrets stay encrypted and count as text.

    Raises:
        InvalidInput: with all mistakes of the stack, or if there is no such file.
    """
    return parse(stack, _text(stack, folder or FOLDER))


def sections(stack: str, folder: Path | None = None) -> frozenset[str]:
    """The project's own keys in a stack file, without their prefix; their values may be wrong.

    Raises:
        InvalidInput: if there is no such file, or it cannot be read.
    """
    prefix = f"{settings.NAMESPACE}:"
    keys = (
        str(key).removeprefix(prefix)
        for key in _config(stack, _text(stack, folder or FOLDER))
        if str(key).startswith(prefix)
    )
    return frozenset(keys)


def parse(stack: str, text: str) -> Settings:
    """Reads the text of a stack file like `read`, and raises the same."""
    try:
        values = {_key(key): _as_pulumi_passes_it(value) for key, value in _config(stack, text).items()}
    except RecursionError:
        raise _refusal(stack, "contains itself through an anchor", "Remove the alias.") from None
    except ValueError as error:  # a hexadecimal number that is too long to be written as a decimal one
        raise _unreadable(stack, error) from None
    return settings.read(stack, values)


def _text(stack: str, folder: Path) -> str:
    try:
        return (folder / f"Pulumi.{stack}.yaml").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _missing(stack, folder) from None
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(stack, error) from None


def _config(stack: str, text: str) -> Mapping[Any, Any]:
    """The section ``config`` of a stack file."""
    try:
        content = yaml_text.parse(text, _Loader)
    except ValueError as error:
        raise _unreadable(stack, error) from None
    config = content.get("config") if isinstance(content, Mapping) else content
    if config is None or isinstance(config, Mapping):
        return config or {}
    raise _refusal(stack, "is not a mapping with the key config", "Indent the settings below `config:`.")


def _missing(stack: str, folder: Path) -> InvalidInput:
    known = names(folder)
    near = difflib.get_close_matches(stack, known, n=1)
    remedy = f"Did you mean {near[0]}? " if near else ""
    return _refusal(stack, "does not exist", f"{remedy}The stacks are {', '.join(known) or 'none yet'}.")


def _unreadable(stack: str, error: Exception) -> InvalidInput:
    return _refusal(stack, f"cannot be read: {error}", "Correct the file.")


def _refusal(stack: str, what: str, remedy: str) -> InvalidInput:
    return InvalidInput.of(settings.file_of(stack), what, UNKNOWN, remedy)


def _as_pulumi_passes_it(value: Any) -> str:
    """A value as Pulumi passes it to a program: lists and mappings as JSON, a secret as its text."""
    plain = _without_secrets(value)
    # YAML has dates and bytes, which JSON does not have.
    return plain if isinstance(plain, str) else json.dumps(plain, default=str)


def _without_secrets(value: Any) -> Any:
    match value:
        case {"secure": _, **rest} if not rest:
            return "secret"
        case Mapping():
            return {_key(key): _without_secrets(part) for key, part in value.items()}
        case list():
            return [_without_secrets(part) for part in value]
        case _:
            return value


def _key(key: Any) -> str:
    """A key as JSON spells it: YAML reads an unquoted 1.0 as a number."""
    return key if isinstance(key, str) else json.dumps(key, default=str).strip('"')
