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
import socket
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

LOOPBACK: Final = "127.0.0.1"


def main(arguments: Sequence[str]) -> NoReturn:
    """Becomes Pulumi.

    Args:
        arguments: a command that runs the program, and its options, e.g. ``["up", "--stack", "dev"]``.
    """
    if not shutil.which("pulumi"):
        sys.exit('pulumi is not on PATH. Run `make tools` and eval "$(make env)".')
    # It listens before anybody can answer, so that Pulumi need not wait for that with its own start.
    listener = socket.create_server((LOOPBACK, 0))
    _start_program(listener)
    address = f"{LOOPBACK}:{listener.getsockname()[1]}"
    os.execvp("pulumi", ["pulumi", *arguments, f"--client={address}"])  # noqa: S606 - no shell is wanted


def _start_program(listener: socket.socket) -> None:
    """Starts the program's process, which ends with this one."""
    pulumi = os.pidfd_open(os.getpid())
    # A terminal's interrupt is for Pulumi alone. Not ignored: what the program starts would ignore it as well.
    signal.signal(signal.SIGINT, lambda *_: None)
    if os.fork() == 0:
        # As the program does, but before anything is imported.
        gc.disable()
        # Imported there: the process that becomes Pulumi does without.
        importlib.import_module("ci.program").serve(listener, until=pulumi)


if __name__ == "__main__":
    main(sys.argv[1:])
