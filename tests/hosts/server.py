"""The HTTP server: routes to the two sites, fails when told to, keeps what it received."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlsplit

from model_serving.hosts.access import Patience
from tests.hosts.api import Answer, Question
from tests.hosts.github import GitHub
from tests.hosts.gitlab import GitLab

AT_ONCE: Final = Patience(backoff_seconds=0, timeout_seconds=5)
"""For clients in tests: nothing pauses between two attempts."""
LONGEST_HANG_SECONDS: Final = 10

How = Literal["answers", "drops", "hangs", "breaks off"]


@dataclass(frozen=True, kw_only=True)
class Received:
    """A request and what it was answered. The token is not kept.

    Attributes:
        status: 0 if it got no answer.
    """

    method: str
    path: str
    query: dict[str, str]
    content: Any
    status: int


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to one request, once.

    Attributes:
        method: of the request.
        path: expression that is found in its path.
        how: whether it gets an answer, its connection is closed, nothing comes at all, or half of the right answer.
        status: the answer's.
        headers: the answer's.
        said: message in the answer.
        content: what is answered instead of that message.
        is_carried_out: whether the site does nevertheless what it was asked.
        first: called before.
    """

    method: str
    path: str
    how: How = "answers"
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    said: str = "as told"
    content: Any = None
    is_carried_out: bool = False
    first: Callable[[], object] | None = None


class Server:
    """Both sites at one address.

    Attributes:
        received: every request, in the order of the answers.
        largest_request: in bytes; a proxy in front of a site answers 413 to a larger one.
    """

    def __init__(self, url: str, log: Path | None = None) -> None:
        self.url = url
        self.gitlab = GitLab(url)
        self.github = GitHub(url)
        self.received: list[Received] = []
        self.largest_request = 10_000_000
        self.is_closing = threading.Event()
        self._faults: list[Fault] = []
        self._log = log
        self._lock = threading.RLock()

    def fail(self, method: str, path: str, *statuses: int, **headers: str) -> None:
        """The next requests of this kind are answered with these, one after the other."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for status in statuses:
            self.add(Fault(method=method, path=path, status=status, headers=named))

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def calls(self, method: str = "", path: str = "") -> list[Received]:
        """What was received of a kind; every kind if nothing is said."""
        with self._lock:
            return [call for call in self.received if method in ("", call.method) and re.search(path, call.path)]

    def answer(self, question: Question) -> Answer | None:
        """None if there is none to be."""
        fault = self._fault(question)
        if fault is None:
            return self._kept(question, self._answer(question))
        if fault.first:
            fault.first()
        if fault.how == "breaks off":
            return self._kept(question, replace(self._answer(question), is_cut=True))
        carried_out = self._answer(question) if fault.is_carried_out else None
        if fault.how != "answers":
            self._kept(question, None)
            if fault.how == "hangs":
                self.is_closing.wait(LONGEST_HANG_SECONDS)
            return None
        if fault.status:
            message = {"message": f"{fault.status} {fault.said}"}
            carried_out = Answer(fault.status, message if fault.content is None else fault.content, fault.headers)
        return self._kept(question, carried_out or self._answer(question))

    def _fault(self, question: Question) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.method == question.method and re.search(fault.path, question.path):
                    self._faults.remove(fault)
                    return fault
        return None

    def _answer(self, question: Question) -> Answer:
        if len(question.content) > self.largest_request:
            return Answer(413, "<html>413 Request Entity Too Large</html>")
        with self._lock:
            try:
                return self._site(question)(question)
            except Answer as answer:
                return answer

    def _site(self, question: Question) -> Callable[[Question], Answer]:
        if question.path.startswith("/_"):
            return self._control
        return self.gitlab.answer if question.path.startswith("/api/v4/") else self.github.answer

    def _control(self, question: Question) -> Answer:
        """What tests of other processes say and ask: ``POST /_faults`` and ``GET /_state``."""
        if question.path == "/_faults":
            self.add(Fault(**question.json()))
            return Answer(201, {})
        return Answer(200, {"gitlab": self.gitlab.texts(), "github": self.github.texts()})

    def _kept(self, question: Question, answer: Answer | None) -> Answer | None:
        content = json.loads(question.content) if question.content.startswith(b"{") else None
        received = Received(
            method=question.method,
            path=question.path,
            query=dict(question.query),
            content=content,
            status=answer.status if answer else 0,
        )
        with self._lock:
            self.received.append(received)
            if self._log:
                with self._log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(received)) + "\n")
        return answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One packet per answer: a second one waits 40 ms for the client's acknowledgement of the first.
    wbufsize = -1
    site: Server

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        question = Question(
            method=self.command,
            path=parts.path,
            query=dict(parse_qsl(parts.query)),
            headers={name.lower(): value for name, value in self.headers.items()},
            content=self.rfile.read(int(self.headers.get("Content-Length", 0))),
            base=self.site.url,
        )
        answer = self.site.answer(question)
        if answer is None:
            self.close_connection = True
            return
        text = isinstance(answer.content, str)
        content = (
            b"" if answer.content is None else answer.content.encode() if text else json.dumps(answer.content).encode()
        )
        self.send_response(answer.status)
        for name, value in {"Content-Type": "text/html" if text else "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if answer.is_cut else content)
        self.close_connection |= answer.is_cut

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        """Not in the tests' output."""


class _Listener(ThreadingHTTPServer):
    # A client that gave up waiting keeps no test from its end.
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """A client that gave up waiting is gone when its answer comes."""


@contextmanager
def serving(*, log: Path | None = None) -> Iterator[Server]:
    """Both sites on loopback, with nothing on them yet.

    Args:
        log: file that gets a line of JSON per request.
    """
    handler = type("Handler", (_Handler,), {})
    listener = _Listener(("127.0.0.1", 0), handler)
    server = Server(f"http://127.0.0.1:{listener.server_port}", log)
    handler.site = server  # type: ignore[attr-defined]  # of the class that was made above
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.is_closing.set()
        listener.shutdown()
        thread.join()
        listener.server_close()
