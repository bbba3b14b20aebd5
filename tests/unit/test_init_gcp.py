"""What `make init-gcp` asks of Google, with a gcloud that remembers what was made and does nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from model_serving import __main__ as commands
from tests.documents import TUTORIALS, shell_lines

FAKE = """#!{python}
import json, pathlib, sys
state = pathlib.Path({state!r})
made = json.loads(state.read_text())
words = [word for word in sys.argv[1:] if not word.startswith("--")]
flags = [word for word in sys.argv[1:] if word.startswith("--")]
def missing(what):
    print(f"ERROR: (gcloud) {{what}} not found: 404.", file=sys.stderr)
    sys.exit(1)
if made.get("refuse") == words[-2]:
    print("ERROR: (gcloud) PERMISSION_DENIED: the caller may not.", file=sys.stderr)
    sys.exit(1)
match words:
    case ["auth", "list"]:
        print(made["account"])
    case ["projects", "describe", name]:
        print(json.dumps({{"projectId": name}})) if name in ("acme", "my-models-dev") else missing(name)
    case ["services", "list"]:
        print("\\n".join(made["apis"]))
    case ["services", "enable", *apis]:
        made["apis"] += apis
    case [*kind, "describe", name]:
        key = "/".join([*kind, name])
        print(json.dumps(made["things"][key])) if key in made["things"] else missing(name)
    case [*kind, "create", name]:
        made["things"]["/".join([*kind, name])] = {{}}
    case ["storage", "buckets", "update", name]:
        assert "--versioning" in flags
        made["things"]["storage/buckets/" + name] = {{
            "versioning_enabled": True,
            "uniform_bucket_level_access": True,
            "public_access_prevention": "enforced",
        }}
made["calls"].append(" ".join(words))
state.write_text(json.dumps(made))
"""

WRITING = ("enable", "create", "update")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    state = tmp_path / "state.json"
    fresh = {"account": "me@acme.example", "apis": ["storage.googleapis.com"], "things": {}, "calls": []}
    state.write_text(json.dumps(fresh))
    gcloud = tmp_path / "gcloud"
    gcloud.write_text(FAKE.format(python=sys.executable, state=str(state)))
    gcloud.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return state


def run(project: str = "acme") -> int:
    return commands.main(["init-gcp", "--project", project, "--region", "europe-west1"])


def changed(state: Path) -> list[str]:
    calls: list[str] = json.loads(state.read_text(encoding="utf-8"))["calls"]
    return [call for call in calls if any(word in WRITING for word in call.split())]


def change(state: Path, **values: str) -> None:
    state.write_text(json.dumps(json.loads(state.read_text(encoding="utf-8")) | values), encoding="utf-8")


def test_makes_apis_bucket_and_key(state: Path) -> None:
    assert run() == 0
    assert changed(state) == [
        "services enable cloudkms.googleapis.com cloudresourcemanager.googleapis.com iam.googleapis.com "
        "serviceusage.googleapis.com",
        "storage buckets create gs://acme-pulumi-state",
        "storage buckets update gs://acme-pulumi-state",
        "kms keyrings create pulumi",
        "kms keys create stack-secrets",
    ]


def test_a_second_run_changes_nothing(state: Path) -> None:
    assert run() == 0
    before = changed(state)
    assert run() == 0
    assert changed(state) == before


def test_a_run_that_broke_off_is_taken_up(state: Path) -> None:
    change(state, refuse="create")
    assert run() == 1
    change(state, refuse="")
    assert run() == 0
    assert "kms keys create stack-secrets" in changed(state)


def test_each_command_is_printed_before_it_is_run(state: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    printed = [line for line in capfd.readouterr().out.splitlines() if line.startswith("$ gcloud ")]
    calls = json.loads(state.read_text(encoding="utf-8"))["calls"]
    assert len(printed) == len(calls) + 3  # looking for what was not there
    assert "$ gcloud kms keyrings create pulumi --location=europe-west1 --project=acme --quiet" in printed


def test_ends_with_what_to_write_and_to_type(state: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    out = capfd.readouterr().out
    key = "projects/acme/locations/europe-west1/keyRings/pulumi/cryptoKeys/stack-secrets"
    assert f"bucket: acme-pulumi-state\n      key: {key}" in out
    assert f"--secrets-provider=gcpkms://{key}" in out


@pytest.mark.documents
def test_the_tutorial_names_bucket_and_key_as_they_are_printed(state: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("my-models-dev") == 0
    printed = [line.strip() for line in capfd.readouterr().out.splitlines() if "gs://" in line or "gcpkms://" in line]
    lines = shell_lines((TUTORIALS / "platform-engineer.md").read_text(encoding="utf-8"))
    to_type = [line.replace("STACK", "dev") for line in printed if line.startswith(("export ", "pulumi "))]
    assert len(to_type) == 2
    assert set(to_type) <= set(lines)


def test_without_gcloud_says_where_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run() == 1
    assert "Install it" in capfd.readouterr().err


def test_without_a_login_says_how_to_log_in(state: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change(state, account="")
    assert run() == 1
    assert "gcloud auth login" in capfd.readouterr().err
    assert changed(state) == []


def test_without_the_project_says_how_to_make_it(state: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("acne") == 1
    assert "gcloud projects create acne" in capfd.readouterr().err
    assert changed(state) == []


def test_without_permission_names_the_role(state: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change(state, refuse="describe")
    assert run() == 1
    message = capfd.readouterr().err
    assert "PERMISSION_DENIED" in message
    assert "role Owner" in message
    assert changed(state) == []
