"""Images are found in a registry, also in one that wants to know who asks."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import pytest

from model_serving.images import builds
from model_serving.images.registry import Registry, Unusable
from model_serving.pipelines import lost_images
from tests.unit.conftest import serving

ACCOUNT = "Basic " + base64.b64encode(b"user:secret").decode()
LABELS = {builds.CONTENT_LABEL: "f00d"}


class Server(BaseHTTPRequestHandler):
    """Holds iris:1.0, and private/iris:1.0 for one account."""

    answers: ClassVar[dict[str, Any]] = {
        "manifests/1.0": {"config": {"digest": "sha256:b", "size": 1}, "layers": []},
        "manifests/sha256:a": {},
        "blobs/sha256:b": {"config": {"Labels": LABELS}},
    }

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        _, _, *repository, kind, name = self.path.split("/")
        found = self.answers.get(f"{kind}/{name}")
        if repository[0] == "private" and self.headers["Authorization"] != ACCOUNT:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="registry"')
            self.end_headers()
        elif found is None:
            self.send_error(404)
        else:
            self.send_response(200)
            self.send_header("Docker-Content-Digest", "sha256:a")
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

    def log_message(self, *_: object) -> None:
        """Not in the tests' output."""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with serving(Server) as host:
        yield host


def log_in(folder: Path, **configuration: Any) -> None:
    (folder / "config.json").write_text(json.dumps(configuration))


def test_an_image_has_a_digest_and_its_labels(registry: str) -> None:
    assert (found := Registry(registry).find("iris", "1.0"))
    assert (found.digest, found.labels) == ("sha256:a", LABELS)


@pytest.mark.parametrize("image", ["iris:1.1", "private/iris:1.0"])
def test_what_is_not_there_or_not_for_us_is_not_found(registry: str, image: str) -> None:
    assert Registry(registry).find(*image.split(":")) is None


def test_the_account_of_docker_is_shown_to_who_asks_for_it(registry: str, tmp_path: Path) -> None:
    log_in(tmp_path, auths={registry: {"auth": ACCOUNT.removeprefix("Basic ")}})
    assert Registry(registry).find("private/iris", "1.0") is not None


def test_an_account_that_is_refused_is_told_with_what_renews_it(registry: str, tmp_path: Path) -> None:
    log_in(tmp_path, auths={registry: {"auth": base64.b64encode(b"user:of yesterday").decode()}})
    with pytest.raises(Unusable, match=rf"its token has run out\n.*\n  Run `docker login {registry}`"):
        Registry(registry).find("private/iris", "1.0")


def test_a_credential_helper_is_asked_for_the_account(
    registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(tmp_path, credHelpers={registry: "test"})
    helper = tmp_path / "docker-credential-test"
    helper.write_text("""#!/bin/sh\ntest "$1" = get && echo '{"Username": "user", "Secret": "secret"}'\n""")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert Registry(registry).find("private/iris", "1.0") is not None


def test_a_missing_helper_is_like_no_account(registry: str, tmp_path: Path) -> None:
    log_in(tmp_path, credsStore="nobody-has-this")
    assert Registry(registry).find("private/iris", "1.0") is None


def image(reference: str, digest: str, **more: Any) -> dict[str, Any]:
    outputs = {"tags": [reference], "digest": digest}
    return {"urn": f"urn::{reference}", "type": "docker-build:index:Image", "outputs": outputs, **more}


def test_an_image_that_the_state_has_and_the_registry_has_not_is_lost(registry: str) -> None:
    resources = [
        image(f"{registry}/iris:1.0", "sha256:a"),
        image(f"{registry}/iris:1.1", "sha256:gone"),
        image(f"{registry}/iris:1.2", "sha256:gone", delete=True),
        {"urn": "urn:other", "type": "pulumi:pulumi:Stack"},
    ]
    (lost,) = lost_images.find({"resources": resources})
    assert lost.urn == f"urn::{registry}/iris:1.1"
    assert str(lost) == f"{registry}/iris:1.1 is no longer in the registry and will be rebuilt"


@pytest.mark.parametrize("reference", ["private/iris:1.0", "127.0.0.1:1/iris:1.0"], ids=["refuses", "does not answer"])
def test_no_image_is_lost_of_a_registry_that_does_not_tell(registry: str, reference: str) -> None:
    known = reference if reference.startswith("127") else f"{registry}/{reference}"
    assert lost_images.find({"resources": [image(known, "sha256:gone")]}) == []


def test_a_new_stack_has_lost_nothing() -> None:
    assert lost_images.find({}) == []
