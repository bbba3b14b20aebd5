"""Traffic is data: weights, a shadow and a header decide who answers, and each is a change of one route."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient import grpc as tritonclient
from tritonclient.grpc.service_pb2 import (
    ModelInferRequest,
    ModelReadyRequest,
    RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
)
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from tests.cluster.conftest import ENDPOINT, Project, ask
from tests.cluster.load_of_clients import ONCE
from tests.cluster.stack import MODEL, Stack, changed, name_of
from tests.cluster.test_serving import IRIS

pytestmark = pytest.mark.as_left

URL = f"/mlapi/v2/models/{MODEL}/infer"
SCRAPE = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8082/metrics').read().decode())"
BOUNDS = {"minimum": 2, "maximum": 4}
ROUTES_AND_PORTAL = [
    ("update", f"kubernetes:gateway.networking.k8s.io/v1:HTTPRoute::{MODEL}"),
    ("update", f"kubernetes:gateway.networking.k8s.io/v1:HTTPRoute::{MODEL}.grpc"),
    # The portal is told: its page shows weights and shadows, and versions with traffic count for the stack's readiness.
    ("replace", "kubernetes:core/v1:ConfigMap::portal"),
    ("update", "kubernetes:apps/v1:Deployment::portal"),
]


@pytest.fixture(scope="module")
def stack(project: Project) -> Iterator[Stack]:
    with changed(project, as_left=True) as stack:
        yield stack


@pytest.fixture(scope="module")
def versions(stack: Stack) -> tuple[str, str]:
    """Two versions that are deployed, the older with all traffic; each test says of both what it wants."""
    old, new = stack.release(), stack.release()
    stack.serve(versions={old: 100, new: 0})
    return old, new


def answers(count: int, headers: dict[str, str] | None = None) -> Counter[str]:
    """How often each version answered the model's own address."""
    found: Counter[str] = Counter()
    for _ in range(count):
        request = urllib.request.Request(
            ENDPOINT + URL, json.dumps(IRIS).encode(), {"Content-Type": "application/json", **(headers or {})}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            found[json.load(answer)["model_version"]] += 1
    return found


@contextmanager
def over_grpc() -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(ENDPOINT.removeprefix("http://"), ONCE) as channel:
        yield GRPCInferenceServiceStub(channel)


def flower(*, raw: bool = True, size: int = 4) -> ModelInferRequest:
    """A request as tritonclient makes it, or with its values in a field, as MLServer's client does."""
    values = np.full(size, 1.5, np.float32)
    tensor = ModelInferRequest.InferInputTensor(name="predict", datatype="FP32", shape=[1, size])
    if not raw:
        tensor.contents.fp32_contents.extend(values.tolist())
    contents = [values.tobytes()] if raw else []
    return ModelInferRequest(model_name=MODEL, inputs=[tensor], raw_input_contents=contents)


def answers_over_grpc(count: int, version: str = "") -> Counter[str]:
    """How often each version answered, the first time tritonclient, and then messages of either form."""
    metadata = {"x-model-name": MODEL} | ({"x-model-version": version} if version else {})
    tensor = tritonclient.InferInput("predict", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.array([IRIS["inputs"][0]["data"]], np.float32))
    with tritonclient.InferenceServerClient(ENDPOINT.removeprefix("http://")) as client:
        answer = client.infer(MODEL, [tensor], headers=metadata)
    assert answer.as_numpy("predict").tolist() == [[0]]
    found = Counter([answer.get_response().model_version])
    with over_grpc() as stub:
        for number in range(1, count):
            response = stub.ModelInfer(flower(raw=bool(number % 2)), metadata=[*metadata.items()], timeout=10)
            found[response.model_version] += 1
    return found


def planned(project: Project) -> list[tuple[str, str]]:
    """What an update would do, and to which resource."""
    shown = project.run("sh", "-c", "pulumi preview --json --stack local 2>/dev/null").stdout
    steps: list[dict[str, Any]] = json.loads(shown)["steps"]
    return sorted((step["op"], step["urn"].rpartition("$")[2]) for step in steps if step["op"] != "same")


def requests_of(project: Project, version: str) -> float:
    """How many predictions the pods of a version have made."""
    deployment = f"deployment/{name_of(version)}"
    metrics = project.kubectl("exec", deployment, "--", "python", "-c", SCRAPE).stdout
    return sum(float(count) for count in re.findall(r"^model_infer_request_success_total\{.*\} (\S+)$", metrics, re.M))


def test_weights_alone_change_one_route(project: Project, versions: tuple[str, str], stack: Stack) -> None:
    old, new = versions
    stack.configure(versions={old: 50, new: 50})
    assert planned(project) == sorted(ROUTES_AND_PORTAL)
    project.up()
    found = answers(100)
    assert found.keys() == {old, new}
    assert 25 < found[new] < 75
    assert 25 < answers_over_grpc(100)[new] < 75


def test_a_header_chooses_the_version(project: Project, versions: tuple[str, str], stack: Stack) -> None:
    old, new = versions
    stack.serve(versions={old: 100, new: 0})
    assert answers(20) == {old: 20}
    assert answers(20, {"X-Model-Version": new}) == {new: 20}
    # The rest of a model's API as well.
    metadata = urllib.request.Request(f"{ENDPOINT}{URL.removesuffix('/infer')}", headers={"X-Model-Version": new})
    with urllib.request.urlopen(metadata, timeout=10) as answer:
        assert json.load(answer)["name"] == MODEL
    assert answers(20, {"X-Model-Version": "9.9"}) == {old: 20}, "an unknown version is like none"
    assert answers_over_grpc(20) == answers_over_grpc(20, "9.9") == {old: 20}
    assert answers_over_grpc(20, new) == {new: 20}


def test_a_mistake_over_grpc_has_its_code_and_nothing_loads_or_unloads(versions: tuple[str, str]) -> None:
    named = [("x-model-name", MODEL)]
    with over_grpc() as stub:

        def refused(method: str, request: Any, metadata: list[tuple[str, str]]) -> tuple[grpc.StatusCode, str]:
            with pytest.raises(grpc.RpcError) as refused:
                getattr(stub, method)(request, metadata=metadata, timeout=10)
            return refused.value.code(), refused.value.details()

        code, text = refused("ModelInfer", flower(size=3), named)
        assert (code, "which is 4 features and not 3" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True), text
        code, text = refused("ModelInfer", flower(size=3_000_000), named)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED, text
        for metadata in ([], [("x-model-name", "other")]):
            assert refused("ModelInfer", flower(), metadata)[0] is grpc.StatusCode.UNIMPLEMENTED
        for method, request in (
            ("RepositoryModelUnload", RepositoryModelUnloadRequest(model_name=MODEL)),
            ("RepositoryModelLoad", RepositoryModelLoadRequest(model_name=MODEL)),
        ):
            assert refused(method, request, named)[0] is grpc.StatusCode.UNIMPLEMENTED
        assert stub.ModelReady(ModelReadyRequest(name=MODEL), metadata=named, timeout=10).ready


def test_a_shadow_gets_every_request_and_answers_none(
    project: Project, versions: tuple[str, str], stack: Stack
) -> None:
    old, new = versions
    stack.configure(versions={old: 100}, shadow=new)
    # Metadata of gRPC no longer leads to it, which is a matter of the version's own route.
    own = ("update", f"kubernetes:gateway.networking.k8s.io/v1:HTTPRoute::{MODEL}.{new.replace('.', '-')}")
    assert planned(project) == sorted([*ROUTES_AND_PORTAL, own])
    project.up()
    before = requests_of(project, new)
    assert answers(20) == {old: 20}
    assert answers(5, {"X-Model-Version": new}) == {old: 5}, "not even for a tester"
    # Of these it gets none, because Contour's mirrors do not speak HTTP/2.
    assert answers_over_grpc(10) == {old: 10}
    deadline = time.monotonic() + 60
    while requests_of(project, new) < before + 25 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert requests_of(project, new) == before + 25


@pytest.mark.thorough("tests/engine/test_stacks.py: the number of pods is the autoscaler's")
def test_an_autoscaler_and_the_program_do_not_fight(project: Project, versions: tuple[str, str], stack: Stack) -> None:
    old, _ = versions
    deployment = name_of(old)

    def pods() -> str:
        return project.kubectl("get", "deployment", deployment, "--output", "jsonpath={.spec.replicas}").stdout

    stack.serve(versions={old: 100}, autoscaling=BOUNDS, resources={"cpu": "50m"})
    # Without metrics the autoscaler keeps what it finds within its bounds, so this stands for what it would do.
    project.kubectl("scale", "deployment", deployment, "--replicas", "3")
    project.kubectl("rollout", "status", "deployment", deployment, "--timeout", "60s")
    assert planned(project) == []
    project.run("pulumi", "preview", "--refresh", "--expect-no-changes", "--stack", "local")
    stack.serve(versions={old: 100}, autoscaling=BOUNDS, resources={"cpu": "60m"})
    assert pods() == "3", "another change leaves the number alone"
    stack.serve(versions={old: 100}, resources={"cpu": "60m"})
    # The engine deletes last, so the autoscaler may have looked once more after the Deployment had its number.
    project.run("pulumi", "up", "--refresh", "--yes", "--skip-preview", "--stack", "local")
    assert pods() == "1", "without the autoscaler the stack decides again"
    assert ask(URL, IRIS)[0] == 200
