"""The command that previews a stack, as far as it needs no engine."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from model_serving.pipelines import preview
from model_serving.pipelines.changes import Change, Preview, Violation
from model_serving.pipelines.values import Difference

PROJECT = Path(__file__).resolve().parents[2]
FORKED = {
    "CI_API_V4_URL": "https://gitlab.example.com/api/v4",
    "CI_PROJECT_ID": "7",
    "CI_COMMIT_SHA": "a" * 40,
    "CI_MERGE_REQUEST_PROJECT_ID": "7",
    "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "8",
    "CI_MERGE_REQUEST_IID": "3",
}
CHANGE = Change(
    operation="update",
    kind="Deployment",
    token="kubernetes:apps/v1:Deployment",  # noqa: S106 - a type
    name="iris\x1b[31m",
    component="ModelServer",
    differences=(Difference(path="spec.replicas", old="1", new="2"),),
)


def options(**chosen: object) -> argparse.Namespace:
    defaults: dict[str, object] = {"stack": "dev", "out": None, "refresh": False, "commit": None, "policy_pack": []}
    return argparse.Namespace(**{**defaults, **chosen})


def test_a_forks_merge_request_runs_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in FORKED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert preview.run(options(out=tmp_path / "previews")) == 0
    found = Preview.model_validate_json((tmp_path / "previews" / "dev.json").read_text())
    assert (found.outcome, found.commit) == ("no-identity", "a" * 40)
    report = json.loads((tmp_path / "previews" / "dev.terraform.json").read_text())
    assert report == {"create": 0, "update": 0, "delete": 0}


def test_without_pulumi_the_preview_is_one_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI_API_V4_URL", "GITHUB_API_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert preview.run(options(out=tmp_path / "previews", commit="b" * 40)) == 1
    found = Preview.model_validate_json((tmp_path / "previews" / "dev.json").read_text())
    assert found.outcome == "failed"
    assert "pulumi" in found.errors[0]


def test_a_terminal_shows_each_difference_and_no_escape_sequence() -> None:
    violation = Violation(policy="labels", pack="house", level="advisory", message="none", resource="Deployment iris")
    found = Preview(stack="dev", commit="a" * 40, outcome="ok", changes=(CHANGE,), unchanged=3, violations=(violation,))
    assert [*preview.listing(found)] == [
        "",
        "! update Deployment iris\\u001b[31m (ModelServer)",
        "  -   spec.replicas: 1",
        "  +   spec.replicas: 2",
        "",
        "policy labels (advisory) Deployment iris: none",
        "",
        "dev: 1 to update, 3 unchanged",
    ]


def test_a_stack_without_a_place_in_the_pipelines_comes_first() -> None:
    assert preview.order("local") == 0
    assert preview.order("there-is-none") == 0


def test_the_commands_start_without_the_clouds_sdk() -> None:
    program = (
        "import sys; from model_serving.pipelines import note, preview; "
        "print([x for x in sys.modules if x.startswith('pulumi')])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
