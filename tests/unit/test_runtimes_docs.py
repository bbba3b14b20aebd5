"""What docs/runtimes.md says of the runtimes is what the code and the examples say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from model_serving.catalog import mlserver_keys
from model_serving.catalog.requirements import locked
from model_serving.catalog.training_versions import FRAMEWORKS
from model_serving.stack.resources import MEMORY_MEBIBYTES, OWN_CODE_MEBIBYTES

pytestmark = pytest.mark.documents
PROJECT = Path(__file__).resolve().parents[2]
TEXT = (PROJECT / "docs" / "runtimes.md").read_text()
EXAMPLES = sorted(path.parent for path in (PROJECT / "templates" / "runtimes").glob("*/model-settings.json"))


def row(example: Path) -> str:
    """Of the table of runtimes."""
    return next(
        line for line in TEXT.splitlines() if line.startswith("|") and f"runtimes/{example.name}/train.py)" in line
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_the_table_of_runtimes_has_each_example(example: Path) -> None:
    implementation = json.loads((example / "model-settings.json").read_text())["implementation"]
    runtime = implementation.partition(".")[0]
    memory = MEMORY_MEBIBYTES.get(runtime, OWN_CODE_MEBIBYTES)
    assert f"| {memory}Mi |" in row(example)
    assert f"`{implementation}`" in row(example) or "`<module>.<class>`" in row(example)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_what_the_table_says_to_lock_is_locked_in_the_example(example: Path) -> None:
    pins = locked((example / "requirements.lock").read_text())
    assert pins["mlserver"].versions == {"1.7.1"}
    for name in re.findall(r"`([a-z-]+)(?:==[\d.]+)?`", row(example).split("|")[3]):
        assert name in pins


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_what_an_example_asks_for_is_what_its_lock_has(example: Path) -> None:
    asked = locked((example / "requirements.in").read_text())
    pins = locked((example / "requirements.lock").read_text())
    assert asked
    assert {name: package.versions for name, package in asked.items()} == {name: pins[name].versions for name in asked}


@pytest.mark.parametrize(("runtime", "packages"), FRAMEWORKS.items())
def test_what_has_to_be_the_same_is_said_of_each_implementation(runtime: str, packages: list[str]) -> None:
    assert f"| `{runtime}` | {', '.join(f'`{each}`' for each in packages)} |" in TEXT


def test_the_table_of_mlservers_settings_says_what_becomes_of_each_key() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.*) \|$", TEXT, re.MULTILINE)
    told = {key: text.startswith("refused") for key, text in rows if key != "parallel_workers" or "refused" in text}
    keys = {**mlserver_keys.MODEL, **{f"parameters.{key}": why for key, why in mlserver_keys.PARAMETERS.items()}}
    assert {key: told.get(key) for key in keys} == {key: why is not None for key, why in keys.items()}


def test_the_table_of_the_servers_settings_has_each_key_once() -> None:
    table = TEXT.partition("| key of `settings.json` |")[2].partition("\n\n")[0]
    keys = [
        key for row in table.splitlines() if row.startswith("| `") for key in re.findall(r"`(\w+)`", row.split("|")[1])
    ]
    assert sorted(keys) == sorted(mlserver_keys.SERVER)
