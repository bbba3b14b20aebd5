"""A registry is shown an account when it asks for one, and nobody else is."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs

import pytest

from model_serving.images.registry import Registry, RegistryError
from tests.unit.conftest import serving

HIDDEN = "hunter2"
BASIC = base64.b64encode(f"user:{HIDDEN}".encode()).decode()
PAGE = "<html>Please log in</html>"


@dataclass(kw_only=True)
class World:
    """What the servers do, and what they were sent.

    Attributes:
        valid: the token that the registry takes at the moment, and its token server gives.
        realm: path or address of the token server.
        status: that the token server answers.
        page: of the registry or its token server, in the place of JSON.
        storage: host that blobs are redirected to.
        asked: of the token server: method, account and form.
        shown: to the storage: its headers.
    """

    valid: str = "first"
    realm: str = "/token"
    status: int = 200
    pages: dict[str, str] = field(default_factory=dict)
    storage: str = ""
    asked: list[tuple[str, str | None, dict[str, list[str]]]] = field(default_factory=list)
    shown: list[dict[str, str]] = field(default_factory=list)


class Server(BaseHTTPRequestHandler):
    """A registry with iris:1.0, and its token server."""

    world: ClassVar[World]

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/token":
            self.give_token(query)
        elif self.headers["Authorization"] != f"Bearer {self.world.valid}":
            realm = self.world.realm if "://" in self.world.realm else f"http://{self.headers['Host']}/token"
            challenge = f'Bearer realm="{realm}",service="registry",scope="repository:iris:pull,push"'
            self.answer(401, headers={"WWW-Authenticate": challenge})
        elif "/blobs/" in path and self.world.storage:
            self.answer(307, headers={"Location": f"http://{self.world.storage}/blob?signature={HIDDEN}"})
        elif "registry" in self.world.pages:
            self.answer(200, self.world.pages["registry"])
        elif path.endswith("/manifests/1.0"):
            self.answer(200, json.dumps({"config": {"digest": "sha256:b", "size": 1}, "layers": []}))
        elif "/blobs/" in path:
            self.answer(200, json.dumps({"config": {"Labels": {"a": "b"}}}))
        else:
            self.answer(404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.give_token(self.rfile.read(int(self.headers["Content-Length"])).decode())

    def do_DELETE(self) -> None:
        self.answer(302, headers={"Location": "/v2/iris/manifests/1.0"})

    def give_token(self, form: str) -> None:
        self.world.asked.append((self.command, self.headers["Authorization"], parse_qs(form)))
        name = "access_token" if self.command == "POST" else "token"
        self.answer(self.world.status, self.world.pages.get("token", json.dumps({name: self.world.valid})))

    def answer(self, status: int, text: str = "", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode() if self.command != "HEAD" else b"")

    def log_message(self, *_: object) -> None:
        """Not in the tests' output."""


class Storage(BaseHTTPRequestHandler):
    """Another host, which asks for an account as well."""

    world: ClassVar[World]

    def do_GET(self) -> None:
        self.world.shown.append(dict(self.headers))
        self.send_response(401)
        self.send_header("WWW-Authenticate", f'Bearer realm="http://{self.headers["Host"]}/token"')
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Not in the tests' output."""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    world = World()
    monkeypatch.setattr(Server, "world", world, raising=False)
    monkeypatch.setattr(Storage, "world", world, raising=False)
    return world


@pytest.fixture
def registry(world: World, tmp_path: Path) -> Iterator[str]:
    with serving(Server) as host:
        log_in(tmp_path, host, auth=BASIC)
        yield host


def log_in(folder: Path, host: str, **entry: str) -> None:
    (folder / "config.json").write_text(json.dumps({"auths": {host: entry}}))


def refusal(registry: str) -> str:
    """What is told of a registry, in three lines and without an account."""
    with pytest.raises(RegistryError) as refused:
        Registry(registry).find("iris", "1.0")
    text = str(refused.value)
    assert len(text.splitlines()) == 3
    assert HIDDEN not in text
    assert BASIC not in text
    return text


def test_a_password_is_exchanged_for_a_token(registry: str, world: World) -> None:
    assert Registry(registry).find("iris", "1.0")
    wanted = {"service": ["registry"], "scope": ["repository:iris:pull,push"]}
    assert world.asked == [("GET", f"Basic {BASIC}", wanted)], "once for a repository"


def test_an_identity_token_is_a_refresh_token(registry: str, world: World, tmp_path: Path) -> None:
    log_in(tmp_path, registry, auth=BASIC, identitytoken="kept")
    assert Registry(registry).find("iris", "1.0")
    ((method, account, form),) = world.asked
    assert (method, account) == ("POST", None)
    assert form == {
        "grant_type": ["refresh_token"],
        "refresh_token": ["kept"],
        "client_id": ["model-serving"],
        "service": ["registry"],
        "scope": ["repository:iris:pull,push"],
    }


def test_without_an_account_the_token_is_anybodys(registry: str, world: World, tmp_path: Path) -> None:
    (tmp_path / "config.json").unlink()
    assert Registry(registry).find("iris", "1.0")
    assert world.asked[0][1] is None


def test_a_token_that_has_expired_is_fetched_once_more(registry: str, world: World) -> None:
    client = Registry(registry)
    assert client.find("iris", "1.0")
    world.valid = "second"
    assert client.find("iris", "1.0")
    assert len(world.asked) == 2


def test_a_token_that_is_refused_when_it_is_new_is_not_fetched_again(registry: str, world: World) -> None:
    world.pages["token"] = json.dumps({"token": "of no use"})
    assert Registry(registry).find("iris", "1.0") is None
    assert len(world.asked) == 1


def test_an_account_that_has_run_out_is_told(registry: str, world: World) -> None:
    world.status = 401
    text = refusal(registry)
    assert "its token has run out" in text
    assert f"Run `docker login {registry}`" in text
    assert not Registry(registry).is_without("iris", "sha256:gone")


@pytest.mark.parametrize("status", [400, 401])
def test_an_identity_token_that_has_run_out_is_told(registry: str, world: World, tmp_path: Path, status: int) -> None:
    log_in(tmp_path, registry, identitytoken="kept")
    world.status = status
    assert "its token has run out" in refusal(registry)


@pytest.mark.parametrize("status", [403, 404])
def test_a_wrong_account_does_not_make_an_image_missing(registry: str, world: World, status: int) -> None:
    world.status = status
    assert Registry(registry).find("iris", "1.0") is None
    assert not Registry(registry).is_without("iris", "sha256:gone")
    with pytest.raises(RegistryError, match="docker login"):
        Registry(registry).image("iris", "1.0")


def test_a_token_server_that_is_down_is_no_answer(registry: str, world: World) -> None:
    world.status = 503
    assert "503" in refusal(registry)


@pytest.mark.parametrize("who", ["registry", "token"])
@pytest.mark.parametrize("text", [PAGE, "[]", ""])
def test_a_page_in_the_place_of_json_is_told(registry: str, world: World, who: str, text: str) -> None:
    world.pages[who] = text
    assert "proxy" in refusal(registry)


@pytest.mark.parametrize("text", ['{"manifests": [{}]}', '{"config": {}}'])
def test_a_manifest_that_lacks_something_is_told(registry: str, world: World, text: str) -> None:
    world.pages["registry"] = text
    assert "could not show iris:1.0: its answer has no 'digest'" in refusal(registry)


@pytest.mark.parametrize(
    "text",
    ['{"manifests": 1}', '{"manifests": ["a"]}', '{"config": null, "layers": []}', '{"config": "x", "layers": [1]}'],
)
def test_a_manifest_of_another_shape_is_told(registry: str, world: World, text: str) -> None:
    world.pages["registry"] = text
    assert "could not show iris:1.0: its answer is not as the API says" in refusal(registry)


def test_a_token_server_without_a_token_loses_no_image(registry: str, world: World) -> None:
    world.pages |= {"token": "{}"}
    assert not Registry(registry).is_without("iris", "sha256:gone")


def test_a_page_is_not_taken_for_a_registry_without_a_list(registry: str, world: World) -> None:
    world.pages["registry"] = PAGE
    with pytest.raises(RegistryError, match="could not list its repositories"):
        Registry(registry).repositories()


@pytest.mark.parametrize("realm", ["http://auth.invalid/token", "ftp://127.0.0.1/token"])
def test_a_password_is_not_sent_where_it_could_be_read(registry: str, world: World, realm: str) -> None:
    world.realm = realm
    assert Registry(registry).find("iris", "1.0") is None


def test_storage_behind_a_redirect_sees_no_account(
    registry: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text(f"default login user password {HIDDEN}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with serving(Storage) as world.storage:
        assert Registry(registry).find("iris", "1.0") is None
    (headers,) = world.shown
    assert "Authorization" not in headers
    assert len(world.asked) == 1, "and what it asks for is not given to it"


def test_a_registry_of_this_machine_is_not_asked_through_a_proxy(
    registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert Registry(registry).find("iris", "1.0")


def test_the_address_of_storage_is_in_no_message(registry: str, world: World) -> None:
    world.storage = "127.0.0.1:1"
    assert "Connection refused" in refusal(registry)


def test_a_deletion_that_is_redirected_has_not_happened(registry: str) -> None:
    with pytest.raises(RegistryError, match="302"):
        Registry(registry).delete("iris", "sha256:a")


def test_a_link_to_another_host_is_followed_within_the_registry(
    registry: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def list_tags(server: Server) -> None:
        asked.append(server.path)
        link: Any = (
            {} if len(asked) > 1 else {"Link": '<http://elsewhere.invalid//evil.invalid/tags?last=a>; rel="next"'}
        )
        server.answer(200, json.dumps({"tags": []}), link)

    monkeypatch.setattr(Server, "do_GET", list_tags)
    assert Registry(registry).images(["iris"]) == []
    assert [path.lstrip("/") for path in asked] == ["v2/iris/tags/list?n=1000", "evil.invalid/tags?last=a"]


def test_a_list_that_leads_back_to_itself_has_an_end(registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def list_tags(server: Server) -> None:
        link: Any = {"Link": '</v2/iris/tags/list?last=a>; rel="next"'}
        server.answer(200, json.dumps({"tags": []}), link)

    monkeypatch.setattr(Server, "do_GET", list_tags)
    with pytest.raises(RegistryError, match="could not list the tags of iris: the next page of its list is one that"):
        Registry(registry).images(["iris"])
