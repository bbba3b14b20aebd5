"""The portal as it runs in its image, with servers that are ready or not, asked by clients of the V2 protocol."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from local.tools import environments
from model_serving.images import portal
from server.launcher.binary import EXTENSION
from tests.release.launched import free_ports
from tests.release.repositories import PROJECT
from tests.release.test_clients import LOCK as CLIENTS

START_SECONDS: Final = 20
ABOUT: Final = {"implementation": "</script>\ud800", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]}
"""Of a release, with half of a character, which is not UTF-8."""
ORIGIN: Final = "https://app.example.com"
SWAGGER_UI: Final = {
    "swagger-ui-bundle.js": "3f6abf70480db7e07914df4c98a77385f22ea585eaf457a3e6415ba0eae2d167",
    "swagger-ui.css": "c3cfe8248c4b0b89673600fb829924eafbac6de4bc4b2b06f5f5243483074d0a",
}
"""SHA-256 of the files in swagger-ui-dist 5.34.0 from npm, read on 2026-11-30 (`npm pack swagger-ui-dist@5.34.0`)."""
KSERVE: Final = """
import asyncio, sys
from kserve import InferenceRESTClient
from kserve.inference_client import RESTConfig


async def main():
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    print(await client.is_server_live(sys.argv[1]), await client.is_server_ready(sys.argv[1]))


asyncio.run(main())
"""


class Servers(ThreadingHTTPServer):
    """Model servers: each path is ready unless it is among those that are not."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.not_ready: set[str] = set()
        self.asked = 0


class _Handler(BaseHTTPRequestHandler):
    server: Servers

    def do_GET(self) -> None:
        self.server.asked += 1
        self.send_response(404 if self.path in self.server.not_ready else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Not in the tests' output."""


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with Servers() as servers:
        threading.Thread(target=servers.serve_forever, daemon=True).start()
        yield servers
        servers.shutdown()


@pytest.fixture(scope="module")
def port(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    base = f"http://127.0.0.1:{servers.server_port}"
    listed = [
        {"model": "iris", "version": "1.0", "weight": 100, "readyUrl": f"{base}/1.0", "about": ABOUT},
        {"model": "iris", "version": "1.1", "weight": 0, "readyUrl": f"{base}/1.1"},
    ]
    file = tmp_path_factory.mktemp("portal") / "served.json"
    file.write_text(json.dumps(listed))
    with started(file) as port:
        yield port


@contextmanager
def started(file: Path) -> Iterator[int]:
    (port,) = free_ports(1)
    python = environments.provide(PROJECT / portal.LOCK) / "bin" / "python"
    process = subprocess.Popen(
        [str(python), "-m", "portal", str(file), "--host", "127.0.0.1", "--port", str(port)],
        env={**os.environ, "PYTHONPATH": str(PROJECT / "server"), "MODEL_SERVING_ALLOWED_ORIGINS": ORIGIN},
        cwd=file.parent,
    )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_live(port):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        assert process.wait(10) in (0, -15)


def is_live(port: int) -> bool:
    try:
        return ask(port, "GET", "/mlapi/v2/health/live")[0] == 200
    except OSError:
        return False


def ask(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        content = response.read()
        is_json = response.headers["Content-Type"] == "application/json"
        return response.status, json.loads(content) if is_json else content, response.headers
    finally:
        connection.close()


@pytest.fixture
def fresh(servers: Servers) -> Servers:
    """The servers, when the portal has forgotten what it knew of them."""
    servers.not_ready = set()
    time.sleep(1.1)
    return servers


def test_tritonclient_sees_the_whole_stack(port: int, fresh: Servers) -> None:
    client = triton.InferenceServerClient(f"127.0.0.1:{port}/mlapi")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert EXTENSION in client.get_server_metadata()["extensions"]
    assert client.get_model_repository_index() == [
        {"name": "iris", "version": version, "state": "READY", "reason": ""} for version in ("1.0", "1.1")
    ]
    with pytest.raises(InferenceServerException):
        client.unload_model("iris")
    client.close()


def test_kserves_client_sees_the_whole_stack(port: int, fresh: Servers) -> None:
    python = environments.provide(CLIENTS) / "bin" / "python"
    url = f"http://127.0.0.1:{port}/mlapi"
    done = subprocess.run([str(python), "-c", KSERVE, url], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["True True"]), done.stderr


@pytest.mark.parametrize(("down", "status"), [("/1.0", 503), ("/1.1", 200)])
def test_the_stack_is_ready_if_every_version_with_traffic_is(port: int, fresh: Servers, down: str, status: int) -> None:
    fresh.not_ready = {down}
    assert ask(port, "GET", "/mlapi/v2/health/ready")[:2] == (status, {"ready": status == 200})
    listed = ask(port, "POST", "/mlapi/v2/repository/index", b'{"ready": true}')[1]
    assert [f"/{each['version']}" for each in listed] == [each for each in ("/1.0", "/1.1") if each != down]
    states = {each["version"]: each["state"] for each in ask(port, "POST", "/mlapi/v2/repository/index")[1]}
    assert states[down[1:]] == "UNAVAILABLE"


def test_servers_are_asked_once_a_second_however_often_clients_ask(port: int, fresh: Servers) -> None:
    before, began = fresh.asked, time.monotonic()
    for _ in range(50):
        assert ask(port, "GET", "/mlapi/v2/health/ready")[0] == 200
    assert fresh.asked - before <= 2 * (2 + int(time.monotonic() - began))


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/mlapi/v2/repository/index", None, 405),
        ("POST", "/mlapi/v2/repository/models/iris/unload", b"{}", 404),
        ("POST", "/mlapi/v2/repository/index", b"nonsense", 400),
        ("POST", "/mlapi/v2/repository/index", b"[]", 400),
        ("POST", "/mlapi/v2/repository/index", b'{"ready": 1}', 400),
        ("POST", "/mlapi/v2/repository/index", b"[" * 1000, 400),
        ("POST", "/mlapi/v2/repository/index", b" " * 2000, 413),
        ("POST", "/mlapi/v2/repository/index", b"\xff", 400),
        ("POST", "/", b"", 405),
        ("GET", "/portal", None, 404),
        ("GET", "/portal/app.py", None, 404),
        ("GET", "/portal/../app.py", None, 404),
        ("GET", "/portal/%2e%2e/app.py", None, 404),
        ("GET", "/portal/static/page.js", None, 404),
        ("GET", "/mlapi", None, 404),
    ],
)
def test_every_error_has_the_protocols_form(port: int, method: str, path: str, body: bytes | None, status: int) -> None:
    found, document, _ = ask(port, method, path, body)
    assert (found, [*document]) == (status, ["error"])


def test_browsers_may_ask_from_allowed_origins_only(port: int) -> None:
    path = "/mlapi/v2/health/live"
    assert ask(port, "GET", path, Origin=ORIGIN)[2]["Access-Control-Allow-Origin"] == ORIGIN
    assert ask(port, "GET", path, Origin="https://evil.example.com")[2]["Access-Control-Allow-Origin"] is None


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/portal/page.js", "text/javascript; charset=utf-8"),
        ("/portal/page.css", "text/css; charset=utf-8"),
        ("/portal/icon.svg", "image/svg+xml"),
        ("/portal/api.html", "text/html; charset=utf-8"),
        ("/portal/swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
        ("/portal/served.json", "application/json"),
        ("/mlapi/openapi.json", "application/json"),
    ],
)
def test_the_page_and_its_files_allow_no_script_but_their_own(port: int, path: str, kind: str) -> None:
    status, content, headers = ask(port, "GET", path)
    assert (status, headers["Content-Type"]) == (200, kind)
    assert content
    policy = dict(each.split(" ", 1) for each in headers["Content-Security-Policy"].split("; "))
    assert {policy[each] for each in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_swagger_ui_is_what_its_authors_publish_and_comes_packed(port: int) -> None:
    for name, digest in SWAGGER_UI.items():
        status, content, _ = ask(port, "GET", f"/portal/{name}")
        assert (status, hashlib.sha256(content).hexdigest()) == (200, digest)
        packed = ask(port, "GET", f"/portal/{name}", None, **{"Accept-Encoding": "gzip"})[1]
        assert gzip.decompress(packed) == content
        assert len(packed) < 600_000


def test_the_page_gets_what_is_served_but_no_address_of_a_server(port: int) -> None:
    listed = ask(port, "GET", "/portal/served.json")[1]
    assert listed == [
        {
            "model": "iris",
            "version": version,
            "weight": weight,
            "shadow": False,
            "deployed": None,
            "grpc": False,
            "about": about,
        }
        for version, weight, about in (("1.0", 100, ABOUT), ("1.1", 0, {}))
    ]


def test_the_api_description_tells_of_what_is_served(port: int) -> None:
    document = ask(port, "GET", "/mlapi/openapi.json")[1]
    assert document["openapi"] == "3.1.0"
    assert "/mlapi/v2/models/iris/versions/1.1/infer" in document["paths"]
