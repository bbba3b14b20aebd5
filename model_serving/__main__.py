"""The command line, each command usable on a laptop as well: ``python -m model_serving preview --stack dev``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Final

from model_serving import commands

COMMANDS: Final[Mapping[str, str]] = {
    # A model's repository.
    "publish": "releases.publish",
    "report": "releases.report",
    "convert": "releases.convert",
    # This repository's pipelines, in the order in which they call them.
    "credentials": "pipelines.credentials",
    "preview": "pipelines.preview",
    "note": "pipelines.note",
    "post": "pipelines.post",
    "pending": "pipelines.pending",
    "deploy": "pipelines.deploy",
    "drift": "pipelines.drift",
    # People, and the Makefile.
    "show": "pipelines.show",
    "rollback": "pipelines.rollback",
    "prune": "pipelines.prune",
    "recover": "pipelines.recover",
    "pipelines": "pipelines.generate",
    "agent": "pipelines.agent_configuration",
    "init-gcp": "pipelines.init_gcp",
    "schema": "stack.schema",
}
"""Command -> its module."""


def main(arguments: Sequence[str] | None = None) -> int:
    return commands.main("model_serving", "Release, preview, deploy and watch models.", COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main())
