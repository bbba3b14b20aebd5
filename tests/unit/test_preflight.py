"""What a stack points to is looked at before anything is changed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import yaml

from model_serving.images import docker_config
from model_serving.problems import InvalidInput
from model_serving.stack import preflight
from model_serving.stack.settings import Settings
from tests.unit.conftest import serving


class Registry(BaseHTTPRequestHandler):
    """Answers as a registry that wants to know who asks."""

    def do_GET(self) -> None:
        self.send_error(401)

    def log_message(self, *_: object) -> None:
        """Not in the tests' output."""


class Page(Registry):
    """Answers as a proxy does for whoever is not logged in."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(b"<html>Please log in</html>")


@pytest.fixture
def registry() -> Iterator[str]:
    with serving(Registry) as address:
        yield address


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump({"contexts": [{"name": "here"}, {"name": "there"}], "current-context": "here"}))
    return path


def check(**settings: str) -> None:
    preflight.check(
        Settings.model_validate({"gateway": {"className": "contour"}, **settings}), file="stacks/Pulumi.test.yaml"
    )


def test_a_context_that_exists_and_a_registry_that_answers_pass(registry: str, kubeconfig: Path) -> None:
    check(registry=registry, kubeconfig=str(kubeconfig), kubeContext="there")
    check(registry=registry, kubeconfig=str(kubeconfig))


def test_an_unknown_context_is_refused_with_those_that_exist(registry: str, kubeconfig: Path) -> None:
    with pytest.raises(InvalidInput, match=r"kubeContext is nowhere(.|\n)*Write one of its contexts: here, there\."):
        check(registry=registry, kubeconfig=str(kubeconfig), kubeContext="nowhere")


def test_a_missing_kubeconfig_is_refused(registry: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"does not exist(.|\n)*Run `make up`"):
        check(registry=registry, kubeconfig=str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "cannot be read: while parsing"),
        ("", "is empty"),
        ("[a]", "is not a kubeconfig"),
        ("text", "is not a kubeconfig"),
        ("contexts: 1", "is not a kubeconfig"),
    ],
)
def test_a_malformed_kubeconfig_is_refused(registry: str, kubeconfig: Path, content: str, told: str) -> None:
    kubeconfig.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInput, match=rf"{told}(.|\n)*Correct that file"):
        check(registry=registry, kubeconfig=str(kubeconfig))


def test_a_kubeconfig_without_a_current_context_is_refused_unless_the_stack_names_one(
    registry: str, kubeconfig: Path
) -> None:
    kubeconfig.write_text(yaml.safe_dump({"contexts": [{"name": "here"}]}), encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"is not set, and .* has no current context(.|\n)*Write one of .*: here\."):
        check(registry=registry, kubeconfig=str(kubeconfig))
    check(registry=registry, kubeconfig=str(kubeconfig), kubeContext="here")


def test_a_kubeconfig_in_the_home_folder_is_found(
    registry: str, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(kubeconfig.parent))
    check(registry=registry, kubeconfig="~/kubeconfig")


def test_kubeconfigs_are_found_and_merged_as_kubectl_does(
    registry: str, kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = tmp_path / "second"
    second.write_text(yaml.safe_dump({"contexts": [{"name": "elsewhere"}]}))
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'missing'}:{kubeconfig}:{second}")
    check(registry=registry, kubeContext="elsewhere")
    check(registry=registry)
    monkeypatch.delenv("KUBECONFIG")
    settings = Settings.model_validate({"registry": "r", "gateway": {"className": "contour"}})
    assert preflight.kubeconfig_paths(settings) == [Path.home() / ".kube" / "config"]


def test_a_page_in_the_place_of_a_registry_is_refused(kubeconfig: Path) -> None:
    with serving(Page) as address, pytest.raises(InvalidInput) as refused:
        check(registry=address, kubeconfig=str(kubeconfig))
    (problem,) = refused.value.problems
    assert f"registry is {address}, which is no registry" in problem.what
    assert "set model-serving:registry to another" in problem.remedy


def test_context_and_registry_are_told_at_once(kubeconfig: Path) -> None:
    with socket.socket() as taken:
        # Bound and not listening: nothing else can take the port, and nothing answers.
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(InvalidInput) as refused:
            check(registry=f"127.0.0.1:{taken.getsockname()[1]}", kubeconfig=str(kubeconfig), kubeContext="nowhere")
    assert len(refused.value.problems) == 2
    assert "which does not answer" in str(refused.value)
    assert "`make up` starts the local one" in str(refused.value)


@pytest.mark.parametrize(
    ("registry", "url"),
    [
        ("localhost:5000", "http://localhost:5000/v2/"),
        ("localhost", "http://localhost/v2/"),
        ("127.0.0.1:5000/models", "http://127.0.0.1:5000/v2/"),
        ("europe-west6-docker.pkg.dev/p/models", "https://europe-west6-docker.pkg.dev/v2/"),
        ("docker.io/team", "https://registry-1.docker.io/v2/"),
        ("localhost.example.com:5000", "https://localhost.example.com:5000/v2/"),
    ],
)
def test_only_this_machines_registry_is_asked_without_a_certificate(registry: str, url: str) -> None:
    assert docker_config.registry_url(registry) == url


@pytest.mark.parametrize("name", ["~nobody-is-called-so/config", "a" * 300])
def test_a_kubeconfig_whose_path_cannot_exist_does_not_exist(registry: str, name: str) -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        check(registry=registry, kubeconfig=name)


def test_a_context_may_be_called_by_a_number(registry: str, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text("contexts: [{name: 1}]\ncurrent-context: 1\n")
    check(registry=registry, kubeconfig=str(path))
    with pytest.raises(InvalidInput, match="Write one of its contexts: 1"):
        check(registry=registry, kubeconfig=str(path), kubeContext="there")


def test_what_does_not_speak_http_is_no_registry(kubeconfig: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as threads:

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                connection.recv(1000)

        greeted = threads.submit(greet)
        with pytest.raises(InvalidInput, match="which does not answer: SSH-2"):
            check(registry=f"127.0.0.1:{server.getsockname()[1]}", kubeconfig=str(kubeconfig))
        greeted.result()
