"""Mocks of the Pulumi engine, one event loop per test."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, TypeVar

import pulumi
import pytest


class Recorder(pulumi.runtime.Mocks):
    """Takes down what a program declares."""

    def __init__(self) -> None:
        self.made: dict[tuple[str, str], dict[str, Any]] = {}

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        # Mocks accept a second resource of one name; the engine does not.
        assert (args.typ, args.name) not in self.made, args.name
        self.made[args.typ, args.name] = args.inputs
        return f"{args.name}-id", {**args.inputs, **self.outputs(args)}

    def outputs(self, args: pulumi.runtime.MockResourceArgs) -> dict[str, Any]:
        if args.typ == "docker-build:index:Image":
            return {"ref": f"{args.inputs['tags'][0]}@sha256:1234", "digest": "sha256:1234"}
        if args.typ.endswith(":Gateway"):
            return {"status": {"addresses": [{"type": "IPAddress", "value": "192.0.2.10"}]}}
        return {}

    def call(self, args: pulumi.runtime.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        raise AssertionError(f"unexpected call of {args.token}")

    def of_kind(self, kind: str) -> dict[str, dict[str, Any]]:
        """What was made of a kind, the last part of its type: name -> inputs."""
        return {name: inputs for (typ, name), inputs in self.made.items() if typ.endswith(f":{kind}")}


R = TypeVar("R", bound=Recorder)


@contextmanager
def mocked(recorder: R) -> Iterator[R]:
    """The engine's part is played by a recorder, in an event loop of its own."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    pulumi.runtime.set_mocks(recorder, project="model-serving", stack="test", preview=False)
    yield recorder
    loop.close()


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server on loopback; hands out its host and port."""
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _google_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks Google itself for a cluster's status; nothing listens on this port."""
    monkeypatch.setenv("GOOGLE_CONTAINER_CUSTOM_ENDPOINT", "http://127.0.0.1:9/")


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with mocked(Recorder()) as recorder:
        yield recorder


@pytest.fixture
def declare(recorder: Recorder) -> Callable[[Callable[[], object]], Recorder]:
    """Runs a program to its end and hands out what it declared."""

    def run(program: Callable[[], object]) -> Recorder:
        pulumi.runtime.test(program)()  # type: ignore[no-untyped-call]  # the SDK's decorator has no types
        return recorder

    return run


@pytest.fixture
def update() -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs here and is called pulumi."""
    command = "import time; open('/proc/self/comm', 'w').write('pulumi'); print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()
