"""The command ``recover``: gets a stack over what a killed update left, before the next one.

For a stack whose state is in a folder of this machine, as the stack local's: it reads that folder itself, so that
`make up` does not wait for it when there is nothing to do. A pipeline's deployment does the same for any backend, see
model_serving/pipelines/deploy.py; to cancel a lock in a bucket on a laptop is a decision that a person has to take.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from model_serving.pipelines import interrupted, lost_images
from model_serving.pipelines.backend import Backend
from model_serving.pipelines.holders import Machine
from model_serving.pipelines.interrupted import Interrupted
from model_serving.pipelines.locks import Lock, Verdict, judge
from model_serving.pipelines.lost_images import LostImage

NAME: Final = "recover"
HELP: Final = "get a local stack over what a killed update left"
EXAMPLE: Final = """\
example:
  python -m model_serving recover --stack local

It removes locks whose process is gone, and looks up what that process was in the middle of, and which images the
registry has lost. `make up` runs it first.
"""
SCHEME: Final = "file://"
PROJECT: Final = "model-serving"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument("--stack", required=True, help="which stack")


def run(options: argparse.Namespace) -> int:
    url = os.environ.get("PULUMI_BACKEND_URL", "")
    if not url.startswith(SCHEME):
        print(
            f"PULUMI_BACKEND_URL is {url or 'not set'}, which is no folder of this machine.\n"
            "  Whether a lock elsewhere is of a dead run cannot be known here, so nothing was changed.\n"
            f"  Run `python -m model_serving deploy --stack {options.stack}`, which asks the site that ran it.",
            file=sys.stderr,
        )
        return 1
    folder = Path(urlsplit(url).path) / ".pulumi"
    return Recovery(options.stack, folder).run()


class Recovery:
    """The recovery of one stack.

    Args:
        folder: ``.pulumi`` of a file backend.
    """

    def __init__(self, stack: str, folder: Path) -> None:
        self._stack = stack
        self._locks = folder / "locks" / "organization" / PROJECT / stack
        self._state = folder / "stacks" / PROJECT / f"{stack}.json"

    def run(self) -> int:
        verdicts = [judge(lock, {}, Machine.here(), None) for lock in self._held()]
        if living := [verdict for verdict in verdicts if verdict.state != "dead"]:
            print(self._refusal(living), file=sys.stderr)
            return 1
        if verdicts:
            self._cancel(verdicts)
        state = self._last_state()
        return self._refresh(interrupted.pending(state)) or self._build_again(lost_images.find(state))

    def _held(self) -> list[Lock]:
        return [read_lock(path) for path in sorted(self._locks.glob("*.json"))]

    def _refusal(self, living: Sequence[Verdict]) -> str:
        who = "; ".join(f"{verdict.who} ({verdict.why})" for verdict in living)
        return (
            f"stack {self._stack} is being updated by {who}.\n"
            "  Two updates at once would damage the state, so nothing was changed.\n"
            "  Run the command again when the other is done."
        )

    def _cancel(self, verdicts: Sequence[Verdict]) -> None:
        for verdict in verdicts:
            print(f"removing the lock of a killed update: {verdict.who} ({verdict.why})", flush=True)
        Backend(stack=self._stack).cancel()

    def _last_state(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(self._state.read_text())
        except FileNotFoundError:
            return {}
        return content["checkpoint"]["latest"] or {}

    def _refresh(self, left: Sequence[Interrupted]) -> int:
        taken_in = [each for each in left if each.is_creation and each.object]
        for each in taken_in:
            print(f"left by a killed update: {each}: it is looked at before anything else", flush=True)
        for line in interrupted.explain(each for each in left if each not in taken_in):
            print(f"left by a killed update: {line}", flush=True)
        if taken_in:
            Backend(stack=self._stack).change_state(interrupted.taken_in)
        targets = [f"--target={urn}" for urn in [*interrupted.to_refresh(left), *(each.urn for each in taken_in)]]
        if not targets:
            return 0
        command = ["pulumi", "refresh", "--yes", "--skip-preview", "--stack", self._stack, *targets]
        return subprocess.run(command, check=False).returncode

    def _build_again(self, lost: Sequence[LostImage]) -> int:
        """Before the update, which is another command: what it runs by its digest has to be there."""
        if not lost:
            return 0
        for image in lost:
            print(image, flush=True)
        targets = [f"--target-replace={image.urn}" for image in lost]
        command = ["pulumi", "up", "--yes", "--skip-preview", "--stack", self._stack, *targets]
        return subprocess.run(command, check=False).returncode


def read_lock(path: Path) -> Lock:
    """A lock of a file backend."""
    content = json.loads(path.read_text())
    return Lock(
        url=str(path),
        user=content["username"],
        host=content["hostname"],
        process=content["pid"],
        since=datetime.fromisoformat(content["timestamp"]),
    )
