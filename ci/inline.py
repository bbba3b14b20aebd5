"""Runs Pulumi with the program from a process of ours in the place of a language host: ``python -m ci.inline up``.

A language host lists all packages with pip, starts a Python, and imports SDK and program, one after the other, before
anything is declared. Here the program is imported while Pulumi starts, see ci/program.py. All else is as with
``pulumi``, which this process becomes: its id, its terminal, its signals and its exit code.
"""

from __future__ import annotations

import gc
import importlib
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from typing import Final

FAILED: Final = 1


def main(arguments: Sequence[str]) -> int:
    """Becomes Pulumi; what it returns is the exit code if it could not.

    Args:
        arguments: a command that runs the program, and its options, e.g. ``["up", "--stack", "dev"]``.
    """
    # Until Pulumi takes it, an interrupt ends both processes at once and without a word: nothing has begun.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if not shutil.which("pulumi"):
        print('pulumi is not on PATH. Run `make tools` and eval "$(make env)".', file=sys.stderr)
    elif address := _start_program():
        os.execvp("pulumi", ["pulumi", *arguments, f"--client={address}"])  # noqa: S606 - no shell is wanted
    return FAILED


def _start_program() -> str:
    """Starts the program's process, which ends with this one; returns its address, or "" if it has ended already."""
    pulumi = os.pidfd_open(os.getpid())
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        # The program ends in seconds, with little garbage: the search for it costs more than it frees.
        gc.disable()
        # Imported there: the process that becomes Pulumi does without.
        importlib.import_module("ci.program").serve(address_to=writer, until=pulumi)
    os.close(writer)
    with open(reader) as address:
        return address.read()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
