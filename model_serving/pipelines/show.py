"""Shows what a stack serves, and how to ask one of its models."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from model_serving.pipelines.backend import Backend
from model_serving.problems import Failure
from server.contract import NOT_YET

NAME: Final = "show"
HELP: Final = "list the models that a stack serves, and how to ask one"
PREDICTION_SECONDS: Final = 30
READY_SECONDS: Final = 60
"""How long pods may take to come back with a cluster that was started again, for which Pulumi has nothing to do."""
PAUSE_SECONDS: Final = 0.5


class NothingServed(Failure):
    """The stack was never brought up."""


def stack_outputs(stack: str) -> dict[str, Any]:
    """The outputs of a stack as its last update left them.

    Raises:
        BackendError: if there is no such stack, or the backend cannot be asked.
        NothingServed: if the stack was never brought up.
    """
    outputs = Backend(stack=stack).outputs()
    if "models" not in outputs:
        raise NothingServed(
            f"the stack {stack} has no outputs.\n  It serves nothing: it was never brought up, or was destroyed."
            f"\n  Run `make up STACK={stack}`."
        )
    return outputs


def table(models: Mapping[str, Any]) -> str:
    """One row a live version: model, version, percent of the traffic, address."""
    rows = [("MODEL", "VERSION", "WEIGHT", "URL")]
    for name, model in models.items():
        for version, live in model["versions"].items():
            rows.append((name, version, f"{live['weight']}%", model["url"]))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
    ]
    return "\n".join(lines)


def examples(models: Mapping[str, Any]) -> list[tuple[str, Path]]:
    """Of each model the first live version that has an example request: the address to ask, and the file to send."""
    found = []
    for name, model in models.items():
        for version in model["versions"]:
            request = Path("models", name, version, "request.json")
            if request.is_file():
                found.append((f"{model['url']}/versions/{version}/infer", request))
                break
    return found


def predict(url: str, request: Path) -> str:
    """Sends an example request; returns the answer's body."""
    # MLServer answers 415 or misreads the body without this header.
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request(url, data=request.read_bytes(), headers=headers)  # noqa: S310 - a stack's output
    with urllib.request.urlopen(asked, timeout=PREDICTION_SECONDS) as answer:  # noqa: S310
        body: str = answer.read().decode()
    return body


def predict_when_ready(url: str, request: Path) -> str:
    """Asks until a server is there to answer.

    Raises:
        OSError: with what came instead, if none is after a minute.
    """
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            return predict(url, request)
        except OSError as error:
            # Any other status is the model's own answer, and stays what it is.
            final = isinstance(error, urllib.error.HTTPError) and error.code not in NOT_YET
            if final or time.monotonic() > deadline:
                raise
        time.sleep(PAUSE_SECONDS)


def show_prediction(requests: Sequence[tuple[str, Path]]) -> int:
    """Prints the first answer; the others are only waited for. Returns the exit code."""
    answers = []
    for url, request in requests:
        try:
            answers.append(predict_when_ready(url, request))
        except OSError as error:
            print(f"{url} did not answer: {error}. `make status` shows what runs.", file=sys.stderr)
            return 1
    print(answers[0])
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stack", default="local", help="the stack's name")
    parser.add_argument("--predict", action="store_true", help="ask as well, where the gateway can be reached from")
    parser.epilog = "Example: python -m model_serving show --stack local --predict"


def run(options: argparse.Namespace) -> int:
    models = stack_outputs(options.stack)["models"]
    print(f"\n{table(models)}\n")
    if not (found := examples(models)):
        print("None of these has a request.json to try.")
        return 0
    url, request = found[0]
    print(f"curl --header 'Content-Type: application/json' --data @{shlex.quote(str(request))} {shlex.quote(url)}")
    return show_prediction(found) if options.predict else 0
