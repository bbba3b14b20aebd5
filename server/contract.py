"""Asks one version of a model what its release says that it can answer, before any traffic moves to it.

It runs in a pod with the model's own image and asks through the gateway as a client would, so it needs nothing but
Python's standard library. components/serving/contract.py puts it there. What it prints is the verdict.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import ssl
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import SplitResult, urlsplit

from server import tensors

NOT_YET: Final = frozenset({404, 429, 502, 503, 504})
"""What proxies answer while they do not know the route or its pods. Anything else is the model's own answer."""
RIGHT_ANSWERS: Final = 20
"""In a row, on as many connections: a gateway may be several proxies, and the first that answers proves nothing for the
next; and a model may answer once and fall over after some more."""
FEWEST_ANSWERS: Final = 3
"""These are enough if the model takes its time, so that its check does not take twenty times as long."""
ROW_SECONDS: Final = 2.0
PAUSE_SECONDS: Final = 0.05
PAUSE_SHARE: Final = 0.02
LONGEST_PAUSE_SECONDS: Final = 1.0
"""Between two questions: a share of the time that it has asked already, within these bounds."""
ANSWER_SECONDS: Final = 30.0
"""What the stack's setting answerSeconds is by default."""
UNMOVED: Final = "No traffic was moved to it, and what served before still serves."
CORRECT: Final = "Correct the model and release it under a new version, or take this version out of the stack."
ADD_REQUEST: Final = (
    "The request was derived from the inputs in model-settings.json, which do not tell what values the model takes: "
    "add a request.json that it can answer, and release it under a new version."
)
REACH: Final = (
    "Let pods reach the gateway: look at the firewall of the nodes, network policies and gateway.clusterEndpoint. "
    "If they cannot, disable the check with `contract: {check: false}` under the model."
)
KEPT: Final = "The contract is kept."
"""What is printed then."""


class Broken(Exception):
    """The answer is not what the contract says; the message is what was expected and what there is instead."""


class Refused(Broken):
    """The request was answered with an error."""


class Unreached(Broken):
    """No connection came about, which says nothing about the model."""


class NoAnswer(Exception):
    """Nobody answered, or a proxy did that does not reach the version yet."""


class NoConnection(NoAnswer):
    """What should answer was not even reached: a firewall, a wrong address or name."""


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: str


@dataclass(frozen=True)
class Contract:
    """What is asked and what has to come back.

    Attributes:
        request: a request of the V2 protocol.
        response: the outputs that it must have, as in response.json; None if nobody said.
        outputs: the model's own metadata of its outputs, in which -1 is a size of any length.
        is_derived: whether the request was made from the model's metadata, and may be one that it cannot answer.
    """

    request: Mapping[str, Any]
    response: Mapping[str, Any] | None = None
    outputs: Sequence[Mapping[str, Any]] = ()
    is_derived: bool = False


class Ask(Protocol):
    def __call__(self, *, seconds: float) -> Answer:
        """Asks once.

        Raises:
            NoAnswer: if nobody answered within so many seconds.
        """


def read(folder: Path) -> Contract | None:
    """The contract of a release; None if it has neither a request nor metadata from which one could be made.

    Raises:
        Broken: if a file of it cannot be read.
    """
    settings = _json(folder / "model-settings.json") or {}
    request, response = _json(folder / "request.json"), _json(folder / "response.json")
    if response is not None:
        try:
            _outputs(response, nulls=True)
        except Broken as error:
            raise Broken(f"response.json to hold {error}", tensors.shown(json.dumps(response))) from None
    asked = request or derived_request(settings.get("inputs") or [])
    if asked is None:
        return None
    return Contract(asked, response, settings.get("outputs") or [], is_derived=request is None)


def derived_request(inputs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """A request of one row, of zeros where the content types allow them, in the form which the metadata tells."""
    return {"inputs": [tensors.sample(tensor) for tensor in inputs]} if inputs else None


def check(contract: Contract, answer: Answer, *, model: str, version: str) -> None:
    """Compares an answer with the contract.

    Raises:
        Broken: if it is another one than was expected.
    """
    if answer.status != http.client.OK:
        raise Refused("the status 200")
    try:
        body = json.loads(answer.body)
    except (ValueError, RecursionError):
        body = None
    # Null stands for a value that is not finite, unless the release says that it is missing.
    outputs = _outputs(body, nulls=contract.response is not None)
    for key, value in (("model_name", model), ("model_version", version)):
        if body.get(key, value) != value:
            raise Broken(f"{key} to be {value}; it is {body[key]}")
    if contract.response:
        _check_expected(contract.response, outputs)
    else:
        _check_metadata(contract.outputs, outputs)


def fulfil(
    contract: Contract,
    ask: Ask,
    *,
    model: str,
    version: str,
    seconds: float,
    answer_seconds: float = ANSWER_SECONDS,
) -> None:
    """Asks until the right answer has come often enough.

    Args:
        contract: what is asked and what has to come back.
        ask: asks once.
        model: its name in each answer.
        version: its version in each answer.
        seconds: for which to ask while the right answer does not come.
        answer_seconds: for which each answer may take.

    Raises:
        Unreached: no connection came about in all that time.
        Broken: with what was expected and the answer that came instead.
    """
    began = time.monotonic()
    deadline = began + seconds
    is_reached = False
    last, right, most, since = "nothing", 0, 0, 0.0
    while right < FEWEST_ANSWERS or (right < RIGHT_ANSWERS and time.monotonic() < since + ROW_SECONDS):
        # Of a slow model, three right answers may take longer than there is time for the first one to come.
        if not right and time.monotonic() >= deadline:
            again = f"; {most} right ones had come before, and then none" if most else ""
            kind = Broken if is_reached else Unreached
            raise kind(f"an answer within {seconds:g} s{again}", last)
        try:
            answer = ask(seconds=answer_seconds)
        except NoAnswer as error:
            last, right = str(error), 0
            is_reached = is_reached or not isinstance(error, NoConnection)
        else:
            is_reached = True
            last = tensors.shown(f"{answer.status} {answer.body}")
            if answer.status in NOT_YET:
                right = 0
            else:
                _check(contract, answer, last, model=model, version=version)
                since = since if right else time.monotonic()
                right += 1
                most = max(most, right)
                continue
        now = time.monotonic()
        time.sleep(max(0.0, min(pause(now - began), deadline - now)))


def pause(asked: float) -> float:
    """Seconds until the next question, after so many seconds of asking.

    Many checks that begin together would otherwise take the cores from the servers that they wait for.
    """
    return min(max(PAUSE_SECONDS, PAUSE_SHARE * asked), LONGEST_PAUSE_SECONDS)


def _check(contract: Contract, answer: Answer, came: str, *, model: str, version: str) -> None:
    try:
        check(contract, answer, model=model, version=version)
    except Broken as error:
        raise type(error)(str(error), came) from None


def _outputs(response: Any, *, nulls: bool) -> dict[str, Mapping[str, Any]]:
    """The outputs of a response by their names, each of them valid in itself."""
    found = response.get("outputs") if isinstance(response, dict) else None
    if not isinstance(found, list) or not all(
        isinstance(each, dict) and isinstance(each.get("name"), str) for each in found
    ):
        raise Broken("a response of the V2 protocol, a JSON object with a list of outputs")
    for output in found:
        if wrong := tensors.fault(output, nulls=nulls):
            raise Broken(f"a valid output {output['name']}; its {wrong}")
    return {output["name"]: output for output in found}


def _check_expected(response: Mapping[str, Any], outputs: Mapping[str, Mapping[str, Any]]) -> None:
    expected = {output["name"]: output for output in response["outputs"]}
    if expected.keys() != outputs.keys():
        raise Broken(f"the outputs {', '.join(expected)}; there are {', '.join(outputs) or 'none'}")
    for name, output in expected.items():
        _check_form(name, output, outputs[name])
        tolerance = tensors.tolerance_of(response, output)
        pairs = zip(tensors.flat(output["data"]), tensors.flat(outputs[name]["data"]), strict=True)
        for position, (wanted, value) in enumerate(pairs):
            if not tensors.is_close(wanted, value, tolerance):
                within = f" within {tolerance:g}" if tolerance else ""
                raise Broken(f"{name}[{position}] to be {json.dumps(wanted)}{within}; it is {json.dumps(value)}")


def _check_form(name: str, wanted: Mapping[str, Any], output: Mapping[str, Any]) -> None:
    for key in ("datatype", "shape"):
        if wanted[key] != output.get(key):
            raise Broken(f"{name} to have the {key} {wanted[key]}; it is {output.get(key)}")


def _check_metadata(metadata: Sequence[Mapping[str, Any]], outputs: Mapping[str, Mapping[str, Any]]) -> None:
    for wanted in metadata:
        output = outputs.get(wanted["name"])
        if output is None:
            raise Broken(f"the output {wanted['name']}, as the model's metadata says; there are {', '.join(outputs)}")
        if not tensors.fits(output["shape"], wanted["shape"]):
            raise Broken(f"{wanted['name']} to have the shape {wanted['shape']}; it is {output['shape']}")
        if wanted["datatype"] != output["datatype"]:
            raise Broken(f"{wanted['name']} to have the datatype {wanted['datatype']}; it is {output['datatype']}")


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Broken(f"{path.name} to be JSON", f"{type(error).__name__}: {error}") from None
    if not isinstance(content, dict):
        raise Broken(f"{path.name} to be a JSON object", tensors.shown(json.dumps(content)))
    return content


def remedy(contract: Contract, broken: Broken, otherwise: str) -> str:
    """What to do about it: the model need not be wrong if it refuses a request that nobody wrote."""
    return ADD_REQUEST if contract.is_derived and isinstance(broken, Refused) else otherwise


@dataclass(frozen=True)
class Door:
    """The gateway.

    Attributes:
        url: address as a client has it, with the domain if there is one.
        address: where it really is, if the name in the URL is not known in the cluster.
    """

    url: str
    address: str | None = None

    def ask(self, path: str, request: Mapping[str, Any]) -> Ask:
        body = json.dumps(request)

        def once(*, seconds: float) -> Answer:
            connection = self._connection(urlsplit(self.url), seconds)
            try:
                connection.connect()
            except OSError as error:
                raise NoConnection(f"no connection: {type(error).__name__}: {error}") from None
            try:
                connection.request("POST", path, body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                return Answer(response.status, response.read().decode(errors="replace"))
            except TimeoutError:
                raise NoAnswer(f"no answer within {seconds:g} s, the answerSeconds of the model") from None
            except (OSError, http.client.HTTPException) as error:
                raise NoAnswer(f"no answer: {type(error).__name__}: {error}") from None
            finally:
                connection.close()

        return once

    def _connection(self, url: SplitResult, seconds: float) -> http.client.HTTPConnection:
        host = url.hostname or ""
        if url.scheme == "http":
            connection = http.client.HTTPConnection(host, url.port or 80, timeout=seconds)
        else:
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(host, url.port or 443, timeout=seconds, context=context)
        if self.address:
            # The name stays that of the request and of the certificate; only where it leads to is known already.
            target = self.address
            connection._create_connection = (  # type: ignore[attr-defined]
                lambda address, *rest: socket.create_connection((target, address[1]), *rest)
            )
        return connection


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--folder", type=Path, required=True, help="the release, e.g. /models/iris-dtc")
    parser.add_argument("--url", required=True, help="the gateway with scheme and host, e.g. http://10.0.0.5")
    parser.add_argument("--address", help="where the gateway is, if its name is not known here")
    parser.add_argument("--path", required=True, help="path that leads to this version, e.g. /mlapi/v2/models/…/infer")
    parser.add_argument("--seconds", type=float, required=True, help="how long to ask until the version answers")
    parser.add_argument(
        "--answer-seconds", type=float, default=ANSWER_SECONDS, help="how long an answer may take (%(default)g)"
    )
    options = parser.parse_args(arguments)
    title = f"{options.model} {options.version}"
    try:
        contract = read(options.folder)
    except Broken as broken:
        expected, came = broken.args
        print(
            f"{title} has a contract that cannot be read.\n"
            f"  expected: {expected}\n"
            f"  there is: {came}\n"
            f"  {UNMOVED} {CORRECT}"
        )
        return 1
    if contract is None:
        print(KEPT)
        return 0
    ask = Door(options.url, options.address).ask(options.path, contract.request)
    try:
        fulfil(
            contract,
            ask,
            model=options.model,
            version=options.version,
            seconds=options.seconds,
            answer_seconds=options.answer_seconds,
        )
    except Unreached as unreached:
        print(
            f"{title} could not be checked, because its pod cannot reach the gateway.\n"
            f"  asked: POST {options.url}{options.path}\n"
            f"  came back: {unreached.args[1]}\n"
            f"  {UNMOVED} {REACH}"
        )
        return 1
    except Broken as broken:
        expected, came = broken.args
        print(
            f"{title} does not keep its contract.\n"
            f"  asked: POST {options.url}{options.path} {tensors.shown(json.dumps(contract.request))}\n"
            f"  came back: {came}\n"
            f"  expected: {expected}\n"
            f"  {UNMOVED} {remedy(contract, broken, CORRECT)}"
        )
        return 1
    print(KEPT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
