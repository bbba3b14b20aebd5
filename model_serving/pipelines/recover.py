"""The command ``recover``: repairs a stack after a killed update, before the next one.

`make up` runs it for the stack local. In pipelines, ``deploy`` does the same.
"""

import argparse
import subprocess
from collections.abc import Mapping
from typing import Any, Final

from model_serving.pipelines import interrupted, locks, lost_images
from model_serving.pipelines.backend import Backend

HELP: Final = "repair a stack after a killed update on this machine"
EXAMPLE: Final = """\
example:
  python -m model_serving recover --stack local

Removes locks whose process is no longer running on this machine, refreshes the resources that were being changed, and
has the next update rebuild images that are missing from the registry. `make up` runs it first.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument("--stack", required=True, help="stack to repair")


def run(options: argparse.Namespace) -> int:
    return recover(Backend(stack=options.stack))


def recover(backend: Backend) -> int:
    """Repairs a stack; returns Pulumi's exit code."""
    consequence = "Two updates at once would damage the state, so nothing was changed."
    for verdict in locks.dead(backend.url, consequence, project=backend.project, stack=backend.stack):
        print(f"removing the lock of a killed update: {verdict}", flush=True)
        locks.remove(backend.url, verdict.lock)
    # Read from its file, so that `make up` does not wait for Pulumi's start when there is nothing to do.
    state = backend.checkpoint()
    return _refresh(backend, state) or _have_rebuilt(backend, state)


def _refresh(backend: Backend, state: Mapping[str, Any]) -> int:
    left = interrupted.pending(state)
    for each in left:
        print(f"left by a killed update: {each}: {each.cure}", flush=True)
    urns = interrupted.repair(backend) if left else []
    return _pulumi(backend, "refresh", "--skip-preview", *(f"--target={urn}" for urn in urns)) if urns else 0


def _have_rebuilt(backend: Backend, state: Mapping[str, Any]) -> int:
    """Marks missing images in the state, so that the update rebuilds them before what runs them.

    An update of these images alone would come sooner, and can leave a state that Pulumi refuses to read, if what the
    program declares has changed since the last one: https://github.com/pulumi/pulumi/issues/15959.
    """
    lost = lost_images.find(state)
    for image in lost:
        print(image, flush=True)
    return _pulumi(backend, "state", "taint", *(image.urn for image in lost)) if lost else 0


def _pulumi(backend: Backend, *command: str) -> int:
    return subprocess.run(["pulumi", *command, "--yes", "--stack", backend.stack], check=False).returncode
