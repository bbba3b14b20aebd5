"""The commands of a model's repository, each usable on a laptop as well: ``python -m model_serving check build``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from model_serving import commands

COMMANDS: Final[tuple[str, ...]] = ("publish", "report", "convert")
"""Each is the module of its name."""


def main(arguments: Sequence[str] | None = None) -> int:
    return commands.main("model_serving", "Release models from their own repositories.", COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main())
