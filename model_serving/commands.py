"""A command line whose commands are modules of their own.

A module is imported only when its command is called: a job waits for nothing that it does not use.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Final, Protocol, cast

from model_serving.problems import Failure

INTERRUPTED: Final = 130
"""Exit code of a command that Ctrl-C ended, as shells have it."""


class Command(Protocol):
    """What a command's module has."""

    NAME: str
    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...
    def run(self, options: argparse.Namespace) -> int: ...


def main(package: str, description: str, modules: Mapping[str, str], arguments: Sequence[str] | None = None) -> int:
    """Runs the command that the arguments name.

    Args:
        package: holds a module per command.
        description: of the package, for ``--help``.
        modules: command -> its module inside the package, in the order in which commands are listed.
        arguments: by default those of the process.

    Returns:
        The exit code.
    """
    words = [*(sys.argv[1:] if arguments is None else arguments)]
    # Every module only for the list of all commands; else the one that is called.
    chosen = words[:1] if words[:1] and words[0] in modules else [*modules]
    parser = argparse.ArgumentParser(prog=f"python -m {package}", description=description)
    table = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands = {name: _load(f"{package}.{modules[name]}") for name in chosen}
    for name, command in commands.items():
        own = table.add_parser(
            name,
            help=command.HELP,
            description=command.HELP,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(own)
    options = parser.parse_args(words)
    try:
        return commands[options.command].run(options)
    except Failure as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return INTERRUPTED


def _load(module: str) -> Command:
    return cast(Command, importlib.import_module(module))
