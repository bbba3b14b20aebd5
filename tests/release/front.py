"""A stack of one origin, as the gateway makes it: the portal as a process, and models that answer as told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from server.portal.served import Version
from tests.release.test_portal import started

MODELS: Final = "/mlapi/v2/models/"
READY: Final = "/ready/"


class Front(ThreadingHTTPServer):
    """The gateway, and the models behind it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.portal = 0
        self.down: set[str] = set()
        """Models of which no version is ready."""
        self.replies: dict[str, tuple[int, str]] = {}
        """Model -> status and text of its answers."""
        self.asked: list[Any] = []
        """Requests for predictions."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def file(self, versions: Sequence[Version]) -> str:
        """The file that the program would write for the portal."""
        return json.dumps([{**each.public, "readyUrl": f"{self.url[:-1]}{READY}{each.model}"} for each in versions])


@contextmanager
def opened(versions: Sequence[Version], folder: Path) -> Iterator[Front]:
    """A running stack that serves these versions."""
    with Front() as front:
        threading.Thread(target=front.serve_forever, daemon=True).start()
        file = folder / "served.json"
        file.write_text(front.file(versions))
        with started(file) as front.portal:
            yield front
        front.shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: Front

    def do_GET(self) -> None:
        if self.path.startswith(READY):
            self._answer(503 if self.path.removeprefix(READY) in self.server.down else 200, b"", "text/plain")
        else:
            self._pass_on()

    def do_POST(self) -> None:
        if not self.path.startswith(MODELS):
            self._pass_on()
            return
        self.server.asked.append(json.loads(self._body()))
        status, text = self.server.replies[self.path.removeprefix(MODELS).partition("/")[0]]
        self._answer(status, text.encode(), "application/json")

    def _pass_on(self) -> None:
        connection = HTTPConnection("127.0.0.1", self.server.portal, timeout=10)
        try:
            connection.request(self.command, self.path, self._body())
            response = connection.getresponse()
            policy = response.headers["Content-Security-Policy"]
            self._answer(response.status, response.read(), response.headers["Content-Type"], policy)
        finally:
            connection.close()

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, content: bytes, kind: str, policy: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if policy:
            self.send_header("Content-Security-Policy", policy)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Not in the tests' output."""
