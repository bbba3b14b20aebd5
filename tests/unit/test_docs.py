"""What the documents say is true of the code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from model_serving.stack import settings
from model_serving.stack.schema import schema

pytestmark = pytest.mark.documents
PROJECT = Path(__file__).resolve().parents[2]
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", (PROJECT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def values_of(stack: dict[str, Any]) -> dict[str, str]:
    """A stack's configuration as the engine hands it over."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in stack["config"].items()}


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_stack_files_in_the_readme_are_valid(example: str) -> None:
    assert settings.read("mine", values_of(yaml.safe_load(example))).models


@pytest.mark.parametrize("path", sorted((PROJECT / "stacks").glob("Pulumi.*.yaml")), ids=lambda path: path.name)
def test_the_projects_own_stack_files_are_valid(path: Path) -> None:
    stack = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert settings.read(path.name.split(".")[1], values_of(stack)).models


def test_the_schema_of_the_stack_files_is_that_of_the_settings() -> None:
    assert json.loads((PROJECT / "stacks" / "schema.json").read_text()) == schema(), "run: make schema"
