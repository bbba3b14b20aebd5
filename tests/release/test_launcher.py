"""Clients that get it wrong, models that fail, and releases that cannot be loaded, with a real MLServer."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from tests.conftest import Figure
from tests.release.launched import Answer, Launched, launched
from tests.release.repositories import OWN_CODE, RELEASED, interpreter

WITHOUT_WORKERS: Final = "0"
RIGHT: Final = json.loads((RELEASED / "request.json").read_text())
ANSWER: Final = json.loads((RELEASED / "response.json").read_text())["outputs"][0]["data"]
ODD: Final = '''
import asyncio
import sys
import time
from datetime import date

import pandas as pd
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.errors import InferenceError
from mlserver.handlers import custom_handler
from mlserver.types import InferenceResponse, ResponseOutput


class Odd(MLModel):
    """Does what the text of its only input says."""

    computed = 0

    async def load(self):
        return True

    async def predict(self, payload):
        word, _, more = payload.inputs[0].data[0].partition(" ")
        if word == "raise":
            raise ValueError("shape [1,3] of the client's request is not JSON")
        if word == "exit":
            sys.exit(3)
        if word == "cancel":
            raise asyncio.CancelledError
        if word == "nothing":
            return None
        if word == "refuse":
            raise InferenceError("too cold")
        if word == "compute":
            self.computed += 1
            time.sleep(float(more))
        if word == "computed":
            return self.answer(str(self.computed))
        if word == "wait":
            await asyncio.sleep(float(more))
        if word == "table":
            return self.encode_response(table())
        if word == "same":
            self.same = getattr(self, "same", None) or self.answer(word)
            return self.same
        if word == "unknown":
            return self.encode_response(object())
        return self.answer(word)

    def answer(self, word):
        output = ResponseOutput(name="y", shape=[1], datatype="BYTES", data=[word])
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])

    async def predict_stream(self, payloads):
        async for payload in payloads:
            for word in payload.inputs[0].data[0].split():
                if word == "raise":
                    raise ValueError("in the middle")
                yield self.answer(word)

    @custom_handler(rest_path="/compute", rest_method="GET")
    async def compute(self, seconds: float) -> str:
        time.sleep(seconds)
        return "done"


def table():
    return pd.DataFrame(
        {
            "text": ["yes", "no", None],
            "score": [2.0, -2.0, float("nan")],
            "count": [1, 2, 3],
            "sure": [True, False, True],
            "day": pd.to_datetime(["2026-11-29T00:00", "2026-11-30T12:00", None]),
            "kind": pd.Categorical(["a", "b", None]),
            "level": pd.Categorical([1, 2, 1]),
            "grade": pd.Categorical([1, None, 2]),
            "zoned": pd.to_datetime(["2026-11-29", "2026-11-30", None]).tz_localize("UTC"),
            "date": [date(2026, 11, 29), None, date(2026, 11, 30)],
            "string": pd.array(["a", None, "b"], dtype="string"),
            "flag": pd.array([True, None, False], dtype="boolean"),
            "perhaps": pd.array([1, None, 3], dtype="Int64"),
            "whole": pd.array([1, 2, 3], dtype="Int64"),
            "none": [None, None, None],
            "mixed": [1, "a", {"b": 2}],
        }
    )
'''


def release(folder: Path, files: Mapping[str, str], **more: Any) -> Path:
    """A release of own code."""
    folder.mkdir(parents=True)
    chosen = {"name": "odd", "implementation": "own.Odd", "parameters": {"version": "v1"}, **more}
    (folder / "model-settings.json").write_text(json.dumps(chosen))
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    with launched(RELEASED, tmp_path_factory.mktemp("iris"), name="iris-dtc") as server:
        server.await_ready()
        yield server


@pytest.fixture(
    scope="module", params=[WITHOUT_WORKERS, pytest.param("1", marks=pytest.mark.thorough("the same without workers"))]
)
def odd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    scratch = tmp_path_factory.mktemp("odd")
    folder = release(scratch / "release", {"own.py": ODD})
    with launched(folder, scratch / "server", name="odd", MLSERVER_PARALLEL_WORKERS=request.param) as server:
        server.await_ready()
        yield server


def told(word: str) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": [word]}]}


def four(shape: list[int], data: Any, datatype: str = "FP32", **more: Any) -> bytes:
    return json.dumps({"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": data, **more}]}).encode()


MISTAKES: Final = {
    "features": (four([1, 3], [5, 3.4, 1.5]), "4 features and not 3"),
    "values": (four([1, 4], [5, 3.4, 1.5]), "x has 3 values; its shape [1, 4] needs 4"),
    "rows": (four([0, 4], []), "send one row or more"),
    "text": (four([1, 4], ["5", "3", "1", "0"]), 'x[0] is "5", which is not FP32'),
    "null": (four([1, 4], [1, None, 1, 0], "INT64"), "x[1] is null, which is not INT64"),
    "datatype": (four([1, 4], ["5", "3", "1", "0"], "BYTES"), "the model expects FP32"),
    "unknown datatype": (four([1, 4], [1, 1, 1, 1], "FLOAT"), "inputs.0.datatype: Input should be 'BOOL'"),
    "content type": (four([1, 4], [1, 1, 1, 1], parameters={"content_type": "datetime"}), "cannot be decoded"),
    "decoded": (four([1, 4], [1, 1, 1, 1], parameters={"_decoded_payload": "x"}), "begins with _"),
    "output": (json.dumps(RIGHT | {"outputs": [{"name": "transform"}]}).encode(), "no output transform"),
    "unknown output": (json.dumps(RIGHT | {"outputs": [{"name": "y"}]}).encode(), "(y was received)"),
    "no inputs": (b'{"inputs": []}', "inputs is empty"),
    "no object": (b"[]", "not a request of the V2 protocol"),
    "no JSON": (b"nonsense", "the body is not JSON"),
    "nothing": (b"", "the body is not JSON"),
    "nested": (b"[" * 100_000 + b"]" * 100_000, "the body is not JSON: depth limit exceeded"),
    "nested parameters": (
        four([1, 4], [1, 1, 1, 1], parameters={"a": json.loads("[" * 500 + "]" * 500)}),
        "nested more than 32 deep",
    ),
    "digits": (four([1, 4], [1, 1, 1, 1]).replace(b"[1, 1, 1, 1]", b"[1, 1, 1, " + b"9" * 5000 + b"]"), "not JSON"),
    "infinity": (four([1, 4], [1, 1, 1, float("inf")]), "the body is not JSON"),
    "too large a number": (four([1, 4], [1, 1, 1, 1e39]), "x[3] is 1e+39, which is not FP32"),
    "gzip": (b"nonsense", "the body is not gzip's"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_clients_mistake_is_told_and_costs_nobody_the_connection(iris: Launched, mistake: str) -> None:
    body, expected = MISTAKES[mistake]
    headers = {"Content_Encoding": "gzip"} if mistake == "gzip" else {}
    connection = iris.connection()
    answer = iris.infer(body, connection, **headers)
    held = connection.sock
    assert (answer.status, expected in answer.error) == (400, True), answer.body
    right = iris.infer(RIGHT, connection)
    assert (right.status, right.body["outputs"][0]["data"]) == (200, ANSWER)
    assert connection.sock is held is not None
    connection.close()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/nonsense", 404),
        ("GET", "/v2/models/iris-dtc/infer", 405),
        ("GET", "/v2/models/other", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("POST", "/v2/models/iris-dtc/versions/9/infer", 404),
        ("POST", "/v2/repository/index", 400),
    ],
)
def test_every_error_has_the_protocols_form(iris: Launched, method: str, path: str, status: int) -> None:
    answer = iris.ask(method, path, json.dumps(RIGHT).encode() if "infer" in path else None)
    assert (answer.status, bool(answer.error)) == (status, True)


def test_the_right_request_is_answered_as_the_release_says(iris: Launched) -> None:
    packed = iris.infer(gzip.compress(json.dumps(RIGHT).encode()), Content_Encoding="gzip")
    for answer in (iris.infer(RIGHT), packed):
        assert (answer.status, answer.body["model_version"]) == (200, "1.0")
        assert answer.body["outputs"][0]["data"] == ANSWER


def test_metadata_readiness_and_metrics_are_mlservers(iris: Launched) -> None:
    assert iris.ask("GET", "/v2/models/iris-dtc/versions/1.0/ready").status == 200
    assert iris.ask("GET", "/v2/health/live").status == 200
    assert iris.infer(RIGHT).status == 200
    assert iris.ask("GET", "/v2/models/iris-dtc").body["inputs"][0]["shape"] == [-1, 4]
    connection = http.client.HTTPConnection("127.0.0.1", iris.metrics_port, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    for metric in (
        'model_infer_request_success_total{model="iris-dtc",version="None"}',
        'path="/v2/models/{model_name}/infer",status_code="200"',
        "model_serving_refused_requests_total",
    ):
        assert metric in text
    assert 'model="other"' not in text, "a metric for each name that a client thinks of"


@pytest.mark.parametrize("is_chunked", [False, True])
def test_63_megabytes_are_refused_without_being_read_into_memory(iris: Launched, is_chunked: bool) -> None:
    size, part = 63_000_000, b"[0.1, 0.2]" * 10_000
    before, connection = iris.resident, iris.connection()
    connection.putrequest("POST", "/v2/models/iris-dtc/infer")
    connection.putheader(*(("Transfer-Encoding", "chunked") if is_chunked else ("Content-Length", str(size))))
    connection.endheaders()
    for _ in range(size // len(part)):
        connection.send(f"{len(part):x}\r\n".encode() + part + b"\r\n" if is_chunked else part)
    if is_chunked:
        connection.send(b"0\r\n\r\n")
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())) == (
        413,
        {"error": "the request is larger than 16777216 bytes"},
    )
    # What a chunked body had sent before it was refused may still belong to the process.
    assert iris.resident - before < 40_000_000
    assert iris.infer(RIGHT, connection).status == 200
    connection.close()


@pytest.mark.parametrize(
    ("word", "status", "expected"),
    [
        ("raise", 500, "ValueError: shape [1,3] of the client's request is not JSON"),
        ("exit", 500, "sys.exit(3)"),
        ("cancel", 500, "it has cancelled itself"),
        ("nothing", 500, "predict() returned NoneType, not an InferenceResponse"),
        ("unknown", 500, "object has no form in the protocol"),
        ("refuse", 400, "too cold"),
    ],
)
def test_what_the_model_raises_is_answered_and_logged(odd: Launched, word: str, status: int, expected: str) -> None:
    connection = odd.connection()
    answer = odd.infer(told(word), connection)
    held = connection.sock
    assert (answer.status, expected in answer.error) == (status, True), answer.body
    assert answer.error.startswith("the model failed: ") is (status == 500)
    assert odd.infer(told("right"), connection).status == 200
    if word == "raise":
        assert "in predict\n    raise ValueError" in odd.log.read_text()
    assert connection.sock is held is not None
    connection.close()
    assert odd.process.poll() is None


def test_readiness_is_answered_while_a_prediction_computes(odd: Launched) -> None:
    with ThreadPoolExecutor() as pool:
        computing = pool.submit(odd.infer, told("compute 2"))
        time.sleep(0.3)
        began = time.monotonic()
        assert odd.is_ready()
        assert odd.ask("GET", "/v2/health/live").status == 200
        assert time.monotonic() - began < 1, "a probe waited for the model"
        assert not computing.done()
        # Another client waits for its turn.
        assert odd.infer(told("right")).status == 200
        assert computing.result().status == 200


NEIGHBOURS: Final = """
import sys

import joblib
import numpy as np
from sklearn.neighbors import KNeighborsClassifier

known = np.random.default_rng(0).random((40_000, 4), dtype="float32")
model = KNeighborsClassifier(algorithm="brute", n_jobs=1).fit(known, known[:, 0] > 0.5)
joblib.dump(model, sys.argv[1])
"""


def test_a_large_request_computes_beside_the_server_though_small_ones_are_quick(tmp_path: Path) -> None:
    folder = copied(tmp_path / "release", inputs=[])
    subprocess.run([interpreter(), "-c", NEIGHBOURS, folder / "iris-decision-tree.joblib"], check=True)
    rows = 20_000
    with launched(folder, tmp_path / "server", name="iris-dtc") as server, ThreadPoolExecutor() as pool:
        server.await_ready()
        connection = server.connection()
        assert {server.infer(four([1, 4], [0.1] * 4), connection).status for _ in range(40)} == {200}
        computing = pool.submit(server.infer, four([rows, 4], [0.5] * 4 * rows))
        longest, answers = 0.0, 0
        while not computing.done():
            began = time.monotonic()
            assert server.is_ready()
            longest = max(longest, time.monotonic() - began)
            answers += 1
            time.sleep(0.05)
        assert computing.result().status == 200
        assert answers > 3, "it was too quick to show anything"
        assert longest < 1


GRPC: Final = """
import sys

import grpc
from mlserver.grpc import dataplane_pb2 as protocol
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub


def ask(stub, values):
    tensor = protocol.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, len(values)])
    tensor.contents.fp32_contents.extend(values)
    try:
        answer = stub.ModelInfer(protocol.ModelInferRequest(model_name="iris-dtc", inputs=[tensor]))
    except grpc.RpcError as error:
        return error.code().name, error.details()[:80]
    return "OK", list(answer.outputs[0].contents.int64_contents)


with grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}") as channel:
    stub = GRPCInferenceServiceStub(channel)
    for values in ([5, 3.4, 1.5, 0.2], [5, 3.4, 1.5], [0.5] * 5_000_000):
        print(*ask(stub, values))
"""


def message(
    word: str = "right", model: str = "odd", *, shape: Sequence[int] = (1,), datatype: str = "BYTES", **more: Any
) -> service_pb2.ModelInferRequest:
    """What tritonclient sends, or would if it could."""
    sent = service_pb2.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=shape)
    raw = len(word.encode()).to_bytes(4, "little") + word.encode()
    return service_pb2.ModelInferRequest(**{"model_name": model, "inputs": [sent], "raw_input_contents": [raw]} | more)


@contextmanager
def stub_of(server: Launched) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        yield GRPCInferenceServiceStub(channel)


def refused_by(stub: GRPCInferenceServiceStub, request: service_pb2.ModelInferRequest, **more: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(request, **more)
    return refused.value.code().name, refused.value.details()


PAIR: Final = service_pb2.InferTensorContents(fp32_contents=[1, 2])
GRPC_MISTAKES: Final = {
    "values": (message(shape=[2]), "INVALID_ARGUMENT", "x has 1 values; its shape [2] needs 2"),
    "text": (message("ab", raw_input_contents=[b"ab"]), "INVALID_ARGUMENT", "ends within the length of an element"),
    "datatype": (message(datatype="FP99"), "INVALID_ARGUMENT", "inputs.0.datatype: Input should be 'BOOL'"),
    "parts": (message(raw_input_contents=[b"", b""]), "INVALID_ARGUMENT", "has 2 parts; there are 1 inputs"),
    "forms": (
        message(inputs=[service_pb2.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", contents=PAIR)]),
        "INVALID_ARGUMENT",
        "x has its values in more than one form",
    ),
    "no inputs": (message(inputs=[], raw_input_contents=[]), "INVALID_ARGUMENT", "inputs is empty"),
    "decoded": (
        message(parameters={"_decoded": service_pb2.InferParameter(bool_param=True)}),
        "INVALID_ARGUMENT",
        "the parameter _decoded begins with _",
    ),
    "classification": (
        message(
            outputs=[
                service_pb2.ModelInferRequest.InferRequestedOutputTensor(
                    name="y", parameters={"classification": service_pb2.InferParameter(int64_param=2)}
                )
            ]
        ),
        "INVALID_ARGUMENT",
        "of an extension that this server lacks",
    ),
    "model": (message(model="other"), "NOT_FOUND", "Model other not found"),
    "version": (message(model_version="9"), "NOT_FOUND", "Model odd with version 9 not found"),
    "the model's refusal": (message("refuse"), "INVALID_ARGUMENT", "too cold"),
    "the model's failure": (message("raise"), "INTERNAL", "ValueError: shape [1,3] of the client's request"),
    "no answer": (message("nothing"), "INTERNAL", "predict() returned NoneType"),
    "missing text": (message("table"), "INTERNAL", "text lacks values, for which gRPC has no form"),
}


@pytest.mark.parametrize("mistake", GRPC_MISTAKES)
def test_a_mistake_over_grpc_has_its_code_and_the_text_of_rest(odd: Launched, mistake: str) -> None:
    request, code, text = GRPC_MISTAKES[mistake]
    with stub_of(odd) as stub:
        found = refused_by(stub, request)
        assert (found[0], text in found[1]) == (code, True), found
        assert found[1].startswith("the model failed: ") is (code == "INTERNAL")
        answer = stub.ModelInfer(message("right"))
        assert answer.raw_output_contents == [b"\x05\0\0\0right"]


def test_a_model_may_answer_over_grpc_with_the_same_object_again(odd: Launched) -> None:
    with stub_of(odd) as stub:
        found = [stub.ModelInfer(message("same")).raw_output_contents[0] for _ in range(2)]
    assert found == [b"\x04\0\0\0same"] * 2


def test_messages_over_grpc_are_not_unpacked(odd: Launched) -> None:
    with stub_of(odd) as stub:
        code, _ = refused_by(stub, message("a" * 1000), compression=grpc.Compression.Gzip)
        assert code == "UNIMPLEMENTED"


@pytest.mark.parametrize("odd", [WITHOUT_WORKERS], indirect=True)  # which do not stream
def test_a_stream_over_grpc_is_answered_and_tells_of_a_failure(odd: Launched) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{odd.grpc_port}") as channel:
        # In MLServer's protocol answers are not in an envelope, as in Triton's.
        stream = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )
        answers = stream(iter([message("one two"), message("three")]))
        found = [bytes(answer.raw_output_contents[0][4:]) for answer in answers]
        assert found == [b"one", b"two", b"three"]
        answers = stream(iter([message("one raise")]))
        assert next(answers).raw_output_contents[0][4:] == b"one"
        with pytest.raises(grpc.RpcError) as failed:
            next(answers)
        assert failed.value.details() == "the model failed: ValueError: in the middle"


def test_grpc_checks_requests_and_their_size_as_well(iris: Launched) -> None:
    done = subprocess.run(
        [interpreter(), "-c", GRPC, str(iris.grpc_port)], capture_output=True, text=True, check=True, timeout=60
    )
    right, wrong, large = done.stdout.splitlines()
    assert right == "OK [0]"
    assert wrong.startswith("INVALID_ARGUMENT x has the shape [1, 3]; the model expects [-1, 4]")
    assert large.startswith("RESOURCE_EXHAUSTED")
    assert iris.infer(RIGHT).status == 200


def test_a_handler_of_the_models_own_computes_beside_the_server_too(odd: Launched) -> None:
    with ThreadPoolExecutor() as pool:
        computing = pool.submit(odd.ask, "GET", "/compute?seconds=1.5")
        time.sleep(0.3)
        assert odd.is_ready()
        assert not computing.done()
        assert (computing.result().status, computing.result().body) == (200, "done")


def test_predictions_that_wait_for_something_wait_at_once(odd: Launched) -> None:
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(odd.infer, [told("wait 1")] * 8)]
    assert [answer.status for answer in answers] == [200] * 8
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("odd", [WITHOUT_WORKERS], indirect=True)  # which do not stream
def test_a_stream_is_answered_and_tells_of_a_failure(odd: Launched) -> None:
    path = "/v2/models/odd/infer_stream"
    whole = odd.ask("POST", path, json.dumps(told("one two")).encode())
    events = [json.loads(line.removeprefix("data: ")) for line in whole.body.split("\n\n") if line]
    assert [event["outputs"][0]["data"] for event in events] == [["one"], ["two"]]
    broken = odd.ask("POST", path, json.dumps(told("one raise")).encode())
    assert '{"error":"the model failed: ValueError: in the middle"}' in broken.body
    refused = odd.ask("POST", path, b"{}")
    assert (refused.status, "inputs: Field required" in refused.error) == (400, True)
    failed = odd.ask("POST", path, json.dumps(told("raise")).encode())
    assert (failed.status, failed.error) == (500, "the model failed: ValueError: in the middle")


def test_a_table_of_all_kinds_is_answered(odd: Launched) -> None:
    answer = odd.infer(told("table"))
    assert answer.status == 200, answer.body
    found = {output["name"]: (output["datatype"], output["data"]) for output in answer.body["outputs"]}
    assert found == {
        "text": ("BYTES", ["yes", "no", None]),
        "score": ("FP64", [2.0, -2.0, None]),
        "count": ("INT64", [1, 2, 3]),
        "sure": ("BOOL", [True, False, True]),
        "day": ("BYTES", ["2026-11-29T00:00:00", "2026-11-30T12:00:00", None]),
        "kind": ("BYTES", ["a", "b", None]),
        "level": ("INT64", [1, 2, 1]),
        "grade": ("INT64", [1, None, 2]),
        "zoned": ("BYTES", ["2026-11-29T00:00:00+00:00", "2026-11-30T00:00:00+00:00", None]),
        "date": ("BYTES", ["2026-11-29", None, "2026-11-30"]),
        "string": ("BYTES", ["a", None, "b"]),
        "flag": ("BOOL", [True, None, False]),
        "perhaps": ("INT64", [1, None, 3]),
        "whole": ("INT64", [1, 2, 3]),
        "none": ("BYTES", [None, None, None]),
        "mixed": ("BYTES", ["1", '"a"', '{"b":2}']),
    }


LIMITS: Final = {
    "MODEL_SERVING_REQUEST_BYTES": "1000",
    "MODEL_SERVING_ANSWER_SECONDS": "1",
    "MODEL_SERVING_WAITING": "3",
}


def test_limits_are_those_of_the_environment(tmp_path: Path) -> None:
    folder = release(tmp_path / "release", {"own.py": ODD})
    with launched(folder, tmp_path / "server", name="odd", **LIMITS) as server, ThreadPoolExecutor(8) as pool:
        server.await_ready()
        large = server.infer(told("a" * 1000))
        assert (large.status, large.error) == (413, "the request is larger than 1000 bytes")
        slow = server.infer(told("wait 5"))
        assert (slow.status, slow.error) == (503, "the model has not answered within 1 s")
        assert slow.headers["Retry-After"] == "1"
        assert server.infer(told("right")).status == 200
        answers = [*pool.map(server.infer, [told("wait 0.5")] * 8)]
        refused = [answer for answer in answers if answer.status == 503]
        assert len(refused) == 5
        assert {answer.error for answer in refused} == {"3 requests wait for the model already; try again later"}
        assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
        check_limits_over_grpc(server, pool)


def check_limits_over_grpc(server: Launched, pool: ThreadPoolExecutor) -> None:
    with stub_of(server) as stub:
        code, _ = refused_by(stub, message("a" * 1000))
        assert code == "RESOURCE_EXHAUSTED"
        assert refused_by(stub, message("wait 5")) == ("DEADLINE_EXCEEDED", "the model has not answered within 1 s")
        # What waits is counted together, whichever way it came.
        waiting = [pool.submit(server.infer, told("wait 0.7")) for _ in range(2)]
        waiting_over_grpc = stub.ModelInfer.future(message("wait 0.7"))
        time.sleep(0.3)
        text = "3 requests wait for the model already; try again later"
        assert refused_by(stub, message()) == ("UNAVAILABLE", text)
        assert server.infer(told("right")).error == text
        assert [answer.result().status for answer in waiting] == [200, 200]
        assert waiting_over_grpc.result().model_name == "odd"
    counted = urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=10).read().decode()
    assert 'model_serving_refused_requests_total{status="503"}' in counted


def test_browsers_may_ask_from_allowed_origins_only_and_read_errors_too(tmp_path: Path) -> None:
    origin = "https://app.example.com"
    folder = release(tmp_path / "release", {"own.py": ODD})
    environment = LIMITS | {"MODEL_SERVING_ALLOWED_ORIGINS": f"https://other.example.com {origin}"}
    with launched(folder, tmp_path / "server", name="odd", **environment) as server:
        server.await_ready()
        asked: dict[str, Any] = {
            "Access_Control_Request_Method": "POST",
            "Access_Control_Request_Headers": "content-type",
        }
        path = "/v2/models/odd/infer"
        assert server.ask("OPTIONS", path, Origin=origin, **asked).status == 200
        assert server.ask("OPTIONS", path, Origin="https://evil.example.com", **asked).status == 400
        for body, status in ((told("right"), 200), (told("raise"), 500), (told("a" * 1000), 413), ({}, 400)):
            answer = server.infer(body, Origin=origin)
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (status, origin)
        assert (
            server.infer(told("right"), Origin="https://evil.example.com").headers["Access-Control-Allow-Origin"]
            is None
        )


def test_what_nobody_waits_for_any_more_is_not_computed(tmp_path: Path) -> None:
    folder = release(tmp_path / "release", {"own.py": ODD})
    limits = LIMITS | {"MODEL_SERVING_WAITING": "30"}
    with launched(folder, tmp_path / "server", name="odd", **limits) as server, ThreadPoolExecutor(8) as pool:
        server.await_ready()
        # The second is begun together with all that came during the first, which nobody waits for when it has ended.
        answers = [*pool.map(server.infer, [told("compute 0.7")] * 8)]
        assert {answer.status for answer in answers} <= {200, 503}
        freed = (server.infer(told("computed")) for _ in range(30))
        answer = next(answer for answer in freed if answer.status == 200)
        assert int(answer.body["outputs"][0]["data"][0]) < len(answers) / 2


def test_a_request_that_has_begun_is_answered_when_the_server_ends(tmp_path: Path) -> None:
    folder = release(tmp_path / "release", {"own.py": ODD})
    with launched(folder, tmp_path / "server", name="odd") as server, ThreadPoolExecutor() as pool:
        server.await_ready()
        waiting = pool.submit(server.infer, told("wait 7"))
        with stub_of(server) as stub:
            # Longer than MLServer's own server would wait.
            waiting_over_grpc = stub.ModelInfer.future(message("wait 7"))
            time.sleep(0.5)
            server.process.send_signal(signal.SIGTERM)
            assert waiting_over_grpc.result().model_name == "odd"
        assert waiting.result().status == 200
        assert server.process.wait(20) == 0


def ended(folder: Path, scratch: Path, *, name: str = "iris-dtc", **variables: str) -> str:
    """The reason of a release that cannot be loaded, which is in the log as well."""
    with launched(folder, scratch, name=name, **variables) as server:
        assert server.process.wait(60) == os.EX_CONFIG, server.log.read_text()
        reason = (scratch / "termination-log").read_text()
        log = server.log.read_text()
        assert reason in log
        assert "Traceback (most recent call last)" in log
        return reason


WORKERS: Final = pytest.mark.parametrize(
    "workers", ["0", pytest.param("2", marks=pytest.mark.thorough("the same without workers"))]
)


def copied(folder: Path, **changes: Any) -> Path:
    """iris-dtc with other settings."""
    folder.mkdir()
    for path in RELEASED.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    chosen = json.loads((folder / "model-settings.json").read_text()) | changes
    (folder / "model-settings.json").write_text(json.dumps(chosen))
    return folder


@WORKERS
@pytest.mark.parametrize("size", [0, 100])
def test_an_artefact_that_is_not_whole_ends_the_server_with_the_reason(tmp_path: Path, workers: str, size: int) -> None:
    folder = copied(tmp_path / "release")
    artefact = folder / "iris-decision-tree.joblib"
    artefact.write_bytes(artefact.read_bytes()[:size])
    reason = ended(folder, tmp_path / "server", MLSERVER_PARALLEL_WORKERS=workers)
    assert reason.startswith("iris-dtc 1.0 cannot be loaded: EOFError")
    assert f"file: iris-decision-tree.joblib ({size} bytes)" in reason


@WORKERS
@pytest.mark.parametrize(
    ("implementation", "code", "expected"),
    [
        ("mlserver_xgboost.XGBoostModel", "", "No module named 'mlserver_xgboost'\n  file: model-settings.json"),
        ("own.Nope", "", "\n  file: model-settings.json\n  Correct the implementation own.Nope"),
        ("own.Odd", "import lightgbm", "No module named 'lightgbm'\n  file: requirements.lock"),
        ("own.Odd", "class Odd: pass", "is not a subclass of mlserver.MLModel"),
        ("own.Odd", "import sys\nsys.exit(3)", "SystemExit: 3"),
        ("own.Odd", OWN_CODE.replace("Doubler", "Odd").replace("return True", "raise MemoryError"), "resources.memory"),
        (
            "own.Odd",
            OWN_CODE.replace("Doubler", "Odd").replace("return True", "import sys; sys.exit(3)"),
            "sys.exit(3)",
        ),
    ],
)
def test_code_that_cannot_be_loaded_ends_the_server_with_the_reason(
    tmp_path: Path, workers: str, implementation: str, code: str, expected: str
) -> None:
    folder = release(tmp_path / "release", {"own.py": code}, implementation=implementation)
    reason = ended(folder, tmp_path / "server", name="odd", MLSERVER_PARALLEL_WORKERS=workers)
    assert reason.startswith("odd v1 cannot be loaded: ")
    assert expected in reason


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"name": "iris-dtc", "implementation": 3}'])
def test_settings_that_are_none_end_the_server_with_the_reason(tmp_path: Path, content: str) -> None:
    folder = copied(tmp_path / "release")
    (folder / "model-settings.json").write_text(content)
    reason = ended(folder, tmp_path / "server")
    assert reason.startswith("iris-dtc cannot be loaded: ")
    assert "Correct model-settings.json and release a new version." in reason


def test_a_limit_that_is_none_ends_the_server_with_the_reason(tmp_path: Path) -> None:
    reason = ended(RELEASED, tmp_path, MODEL_SERVING_WAITING="many")
    assert reason.startswith("MODEL_SERVING_WAITING is 'many'; write a positive number")


def test_a_slow_load_is_not_cut_short(tmp_path: Path) -> None:
    code = ODD.replace("        return True\n", "        time.sleep(3)\n        return True\n", 1)
    with launched(release(tmp_path / "release", {"own.py": code}), tmp_path / "server", name="odd") as server:
        while "Uvicorn running" not in server.log.read_text():
            time.sleep(0.05)
        assert not server.is_ready()
        early = server.infer(told("right"))
        assert (early.status, early.headers["Retry-After"]) == (503, "1")
        assert server.ask("GET", "/v2/health/live").status == 200
        server.await_ready()
        assert server.infer(told("right")).status == 200


def test_only_the_release_itself_is_loaded(tmp_path: Path) -> None:
    """A second model of the same name, deeper in the release, took the model's traffic."""
    folder = release(tmp_path / "release", {"own.py": ODD})
    release(folder / "other", {"own.py": ODD.replace("data=[word]", "data=['other']")}, parameters={"version": "v9"})
    with launched(folder, tmp_path / "server", name="odd") as server:
        server.await_ready()
        answer = server.infer(told("right"))
        assert (answer.body["model_version"], answer.body["outputs"][0]["data"]) == ("v1", ["right"])
        assert server.ask("GET", "/v2/models/odd/versions/v9/ready").status == 404
        listed = server.ask("POST", "/v2/repository/index", b"{}").body
        assert [(each["name"], each["version"]) for each in listed] == [("odd", "v1")]


def test_an_estimator_tells_how_many_features_it_has_if_the_metadata_does_not(tmp_path: Path) -> None:
    with launched(copied(tmp_path / "release", inputs=[]), tmp_path / "server", name="iris-dtc") as server:
        server.await_ready()
        for shape, data, expected in (
            ([1, 3], [5, 3.4, 1.5], "the model expects 4 features; the request has 3"),
            ([4], [5, 3.4, 1.5, 1], "the model expects a table of 4 features; its request has the shape (4,)"),
        ):
            answer = server.infer(four(shape, data))
            assert (answer.status, answer.error) == (400, expected)
        assert server.infer(RIGHT).body["outputs"][0]["data"] == ANSWER


NUMBERS: Final = st.one_of(st.integers(-(10**6), 10**6), st.floats(allow_nan=False, allow_infinity=False))
ANY: Final = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.integers(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=20,
)
CONTENT_TYPES: Final = st.sampled_from(["np", "pd", "str", "base64", "datetime", "pd_json", "", "x"])
PARAMETERS: Final = st.one_of(ANY, st.fixed_dictionaries({"content_type": st.one_of(CONTENT_TYPES, ANY)}))
SHAPES: Final = st.one_of(st.lists(st.integers(-1, 6), max_size=4), st.just([1, 4]), st.just([2, 4]), ANY)
DATATYPES: Final = st.one_of(
    st.sampled_from(["FP32", "FP64", "FP16", "INT64", "UINT8", "BOOL", "BYTES", "INT32"]), st.text(max_size=5)
)
DATA: Final = st.one_of(st.lists(NUMBERS, min_size=4, max_size=8), st.lists(st.text(max_size=5), max_size=8), ANY)
TENSORS: Final = st.fixed_dictionaries(
    {"name": st.one_of(st.just("predict"), st.text(max_size=5)), "shape": SHAPES, "datatype": DATATYPES, "data": DATA},
    optional={"parameters": PARAMETERS},
)
OUTPUTS: Final = st.sampled_from(["predict", "predict_proba", "transform", "y"])
REQUESTS: Final = st.fixed_dictionaries(
    {"inputs": st.one_of(st.lists(st.one_of(TENSORS, ANY), max_size=3), ANY)},
    optional={
        "id": st.one_of(st.text(max_size=5), ANY),
        "parameters": PARAMETERS,
        "outputs": st.one_of(st.lists(st.fixed_dictionaries({"name": st.one_of(OUTPUTS, ANY)}), max_size=3), ANY),
    },
)
FITTING: Final = st.integers(1, 3).flatmap(
    lambda rows: st.fixed_dictionaries(
        {
            "name": st.text(max_size=5),
            "shape": st.just([rows, 4]),
            "datatype": st.sampled_from(["FP32", "FP64", "INT64"]),
            "data": st.lists(st.one_of(st.integers(-9, 9), st.floats(width=32)), min_size=4 * rows, max_size=4 * rows),
        },
        optional={"parameters": PARAMETERS},
    )
)
BODIES: Final = st.one_of(
    FITTING.map(lambda tensor: json.dumps({"inputs": [tensor]}).encode()),
    REQUESTS.map(lambda request: json.dumps(request).encode()),
    ANY.map(lambda anything: json.dumps(anything).encode()),
    # A right one that was cut, or has other bytes somewhere.
    st.builds(
        lambda start, end, middle: json.dumps(RIGHT).encode()[:start] + middle + json.dumps(RIGHT).encode()[end:],
        st.integers(0, 100),
        st.integers(0, 100),
        st.binary(max_size=10),
    ),
    st.binary(max_size=200),
)
FEW, MANY = 400, 10_000
MEMORY_BYTES: Final = 30_000_000


def test_no_request_whatsoever_makes_the_server_fail(iris: Launched, is_thorough: bool, figure: Figure) -> None:
    """The model itself raises nothing that its metadata and its estimator do not tell before."""
    connection, pid = iris.connection(), iris.process.pid
    statuses: dict[int, int] = {}

    def ask(body: bytes) -> Answer:
        answer = iris.infer(body, connection)
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
        return answer

    @settings(
        max_examples=MANY if is_thorough else FEW,
        deadline=None,
        database=None,
        derandomize=not is_thorough,
        suppress_health_check=[*HealthCheck],
    )
    @given(BODIES)
    def fuzz(body: bytes) -> None:
        answer = ask(body)
        assert answer.status in (200, 400), answer.body
        assert answer.status == 200 or answer.error

    ask(json.dumps(RIGHT).encode())
    before, held = iris.resident, connection.sock
    fuzz()
    assert ask(json.dumps(RIGHT).encode()).body["outputs"][0]["data"] == ANSWER
    assert connection.sock is held, "the connection was closed"
    connection.close()
    assert (iris.process.pid, iris.process.poll()) == (pid, None)
    grown = iris.resident - before
    assert grown < MEMORY_BYTES
    figure(f"{statuses}, {grown / 1e6:.1f} MB more memory")
