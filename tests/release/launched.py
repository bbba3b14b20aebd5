"""The launcher of server/ as a process of its own, as it runs in an image."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.release.repositories import PROJECT, interpreter

PACKAGE: Final = "model_serving_launcher"
"""Its name in an image, see server/runtime.Dockerfile."""
READY_SECONDS: Final = 120.0
ANSWER_SECONDS: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back; ``body`` is what the JSON says, else text, or bytes of binary data."""

    status: int
    body: Any
    headers: http.client.HTTPMessage

    @property
    def error(self) -> str:
        """The text of an error of the protocol, which has nothing else."""
        assert self.headers["Content-Type"] == "application/json"
        assert self.body.keys() == {"error"}, self.body
        return str(self.body["error"])


@dataclass(frozen=True, kw_only=True)
class Launched:
    """A launcher that was started."""

    model: str
    process: subprocess.Popen[bytes]
    port: int
    grpc_port: int
    metrics_port: int
    log: Path

    def connection(self) -> http.client.HTTPConnection:
        """One that stays open, as a proxy's do."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)

    def infer(
        self,
        request: Mapping[str, Any] | bytes,
        connection: http.client.HTTPConnection | None = None,
        **headers: str,
    ) -> Answer:
        body = request if isinstance(request, bytes) else json.dumps(request).encode()
        return self.ask("POST", f"/v2/models/{self.model}/infer", body, connection, **headers)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        connection: http.client.HTTPConnection | None = None,
        **headers: str,
    ) -> Answer:
        """Asks on a connection, or on one of its own."""
        chosen = connection or self.connection()
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            chosen.request(method, path, body, {"Content-Type": "application/json"} | named)
            response = chosen.getresponse()
            content = response.read()
        finally:
            if connection is None:
                chosen.close()
        form = response.headers["Content-Type"]
        said: Any = content if form == "application/octet-stream" else content.decode()
        if form == "application/json" and content:
            said = json.loads(said)
        return Answer(status=response.status, body=said, headers=response.headers)

    def is_ready(self) -> bool:
        try:
            return self.ask("GET", f"/v2/models/{self.model}/ready").status == http.client.OK
        except OSError:
            return False

    def await_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not self.is_ready():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    @property
    def resident(self) -> int:
        """Bytes of memory that the process has."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="utf-8").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    @property
    def processor_seconds(self) -> float:
        """Seconds for which the process has computed."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


@contextmanager
def launched(
    release: Path, scratch: Path, *, name: str, python: str | None = None, **variables: str
) -> Iterator[Launched]:
    """Starts the launcher with a release, and ends it.

    Args:
        release: its folder.
        scratch: a folder for what the process needs.
        name: of the model.
        python: interpreter with MLServer.
        variables: of the environment, besides those that a pod has.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    shutil.copytree(release, scratch / "models" / name)
    shutil.copytree(PROJECT / "server" / "launcher", scratch / "launcher" / PACKAGE)
    (scratch / "termination-log").touch()
    http_port, grpc_port, metrics_port = free_ports(3)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLSERVER_", "MODEL_SERVING_"))}
    environment = {
        "MLSERVER_DEBUG": "false",
        "MLSERVER_PARALLEL_WORKERS": "0",
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_HTTP_PORT": str(http_port),
        "MLSERVER_GRPC_PORT": str(grpc_port),
        "MLSERVER_METRICS_PORT": str(metrics_port),
        "MLSERVER_METRICS_DIR": str(scratch / "metrics"),
        "MLSERVER_ENVIRONMENTS_DIR": str(scratch / "environments"),
        "PYTHONPATH": str(scratch / "launcher"),
        "PYTHONUNBUFFERED": "1",
    }
    log = scratch / "log"
    command = [python or interpreter(), "-m", f"{PACKAGE}.main", str(scratch / "models")]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--termination-log", str(scratch / "termination-log")],
            cwd=scratch,
            env=kept | environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Launched(
            model=name, process=process, port=http_port, grpc_port=grpc_port, metrics_port=metrics_port, log=log
        )
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
