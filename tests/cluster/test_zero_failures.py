"""Not one request fails, whatever is done to a model: each operation under load, again and again.

The load is wrk's (see load.py), half of it on kept-alive connections and half on a new connection per request.
"""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable
from typing import Final

import pytest

from tests.cluster.conftest import ENDPOINT, Project
from tests.cluster.load import Load, Report
from tests.cluster.load_of_clients import Clients
from tests.cluster.stack import MODEL, Stack
from tests.cluster.test_serving import IRIS
from tests.conftest import Figure

pytestmark = pytest.mark.as_left

REQUESTS: Final = 2_000
REQUESTS_IN_ALL: Final = 20_000
PATH: Final = f"/mlapi/v2/models/{MODEL}/infer"
OPERATIONS_SECONDS: Final = 480
SLOW_SECONDS: Final = 22
PAUSE_SECONDS: Final = 7
"""Longer than uvicorn keeps an idle connection by default."""

SLOW_MODEL: Final = '''\
import asyncio

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Model(MLModel):
    """Answers after as many seconds as it is asked for."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        seconds = float(payload.inputs[0].data[0])
        await asyncio.sleep(seconds)
        output = ResponseOutput(name="slept", shape=[1], datatype="FP64", data=[seconds])
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
'''


REPEATED = pytest.mark.thorough("test_releases, in which a version comes, takes the traffic, and the one before goes")


def load_of(project: Project) -> Load:
    return Load(ENDPOINT + PATH, project.folder / "models" / MODEL / "1.0" / "request.json")


def repeat(
    stack: Stack,
    operation: Callable[[int], float],
    *,
    settle: Callable[[], None],
    requests: int = REQUESTS_IN_ALL,
    times: int = 2,
    loaded: Callable[[Project], Load | Clients] = load_of,
) -> tuple[Report, str]:
    """Repeats an operation until enough requests were answered in the meantime.

    Args:
        operation: takes its number, returns its seconds.
        settle: waits for what the operations left to be done, still under load.
        requests: how many are enough.
        times: how often it is done at least.
        loaded: makes the load.
    """
    seconds = []
    deadline = time.monotonic() + OPERATIONS_SECONDS
    with loaded(stack.project) as load:
        for number in itertools.count(1):
            seconds.append(operation(number))
            # An early end: what failed is told at once.
            is_enough = load.answered >= requests and number >= times
            if is_enough or load.failed or time.monotonic() > deadline:
                break
        settle()
    report = load.report
    report.check(stack.gateway_log)
    assert report.total >= requests, report
    assert min(report.answered.values()) > requests / 4, report.answered
    return report, f"{len(seconds)} times, the slowest in {max(seconds):.1f} s; {report}"


def test_releases(stack: Stack, figure: Figure, *, is_thorough: bool) -> None:
    def release(_: int) -> float:
        stack.release()
        return stack.serve()

    requests = REQUESTS_IN_ALL if is_thorough else REQUESTS
    report, text = repeat(stack, release, settle=lambda: stack.await_pods(1), requests=requests)
    assert len(report.versions) >= 3, "traffic moved more than once"
    figure(text)


@pytest.mark.thorough("test_traffic: requests over gRPC while weights change; test_releases")
def test_releases_under_other_clients(stack: Stack, figure: Figure) -> None:
    """Over gRPC, and with binary tensors."""

    def release(_: int) -> float:
        stack.release()
        return stack.serve()

    def clients(_: Project) -> Clients:
        return Clients(ENDPOINT.removeprefix("http://"), MODEL, [[5, 3.4, 1.5, 0.2]])

    report, text = repeat(stack, release, settle=lambda: stack.await_pods(1), loaded=clients)
    assert len(report.versions) >= 3, "traffic moved more than once"
    figure(text)


@REPEATED
def test_changes_of_weights(stack: Stack, figure: Figure) -> None:
    new = stack.release()
    stack.serve(versions={"1.0": 100, new: 0})

    def shift(number: int) -> float:
        share = (number * 30) % 101
        return stack.serve(versions={"1.0": 100 - share, new: share})

    report, text = repeat(stack, shift, settle=lambda: stack.await_pods(2))
    assert set(report.versions) == {"1.0", new}
    figure(text)


@REPEATED
def test_rollbacks(stack: Stack, figure: Figure) -> None:
    new = stack.release()
    stack.serve(versions={new: 100})

    def roll(number: int) -> float:
        return stack.serve(versions={"1.0" if number % 2 else new: 100})

    report, text = repeat(stack, roll, settle=lambda: stack.await_pods(1))
    assert set(report.versions) == {"1.0", new}
    figure(text)


@REPEATED
def test_scaling_up_and_down(stack: Stack, figure: Figure) -> None:
    def scale(number: int) -> float:
        return stack.serve(replicas=3 if number % 2 else 1)

    def settle() -> None:
        stack.serve(replicas=1)
        stack.await_pods(1)

    figure(repeat(stack, scale, settle=settle)[1])


@REPEATED
def test_drains_of_a_pod(stack: Stack, figure: Figure) -> None:
    stack.serve(replicas=2)
    stack.await_pods(2)

    def drain(_: int) -> float:
        began = time.monotonic()
        stack.evict(stack.pods()[0]["metadata"]["name"])
        stack.await_pods(2)
        return time.monotonic() - began

    figure(repeat(stack, drain, settle=lambda: stack.await_pods(2))[1])


@REPEATED
def test_removals_of_a_version(stack: Stack, figure: Figure) -> None:
    new = stack.release()
    stack.serve(versions={"1.0": 50, new: 50})

    def remove(number: int) -> float:
        kept, removed = ("1.0", new) if number % 2 else (new, "1.0")
        seconds = stack.serve(versions={kept: 100})
        stack.serve(versions={kept: 50, removed: 50})
        return seconds

    figure(repeat(stack, remove, settle=lambda: stack.await_pods(2))[1])


@pytest.mark.thorough("test_releases, and tests/unit/test_components.py for the drain")
def test_requests_in_flight_are_answered_when_their_server_goes(stack: Stack, figure: Figure) -> None:
    stack.release_code("slow", "1.0", SLOW_MODEL)
    stack.serve("slow")
    answers: list[tuple[int, float]] = []

    def ask_slowly() -> None:
        body = {"inputs": [{"name": "seconds", "shape": [1], "datatype": "FP64", "data": [SLOW_SECONDS]}]}
        connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=2 * SLOW_SECONDS)
        began = time.monotonic()
        connection.request(
            "POST", "/mlapi/v2/models/slow/infer", json.dumps(body), {"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200, f"{answer.status} {text} after {time.monotonic() - began:.1f} s"
        answers.append((answer.status, time.monotonic() - began))

    askers = [threading.Thread(target=ask_slowly) for _ in range(8)]
    for asker in askers:
        asker.start()
    time.sleep(1)
    stack.release_code("slow", "1.1", SLOW_MODEL)
    stack.serve("slow")
    for asker in askers:
        asker.join()
    assert [status for status, _ in answers] == [200] * len(askers)
    figure(f"{len(answers)} of {len(askers)} answered after {SLOW_SECONDS} s, by a server that was being removed")


def test_an_idle_connection_to_a_server_is_not_closed_by_it(project: Project) -> None:
    """A proxy would send the next request at the instant in which the server closes, and lose it."""
    address = project.kubectl(
        "get", "pod", f"--selector=app.kubernetes.io/name={MODEL}", "--output=jsonpath={.items[0].status.podIP}"
    ).stdout
    connection = http.client.HTTPConnection(address, 8080, timeout=10)
    for pause in (0, PAUSE_SECONDS):
        time.sleep(pause)
        if connection.sock:
            connection.sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                connection.sock.recv(1)
            connection.sock.setblocking(True)
        connection.request("POST", f"/v2/models/{MODEL}/infer", json.dumps(IRIS), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200
        answer.read()
