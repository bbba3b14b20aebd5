"""The command ``recover``: repairs a stack after a killed update, before the next one.

`make up` runs it for the stack local. In pipelines, ``deploy`` does the same.
"""

import argparse
import os
import subprocess
from collections.abc import Mapping
from typing import Any, Final

from model_serving.pipelines import interrupted, locks, lost_images
from model_serving.pipelines.backend import Backend
from model_serving.stack.inputs import UNWATCHED

HELP: Final = "repair a stack after a killed update on this machine"
EXAMPLE: Final = """\
example:
  python -m model_serving recover --stack local

Removes locks whose process is no longer running on this machine, refreshes the resources that were being changed, and
rebuilds images that are missing from the registry. `make up` runs it first.
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
    return _refresh(backend, state) or _rebuild(backend, state)


def _refresh(backend: Backend, state: Mapping[str, Any]) -> int:
    left = interrupted.pending(state)
    for each in left:
        print(f"left by a killed update: {each}: {each.cure}", flush=True)
    urns = interrupted.repair(backend) if left else []
    return _pulumi(backend, "refresh", *(f"--target={urn}" for urn in urns)) if urns else 0


def _rebuild(backend: Backend, state: Mapping[str, Any]) -> int:
    """Rebuilds missing images before the update, which is another command and needs them in the registry."""
    lost = lost_images.find(state)
    for image in lost:
        print(image, flush=True)
    if not lost:
        return 0
    return _pulumi(backend, "up", *(f"--target-replace={image.urn}" for image in lost), **{UNWATCHED: "true"})


def _pulumi(backend: Backend, command: str, *options: str, **environ: str) -> int:
    arguments = ["pulumi", command, "--yes", "--skip-preview", "--stack", backend.stack, *options]
    return subprocess.run(arguments, check=False, env=os.environ | environ).returncode
