"""The command line, each command usable on a laptop as well: ``python -m model_serving preview --stack dev``.

A command's module is imported only when it is called: a job waits for nothing that it does not use.
"""

import argparse
import importlib
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from model_serving.problems import Failure

INTERRUPTED: Final = 130
"""Exit code of a command that Ctrl-C ended, as shells have it."""
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
    "approval": "pipelines.approval",
    "review": "pipelines.review",
    # People, and the Makefile.
    "show": "pipelines.show",
    "rollback": "pipelines.rollback",
    "prune": "pipelines.prune",
    "audit": "pipelines.audit",
    "recover": "pipelines.recover",
    "pipelines": "pipelines.generate",
    "doctor": "pipelines.doctor",
    "agent": "pipelines.agent_configuration",
    "plugins": "pipelines.plugins",
    "init-gcp": "pipelines.init_gcp",
    "adopt-pool": "pipelines.adopt_pool",
    "schema": "stack.schema",
}
"""Command -> its module, which has HELP, add_arguments(parser) and run(options), the exit code."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that the arguments name, by default those of the process; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a pipe on Windows, or a machine without a locale, is not UTF-8
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # names of files need not be UTF-8
    words = [*(sys.argv[1:] if arguments is None else arguments)]
    # Every module only for the list of all commands; else the one that is called.
    chosen = words[:1] if words[:1] and words[0] in COMMANDS else [*COMMANDS]
    parser = argparse.ArgumentParser(
        prog="python -m model_serving", description="Release, preview, deploy and watch models."
    )
    table = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands = {name: importlib.import_module(f"model_serving.{COMMANDS[name]}") for name in chosen}
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
        _refuse_unknown_stack(getattr(options, "stack", None))
        return int(commands[options.command].run(options))
    except Failure as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return INTERRUPTED


def _refuse_unknown_stack(stack: str | None) -> None:
    """Refuses a stack without a file in one way for all commands."""
    if stack is not None and not Path("stacks", f"Pulumi.{stack}.yaml").is_file():
        # Imported here: reading settings takes a quarter of a second, and most commands do not need it.
        from model_serving.pipelines import stacks  # noqa: PLC0415

        stacks.require(stack)


if __name__ == "__main__":
    sys.exit(main())
