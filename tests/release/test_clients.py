"""Clients of the V2 protocol as they come: what they send by default is answered, and read by them as it was meant."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import pytest
from tritonclient import grpc as triton_grpc
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from local.tools import environments
from server.launcher.binary import EXTENSION, HEADER
from tests.conftest import Figure
from tests.release.launched import Launched, launched
from tests.release.repositories import PROJECT, RELEASED, interpreter
from tests.release.test_launcher import release

LOCK: Final = Path(__file__).with_name("clients.txt")
ECHO: Final = '''
import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse, ResponseOutput


class Odd(MLModel):
    """Answers with its inputs as they are in the request, or with one number for a large one."""

    async def load(self):
        return True

    async def predict(self, payload):
        outputs = [self.answer(tensor) for tensor in payload.inputs]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)

    def answer(self, tensor):
        if tensor.name == "large":
            return NumpyCodec.encode_output("large", self.decode(tensor, default_codec=NumpyCodec).sum(keepdims=True))
        data = [value for value in tensor.data]
        return ResponseOutput(name=tensor.name, shape=tensor.shape, datatype=tensor.datatype, data=data)
'''
FLOWER: Final = [[5, 3.4, 1.5, 0.2]]
ARRAYS: Final = {
    "BOOL": np.array([[True], [False]]),
    **{f"INT{bits}": np.array([[-(2 ** (bits - 1))], [2 ** (bits - 1) - 1]], f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.array([[0], [2**bits - 1]], f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.array([[1.5], [-0.25]], f"float{bits}") for bits in (16, 32, 64)},
    "BYTES": np.array([["a"], ["ação"]], dtype=object),
}
KSERVE: Final = """
import asyncio, json, sys
import numpy as np
from kserve import InferInput, InferRequest, InferenceRESTClient
from kserve.inference_client import RESTConfig


async def main():
    url, name, datatype, values = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    sent = InferInput("x", [len(values), len(values[0])], datatype)
    kind = {"FP32": np.float32, "FP16": np.float16, "BYTES": object}[datatype]
    sent.set_data_from_numpy(np.array(values, kind), binary_data=True)
    request = InferRequest(model_name=name, infer_inputs=[sent], parameters={"binary_data_output": True})
    answer = await client.infer(url, request, model_name=name)
    seen = [answer.outputs[0].as_numpy().tolist(), await client.is_model_ready(url, name)]
    print(json.dumps(seen, default=bytes.decode))


asyncio.run(main())
"""


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    with launched(RELEASED, tmp_path_factory.mktemp("iris"), name="iris-dtc") as server:
        server.await_ready()
        yield server


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    scratch = tmp_path_factory.mktemp("echo")
    with launched(release(scratch / "release", {"own.py": ECHO}), scratch / "server", name="odd") as server:
        server.await_ready()
        yield server


def tritons(server: Launched) -> triton.InferenceServerClient:
    return triton.InferenceServerClient(f"127.0.0.1:{server.port}")


def tensor(array: Any, datatype: str, name: str = "x", *, binary: bool = True) -> triton.InferInput:
    sent = triton.InferInput(name, array.shape, datatype)
    sent.set_data_from_numpy(array, binary_data=binary)
    return sent


def test_tritonclient_works_as_it_comes(iris: Launched) -> None:
    client = tritons(iris)
    flower = tensor(np.array(FLOWER, np.float32), "FP32")
    assert client.infer("iris-dtc", [flower]).as_numpy("predict").tolist() == [[0]]
    for compression in ("gzip", "deflate"):
        result = client.infer("iris-dtc", [flower], request_compression_algorithm=compression)
        assert result.as_numpy("predict").tolist() == [[0]]
    both = [triton.InferRequestedOutput("predict"), triton.InferRequestedOutput("predict_proba", binary_data=False)]
    result = client.infer("iris-dtc", [flower], model_version="1.0", outputs=both, request_id="7")
    assert (result.as_numpy("predict").tolist(), result.as_numpy("predict_proba").tolist()) == ([[0]], [[1, 0, 0]])
    assert result.get_response()["id"] == "7"
    assert client.get_server_metadata()["extensions"] == [EXTENSION]
    assert client.is_model_ready("iris-dtc")
    with pytest.raises(InferenceServerException, match="which is 4 features and not 3"):
        client.infer("iris-dtc", [tensor(np.array([[1, 2, 3]], np.float32), "FP32")])
    client.close()


@pytest.mark.parametrize("binary", [True, False])
def test_every_datatype_comes_back_as_it_went(echo: Launched, binary: bool) -> None:
    client = tritons(echo)
    for datatype, array in ARRAYS.items():
        if datatype == "FP16" and not binary:
            continue  # tritonclient sends it as binary data only
        result = client.infer("odd", [tensor(array, datatype, binary=binary)]).as_numpy("x")
        texts = np.vectorize(lambda each: each.decode() if isinstance(each, bytes) else each, otypes=[object])(result)
        assert (texts if datatype == "BYTES" else result).tolist() == array.tolist(), datatype
    client.close()


def over_grpc(array: Any, datatype: str, name: str = "x") -> triton_grpc.InferInput:
    sent = triton_grpc.InferInput(name, array.shape, datatype)
    sent.set_data_from_numpy(array)
    return sent


def test_tritonclient_works_over_grpc_as_it_comes(iris: Launched) -> None:
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{iris.grpc_port}") as client:
        both = [triton_grpc.InferRequestedOutput(name) for name in ("predict", "predict_proba")]
        flower = over_grpc(np.array(FLOWER, np.float32), "FP32")
        result = client.infer("iris-dtc", [flower], model_version="1.0", outputs=both, request_id="7")
        assert [result.as_numpy(each.name()).tolist() for each in both] == [[[0]], [[1, 0, 0]]]
        assert (result.get_response().id, result.get_response().model_version) == ("7", "1.0")
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("iris-dtc")
        assert client.get_model_metadata("iris-dtc").inputs[0].datatype == "FP32"
        for ask in (client.is_model_ready, client.get_model_metadata):
            with pytest.raises(InferenceServerException, match="Model other not found"):
                ask("other")


def test_every_datatype_comes_back_over_grpc_as_it_went(echo: Launched) -> None:
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{echo.grpc_port}") as client:
        for datatype, array in ARRAYS.items():
            result = client.infer("odd", [over_grpc(array, datatype)]).as_numpy("x")
            decoded = [[each.decode()] for each in result[:, 0]] if datatype == "BYTES" else result.tolist()
            assert decoded == array.tolist(), datatype


CALLS: Final = {1: 300, 100: 300, 1_000: 300, 65_536: 10}
"""Rows of a request, 1 MiB at most, to how often it is sent."""


@pytest.mark.thorough("test_tritonclient_works_over_grpc_as_it_comes")
def test_requests_over_grpc_and_rest_by_a_second_of_a_core(iris: Launched, figure: Figure) -> None:
    """In turns, and of the server's processor time only. REST has JSON, gRPC what tritonclient sends."""
    ratios: dict[int, list[float]] = {}
    connection = iris.connection()
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{iris.grpc_port}") as client:
        for rows, calls in CALLS.items():
            array = np.random.default_rng(0).random((rows, 4), dtype="float32")
            body, _ = triton.InferenceServerClient.generate_request_body([tensor(array, "FP32", binary=False)])
            sent = over_grpc(array, "FP32")
            ratios[rows] = []
            for _ in range(5):
                began = iris.processor_seconds
                for _ in range(calls):
                    assert iris.infer(body, connection).status == 200
                rest = iris.processor_seconds - began
                for _ in range(calls):
                    client.infer("iris-dtc", [sent])
                ratios[rows].append(rest / (iris.processor_seconds - began - rest))
    connection.close()
    figure(", ".join(f"{median(found):.2f} times REST with {rows} rows" for rows, found in ratios.items()))


TYPED: Final = """
import sys
import grpc
import numpy as np, pandas as pd
from mlserver.codecs import NumpyRequestCodec, PandasCodec, StringCodec
from mlserver.grpc.converters import ModelInferRequestConverter, ModelInferResponseConverter
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.types import InferenceRequest

with grpc.insecure_channel(sys.argv[1]) as channel:
    stub = GRPCInferenceServiceStub(channel)

    def ask(request, raw):
        message = ModelInferRequestConverter.from_types(request.model_copy(deep=True), "odd", use_raw=raw)
        answer = stub.ModelInfer(message)
        assert bool(answer.raw_output_contents) is raw
        return ModelInferResponseConverter.to_types(answer)

    for raw in (False, True):
        for array in (np.array([[1.5, 2], [3, 4]], np.float32), np.array([[1.5, 2]]), np.array([[1, -2]], np.int8)):
            found = NumpyRequestCodec.decode_response(ask(NumpyRequestCodec.encode_request(array), raw))
            assert (found == array).all(), (found, raw)
        words = StringCodec.encode_input("words", ["a", "a\u00e7\u00e3o"])
        answer = ask(InferenceRequest(inputs=[words]), raw)
        assert StringCodec.decode_output(answer.outputs[0]) == ["a", "a\u00e7\u00e3o"]
        frame = pd.DataFrame({"age": [1, 2], "sex": ["f", "m"]})
        found = PandasCodec.decode_response(ask(PandasCodec.encode_request(frame), raw))
        assert found.assign(sex=found.sex.map(bytes.decode)).to_dict() == frame.to_dict()
"""


def test_mlservers_client_works_over_grpc_with_values_in_either_form(echo: Launched) -> None:
    address = f"127.0.0.1:{echo.grpc_port}"
    done = subprocess.run([interpreter(), "-c", TYPED, address], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_text_classifier_takes_binary_text(tmp_path: Path) -> None:
    folder = PROJECT / "models" / "classificador-produtos" / "1.0"
    with launched(folder, tmp_path, name="classificador-produtos") as server:
        server.await_ready()
        client = tritons(server)
        for words in (np.array(["boneca", "minecraft"], dtype=object), np.array([b"boneca", b"minecraft"])):
            result = client.infer("classificador-produtos", [tensor(words, "BYTES", "predict")])
            assert result.as_numpy("predict").ravel().tolist() == [b"brinquedos", b"jogos"]
        client.close()


@pytest.mark.parametrize(
    ("datatype", "values", "expected"),
    [("FP32", FLOWER, [[0]]), ("FP16", [[1.5], [-0.25]], [[1.5], [-0.25]]), ("BYTES", [["ação"]], [["ação"]])],
)
def test_kserves_client_works_as_it_comes(
    iris: Launched, echo: Launched, datatype: str, values: Any, expected: Any
) -> None:
    server = iris if datatype == "FP32" else echo
    python = environments.provide(LOCK) / "bin" / "python"
    url = f"http://127.0.0.1:{server.port}"
    done = subprocess.run(
        [str(python), "-c", KSERVE, url, server.model, datatype, json.dumps(values)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [expected, True]


CODECS: Final = """
import sys, urllib.request
import numpy as np, pandas as pd
from mlserver.codecs import NumpyRequestCodec, PandasCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

def ask(request):
    body = request.model_dump_json().encode()
    asked = urllib.request.Request(sys.argv[1], body, {"Content-Type": "application/json"})
    return InferenceResponse.model_validate_json(urllib.request.urlopen(asked).read())

array = np.array([[1.5, 2], [3, 4]], np.float32)
assert (NumpyRequestCodec.decode_response(ask(NumpyRequestCodec.encode_request(array))) == array).all()
words = StringCodec.encode_input("words", ["a", "ação"], use_bytes=False)
assert StringCodec.decode_output(ask(InferenceRequest(inputs=[words])).outputs[0]) == ["a", "ação"]
frame = pd.DataFrame({"age": [1, 2], "sex": ["f", "m"]})
assert PandasCodec.decode_response(ask(PandasCodec.encode_request(frame, use_bytes=False))).to_dict() == frame.to_dict()
"""


def test_mlservers_codecs_work_as_they_come(echo: Launched) -> None:
    url = f"http://127.0.0.1:{echo.port}/v2/models/odd/infer"
    done = subprocess.run([interpreter(), "-c", CODECS, url], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("length", ["-1", "1e3", "99999999999999999999", "100000", "2", ""])
def test_a_hostile_header_is_refused_and_costs_nobody_the_connection(iris: Launched, length: str) -> None:
    body, right = triton.InferenceServerClient.generate_request_body([tensor(np.array(FLOWER, np.float32), "FP32")])
    connection = iris.connection()
    refused = iris.infer(body, connection, **{HEADER.title(): length})
    held = connection.sock
    assert (refused.status, bool(refused.error)) == (400, True)
    assert iris.infer(body, connection, **{HEADER.title(): str(right)}).status == 200
    assert connection.sock is held is not None
    connection.close()


MEGABYTE: Final = 1_000_000
TIMES: Final = 15
BAR: Final = 3


def test_a_megabyte_of_binary_data_is_faster_than_json(echo: Launched, figure: Figure) -> None:
    """Asked with bodies that are made before, so that only the server's work and the way to it count."""
    rows = np.random.default_rng(0).normal(size=(MEGABYTE // 16, 4)).astype(np.float32)
    bodies = {
        binary: triton.InferenceServerClient.generate_request_body([tensor(rows, "FP32", "large", binary=binary)])
        for binary in (True, False)
    }
    seconds: dict[bool, list[float]] = {binary: [] for binary in bodies}
    used = dict.fromkeys(bodies, 0.0)
    connection = echo.connection()
    for _ in range(TIMES):
        for binary, (body, length) in bodies.items():
            headers = {HEADER.title(): str(length)} if binary else {}
            began, before = time.perf_counter(), echo.processor_seconds
            assert echo.infer(body, connection, **headers).status == 200
            seconds[binary].append(time.perf_counter() - began)
            used[binary] += echo.processor_seconds - before
    connection.close()
    fast, slow = (median(each) for each in seconds.values())
    figure(
        f"{fast * 1000:.1f} ms against {slow * 1000:.1f} ms of JSON, {slow / fast:.1f} times faster; "
        f"the server computes {used[True] / TIMES * 1000:.1f} ms against {used[False] / TIMES * 1000:.1f} ms"
    )
    assert slow / fast >= BAR
