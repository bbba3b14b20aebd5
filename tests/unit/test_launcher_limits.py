"""The limits of requests, before an application that is any ASGI application."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Sequence
from typing import Any, Final

import pytest

from server.launcher.limits import Bounds, InvalidLimit, Limits, Message, Receive, Refusal, Scope, Send, TooLate

SMALL: Final = Bounds(request_bytes=10, answer_seconds=0.1, waiting=2)
LARGE: Final = Bounds(request_bytes=100_000, answer_seconds=5, waiting=100)


class Client:
    """One request.

    Attributes:
        parts: of its body, as they arrive; None is a client that goes away.
        answers: what it was sent.
    """

    def __init__(self, *parts: bytes | None, method: str = "POST", **headers: str) -> None:
        self.parts: list[bytes | None] = list(parts)
        self.answers: list[Message] = []
        self.reads = 0
        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.scope: Scope = {"type": "http", "method": method, "path": "/", "headers": pairs}

    async def receive(self) -> Message:
        self.reads += 1
        if not self.parts:
            await asyncio.Event().wait()
        part = self.parts.pop(0)
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": bool(self.parts)}

    async def send(self, message: Message) -> None:
        self.answers.append(message)

    @property
    def status(self) -> int:
        return int(self.answers[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.answers[0]["headers"])

    @property
    def error(self) -> str:
        return str(json.loads(self.answers[1]["body"])["error"])


class Echo:
    """Answers with the body, after as long as it is told to.

    Attributes:
        wait: seconds before each part of its answer.
        parts: how many there are.
    """

    def __init__(self, wait: float = 0.0, parts: int = 1) -> None:
        self.wait = wait
        self.parts = parts
        self.bodies: list[bytes] = []
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive())["body"] if scope["method"] == "POST" else b""
        self.bodies.append(body)
        self.scopes.append(scope)
        for position in range(self.parts):
            await asyncio.sleep(self.wait)
            if not position:
                await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body, "more_body": position + 1 < self.parts})


def ask(app: Any, *clients: Client, bounds: Bounds = SMALL) -> list[int]:
    """Asks with all clients at once; returns the statuses of refusals."""
    refused: list[int] = []
    limits = Limits(app, bounds, refused.append)

    async def all_at_once() -> None:
        await asyncio.gather(*(limits(client.scope, client.receive, client.send) for client in clients))

    asyncio.run(all_at_once())
    return refused


def test_what_is_within_the_limits_is_passed_on_in_one_message() -> None:
    app, client = Echo(), Client(b"01234", b"56789")
    assert ask(app, client) == []
    assert (client.status, app.bodies) == (200, [b"0123456789"])


def test_a_body_that_says_it_is_too_large_is_not_read() -> None:
    app, client = Echo(), Client(b"0" * 11, content_length="11")
    assert ask(app, client) == [413]
    assert (client.status, client.error) == (413, "the request is larger than 10 bytes")
    assert (client.reads, app.bodies) == (0, [])


def test_a_body_that_does_not_say_its_size_is_read_up_to_the_limit() -> None:
    client = Client(*[b"0123"] * 100)
    assert ask(Echo(), client) == [413]
    assert client.reads == 3


def test_a_body_of_gzip_is_unpacked_up_to_the_limit() -> None:
    app, fits = Echo(), Client(gzip.compress(b"01"), content_encoding="gzip", content_length="22", accept="*")
    bomb = Client(gzip.compress(b"0" * 10**6), content_encoding="gzip")
    bounds = Bounds(request_bytes=2000)
    assert ask(app, fits, bomb, bounds=bounds) == [413]
    assert (app.bodies, app.scopes[0]["headers"]) == ([b"01"], [(b"accept", b"*")])
    assert (fits.status, bomb.status) == (200, 413)


@pytest.mark.parametrize("content", [b"{}", gzip.compress(b"0123", mtime=0)[:-4]])
def test_what_is_not_gzip_is_the_clients_mistake(content: bytes) -> None:
    client = Client(content, content_encoding="gzip")
    assert ask(Echo(), client, bounds=Bounds()) == [400]
    assert client.error.startswith("the body is not gzip's: ")


def test_a_model_that_takes_too_long_is_not_waited_for() -> None:
    client = Client(b"0")
    assert ask(Echo(wait=60), client) == [503]
    assert (client.status, client.headers[b"retry-after"]) == (503, b"1")
    assert client.error == "the model has not answered within 0.1 s"


def test_a_stream_may_take_longer_if_its_parts_come() -> None:
    client = Client(b"0")
    assert ask(Echo(wait=0.06, parts=4), client) == []
    assert len(client.answers) == 5


def test_a_stream_that_stops_is_broken_off() -> None:
    async def stops(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        ask(stops, Client(b"0"))


def test_an_error_of_the_applications_own_is_not_one_of_time() -> None:
    async def fails(*_: object) -> None:
        raise TimeoutError("of the model")

    with pytest.raises(TimeoutError, match="of the model"):
        ask(fails, Client(b"0"))


def test_a_request_beyond_those_that_wait_is_refused_at_once() -> None:
    clients = [Client(b"0") for _ in range(5)]
    assert ask(Echo(wait=0.05), *clients) == [503] * 3
    assert sorted(client.status for client in clients) == [200, 200, 503, 503, 503]
    (refused, *_) = [client for client in clients if client.status == 503]
    assert refused.headers[b"retry-after"] == b"1"


def test_requests_are_counted_until_they_are_answered() -> None:
    app, limits = Echo(), Limits(Echo(), SMALL, lambda _: None)

    async def one_after_another() -> list[int]:
        clients = [Client(b"0123456789") for _ in range(20)]
        for client in clients:
            await limits(client.scope, client.receive, client.send)
        return [client.status for client in clients]

    assert asyncio.run(one_after_another()) == [200] * 20
    assert app.bodies == []


def test_bodies_that_are_large_together_are_not_all_held() -> None:
    clients = [Client(b"0" * 100_000) for _ in range(5)]
    small = [Client(b"0") for _ in range(5)]
    assert ask(Echo(wait=0.05), *clients, *small, bounds=LARGE) == [503, 503]
    assert {client.status for client in small} == {200}


@pytest.mark.parametrize("item", [b"[],", b"{},", b"1,"])
def test_a_body_of_too_many_values_is_not_parsed(item: bytes) -> None:
    app, client = Echo(), Client(item * (100_000 // len(item)))
    assert ask(app, client, bounds=LARGE) == [413]
    assert client.error == "the request holds too many values; send them in several requests"
    assert app.bodies == []


def test_large_bodies_are_parsed_one_after_another_and_small_ones_beside_them() -> None:
    active = most = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal active, most
        is_large = len((await receive())["body"]) > 1
        active += is_large
        most = max(most, active)
        status = 200 if active else 500
        await asyncio.sleep(0.02)
        active -= is_large
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    floats = b"1.2345," * 14_000
    clients = [Client(floats), Client(floats), Client(floats), Client(b"1")]
    assert ask(app, *clients, bounds=LARGE) == []
    assert [client.status for client in clients] == [200] * 4
    assert most == 1


def test_a_large_body_that_waits_too_long_is_refused_and_leaves_room() -> None:
    bounds = Bounds(request_bytes=100_000, answer_seconds=0.1, waiting=100)
    floats = b"1.2345," * 14_000
    clients = [Client(floats), Client(floats)]
    assert ask(Echo(wait=60), *clients, bounds=bounds) == [503, 503]
    assert ask(Echo(), Client(floats), bounds=bounds) == []


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_readiness_is_answered_whatever_waits(method: str) -> None:
    app = Echo(wait=0.3)
    probe, clients = Client(method=method), [Client(b"0"), Client(b"0")]
    assert ask(app, *clients, probe) == [503, 503]
    assert probe.status == 200


def test_a_client_that_sends_slowly_is_not_waited_for() -> None:
    client = Client(b"0")
    client.parts.append(b"1")
    original = client.receive

    async def stalls() -> Message:
        if client.reads:
            await asyncio.sleep(60)
        return await original()

    client.receive = stalls  # type: ignore[method-assign]
    assert ask(Echo(), client) == [408]


def test_a_client_that_has_gone_is_not_answered() -> None:
    app, client = Echo(), Client(b"0", None)
    assert ask(app, client) == []
    assert (client.answers, app.bodies) == ([], [])


def of(**variables: str) -> Bounds:
    return Bounds.of({f"MODEL_SERVING_{name}": value for name, value in variables.items()})


def test_limits_have_defaults() -> None:
    assert of() == Bounds(request_bytes=16 * 1024 * 1024, answer_seconds=30, waiting=100)
    assert of(REQUEST_BYTES="5", ANSWER_SECONDS="0.5", WAITING="7") == Bounds(
        request_bytes=5, answer_seconds=0.5, waiting=7
    )


@pytest.mark.parametrize("value", ["0", "-1", "16Mi", "nan", "inf", ""])
@pytest.mark.parametrize("name", ["REQUEST_BYTES", "ANSWER_SECONDS", "WAITING"])
def test_what_is_not_a_limit_is_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidLimit, match=f"MODEL_SERVING_{name} is '{value}'; write a positive number"):
        of(**{name: value})


def test_other_protocols_pass() -> None:
    passed: Sequence[str] = []

    async def app(scope: Scope, *_: object) -> None:
        passed.append(scope["type"])  # type: ignore[attr-defined]

    limits = Limits(app, SMALL, lambda _: None)
    client = Client()
    asyncio.run(limits({"type": "lifespan"}, client.receive, client.send))
    assert passed == ["lifespan"]


def test_turns_of_grpc_are_counted_with_the_requests_of_rest() -> None:
    client = Client(b"0")

    async def beside() -> str:
        limits = Limits(Echo(), SMALL, lambda _: None)
        async with limits.turn(), limits.turn():
            await limits(client.scope, client.receive, client.send)
            with pytest.raises(Refusal, match="2 requests wait for the model already; try again later"):
                await limits.turn().__aenter__()
        async with limits.turn():
            return "free again"

    assert asyncio.run(beside()) == "free again"
    assert client.status == 503


def test_a_turn_ends_when_its_answer_is_late_and_not_because_the_model_lost_patience() -> None:
    async def late(limits: Limits, wait: float, *, parts: int = 1) -> None:
        async with limits.turn() as extend:
            for _ in range(parts):
                await asyncio.sleep(wait)
                extend()

    async def impatient(limits: Limits) -> None:
        async with limits.turn():
            raise TimeoutError("a database")

    limits = Limits(Echo(), SMALL, lambda _: None)
    asyncio.run(late(limits, 0.06, parts=3))
    with pytest.raises(TooLate, match=r"the model has not answered within 0\.1 s"):
        asyncio.run(late(limits, 0.2))
    with pytest.raises(TimeoutError, match="a database"):
        asyncio.run(impatient(limits))


def test_large_messages_are_refused_when_too_many_are_held() -> None:
    async def held() -> None:
        limits = Limits(Echo(), LARGE, lambda _: None)
        async with limits.turn(100_000), limits.turn(100_000), limits.turn(100_000):
            async with limits.turn(100):
                pass
            with pytest.raises(Refusal, match="too large together"):
                await limits.turn(100_000).__aenter__()
        async with limits.turn(100_000):
            pass

    asyncio.run(held())
