"""A git server over HTTP on loopback, which asks for a token: git's own http-backend behind a small server."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


@dataclass
class GitServer:
    """Repositories below a folder.

    Attributes:
        url: without an account.
        token: what the password has to be.
        refused: part of a request's address and the status that such requests get.
        paths: of the requests, with their queries.
        accounts: names beside the token that were received.
    """

    root: Path
    url: str
    token: str
    refused: dict[str, int] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    accounts: set[str] = field(default_factory=set)

    def status(self, path: str, authorization: str) -> int:
        """What a request is answered before git sees it; 200 if git shall see it."""
        self.paths.append(path)
        account, _, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        if not authorization or password != self.token:
            return 401
        self.accounts.add(account)
        return next((status for part, status in self.refused.items() if part in path), 200)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    site: GitServer

    def _handle(self) -> None:
        content = self._content()
        status = self.site.status(self.path, self.headers.get("Authorization", ""))
        if status != 200:
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="GitLab"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        done = subprocess.run(
            ["git", "http-backend"], env=self._environ(), input=content, capture_output=True, check=True
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(headers.pop("Status", "200 OK").split()[0]))
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _content(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _environ(self) -> dict[str, str]:
        parts = urlsplit(self.path)
        return {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.site.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_USER": "somebody",
        }

    do_GET = do_POST = _handle  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        """Not in the tests' output."""


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """A client that was killed is gone when its answer comes."""


@contextmanager
def git_server(root: Path, token: str) -> Iterator[GitServer]:
    """Serves the bare repositories in a folder."""
    handler = type("Handler", (_Handler,), {})
    listener = _Listener(("127.0.0.1", 0), handler)
    server = GitServer(root=root, url=f"http://127.0.0.1:{listener.server_port}", token=token)
    handler.site = server  # type: ignore[attr-defined]  # of the class that was made above
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()
