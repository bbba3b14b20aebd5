"""A stand-in for Google Cloud Storage on loopback: the part of its JSON API that uploads and downloads objects.

https://cloud.google.com/storage/docs/performing-resumable-uploads and /json_api. It fails as it is told to.
"""

from __future__ import annotations

import base64
import email
import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

PRECONDITION_FAILED: Final = {"error": {"message": "At least one of the pre-conditions did not hold."}}


@dataclass
class Upload:
    """An upload that is not complete yet."""

    name: str
    arrived: bytes = b""


@dataclass
class Storage:
    """The buckets, all in one.

    Attributes:
        address: host and port, for STORAGE_EMULATOR_HOST.
        exists: whether there is any bucket.
        objects: by name.
        requests: method and path of each, in order.
        failures: statuses that the next requests are answered with.
        cut: bytes of the next downloads, after each of which the connection breaks.
        keeps: bytes of each part of an upload that arrive; None is all.
        lost: whether an upload is not known any more once it has begun.
        refuses: status for an account that has no right to anything, 403, or is not known, 401.
        accounts: what the requests said in their header Authorization.
        uploads: that have begun, by the name that only whoever began them knows.
        token: what an account has to say, if not everyone may come.
        url: address that a client is sent on to; by default ``address``.
    """

    address: str = ""
    exists: bool = True
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    keeps: int | None = None
    lost: bool = False
    refuses: int | None = None
    accounts: set[str | None] = field(default_factory=set)
    uploads: dict[str, Upload] = field(default_factory=dict)
    token: str | None = None
    url: str = ""

    def started(self, request: str) -> int:
        """How many requests began like this."""
        return sum(made.startswith(request) for made in self.requests)


class Handler(BaseHTTPRequestHandler):
    """Answers for a storage, which a subclass names."""

    protocol_version = "HTTP/1.1"
    storage: Storage

    def do_GET(self) -> None:
        if self._failed():
            return
        path, query = self._asked()
        if path.endswith("/o"):
            self._list(query.get("prefix", ""))
            return
        name = unquote(path.rpartition("/o/")[2])
        content = self.storage.objects.get(name)
        if content is None:
            self._answer(404, {"error": {"message": f"No such object: {name}"}})
        elif query.get("alt") == "media":
            self._send(content)
        else:
            self._answer(200, _resource(name, content))

    def do_POST(self) -> None:
        """Begins an upload, or takes a part of it: gcsfs sends parts by POST, which Google takes like PUT."""
        body = self._body()
        if self._failed():
            return
        _, query = self._asked()
        if query["uploadType"] == "multipart":
            self._take_whole(body)
            return
        assert query["uploadType"] == "resumable"
        if "upload_id" in query:
            self._take(self.storage.uploads[query["upload_id"]], body)
            return
        assert query["ifGenerationMatch"] == "0"
        name = query["name"]
        if name in self.storage.objects:
            self._answer(412, PRECONDITION_FAILED)
            return
        secret = f"secret-{len(self.storage.uploads)}"
        self.storage.uploads[secret] = Upload(name)
        path = f"/upload/storage/v1/b/models/o?uploadType=resumable&upload_id={secret}"
        self._answer(200, {}, {"Location": (self.storage.url or f"http://{self.storage.address}") + path})

    def do_DELETE(self) -> None:
        """Deletes an object, or gives an upload up."""
        if self._failed():
            return
        path, query = self._asked()
        if "upload_id" in query:
            del self.storage.uploads[query["upload_id"]]
            self._answer(499, {})
        elif self.storage.objects.pop(unquote(path.rpartition("/o/")[2]), None) is None:
            self._answer(404, {"error": {"message": "No such object"}})
        else:
            self.send_response(204)
            self.end_headers()

    def _take_whole(self, body: bytes) -> None:
        """A small object: its metadata and its content in one body."""
        message = email.message_from_bytes(f"Content-Type: {self.headers['Content-Type']}\n\n".encode() + body)
        parts: Iterator[Any] = (part.get_payload(decode=True) for part in message.walk() if not part.is_multipart())
        about, content = parts
        name = json.loads(about)["name"]
        self.storage.objects[name] = content
        self._answer(200, _resource(name, content))

    def _take(self, upload: Upload, body: bytes) -> None:
        if self.storage.lost:
            self._answer(410, {"error": {"message": "This upload is gone."}})
            return
        match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", self.headers["Content-Range"])
        assert match
        start = int(match[1] or len(upload.arrived))
        assert start <= len(upload.arrived), "a part that does not follow the one before"
        assert match[2] != "*" or len(body) % 262_144 == 0, "a part that is not the last, and no multiple of 256 KiB"
        upload.arrived = upload.arrived[:start] + body[: self.storage.keeps]
        if match[2] == "*" or len(upload.arrived) < int(match[2]):
            arrived = {"Range": f"bytes=0-{len(upload.arrived) - 1}"} if upload.arrived else {}
            self._answer(308, {}, arrived)
        elif upload.name in self.storage.objects:
            self._answer(412, PRECONDITION_FAILED)
        else:
            self.storage.objects[upload.name] = upload.arrived
            self.storage.uploads = {secret: other for secret, other in self.storage.uploads.items() if other != upload}
            self._answer(200, _resource(upload.name, upload.arrived))

    def _list(self, prefix: str) -> None:
        found = [_resource(name, content) for name, content in self.storage.objects.items() if name.startswith(prefix)]
        self._answer(200, {"items": found})

    def _asked(self) -> tuple[str, dict[str, str]]:
        """The path of a request, and its query."""
        place = urlsplit(self.path)
        return place.path, dict(parse_qsl(place.query))

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _failed(self) -> bool:
        self.storage.requests.append(f"{self.command} {unquote(urlsplit(self.path).path)}")
        self.storage.accounts.add(self.headers["Authorization"])
        if self.storage.token and self.headers["Authorization"] != f"Bearer {self.storage.token}":
            self._answer(401, {"error": {"message": "Invalid Credentials"}})
            return True
        if self.storage.refuses:
            self._answer(self.storage.refuses, {"error": {"message": "it does not have storage.objects.get access"}})
            return True
        if not self.storage.exists:
            self._answer(404, {"error": {"message": "The specified bucket does not exist."}})
            return True
        if self.storage.failures:
            self._answer(self.storage.failures.pop(0), {"error": {"message": "told to fail"}})
            return True
        return False

    def _send(self, content: bytes) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        rest = content[int(match[1]) : int(match[2]) + 1] if match else content
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


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that asks two things at once leaves when it has the one answer that it needs."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def storage() -> Iterator[Storage]:
    """A server on loopback, for as long as the block takes."""
    storage = Storage()
    server = _Server(("127.0.0.1", 0), type("Handler", (Handler,), {"storage": storage}))
    storage.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield storage
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _resource(name: str, content: bytes) -> dict[str, str]:
    md5 = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
    return {"name": name, "size": str(len(content)), "md5Hash": md5}
