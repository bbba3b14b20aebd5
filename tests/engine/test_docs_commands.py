"""Each command of Pulumi's in the documents is one that Pulumi has, and each output one that a stack has."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from typing import Final

import pytest

from tests.documents import DOCUMENTS, shell_lines
from tests.engine.conftest import Standing
from tests.engine.test_agent import ENVIRON, WITH_AGENT

pytestmark = pytest.mark.documents

GROUPS: Final = ("config", "plugin", "stack", "state")
"""Commands that have commands of their own."""


def documented() -> list[list[str]]:
    """The words of each command, in running text and in blocks, without what a shell does before and after it."""
    found = set()
    for path in DOCUMENTS:
        text = path.read_text()
        found |= set(re.findall(r"`(?:[A-Z_]+=\S+ )*(pulumi [^`]+)`", text))
        lines = "\n".join(shell_lines(text))
        found |= set(re.findall(r"^(?:[A-Z_]+=\S+ )*(pulumi [^#&|\n]+)", lines, re.MULTILINE))
    return sorted(shlex.split(command) for command in found)


def output(words: list[str]) -> str:
    """The output that `pulumi stack output` is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--stack")
    parser.add_argument("--show-secrets", action="store_true")
    return str(parser.parse_args(words).name)


def test_every_pulumi_command_in_the_documents_is_right(standing: Standing) -> None:
    commands = documented()
    assert len(commands) > 10, "commands are no longer found in the documents"
    project = standing("dev", WITH_AGENT, ENVIRON)
    for _, *words in commands:
        path = words[:2] if words[0] in GROUPS else words[:1]
        # Pulumi refuses an unknown option, and then tells how the command is used instead of running it.
        told = project.run(*words, "--help").text
        usage = rf"^\s+pulumi {' '.join(path)}\b|^Aliases:\n.*\b{path[-1]}\b"
        assert re.search(usage, told, re.MULTILINE), f"pulumi {shlex.join(words)}"
    outputs = json.loads(project.outputs()).keys()
    named = {output(words[3:]) for words in commands if words[1:3] == ["stack", "output"]}
    assert {"accounts", "dnsRecords", "identityProviders", "keys"} <= named
    assert named <= outputs, "docs name outputs that no stack has"
