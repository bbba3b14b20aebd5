"""What a model server computes for requests over gRPC, as binary tensors and as JSON."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

import numpy as np
from tritonclient import grpc as triton_grpc
from tritonclient import http as triton

from tests.bench.checkout import MODEL, Checkout, Failed, kubectl
from tests.bench.figures import Row, Section
from tests.bench.gateway import pod_address
from tests.bench.progress import Progress
from tests.bench.server import used

TITLE: Final = "gRPC and binary tensors"
FEATURES: Final = 4
CALLS: Final[Mapping[int, int]] = {1: 300, 1_000: 100, 65_536: 10}
"""Rows of a request to how often it is sent; the last is 1 MiB of FP32."""
GRPC_BAR: Final = 0.77
BINARY_BAR: Final = 0.33
PATH: Final = f"/v2/models/{MODEL}/infer"
HEADER: Final = "Inference-Header-Content-Length"
Call = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What requests of one kind took, each.

    Attributes:
        processor: milliseconds of a core of the server.
        latency: milliseconds until the answer.
    """

    processor: float
    latency: float


def measure(checkout: Checkout, runs: int, progress: Progress) -> Section:
    selector = f"app.kubernetes.io/name={MODEL}"
    deployment = json.loads(kubectl("get", "deployments", f"--selector={selector}", "--output=json"))["items"][0]
    name, address = deployment["metadata"]["name"], pod_address(selector)
    rows: list[Row] = []
    connection = http.client.HTTPConnection(address, 8080, timeout=60)
    with triton_grpc.InferenceServerClient(f"{address}:8081") as client:
        for count, calls in CALLS.items():
            kinds = _kinds(count, connection, client)
            for call in kinds.values():
                call()
            turns = [
                {kind: _seen(name, call, calls) for kind, call in kinds.items()}
                for _ in progress.each(f"requests of {count:,} rows", range(runs))
            ]
            rows += _rows(count, turns)
    connection.close()
    text = (
        f"`{MODEL}` asked at its pod, one request after the other, as tritonclient sends them; the processor time is "
        f"that of the pod. A row has {FEATURES} numbers of FP32, so 65,536 rows are 1 MiB. The bars are for 1 MiB: 1.3 "
        "times as many requests per second of a core over gRPC, and a third of the time for binary tensors. The "
        "transports cost about the same, and what differs is the numbers."
    )
    return Section(title=TITLE, text=text, rows=rows)


def _kinds(
    count: int, connection: http.client.HTTPConnection, client: triton_grpc.InferenceServerClient
) -> dict[str, Call]:
    values = np.random.default_rng(0).random((count, FEATURES), dtype="float32")
    over_grpc = triton_grpc.InferInput("predict", values.shape, "FP32")
    over_grpc.set_data_from_numpy(values)

    def rest(*, binary: bool) -> Call:
        tensor = triton.InferInput("predict", values.shape, "FP32")
        tensor.set_data_from_numpy(values, binary_data=binary)
        output = triton.InferRequestedOutput("predict", binary_data=binary)
        body, size = triton.InferenceServerClient.generate_request_body([tensor], outputs=[output])
        headers = {HEADER: str(size)} if size else {"Content-Type": "application/json"}

        def call() -> None:
            connection.request("POST", PATH, body, headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != http.client.OK:
                raise Failed(f"{count} rows were answered with {answer.status}")

        return call

    return {
        "JSON": rest(binary=False),
        "binary": rest(binary=True),
        "gRPC": lambda: client.infer(MODEL, [over_grpc]) and None,
    }


def _seen(name: str, call: Call, calls: int) -> Seen:
    before, _ = used(name)
    began = time.perf_counter()
    for _ in range(calls):
        call()
    latency = time.perf_counter() - began
    after, _ = used(name)
    return Seen(processor=(after - before) / calls * 1000, latency=latency / calls * 1000)


def _rows(count: int, turns: list[dict[str, Seen]]) -> list[Row]:
    # Kubernetes' own probes are in the processor time as well, and all kinds have them alike.
    is_large = count == max(CALLS)
    compared = {
        ("gRPC", "processor time"): (attrgetter("processor"), GRPC_BAR),
        ("binary", "processor time"): (attrgetter("processor"), BINARY_BAR),
        ("gRPC", "time to the answer"): (attrgetter("latency"), None),
        ("binary", "time to the answer"): (attrgetter("latency"), BINARY_BAR),
    }
    return [
        Row(
            what=f"{count:,} row{'s' if count > 1 else ''}, {kind}: {what}",
            unit="ms",
            values=[of(turn[kind]) for turn in turns],
            baseline="JSON",
            base=[of(turn["JSON"]) for turn in turns],
            bar=bar if is_large else None,
        )
        for (kind, what), (of, bar) in compared.items()
    ]
