"""Constant load on a model by clients in Python: over gRPC, and over REST with binary tensors.

None of them sends a request again by itself: gRPC's own repetition of requests that no server has seen is off.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import quantiles
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
from tritonclient import grpc as triton_grpc
from tritonclient import http as triton

from server.launcher.binary import HEADER
from tests.cluster.load import ANSWER_SECONDS, Failure, Report

ONCE: Final = [("grpc.enable_retries", 0)]
Ask = Callable[[], str]


class Clients:
    """A few clients of each kind, each of which asks one thing after the other until the end of the block.

    Args:
        address: host and port of the gateway.
        model: that is asked.
        rows: of its only input, in FP32.
    """

    def __init__(self, address: str, model: str, rows: list[list[float]]) -> None:
        self._address, self._model = address, model
        self._rows = np.array(rows, np.float32)
        self._over = threading.Event()
        self._answered: Counter[str] = Counter()
        self._versions: Counter[str] = Counter()
        self._milliseconds: list[float] = []
        self._failures: list[Failure] = []
        self._began = time.monotonic()
        # tritonclient over gRPC takes three times as long for a request.
        kinds = {"gRPC": (self._over_grpc, 3), "binary tensors": (self._over_rest, 1)}
        self._threads = [
            threading.Thread(target=self._run, args=(kind, client), daemon=True)
            for kind, (client, count) in kinds.items()
            for _ in range(count)
        ]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(2 * ANSWER_SECONDS)

    @property
    def answered(self) -> int:
        """Answers so far."""
        return sum([*self._answered.values()])

    @property
    def failed(self) -> int:
        """Failures so far."""
        return len(self._failures)

    @property
    def report(self) -> Report:
        percentiles = quantiles(self._milliseconds, n=100)
        return Report(
            answered=dict(self._answered),
            versions=self._versions,
            failures=tuple(self._failures),
            seconds=time.monotonic() - self._began,
            p50=percentiles[49],
            p99=percentiles[98],
            longest=max(self._milliseconds),
        )

    def _run(self, kind: str, client: Callable[[], Any]) -> None:
        with client() as ask:
            while not self._over.is_set():
                sent = time.time()
                try:
                    version = ask()
                except Exception as error:
                    failure = Failure(kind=kind, what=type(error).__name__, text=str(error), sent=sent, at=time.time())
                    self._failures.append(failure)
                    continue
                self._milliseconds.append((time.time() - sent) * 1000)
                self._answered[kind] += 1
                self._versions[version] += 1

    @contextmanager
    def _over_grpc(self) -> Iterator[Ask]:
        tensor = triton_grpc.InferInput("predict", self._rows.shape, "FP32")
        tensor.set_data_from_numpy(self._rows)
        metadata = {"x-model-name": self._model}
        with triton_grpc.InferenceServerClient(self._address, channel_args=ONCE) as client:

            def ask() -> str:
                answer = client.infer(self._model, [tensor], headers=metadata, client_timeout=ANSWER_SECONDS)
                return str(answer.get_response().model_version)

            yield ask

    @contextmanager
    def _over_rest(self) -> Iterator[Ask]:
        tensor = triton.InferInput("predict", self._rows.shape, "FP32")
        tensor.set_data_from_numpy(self._rows)
        body, length = triton.InferenceServerClient.generate_request_body([tensor])
        url = urlsplit(f"http://{self._address}")
        connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=ANSWER_SECONDS)
        headers = {"Content-Type": "application/octet-stream", HEADER: str(length)}

        def ask() -> str:
            connection.request("POST", f"/mlapi/v2/models/{self._model}/infer", body, headers)
            response = connection.getresponse()
            content = response.read()
            if response.status != http.client.OK:
                raise AssertionError(f"{response.status} {content[:200]!r}")
            head = content[: int(response.headers.get(HEADER, len(content)))]
            return str(json.loads(head)["model_version"])

        yield ask
        connection.close()
