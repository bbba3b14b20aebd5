"""Each command of this project's in the documents is one that it has, with its options.

tests/cluster/test_readme.py and tests/release/test_tutorial.py also run them where they can, and
tests/engine/test_docs_commands.py asks Pulumi about its own commands.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import re
import shlex
from pathlib import Path
from typing import Final, NoReturn

import pytest

from model_serving.__main__ import COMMANDS
from tests.documents import DOCUMENTS, PROJECT, shell_lines

pytestmark = pytest.mark.documents
MAKEFILES: Final = (PROJECT / "Makefile", PROJECT / "templates" / "model-repository" / "template" / "Makefile.jinja")
"""This project's, and the one of models' repositories."""
OURS: Final = ("make ", "python -m model_serving ", "pytest ")
OTHERS: Final = {"gcloud", "git", "kubectl", "pulumi", "copier", ".venv/bin/copier"}
SHELL: Final = {"cd", "cp", "curl", "eval", "export", "grep", "sed", "until"}


class Parser(argparse.ArgumentParser):
    """Raises what it would print."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def commands_of(text: str) -> set[str]:
    """The commands of ours, in blocks and in running text, without what a shell does before and after them."""
    spans = re.findall(r"(?<!`)`([A-Za-z][^`]*)`(?!`)", text)
    indented = re.findall(r"^    ((?:make|python|pytest) .*)", text, re.MULTILINE)
    found = set()
    for line in (*shell_lines(text), *(" ".join(span.split()) for span in spans), *indented):
        bare = re.sub(r'^(?:[A-Z_]+=\S+ )*(?:eval "\$\()?', "", line)
        command = re.split(r' -- |  +#|\)"', bare)[0].strip()
        if command.startswith(OURS):
            found.add(command)
    return found


def check(command: str) -> None:
    program, *words = shlex.split(command)
    if program == "make":
        check_make(words)
    elif program == "python":
        check_model_serving(words[2:])
    else:
        check_pytest(words)


@functools.cache
def made() -> tuple[set[str], set[str]]:
    """The targets of the Makefiles, and the variables that these read."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in MAKEFILES)
    phony = " ".join(re.findall(r"^\.PHONY: (.*)", text, re.MULTILINE))
    return set(phony.split()), set(re.findall(r"\$[({]?\$?([A-Z_]{3,})\b", text))


def check_make(words: list[str]) -> None:
    if words[:1] == ["--directory"]:
        words = words[2:]
    targets, variables = made()
    assert {word for word in words if "=" not in word} <= targets, "no such target"
    assert {word.partition("=")[0] for word in words if "=" in word} <= variables, "no such variable"


def check_model_serving(words: list[str]) -> None:
    if words == ["--help"]:
        return
    assert words[0] in COMMANDS, "no such command"
    parser = Parser(prog=words[0])
    importlib.import_module(f"model_serving.{COMMANDS[words[0]]}").add_arguments(parser)
    try:
        parser.parse_args(words[1:])
    except ValueError as error:
        # Running text names a command without its options.
        if not re.search(r"\b(?:is|are) required\b", str(error)):
            raise AssertionError(str(error)) from error


def check_pytest(words: list[str]) -> None:
    for word in words:
        if word.startswith("tests/") and "<" not in word:
            assert (PROJECT / word.partition("::")[0]).exists(), "no such file"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_each_command_is_one_that_there_is(path: Path) -> None:
    for command in commands_of(path.read_text(encoding="utf-8")):
        check(command)


def test_commands_are_found_in_every_form() -> None:
    text = (
        "`make up` and `STACK=x make\ndown`, ``.\n\n    make lint   # checks\n\n"
        '1. ```sh\n   eval "$(make env STACK=dev)"\n   A=… python -m model_serving doctor \\\n     --site\n   ```\n'
        "`python -m model_serving credentials --duty plan -- COMMAND`, `makes`, `pytest`\n"
    )
    assert commands_of(text) == {
        *("make up", "make down", "make lint", "make env STACK=dev", "python -m model_serving doctor --site"),
        "python -m model_serving credentials --duty plan",
    }


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("make upp", "no such target"),
        ("make up STACKS=dev", "no such variable"),
        ("pytest tests/unit/test_none.py", "no such file"),
        ("python -m model_serving shows", "no such command"),
        ("python -m model_serving show --stacks dev", "unrecognized arguments: --stacks"),
    ],
)
def test_a_command_that_there_is_not_is_found(command: str, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        check(command)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_blocks_for_a_shell_run_only_programs_that_are_looked_at(path: Path) -> None:
    known = OTHERS | SHELL | {ours.split()[0] for ours in OURS}
    programs = {
        re.sub(r"^(?:[A-Z_]+=\S+ )*", "", line).split()[0] for line in shell_lines(path.read_text(encoding="utf-8"))
    }
    assert programs <= known
