"""Asks one version of a model what its release says that it can answer, before any traffic moves to it.

It runs in a pod with the model's own image and asks through the gateway as a client would, so it needs nothing but
Python's standard library. components/contract.py puts it there. What it prints is the verdict.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import re
import socket
import ssl
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import SplitResult, urlsplit

TOLERANCE: Final[Mapping[str, float]] = {"FP16": 1e-2, "FP32": 1e-4, "FP64": 1e-6}
"""Relative and absolute: another processor rounds the last digits differently, and gradient boosting adds them up."""
SAMPLES: Final[Mapping[str, object]] = {"BOOL": False, "BYTES": "a"}
"""What a derived request is filled with, where zero will not do."""
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
ANSWER_SECONDS: Final = 15.0
SHOWN: Final = 400
"""Characters of a request or an answer: what Kubernetes keeps of a message is 2,048 bytes in all."""

KEPT: Final = "The contract is kept."
"""What is printed then."""


class Broken(Exception):
    """The answer is not what the contract says; the message is what was expected and what there is instead."""


class NoAnswer(Exception):
    """Nobody answered, or a proxy did that does not reach the version yet."""


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
    """

    request: Mapping[str, Any]
    response: Mapping[str, Any] | None = None
    outputs: Sequence[Mapping[str, Any]] = ()


class Ask(Protocol):
    def __call__(self, *, seconds: float) -> Answer:
        """Asks once.

        Raises:
            NoAnswer: if nobody answered within so many seconds.
        """


def read(folder: Path) -> Contract | None:
    """The contract of a release; None if it has neither a request nor metadata from which one could be made."""
    settings = _json(folder / "model-settings.json") or {}
    request = _json(folder / "request.json") or derived_request(settings.get("inputs") or [])
    if request is None:
        return None
    return Contract(request, _json(folder / "response.json"), settings.get("outputs") or [])


def derived_request(inputs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """A request of one row of zeros that has the form which the metadata tells."""
    return {"inputs": [_sample(tensor) for tensor in inputs]} if inputs else None


def check(contract: Contract, answer: Answer, *, model: str, version: str) -> None:
    """Compares an answer with the contract.

    Raises:
        Broken: if it is another one than was expected.
    """
    if answer.status != http.client.OK:
        raise Broken("the status 200")
    try:
        body = json.loads(answer.body)
        outputs = {output["name"]: output for output in body["outputs"]}
    except (ValueError, KeyError, TypeError):
        raise Broken("a response of the V2 protocol, a JSON object with a list of outputs") from None
    for key, value in (("model_name", model), ("model_version", version)):
        if body.get(key, value) != value:
            raise Broken(f"{key} to be {value}; it is {body[key]}")
    for output in outputs.values():
        _check_itself(output)
    if contract.response:
        _check_expected(contract.response, outputs)
    else:
        _check_metadata(contract.outputs, outputs)


def fulfil(contract: Contract, ask: Ask, *, model: str, version: str, seconds: float) -> None:
    """Asks until the right answer has come often enough, for so many seconds at most.

    Raises:
        Broken: with what was expected and the answer that came instead.
    """
    began = time.monotonic()
    deadline = began + seconds
    last, right, most, since = "nothing", 0, 0, 0.0
    while right < FEWEST_ANSWERS or (right < RIGHT_ANSWERS and time.monotonic() < since + ROW_SECONDS):
        left = deadline - time.monotonic()
        if left <= 0:
            again = f"; {most} right ones had come before, and then none" if most else ""
            raise Broken(f"an answer within {seconds:g} s{again}", last)
        try:
            answer = ask(seconds=min(left, ANSWER_SECONDS))
        except NoAnswer as error:
            last, right = str(error), 0
        else:
            last = shown(f"{answer.status} {answer.body}")
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
        raise Broken(str(error), came) from None


def _check_itself(output: Mapping[str, Any]) -> None:
    """What holds for every answer: as many values as the shape says, each of them a value of its type."""
    name, shape, datatype = output["name"], output.get("shape"), output.get("datatype")
    values = [*_flat(output.get("data", []))]
    if not isinstance(shape, list) or math.prod(shape) != len(values):
        raise Broken(f"{name} to have as many values as its shape {shape} says; it has {len(values)}")
    for position, value in enumerate(values):
        if not _is_value(value, str(datatype)):
            raise Broken(f"{name}[{position}] to be a finite {datatype}; it is {json.dumps(value)}")


def _is_value(value: object, datatype: str) -> bool:
    if datatype == "BYTES":
        return isinstance(value, str)
    if datatype == "BOOL":
        return value in (True, False)
    # A server whose JSON has no NaN writes null in its place.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and (datatype.startswith("FP") or value == int(value))


def _check_expected(response: Mapping[str, Any], outputs: Mapping[str, Mapping[str, Any]]) -> None:
    expected = {output["name"]: output for output in response["outputs"]}
    if expected.keys() != outputs.keys():
        raise Broken(f"the outputs {', '.join(expected)}; there are {', '.join(outputs) or 'none'}")
    for name, output in expected.items():
        _check_form(name, output, outputs[name])
        tolerance = tolerance_of(response, output)
        pairs = zip(_flat(output["data"]), _flat(outputs[name]["data"]), strict=True)
        for position, (wanted, value) in enumerate(pairs):
            if not _is_close(wanted, value, tolerance):
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
        if not _fits(output["shape"], wanted["shape"]):
            raise Broken(f"{wanted['name']} to have the shape {wanted['shape']}; it is {output['shape']}")
        if wanted["datatype"] != output["datatype"]:
            raise Broken(f"{wanted['name']} to have the datatype {wanted['datatype']}; it is {output['datatype']}")


def _fits(shape: Sequence[int], pattern: Sequence[int]) -> bool:
    return len(shape) == len(pattern) and all(wanted in (-1, size) for size, wanted in zip(shape, pattern, strict=True))


def tolerance_of(response: Mapping[str, Any], output: Mapping[str, Any]) -> float:
    """``parameters.tolerance`` of the output, else of the whole response, else what its type is good for."""
    for holder in (output, response):
        tolerance = (holder.get("parameters") or {}).get("tolerance")
        if tolerance is not None:
            return float(tolerance)
    return TOLERANCE.get(output["datatype"], 0.0)


def _is_close(wanted: Any, value: Any, tolerance: float) -> bool:
    if not tolerance:
        return bool(wanted == value)
    return math.isclose(wanted, value, rel_tol=tolerance, abs_tol=tolerance)


def _sample(tensor: Mapping[str, Any]) -> dict[str, Any]:
    shape = [max(1, size) for size in tensor["shape"]]
    datatype = tensor["datatype"]
    value = SAMPLES.get(datatype, 0.0 if datatype.startswith("FP") else 0)
    kept = {key: tensor[key] for key in ("name", "datatype", "parameters") if tensor.get(key)}
    return kept | {"shape": shape, "data": [value] * math.prod(shape)}


def _flat(data: object) -> Iterator[Any]:
    if isinstance(data, list):
        for item in data:
            yield from _flat(item)
    else:
        yield data


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def shown(text: str) -> str:
    """A text in one line that leaves room for the others in a message."""
    line = re.sub(r"\s+", " ", text)
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}… ({len(line)} characters)"


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
                connection.request("POST", path, body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                return Answer(response.status, response.read().decode(errors="replace"))
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
    options = parser.parse_args(arguments)
    contract = read(options.folder)
    if contract is None:
        print(KEPT)
        return 0
    ask = Door(options.url, options.address).ask(options.path, contract.request)
    try:
        fulfil(contract, ask, model=options.model, version=options.version, seconds=options.seconds)
    except Broken as broken:
        expected, came = broken.args
        print(
            f"{options.model} {options.version} does not keep its contract.\n"
            f"  asked: POST {options.url}{options.path} {shown(json.dumps(contract.request))}\n"
            f"  came back: {came}\n"
            f"  expected: {expected}\n"
            "  No traffic was moved to it, and what served before still serves. Correct the model and release it under "
            "a new version, or take this version out of the stack."
        )
        return 1
    print(KEPT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
