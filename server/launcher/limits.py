"""The limits of requests, which keep memory and waiting bounded whatever clients send.

It stands before MLServer's application and knows nothing of it; gRPC asks it for turns. What it refuses leaves the
connection usable: uvicorn reads the rest of a body and throws it away.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from .binary import HEADER

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

WITHOUT_BODY: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Readiness, liveness and metadata: they are answered whatever waits."""
HELD_AT_ONCE: Final = 3
"""So many times the largest request is held in memory at once, of all large requests that wait."""
PARSED_AT_ONCE: Final = 8
"""So many times the largest request may the requests take that are parsed at once, because JSON's values take more
memory than their text: numbers of five characters eight times, nothing but empty lists forty times."""
VALUE_BYTES: Final = 40
"""A float and its places in two lists, as of CPython 3.11."""
LIST_BYTES: Final = 100
BINARY_GROWTH: Final = 8
"""So many times its size does binary data take at most, which are text of two characters each."""
SMALL_BYTES: Final = 64 * 1024
"""A smaller request is not refused, and does not wait, because of large ones."""
RETRY_SECONDS: Final = 1
_PACKED: Final = {b"gzip": "gzip", b"deflate": "deflate"}
_EITHER: Final = 47
"""Either of them, https://docs.python.org/3/library/zlib.html#zlib.decompress"""


class InvalidLimit(Exception):
    """A variable of the environment is not a limit."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The limits.

    Attributes:
        request_bytes: of a body, also when it is unpacked.
        answer_seconds: until the model must have answered, and between two parts of a streamed answer.
        waiting: requests that wait or run at once.
    """

    request_bytes: int = 16 * 1024 * 1024
    answer_seconds: float = 30
    waiting: int = 100

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Bounds:
        """Reads them.

        Raises:
            InvalidLimit: with the variable and what it must be.
        """
        chosen = {
            "request_bytes": _positive(environment, "MODEL_SERVING_REQUEST_BYTES", int),
            "answer_seconds": _positive(environment, "MODEL_SERVING_ANSWER_SECONDS", float),
            "waiting": _positive(environment, "MODEL_SERVING_WAITING", int),
        }
        return cls(**{key: value for key, value in chosen.items() if value is not None})


def _positive(environment: Mapping[str, str], name: str, number: type[Any]) -> Any:
    text = environment.get(name)
    if text is None:
        return None
    try:
        value = number(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise InvalidLimit(f"{name} is {text!r}; write a positive number")
    return value


class Refusal(Exception):
    """A request that is not passed on."""

    def __init__(self, status: int, text: str, *, again: bool = False) -> None:
        super().__init__(text)
        self.status = status
        self.headers = [(b"retry-after", str(RETRY_SECONDS).encode())] if again else []


class TooLate(Refusal):
    """The model has not answered in time."""


class Gone(Exception):
    """The client has closed the connection."""


class Limits:
    """Passes on what is within the limits, and answers the rest."""

    def __init__(self, app: Application, bounds: Bounds, refused: Callable[[int], None]) -> None:
        """Stands before an application.

        Args:
            app: gets the requests that are within the limits, with the whole body in one message.
            bounds: the limits.
            refused: is told the status of each refusal.
        """
        self._app = app
        self._bounds = bounds
        self._refused = refused
        self._waiting = 0
        self._held = 0
        self._parsed = 0
        self._room = asyncio.Condition()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in WITHOUT_BODY:
            await self._app(scope, receive, send)
            return
        try:
            await self._within(scope, receive, send)
        except Refusal as refusal:
            self.count(refusal)
            await answer(send, refusal.status, str(refusal), refusal.headers)
        except Gone:
            return

    async def _within(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = _Body(self, scope, receive)
        try:
            self._check_waiting()
            content = await body.read()
            await self._timed(content, body.unpacked_scope(), receive, send)
        finally:
            self._held -= body.held

    def count(self, refusal: Refusal) -> None:
        """Tells of a refusal."""
        self._refused(refusal.status)

    @asynccontextmanager
    async def turn(self, size: int = 0, parsed: int = 0) -> AsyncIterator[Callable[[], None]]:
        """The turn of a request that is there as a whole; gives what extends its time, for each part of an answer.

        Args:
            size: bytes of it that nobody has counted yet.
            parsed: about how much memory it takes when it is parsed.

        Raises:
            Refusal: if it is beyond a limit; TooLate if its time is over.
        """
        self._check_waiting()
        self._waiting += 1
        loop, seconds = asyncio.get_running_loop(), self._bounds.answer_seconds
        try:
            self.hold(size, of=size)
            async with asyncio.timeout(seconds) as limit, self._parsing(parsed):
                yield lambda: limit.reschedule(loop.time() + seconds)
        except TimeoutError:
            # The application may have raised one of its own.
            if not limit.expired():
                raise
            raise TooLate(503, f"the model has not answered within {seconds:g} s", again=True) from None
        finally:
            self._waiting -= 1
            self._held -= size

    def _check_waiting(self) -> None:
        if self._waiting >= self._bounds.waiting:
            raise Refusal(503, f"{self._waiting} requests wait for the model already; try again later", again=True)

    def hold(self, count: int, *, of: int) -> None:
        """Counts bytes of a body, of which so many have been read."""
        self._held += count
        if of > SMALL_BYTES and self._held > HELD_AT_ONCE * self._bounds.request_bytes:
            raise Refusal(503, "the requests that wait for the model are too large together; try again", again=True)

    @property
    def bounds(self) -> Bounds:
        return self._bounds

    @asynccontextmanager
    async def _parsing(self, size: int) -> AsyncIterator[None]:
        """Waits until a request and those that are parsed already take no more memory than is meant for them."""
        if size < SMALL_BYTES:
            yield
            return
        largest = PARSED_AT_ONCE * self._bounds.request_bytes
        if size > largest:
            raise Refusal(413, "the request holds too many values; send them in several requests")
        async with self._room:
            await self._room.wait_for(lambda: self._parsed + size <= largest)
            self._parsed += size
        try:
            yield
        finally:
            self._parsed -= size
            async with self._room:
                self._room.notify_all()

    async def _timed(self, content: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False
        size = parsed_bytes(content, dict(scope["headers"]).get(HEADER.encode()))

        async def sent(message: Message) -> None:
            nonlocal begun
            begun = True
            if message.get("more_body"):
                extend()
            await send(message)

        try:
            async with self.turn(parsed=size) as extend:
                await self._app(scope, _replayed(content, receive), sent)
        except TooLate as refusal:
            if begun:
                raise TimeoutError from refusal
            raise


class _Body:
    """The body of one request: read up to the limit, and unpacked if it is compressed."""

    def __init__(self, limits: Limits, scope: Scope, receive: Receive) -> None:
        self.held = 0
        self._limits = limits
        self._scope = scope
        self._receive = receive
        headers = dict(scope["headers"])
        self._packed = _PACKED.get(headers.get(b"content-encoding", b"").lower())
        self._declared = int(headers.get(b"content-length", b"0"))

    async def read(self) -> bytes:
        largest = self._limits.bounds.request_bytes
        if self._declared > largest:
            raise _too_large(largest)
        parts: list[bytes] = []
        more = True
        while more:
            message = await self._next()
            part = message.get("body", b"")
            self._hold(len(part))
            if self.held > largest:
                raise _too_large(largest)
            parts.append(part)
            more = message.get("more_body", False)
        content = b"".join(parts)
        if not self._packed:
            return content
        unpacked = _unpacked(content, self._packed, largest)
        self._hold(len(unpacked))
        return unpacked

    async def _next(self) -> Message:
        seconds = self._limits.bounds.answer_seconds
        try:
            async with asyncio.timeout(seconds):
                message = await self._receive()
        except TimeoutError:
            raise Refusal(408, f"nothing more of the request came within {seconds:g} s") from None
        if message["type"] == "http.disconnect":
            raise Gone
        return message

    def _hold(self, count: int) -> None:
        self.held += count
        self._limits.hold(count, of=self.held)

    def unpacked_scope(self) -> Scope:
        if not self._packed:
            return self._scope
        dropped = (b"content-encoding", b"content-length")
        return {**self._scope, "headers": [pair for pair in self._scope["headers"] if pair[0] not in dropped]}


def parsed_bytes(content: bytes, text: bytes | None = None) -> int:
    """About how much memory a body takes when it is parsed; what its JSON is made of is only counted.

    Args:
        content: of the body.
        text: how many bytes at the beginning are JSON, as the client says it; all of them without it.
    """
    end = int(text) if text and text.isdigit() and len(text) <= len(str(len(content))) else len(content)
    lists = content.count(b"[", 0, end) + content.count(b"{", 0, end)
    values = content.count(b",", 0, end)
    return (
        min(end, len(content)) + VALUE_BYTES * values + LIST_BYTES * lists + BINARY_GROWTH * max(len(content) - end, 0)
    )


def _too_large(largest: int) -> Refusal:
    return Refusal(413, f"the request is larger than {largest} bytes")


def _unpacked(content: bytes, form: str, largest: int) -> bytes:
    unpacked = b""
    while content:
        member = zlib.decompressobj(_EITHER)
        try:
            unpacked += member.decompress(content, largest + 1 - len(unpacked))
        except zlib.error as error:
            raise Refusal(400, f"the body is not {form}'s: {error}") from None
        if len(unpacked) > largest:
            raise _too_large(largest)
        if not member.eof:
            raise Refusal(400, f"the body is not {form}'s: it ends too early")
        content = member.unused_data
    return unpacked


def _replayed(content: bytes, receive: Receive) -> Receive:
    """Gives the body, and then what comes after it: that the client has gone."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": content, "more_body": False}

    return replay


async def answer(send: Send, status: int, text: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """Sends an error of the V2 protocol."""
    body = json.dumps({"error": text}).encode()
    form = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*form, *(headers or [])]})
    await send({"type": "http.response.body", "body": body})
