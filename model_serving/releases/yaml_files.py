"""Reads YAML files into pydantic models, and refuses them with every mistake."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from model_serving import yaml_text
from model_serving.problems import InvalidInput
from model_serving.sections import problems_of

Form = TypeVar("Form", bound=BaseModel)


def read_yaml(path: Path, form: type[Form], *, file: str, consequence: str, remedy: str) -> Form:
    """Reads a file.

    Args:
        path: of the file.
        form: its content.
        file: its name for people.
        consequence: of a file that is not usable at all.
        remedy: for the same.

    Raises:
        InvalidInput: if it cannot be read, is not YAML, or has another form.
    """
    try:
        content = yaml_text.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidInput.of(file, "is missing", consequence, remedy) from None
    except OSError as error:
        raise InvalidInput.of(file, f"cannot be read: {error.strerror}", consequence, remedy) from None
    except ValueError as error:
        raise InvalidInput.of(file, f"is not YAML: {error}", consequence, remedy) from None
    if not isinstance(content, dict):
        raise InvalidInput.of(file, "holds no keys", consequence, remedy)
    try:
        return form.model_validate(content)
    except ValidationError as error:
        raise InvalidInput(problems_of(error, form, file=file)) from None
