"""A stack in the cloud gets the Pulumi plugins that it needs; the local one downloads nothing."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
from pathlib import Path

import pytest

from model_serving.__main__ import main
from model_serving.pipelines import stacks

GCP, GITLAB = (importlib.metadata.version(f"pulumi-{name}") for name in ("gcp", "gitlab"))
VARIABLES = ("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", "PULUMI_BACKEND_URL", "PULUMI_HOME")


@pytest.fixture
def pulumi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Pulumi that notes what it installs, and stack files with a cloud, with an agent and with neither."""
    notes = tmp_path / "installed"
    script = tmp_path / "pulumi"
    script.write_text(f'#!/bin/sh\n[ "$2" = ls ] && exec cat {tmp_path}/listed.json\necho "$@" >> {notes}\n')
    script.chmod(0o755)
    (tmp_path / "listed.json").write_text("[]")
    for stack, keys in {"cloud": ["gcp"], "agent": ["gcp", "agent"], "mine": ["registry"]}.items():
        config = "".join(f"  model-serving:{key}: {{}}\n" for key in keys)
        (tmp_path / f"Pulumi.{stack}.yaml").write_text(f"config:\n{config}")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(stacks, "FOLDER", tmp_path)
    return notes


@pytest.mark.parametrize(
    ("stack", "installed"),
    [
        ("cloud", [f"plugin install resource gcp {GCP}"]),
        ("agent", [f"plugin install resource gcp {GCP}", f"plugin install resource gitlab {GITLAB}"]),
        ("mine", []),
    ],
)
def test_a_stack_gets_the_plugins_of_its_sections(
    pulumi: Path, stack: str, installed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plugins", "--stack", stack]) == 0
    assert (pulumi.read_text(encoding="utf-8").splitlines() if pulumi.exists() else []) == installed
    said = capsys.readouterr().out.splitlines()
    assert len(said) == len(installed)
    assert all(f"pulumi {command}" in line for command, line in zip(installed, said, strict=True))


def test_a_plugin_that_is_there_is_left_alone(pulumi: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pulumi.parent / "listed.json").write_text(json.dumps([{"name": "gcp", "kind": "resource", "version": GCP}]))
    assert main(["plugins", "--stack", "cloud"]) == 0
    assert not pulumi.exists()
    assert capsys.readouterr().out == ""


def test_a_download_that_fails_says_what_to_check(pulumi: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pulumi.parent / "pulumi").write_text(
        '#!/bin/sh\n[ "$2" = ls ] && exec echo "[]"\necho "404 not found" >&2; exit 1\n'
    )
    assert main(["plugins", "--stack", "cloud"]) == 1
    error = capsys.readouterr().err
    assert f"gcp {GCP} could not be installed: 404 not found" in error
    assert "HTTPS_PROXY" in error


def test_an_unknown_stack_is_told(pulumi: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--stack", "clout"]) == 1
    assert "Did you mean cloud?" in capsys.readouterr().err


@pytest.mark.parametrize(("stack", "forbidden"), [("local", "true"), ("dev", ""), ("production", "")])
def test_only_the_local_stack_forbids_downloads(stack: str, forbidden: str) -> None:
    rule = "shown: ; @printf '%s\\n' " + " ".join(f'"$${name}"' for name in VARIABLES)
    command = ["make", "--no-print-directory", "--eval", rule, "shown", f"STACK={stack}"]
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("PULUMI_", "MAKE"))}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    acquisition, backend, home = done.stdout.split("\n")[:3]
    assert acquisition == forbidden
    assert bool(backend) == (stack == "local")
    assert home == str(Path.cwd() / ".state" / "pulumi")


def test_make_tools_installs_the_plugins_of_a_stack_in_the_cloud() -> None:
    for stack, wanted in (("dev", True), ("local", False)):
        # Whatever is installed already: the commands are shown and not run.
        command = ["make", "--dry-run", "tools", f"STACK={stack}"]
        environ = {key: value for key, value in os.environ.items() if key != "MODEL_SERVING_TOOLS"}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
        assert (f"python -m model_serving plugins --stack {stack}" in done.stdout) is wanted
