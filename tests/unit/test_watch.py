"""What there is in a namespace, as an API server on loopback tells it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from components.serving.rollout_status import Failed, Objects
from components.serving.watch import Watch

SECONDS = 20
"""After which a test that waits for what does not come fails."""
JOBS = "/apis/batch/v1/namespaces/models/jobs"


class Api:
    """An API server with Jobs and nothing else.

    Attributes:
        listed: names of the Jobs that there are at the beginning.
        events: what a watch tells of them, then it stays open.
        answers: status of the first answers, which are errors.
        asked: paths.
        identities: the headers of impersonation that came with them.
    """

    def __init__(self) -> None:
        self.listed: list[str] = []
        self.events: list[tuple[str, str]] = []
        self.answers: list[int] = []
        self.asked: list[str] = []
        self.identities: list[list[tuple[str, str]]] = []
        self.end = threading.Event()


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def kubeconfig(api: Api) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            api.asked.append(url.path)
            api.identities.append([each for each in self.headers.items() if each[0].startswith("Impersonate-")])
            if api.answers:
                self.send_error(api.answers.pop())
                return
            is_jobs = url.path == JOBS
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            if parse_qs(url.query).get("watch"):
                for kind, name in api.events if is_jobs else ():
                    self.write({"type": kind, "object": job(name)})
                api.end.wait(SECONDS)
            else:
                items = [job(name) for name in api.listed] if is_jobs else []
                self.write({"metadata": {"resourceVersion": "1"}, "items": items})
            self.wfile.write(b"0\r\n\r\n")

        def write(self, content: object) -> None:
            line = json.dumps(content).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_address[1]}"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    content = {"clusters": [cluster], "contexts": [context], "users": [{"name": "u", "user": {}}]}
    yield json.dumps({**content, "current-context": "x"})
    api.end.set()
    server.shutdown()
    server.server_close()


def job(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": name, "resourceVersion": "2"}}


def run(coroutine: Coroutine[None, None, None]) -> None:
    # Not asyncio.run, which forgets the loop that the SDK has made for the thread.
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(asyncio.wait_for(coroutine, SECONDS))
    finally:
        loop.close()


def until(
    kubeconfig: str, judge: Callable[[Objects], str | None], *, seconds: float = SECONDS, said: list[str] | None = None
) -> None:
    async def wait() -> None:
        say = (said if said is not None else []).append
        await Watch(kubeconfig, None, "models").until(judge, seconds=seconds, say=say)

    run(wait())


def has(*names: str) -> Callable[[Objects], str | None]:
    return lambda objects: None if {*objects} == {*names} else f"{len(objects)} Jobs"


def test_what_was_there_and_what_comes_and_goes_is_known(api: Api, kubeconfig: str) -> None:
    api.listed = ["a", "b"]
    api.events = [("ADDED", "c"), ("DELETED", "a"), ("MODIFIED", "b")]
    said: list[str] = []
    until(kubeconfig, has("b", "c"), said=said)
    assert said[0] == "0 Jobs"
    assert said[-1] == ""


def test_an_api_server_that_fails_is_asked_again(api: Api, kubeconfig: str) -> None:
    api.listed, api.answers = ["a"], [503]
    until(kubeconfig, has("a"))
    assert api.asked.count(JOBS) >= 1


@pytest.mark.parametrize("status", [401, 403])
def test_one_that_refuses_is_not_asked_for_ever(api: Api, kubeconfig: str, status: int) -> None:
    api.answers = [status] * 100
    with pytest.raises(Failed, match=f"the API server answers {status}"):
        until(kubeconfig, has("a"))


def test_the_identity_of_the_kubeconfig_is_taken_on(api: Api, kubeconfig: str, tmp_path: Path) -> None:
    content = json.loads(kubeconfig)
    extra = {"example.com/id": ["7"]}
    content["users"][0]["user"] = {"as": "job", "as-groups": ["a", "b"], "as-user-extra": extra}
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(content))
    api.listed = ["a"]
    for each in (str(path), json.dumps(content)):
        api.identities.clear()
        until(each, has("a"))
        assert api.identities[0] == [
            ("Impersonate-User", "job"),
            ("Impersonate-Group", "a"),
            ("Impersonate-Group", "b"),
            ("Impersonate-Extra-example.com%2Fid", "7"),
        ]


def test_what_does_not_come_in_time_has_failed(kubeconfig: str) -> None:
    with pytest.raises(Failed, match=r"^not done after 0\.3 s: 0 Jobs$"):
        until(kubeconfig, has("a"), seconds=0.3)


def test_a_kubeconfig_without_the_context_is_said(kubeconfig: str) -> None:
    async def wait() -> None:
        await Watch(kubeconfig, "other", "models").until(has("a"), seconds=SECONDS, say=lambda _: None)

    with pytest.raises(Failed, match=r"the kubeconfig cannot be used: .*other"):
        run(wait())
