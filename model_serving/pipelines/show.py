"""The command ``show``: lists the models that a stack serves, and how to send a request to one."""

import argparse
import shlex
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from model_serving.pipelines.backend import Backend
from model_serving.problems import Failure, aligned
from server.contract import NOT_YET

HELP: Final = "list the models that a stack serves, and how to send a request to one"
PREDICTION_SECONDS: Final = 30
READY_SECONDS: Final = 60
"""Maximum time for pods to come back after a cluster restart, when Pulumi has nothing to do."""
PAUSE_SECONDS: Final = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stack", default="local", help="the stack's name (default: %(default)s)")
    parser.add_argument("--predict", action="store_true", help="also send the request; the gateway must be reachable")
    parser.epilog = "Example: python -m model_serving show --stack local --predict"


def run(options: argparse.Namespace) -> int:
    models = stack_outputs(options.stack)["models"]
    print(f"\n{table(models)}\n")
    if not (found := examples(models)):
        print("None of these has a request.json to try.")
        return 0
    url, request = found[0]
    print(f"curl --header 'Content-Type: application/json' --data @{shlex.quote(str(request))} {shlex.quote(url)}")
    if options.predict:
        show_prediction(found)
    return 0


def stack_outputs(stack: str) -> dict[str, Any]:
    """The outputs of a stack's last update."""
    outputs = Backend(stack=stack).outputs()
    if "models" not in outputs:
        raise Failure(
            f"the stack {stack} has no outputs.\n  It serves nothing: it was never brought up, or was destroyed."
            f"\n  Run `make up STACK={stack}`."
        )
    return outputs


def table(models: Mapping[str, Any]) -> str:
    """One row per live version: model, version, percent of the traffic, address."""
    rows = [
        (name, version, f"{live['weight']}%", model["url"])
        for name, model in models.items()
        for version, live in model["versions"].items()
    ]
    return aligned([("MODEL", "VERSION", "WEIGHT", "URL"), *rows])


def examples(models: Mapping[str, Any]) -> list[tuple[str, Path]]:
    """Address and request file for the first live version of each model that has an example request."""
    found = []
    for name, model in models.items():
        for version in model["versions"]:
            request = Path("models", name, version, "request.json")
            if request.is_file():
                found.append((f"{model['url']}/versions/{version}/infer", request))
                break
    return found


def predict(url: str, request: Path) -> str:
    """Sends a request; returns the body of the answer."""
    # MLServer answers 415 or misreads the body without this header.
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request(url, data=request.read_bytes(), headers=headers)  # noqa: S310 - a stack's output
    with urllib.request.urlopen(asked, timeout=PREDICTION_SECONDS) as answer:  # noqa: S310
        body: str = answer.read().decode()
    return body


def predict_when_ready(url: str, request: Path) -> str:
    """Sends a request until a server answers.

    Raises:
        OSError: the last error, after a minute; at once for an error of the model itself.
    """
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            return predict(url, request)
        except OSError as error:
            # Any other status is the model's own answer.
            final = isinstance(error, urllib.error.HTTPError) and error.code not in NOT_YET
            if final or time.monotonic() > deadline:
                raise
        time.sleep(PAUSE_SECONDS)


def show_prediction(requests: Sequence[tuple[str, Path]]) -> None:
    """Waits for all answers, and prints the first."""
    answers = []
    for url, request in requests:
        try:
            answers.append(predict_when_ready(url, request))
        except OSError as error:
            raise Failure(
                f"{url} did not answer: {error}\n  The model does not serve requests.\n  See what runs: `make status`."
            ) from None
    print(answers[0])
