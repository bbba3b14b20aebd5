"""A stand-in for Google Cloud Storage on loopback: the part of its JSON API that uploads and downloads objects.

https://cloud.google.com/storage/docs/performing-resumable-uploads and /json_api. It fails as it is told to.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Upload:
    """An upload that is not complete yet."""

    name: str
    md5: str
    arrived: bytes = b""


@dataclass
class Storage:
    """The buckets, all in one.

    Attributes:
        address: host and port, for STORAGE_EMULATOR_HOST.
        objects: by name.
        requests: method and path of each, in order.
        failures: statuses that the next requests are answered with.
        cut: bytes of the next downloads, after each of which the connection breaks.
        keeps: bytes of each part of an upload that arrive; None is all.
        refuses: whether the account has no right to anything.
        accounts: what the requests said in their header Authorization.
    """

    address: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    keeps: int | None = None
    refuses: bool = False
    accounts: set[str | None] = field(default_factory=set)
    uploads: list[Upload] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    storage: Storage

    def do_GET(self) -> None:
        if self._failed():
            return
        place = urlsplit(self.path)
        name = unquote(place.path.rpartition("/o/")[2])
        content = self.storage.objects.get(name)
        if content is None:
            self._answer(404, {"error": {"message": f"No such object: {name}"}})
        elif parse_qs(place.query).get("alt") == ["media"]:
            self._send(content)
        else:
            self._answer(200, {"size": str(len(content)), "md5Hash": _md5(content)})

    def do_POST(self) -> None:
        sent = json.loads(self._body())
        if self._failed():
            return
        query = parse_qs(urlsplit(self.path).query)
        [name] = query["name"]
        assert query["uploadType"] == ["resumable"]
        assert query["ifGenerationMatch"] == ["0"]
        if name in self.storage.objects:
            self._answer(412, {"error": {"message": "At least one of the pre-conditions did not hold."}})
            return
        self.storage.uploads.append(Upload(name, sent["md5Hash"]))
        number = len(self.storage.uploads) - 1
        self._answer(200, {}, {"Location": f"http://{self.storage.address}/upload/{number}"})

    def do_PUT(self) -> None:
        body = self._body()
        if self._failed():
            return
        upload = self.storage.uploads[int(self.path.rpartition("/")[2])]
        match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", self.headers["Content-Range"])
        assert match
        start, total = int(match[1] or len(upload.arrived)), int(match[2])
        assert start == len(upload.arrived), "a part that does not follow the one before"
        upload.arrived += body[: self.storage.keeps]
        if len(upload.arrived) < total:
            arrived = {"Range": f"bytes=0-{len(upload.arrived) - 1}"} if upload.arrived else {}
            self._answer(308, {}, arrived)
        elif upload.name in self.storage.objects:
            self._answer(412, {"error": {"message": "At least one of the pre-conditions did not hold."}})
        elif _md5(upload.arrived) != upload.md5:
            self._answer(400, {"error": {"message": "Provided MD5 hash doesn't match."}})
        else:
            self.storage.objects[upload.name] = upload.arrived
            self._answer(200, {"name": upload.name})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _failed(self) -> bool:
        self.storage.requests.append(f"{self.command} {unquote(urlsplit(self.path).path)}")
        self.storage.accounts.add(self.headers["Authorization"])
        if self.storage.refuses:
            self._answer(403, {"error": {"message": "it does not have storage.objects.get access"}})
            return True
        if self.storage.failures:
            self._answer(self.storage.failures.pop(0), {"error": {"message": "told to fail"}})
            return True
        return False

    def _send(self, content: bytes) -> None:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        rest = content[int(match[1]) :] if match else content
        self.send_response(206 if match else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if self.storage.cut:
            rest = rest[: self.storage.cut.pop(0)]
            self.close_connection = True
        self.wfile.write(rest)

    def _answer(self, status: int, content: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Not in the tests' output."""


@contextmanager
def storage() -> Iterator[Storage]:
    """A server on loopback, for as long as the block takes."""
    storage = Storage()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"storage": storage}))
    storage.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield storage
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
