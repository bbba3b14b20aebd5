"""Docker's account for a registry is found where Docker finds it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from model_serving.images import docker_config
from model_serving.images.docker_config import Account, account

HUB = "https://index.docker.io/v1/"


def basic(name: str = "user", word: str = "secret") -> str:
    return base64.b64encode(f"{name}:{word}".encode()).decode()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Docker's own, and a folder of commands."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path


def log_in(folder: Path, **configuration: Any) -> None:
    (folder / "config.json").write_text(json.dumps(configuration))


def helper(folder: Path, name: str, user: str = "user") -> None:
    """A credential helper whose secret is its own name and what it was asked for."""
    command = folder / f"docker-credential-{name}"
    login = f'{{\\"Username\\": \\"{user}\\", \\"Secret\\": \\"{name} $(cat)\\"}}'
    command.write_text(f'#!/bin/sh\ntest "$1" = get && echo "{login}"\n')
    command.chmod(0o755)


@pytest.mark.parametrize(
    "key", ["r.example.com", "https://r.example.com", "http://r.example.com/v2/", "r.example.com/v1"]
)
def test_an_account_is_found_by_its_host(folder: Path, key: str) -> None:
    log_in(folder, auths={"r.example.com:5000": {"auth": "other"}, key: {"auth": basic()}})
    assert account("r.example.com") == Account(basic=basic())
    assert account("example.com") == Account()


@pytest.mark.parametrize("host", ["docker.io", "registry-1.docker.io", "index.docker.io"])
def test_docker_hub_has_a_name_of_its_own(folder: Path, host: str) -> None:
    log_in(folder, auths={HUB: {"auth": basic()}})
    assert account(host) == Account(basic=basic())
    log_in(folder, credHelpers={HUB: "hub"})
    helper(folder, "hub")
    assert account(host) == Account(basic=basic(word=f"hub {HUB}"))


def test_the_registrys_own_helper_comes_before_the_general_one_and_that_before_the_file(folder: Path) -> None:
    for name in ("own", "general"):
        helper(folder, name)
    auths = {"a.example.com": {"auth": basic()}, "b.example.com": {"auth": basic()}}
    log_in(folder, auths=auths, credsStore="general", credHelpers={"a.example.com": "own"})
    assert account("a.example.com") == Account(basic=basic(word="own a.example.com"))
    assert account("b.example.com") == Account(basic=basic(word="general b.example.com"))


def test_an_identity_token_is_told_from_a_password(folder: Path) -> None:
    log_in(folder, credsStore="test")
    helper(folder, "test", user="<token>")
    assert account("r.example.com") == Account(identity_token="test r.example.com")  # noqa: S106
    log_in(folder, auths={"r.example.com": {"auth": basic("user", ""), "identitytoken": "kept"}})
    assert account("r.example.com") == Account(basic=basic("user", ""), identity_token="kept")  # noqa: S106


@pytest.mark.parametrize(
    "text", [None, "{", "{}", '{"auths": {"r.example.com": {}}}', '{"credsStore": "nobody-has-it"}']
)
def test_docker_may_have_no_account(folder: Path, text: str | None) -> None:
    if text:
        (folder / "config.json").write_text(text)
    assert account("r.example.com") == Account()


@pytest.mark.parametrize("said", ["no JSON", "[]", '{"Username": "user"}'])
def test_a_helper_that_says_something_else_has_no_account(folder: Path, said: str) -> None:
    log_in(folder, credsStore="test")
    helper(folder, "test")
    (folder / "docker-credential-test").write_text(f"#!/bin/sh\necho '{said}'\n")
    assert account("r.example.com") == Account()


def test_an_account_does_not_show_its_secrets() -> None:
    assert "secret" not in repr(Account(basic="secret", identity_token="secret"))  # noqa: S106


@pytest.mark.parametrize(
    ("url", "may"),
    [
        ("https://auth.example.com/token", True),
        ("http://127.0.0.1:5001/token", True),
        ("http://localhost/token", True),
        ("http://[::1]:5001/token", True),
        ("http://auth.example.com/token", False),
        ("http://127.0.0.1.example.com/token", False),
        ("http://localhost@example.com/token", False),
        ("ftp://localhost/token", False),
        ("", False),
    ],
)
def test_secrets_leave_this_machine_only_encrypted(url: str, may: bool) -> None:
    assert docker_config.may_see_secrets(url) == may
