"""One client's mistakes cost no other client an answer: bad requests beside good ones, through the real gateway."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from tests.cluster.conftest import ENDPOINT, Project
from tests.cluster.load import Load
from tests.cluster.stack import Stack, changed
from tests.conftest import Figure

pytestmark = pytest.mark.as_left

NAME: Final = "touchy"
VERSION: Final = "1.0"
PATH: Final = f"/mlapi/v2/models/{NAME}/infer"
SECONDS, MORE_SECONDS = 10, 60
PER_SECOND: Final = 20
LARGE_BYTES: Final = 63_000_000
LONG_SECONDS: Final = 25
ANSWER_SECONDS: Final = 60
MEMORY: Final = "480Mi"
ADDRESS: Final = (str(urlsplit(ENDPOINT).hostname), urlsplit(ENDPOINT).port)
CODE: Final = '''\
import time

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Model(MLModel):
    """Adds up each row, unless a first value below zero wants something else of it."""

    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        first = float(rows[0, 0])
        if first == -1:
            raise ValueError("this row is too much for the model")
        if first < -1:
            time.sleep(-first)
        output = NumpyCodec.encode_output("total", rows.sum(axis=1))
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
'''
INPUTS: Final = [{"name": "rows", "datatype": "FP32", "shape": [-1, 4]}]
OUTPUTS: Final = [{"name": "total", "datatype": "FP32", "shape": [-1, 1]}]


def rows(data: list[Any], shape: list[int] | None = None, datatype: str = "FP32") -> dict[str, Any]:
    return {"inputs": [{"name": "rows", "shape": shape or [1, 4], "datatype": datatype, "data": data}]}


GOOD: Final = rows([1, 2, 3, 4])
EXPECTED: Final = {"outputs": [{"name": "total", "shape": [1, 1], "datatype": "FP32", "data": [10]}]}
FOUR: Final = [1.0, 2.0, 3.0, 4.0]


def as_bytes(request: Any) -> bytes:
    return json.dumps(request).encode()


BAD: Final = {
    "the model raises": (as_bytes(rows([-1, 2, 3, 4])), 500),
    "features": (as_bytes(rows([1, 2, 3], [1, 3])), 400),
    "values": (as_bytes(rows([1, 2, 3])), 400),
    "no rows": (as_bytes(rows([], [0, 4])), 400),
    "text": (as_bytes(rows(["a", "b", "c", "d"])), 400),
    "null": (as_bytes(rows([1, None, 3, 4], datatype="INT64")), 400),
    "datatype": (as_bytes(rows(["a", "b", "c", "d"], datatype="BYTES")), 400),
    "no input": (b'{"inputs": []}', 400),
    "no JSON": (b"nonsense", 400),
    "nested": (b"[" * 100_000 + b"]" * 100_000, 400),
    "digits": (as_bytes(GOOD).replace(b"4]}", b"9" * 5000 + b"]}"), 400),
}


class Nuisance:
    """A client that sends requests so many times a second until the end of the block, on one kept-alive connection.

    Args:
        requests: name -> body and the status that it must get.
        per_second: of each.
    """

    def __init__(self, requests: dict[str, tuple[bytes, int]], *, per_second: float = PER_SECOND) -> None:
        self._requests = requests
        self._pause = 1 / per_second
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self.sent: Counter[str] = Counter()
        self.wrong: list[str] = []

    def __enter__(self) -> Nuisance:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(ANSWER_SECONDS)

    def _send(self) -> None:
        connection = http.client.HTTPConnection(*ADDRESS, timeout=ANSWER_SECONDS)
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due = max(due, time.monotonic() - 1) + self._pause
            for name, (body, status) in self._requests.items():
                self._ask(connection, name, body, status)
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, name: str, body: bytes, status: int) -> None:
        self.sent[name] += 1
        try:
            connection.request("POST", PATH, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            self.wrong.append(f"{name}: {type(error).__name__}: {error}")
            connection.close()
            return
        if response.status != status or not text.startswith('{"error":'):
            self.wrong.append(f"{name}: {response.status} {text[:200]}")


@pytest.fixture(scope="module")
def stack(project: Project) -> Iterator[Stack]:
    with changed(project, as_left=True) as stack:
        folder = stack.release_code(NAME, VERSION, CODE)
        path = folder / "model-settings.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"inputs": INPUTS, "outputs": OUTPUTS}))
        (folder / "request.json").write_text(json.dumps(GOOD))
        (folder / "response.json").write_text(json.dumps(EXPECTED))
        yield stack


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(1, id="one pod"),
        pytest.param(3, id="three pods", marks=pytest.mark.thorough("one pod, which has all the bad requests")),
    ],
)
def pods(request: pytest.FixtureRequest, stack: Stack) -> int:
    count: int = request.param
    stack.serve(NAME, replicas=count, resources={"memory": MEMORY})
    stack.await_pods(count, NAME)
    return count


def containers(stack: Stack) -> dict[str, int]:
    """Pods, and how often each was started again."""
    return {
        pod["metadata"]["name"]: sum(each["restartCount"] for each in pod["status"]["containerStatuses"])
        for pod in stack.pods(NAME)
    }


def good(stack: Stack) -> Load:
    """Four clients, two of which keep their connection."""
    return Load(ENDPOINT + PATH, body_of(stack), pause_milliseconds=10)


def body_of(stack: Stack) -> Path:
    return stack.project.folder / "models" / NAME / VERSION / "request.json"


def test_no_good_request_fails_beside_bad_ones(stack: Stack, pods: int, is_thorough: bool, figure: Figure) -> None:
    seconds = MORE_SECONDS if is_thorough else SECONDS
    before = containers(stack)
    with good(stack) as quiet:
        time.sleep(seconds)
    with good(stack) as load, Nuisance(BAD) as bad:
        time.sleep(seconds)
    load.report.check(stack.gateway_log)
    assert bad.wrong == []
    assert set(bad.sent) == set(BAD)
    assert containers(stack) == before
    rate = min(bad.sent.values()) / seconds
    ratio = load.report.p99 / quiet.report.p99
    figure(f"{pods} pods: {load.report}; each of {len(BAD)} kinds {rate:.0f}/s; p99 {ratio:.1f} times the quiet one")


def test_a_large_body_is_refused_and_harms_nobody(stack: Stack, pods: int) -> None:
    before = containers(stack)
    large = {"large": (b'{"inputs": [' + b"0.1, " * (LARGE_BYTES // 5) + b"0]}", 413)}
    with good(stack) as load, Nuisance(large, per_second=1):
        load.wait_for(500)
    load.report.check(stack.gateway_log)
    assert containers(stack) == before, "a pod ran out of memory"


def test_a_long_prediction_takes_no_pod_out_of_service(stack: Stack, pods: int) -> None:
    """Others wait for their turn, and readiness is answered meanwhile: there is no 503 of the gateway's own."""
    before = ready_since(stack)
    with ThreadPoolExecutor() as pool:
        long = pool.submit(predict, rows([-LONG_SECONDS, 0, 0, 0]))
        time.sleep(1)
        others = [pool.submit(predict, GOOD) for _ in range(2 * pods)]
        assert [other.result() for other in others] == [200] * len(others)
        assert long.result() == 200
    assert ready_since(stack) == before


def predict(request: dict[str, Any]) -> int:
    """Status of an answer."""
    connection = http.client.HTTPConnection(*ADDRESS, timeout=ANSWER_SECONDS)
    try:
        connection.request("POST", PATH, as_bytes(request), {"Content-Type": "application/json"})
        return connection.getresponse().status
    finally:
        connection.close()


def ready_since(stack: Stack) -> dict[str, str]:
    """Pods, and when each became ready the last time."""
    return {
        pod["metadata"]["name"]: condition["lastTransitionTime"]
        for pod in stack.pods(NAME)
        for condition in pod["status"]["conditions"]
        if (condition["type"], condition["status"]) == ("Ready", "True")
    }
