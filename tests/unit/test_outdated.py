"""One command shows what is out of date, with answers as Go, uv and npm gave them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local.tools import environments, golang, node, outdated, recipe

MODULES = {
    "Module": {"Path": "model-serving/etcd"},
    "Require": [
        {"Path": "go.etcd.io/etcd/server/v3", "Version": "v3.6.8"},
        {"Path": "example.com/own", "Version": "v0.0.0"},
        {"Path": "golang.org/x/sys", "Version": "v0.1.0", "Indirect": True},
    ],
    "Replace": [{"Old": {"Path": "example.com/own"}, "New": {"Path": "./stub"}}],
}
PACKAGES = [
    {"name": "pulumi", "version": "3.259.0", "latest_version": "3.274.1", "latest_filetype": "wheel"},
    {"name": "PyYAML", "version": "6.0.3", "latest_version": "6.1", "latest_filetype": "wheel"},
    {"name": "idna", "version": "3.1", "latest_version": "3.2", "latest_filetype": "wheel"},
]
NODE = {"gitlab-ci-local": {"wanted": "4.61.1", "latest": "5.0.0", "dependent": "gitlab-ci-local"}}


@pytest.fixture
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one tool and two Python packages."""
    (tmp_path / "etcd").mkdir()
    tool = recipe.Tool(name="etcd", version="3.6.8", packages={"etcd": "."})
    monkeypatch.setattr(recipe, "HERE", tmp_path)
    monkeypatch.setattr(recipe, "load", lambda: ({}, [tool]))
    monkeypatch.setattr(outdated, "PROJECT", tmp_path)
    (tmp_path / "requirements.in").write_text("# What\npulumi==3.259.0\npyyaml==6.0.3\n")
    return tmp_path


def answering(folder: Path, script: str) -> str:
    program = folder / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


def test_of_go_the_modules_that_a_tool_requires_itself(pinned: Path) -> None:
    (pinned / "edit").write_text(json.dumps(MODULES))
    go = answering(pinned, f'[ "$1" = mod ] && exec cat {pinned}/edit\necho "$6 v3.6.8 v3.7.3"; test $# = 6')
    where = "local/tools/etcd"
    assert list(outdated.of_go(go)) == [(where, "go.etcd.io/etcd/server/v3", "v3.6.8", "v3.7.3")]


def test_of_python_the_packages_that_are_named(pinned: Path) -> None:
    (pinned / "list").write_text(json.dumps(PACKAGES))
    uv = answering(pinned, f'test "$7" = some/python && exec cat {pinned}/list')
    found = list(outdated.of_python(uv, "some/python", pinned / "requirements.in"))
    assert [(pin.where, pin.what, pin.newest) for pin in found] == [
        ("requirements.in", "pulumi", "3.274.1"),
        ("requirements.in", "PyYAML", "6.1"),
    ]


def test_of_the_site_the_package_that_is_named(pinned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (pinned / "docs").mkdir()
    (pinned / "docs" / "requirements.in").write_text("pyyaml\n")
    (pinned / "list").write_text(json.dumps(PACKAGES))
    monkeypatch.setattr(environments, "provide", lambda lock: lock.parent)
    python = pinned / "docs" / "bin" / "python"
    uv = answering(pinned, f'test "$7" = {python} && exec cat {pinned}/list')
    (pin,) = outdated.of_site(uv)
    assert (pin.where, pin.what, pin.newest) == ("docs/requirements.in", "PyYAML", "6.1")


def test_of_node_the_packages_of_the_lock(pinned: Path) -> None:
    (pinned / "list").write_text(json.dumps(NODE))
    locked = json.loads((node.HERE / "package-lock.json").read_text())["packages"]["node_modules/gitlab-ci-local"]
    (pin,) = outdated.of_node([answering(pinned, f"cat {pinned}/list; exit 1")])
    assert (pin.pinned, pin.newest) == (locked["version"], "5.0.0")


def test_what_cannot_be_asked_is_told_and_the_rest_is_shown(
    pinned: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(golang, "go_command", lambda *_: answering(pinned, "echo no such host >&2; exit 1"))
    monkeypatch.setattr(
        recipe,
        "load",
        lambda: ({"version": "1", "package": "go"}, [recipe.Tool(name="etcd", version="3.6.8", packages={})]),
    )
    pin = outdated.Pin("requirements.in", "pulumi", "1", "2")
    monkeypatch.setattr(outdated, "of_python", lambda *_: iter([pin]))
    monkeypatch.setattr(outdated, "of_site", lambda _: iter(()))
    monkeypatch.setattr(outdated, "of_node", lambda _: iter(()))
    monkeypatch.setattr(node, "node_and_npm", lambda _: ("node", "npm"))
    assert outdated.main() == 1
    told = capsys.readouterr()
    assert "no such host" in told.err
    assert told.out.splitlines()[1].split() == ["requirements.in", "pulumi", "1", "2"]
