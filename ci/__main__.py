"""The commands that pipelines call, each usable on a laptop as well: ``python -m ci preview --stack dev``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from model_serving import commands

COMMANDS: Final = (
    "credentials",
    "preview",
    "note",
    "post",
    "pending",
    "deploy",
    "drift",
    "rollback",
    "prune",
    "pipelines",
    "agent",
    "recover",
)
"""In the order in which a pipeline calls them; each is the module of its name."""


def main(arguments: Sequence[str] | None = None) -> int:
    return commands.main("ci", "Preview, deploy and watch the stacks.", COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main())
