"""What `make adopt-pool` imports and restores, with a gcloud and a pulumi that only note what they are asked.

The import itself is tried with the real engine in tests/engine/test_adopt_pool.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from model_serving import __main__ as commands
from model_serving.pipelines import stacks

GCLOUD = """#!{python}
import json, pathlib, sys
folder = pathlib.Path({folder!r})
words = [word for word in sys.argv[1:] if not word.startswith("--")]
assert words[:2] == ["iam", "workload-identity-pools"], words
there = json.loads((folder / "google.json").read_text())
action, name = words[-2:]
if name not in there:
    print("ERROR: (gcloud) NOT_FOUND: Requested entity was not found.", file=sys.stderr)
    sys.exit(1)
if action == "undelete":
    there[name] = "ACTIVE"
    (folder / "google.json").write_text(json.dumps(there))
print(json.dumps({{"state": there[name]}}))
"""
PULUMI = """#!{python}
import pathlib, shutil, sys
folder = pathlib.Path({folder!r})
if sys.argv[1:3] == ["stack", "export"]:
    print((folder / "state.json").read_text())
elif sys.argv[1] == "import":
    assert {{"--protect=false", "--yes", "dev"}} < set(sys.argv)
    shutil.copy(sys.argv[sys.argv.index("--file") + 1], folder / "imported.json")
"""
IDENTITY = "urn:pulumi:dev::model-serving::model-serving:index:Platform$model-serving:index:Identity::identity"
GOOGLE = "urn:pulumi:dev::model-serving::pulumi:providers:gcp::google"
POOL = "projects/acme-dev/locations/global/workloadIdentityPools/model-serving"
STACK = """\
config:
  model-serving:gcp:
    project: acme-dev
    region: europe-west1
    state: {bucket: acme-state, key: projects/a/locations/b/keyRings/c/cryptoKeys/d}
    identity: {gitlab: {projectId: 1}, github: {repositoryId: 2, ownerId: 3}}
"""


class Site:
    """A project at Google, and the stack dev."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.has("model-serving", "gitlab", "github")
        self.holds(IDENTITY, GOOGLE)
        (folder / "Pulumi.dev.yaml").write_text(STACK)

    def has(self, *active: str, deleted: tuple[str, ...] = ()) -> None:
        states = dict.fromkeys(active, "ACTIVE") | dict.fromkeys(deleted, "DELETED")
        (self.folder / "google.json").write_text(json.dumps(states))

    def states(self) -> dict[str, str]:
        states: dict[str, str] = json.loads((self.folder / "google.json").read_text())
        return states

    def holds(self, *urns: str) -> None:
        resources = [{"urn": urn, "type": urn.split("::")[2].rpartition("$")[2]} for urn in urns]
        (self.folder / "state.json").write_text(json.dumps({"deployment": {"resources": resources}}))

    @property
    def imported(self) -> dict[str, Any] | None:
        path = self.folder / "imported.json"
        return json.loads(path.read_text()) if path.exists() else None


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    for name, text in (("gcloud", GCLOUD), ("pulumi", PULUMI)):
        (tmp_path / name).write_text(text.format(python=sys.executable, folder=str(tmp_path)))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(stacks, "FOLDER", tmp_path)
    return Site(tmp_path)


def run() -> int:
    return commands.main(["adopt-pool", "--stack", "dev"])


def test_pool_and_providers_are_imported_where_the_program_declares_them(site: Site) -> None:
    assert run() == 0
    kind = "gcp:iam/workloadIdentityPool"
    where = {"parent": "parent", "provider": "provider"}
    assert site.imported == {
        "nameTable": {"parent": IDENTITY, "provider": GOOGLE},
        "resources": [
            {"type": f"{kind}:WorkloadIdentityPool", "name": "identity", "id": POOL, **where},
            *(
                {
                    "type": f"{kind}Provider:WorkloadIdentityPoolProvider",
                    "name": f"identity-{name}",
                    "id": f"{POOL}/providers/{name}",
                    **where,
                }
                for name in ("gitlab", "github")
            ),
        ],
    }


def test_what_was_deleted_is_restored_first(site: Site) -> None:
    site.has("gitlab", deleted=("model-serving", "github"))
    assert run() == 0
    assert set(site.states().values()) == {"ACTIVE"}
    assert site.imported
    assert len(site.imported["resources"]) == 3


def test_what_never_was_is_left_to_the_next_update(site: Site) -> None:
    site.has("model-serving")
    assert run() == 0
    assert site.imported
    assert [each["name"] for each in site.imported["resources"]] == ["identity"]


def test_a_second_run_has_nothing_to_do(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    nested = IDENTITY.rpartition("::")[0]
    kind = "gcp:iam/workloadIdentityPool"
    site.holds(
        IDENTITY,
        GOOGLE,
        f"{nested}${kind}:WorkloadIdentityPool::identity",
        *(f"{nested}${kind}Provider:WorkloadIdentityPoolProvider::identity-{name}" for name in ("gitlab", "github")),
    )
    assert run() == 0
    assert site.imported is None
    assert "nothing to take up" in capsys.readouterr().out


def test_before_the_first_update_there_is_nothing_to_import_into(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.holds()
    assert run() == 1
    assert "Run `pulumi up --stack dev` first" in capsys.readouterr().err
    assert site.imported is None


def test_a_stack_without_pipelines_has_no_pool(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    (site.folder / "Pulumi.dev.yaml").write_text(STACK.partition("    state:")[0])
    assert run() == 1
    assert "gcp.identity" in capsys.readouterr().err
    assert site.imported is None
