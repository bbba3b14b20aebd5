"""The command ``recover``: repairs a local stack after a killed update, before the next one.

It works on stacks whose state is in a folder on this machine, such as the stack local. It reads that folder itself, so
that `make up` does not wait when there is nothing to do. In pipelines, ``deploy`` does the same for any backend; on a
laptop, only a person can decide to cancel a lock in a bucket.
"""

import argparse
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from model_serving.pipelines import backend, interrupted, locks, lost_images
from model_serving.pipelines.backend import Backend
from model_serving.pipelines.interrupted import Interrupted
from model_serving.problems import Failure
from model_serving.stack.inputs import UNWATCHED

HELP: Final = "repair a local stack after a killed update"
EXAMPLE: Final = """\
example:
  python -m model_serving recover --stack local

Removes locks whose process is no longer running, refreshes the resources that were being changed, and rebuilds images
that are missing from the registry. `make up` runs it first.
"""
PROJECT: Final = "model-serving"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument("--stack", required=True, help="stack to repair")


def run(options: argparse.Namespace) -> int:
    url = os.environ.get(backend.URL, "")
    folder = backend.folder_of(url)
    if folder is None:
        raise Failure(
            f"{backend.URL} is {url or 'not set'}, which is not a folder on this machine.\n"
            "  Whether the run that holds a lock is dead cannot be known here, so nothing was changed.\n"
            f"  Run `python -m model_serving deploy --stack {options.stack}`, which asks the site of that run."
        )
    return recover(options.stack, folder)


def recover(stack: str, folder: Path) -> int:
    """Repairs a stack whose state is in a folder ``.pulumi``; returns Pulumi's exit code."""
    dead = locks.dead_in(
        folder / "locks" / "organization" / PROJECT / stack,
        "Two updates at once would damage the state, so nothing was changed.",
    )
    for verdict in dead:
        print(f"removing the lock of a killed update: {verdict}", flush=True)
    if dead:
        Backend(stack=stack).cancel()
    state = _state(folder / "stacks" / PROJECT / f"{stack}.json")
    return _refresh(stack, interrupted.pending(state)) or _rebuild(stack, state)


def _state(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["checkpoint"]["latest"] or {}
    except FileNotFoundError:
        return {}


def _refresh(stack: str, left: Sequence[Interrupted]) -> int:
    taken_in = [each for each in left if each.creates_object]
    for each in left:
        print(
            f"left by a killed update: {each}: {interrupted.REFRESHED if each in taken_in else each.cure}", flush=True
        )
    if taken_in:
        Backend(stack=stack).change_state(interrupted.taken_in)
    urns = [*interrupted.to_refresh(left), *(each.urn for each in taken_in)]
    return _pulumi(stack, "refresh", *(f"--target={urn}" for urn in urns)) if urns else 0


def _rebuild(stack: str, state: Mapping[str, Any]) -> int:
    """Rebuilds missing images before the update, which is another command and needs them in the registry."""
    lost = lost_images.find(state)
    for image in lost:
        print(image, flush=True)
    if not lost:
        return 0
    return _pulumi(stack, "up", *(f"--target-replace={image.urn}" for image in lost), **{UNWATCHED: "true"})


def _pulumi(stack: str, command: str, *options: str, **environ: str) -> int:
    arguments = ["pulumi", command, "--yes", "--skip-preview", "--stack", stack, *options]
    return subprocess.run(arguments, check=False, env=os.environ | environ).returncode
