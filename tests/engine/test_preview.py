"""What the real engine says, as the note needs it. RECORD_PREVIEWS=1 keeps it for the unit tests."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_serving.pipelines.changes import ModelChange, Preview, Share, terraform_report
from model_serving.pipelines.note import render
from model_serving.pipelines.preview import listing, preview, write
from tests.engine import policy_standin
from tests.engine.checkout import commit, git, run
from tests.engine.conftest import Standing, Whole
from tests.engine.harness import ROOT, Project, plain_secrets

GOLDEN = ROOT / "tests" / "unit" / "golden"
COMMIT = "3f1c9d2a7b60e58412cd90ab37ef6651d08b24c7"
MANY = 13
"""Models besides the three of this project: together more than 200 resources."""
Small = Callable[..., Project]


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Preview]:
    """Previews a project as the command does, and keeps what it found under a name."""

    def look(project: Project, name: str, **options: Any) -> Preview:
        monkeypatch.chdir(project.folder)
        found = preview(project.stack, commit=COMMIT, environ=project.environment, **options)
        if os.environ.get("RECORD_PREVIEWS"):
            (GOLDEN / f"{name}.json").write_text(compact(found), encoding="utf-8")
        return found

    return look


def compact(found: Preview) -> str:
    """A line a change, so that a recording that differs can be read."""
    content = found.model_dump(mode="json", exclude_defaults=True)
    changes = ",\n".join(json.dumps(change, ensure_ascii=False) for change in content.pop("changes", []))
    return f'{json.dumps(content, ensure_ascii=False)[:-1]}, "changes": [\n{changes}\n]}}\n'


def release(project: Project, model: str, version: str, *, of: str = "iris-dtc") -> None:
    """Releases a model that answers as another one does."""
    target = project.folder / "models" / model / version
    shutil.copytree(project.folder / "models" / of / "1.0", target)
    settings = target / "model-settings.json"
    content = json.loads(settings.read_text())
    content["name"] = model
    content["parameters"]["version"] = version
    settings.write_text(json.dumps(content))


def one(model: str, before: dict[str, float], after: dict[str, float]) -> ModelChange:
    shares = [
        tuple(Share(version=version, percent=percent) for version, percent in side.items()) for side in (before, after)
    ]
    return ModelChange(name=model, before=shares[0], after=shares[1])


def test_a_new_version_is_told(standing: Standing, look: Callable[..., Preview]) -> None:
    project = standing("dev")
    release(project, "iris-dtc", "1.1")
    bump = look(project, "bump-of-dev")
    assert bump.outcome == "ok"
    assert bump.models == (one("iris-dtc", {"1.0": 100}, {"1.1": 100}),)
    assert bump.unchanged_models == 2
    assert terraform_report(bump)["create"] == bump.count("create") > 0
    told = [change for change in bump.changes if change.operation and change.component != "Portal"]
    assert all(change.name.startswith("iris-dtc") for change in told), bump.changes


@pytest.mark.thorough("the new version above, and tests/unit/test_changes.py on what this test has recorded")
def test_the_life_of_a_stack_is_told_preview_by_preview(whole: Whole, look: Callable[..., Preview]) -> None:
    project = whole("production")
    lines = project.settings()
    for number in range(MANY):
        release(project, f"model-{number:02}", "1.0")
    more = "".join(f"    model-{number:02}:\n      replicas: 2\n" for number in range(MANY))
    project.edit_settings("    iris-dtc:\n", f"{more}    iris-dtc:\n")
    first = look(project, "first-deployment")
    assert first.outcome == "ok"
    assert {change.operation for change in first.changes} == {"create"}
    assert len(first.changes) >= 200
    assert len(first.models) == MANY + 3
    assert all(model.before == () and model.after == (Share(version="1.0", percent=100),) for model in first.models)
    assert {cost.what for cost in first.costs} >= {"clusters", "pods on Autopilot", "load balancers"}

    project.settings_file.write_text(lines)
    project.up()
    assert not [change for change in look(project, "empty").changes if change.operation]

    release(project, "iris-dtc", "1.1")
    project.edit_settings('    iris-dtc:\n      versions: {"1.0": 100}', '    iris-dtc:\n      versions: {"1.1": 100}')
    bump = look(project, "bump")
    assert bump.models == (one("iris-dtc", {"1.0": 100}, {"1.1": 100}),)
    assert bump.unchanged_models == 2
    report = terraform_report(bump)
    assert report["create"] == bump.count("create") > 0
    assert report["delete"] == bump.count("delete") + bump.count("forget") > 0
    assert bump.count("forget") == 1, "the image of the version that goes stays in the registry"

    project.edit_settings('versions: {"1.1": 100}', 'versions: {"1.0": 90, "1.1": 10}')
    canary = look(project, "canary")
    assert canary.models == (one("iris-dtc", {"1.0": 100}, {"1.0": 90, "1.1": 10}),)
    assert not [change for change in canary.changes if change.is_destructive]

    project.up()
    project.edit_settings('versions: {"1.0": 90, "1.1": 10}', 'versions: {"1.0": 100}')
    back = look(project, "canary-withdrawn")
    assert back.models == (one("iris-dtc", {"1.0": 90, "1.1": 10}, {"1.0": 100}),)

    project.edit_settings('    iris-dtc:\n      versions: {"1.0": 100}', '    iris-dtc:\n      versions: {"1.1": 100}')
    wine = project.settings().index("    wine-lgbm:")
    project.settings_file.write_text(project.settings()[:wine])
    project.edit_settings("      replicas: 2\n", "      replicas: 3\n")
    project.up()
    project.settings_file.write_text(lines)
    mixed = look(project, "rollback-and-more")
    rolled, resized, returned = (
        next(model for model in mixed.models if model.name == name)
        for name in ("iris-dtc", "classificador-produtos", "wine-lgbm")
    )
    assert (rolled.before, rolled.after) == ((Share(version="1.1", percent=100),), (Share(version="1.0", percent=100),))
    assert [(each.path, each.old, each.new) for each in resized.servers[0].differences] == [("spec.replicas", "3", "2")]
    assert returned.before == ()

    project.edit_settings("    cluster:\n", "    cluster:\n      mode: standard\n")
    replaced = look(project, "cluster-replaced")
    (cluster,) = (change for change in replaced.changes if change.operation == "replace")
    assert cluster.kind == "Cluster"
    assert "enableAutopilot" in {each.path for each in cluster.forced_by}


SECRETS = {
    "config": "s3cr3t-of-the-config",
    "output": "s3cr3t-of-an-output",
    "manifest": "s3cr3t-of-a-manifest",
    "log": "s3cr3t-in-a-message",
}
EVERYWHERE = """\
import base64
import pulumi
import pulumi_gcp as gcp
import pulumi_kubernetes as kubernetes

given = pulumi.Config().require_secret("password")
plain = pulumi.Config().require("plain")
value = pulumi.Output.secret("s3cr3t-of-an-output")
google = gcp.Provider("google", project="acme-models", region="europe-west1", access_token=given)
cluster = kubernetes.Provider("cluster", kubeconfig=given.apply(lambda text: '{"token": "' + text + '"}'))
inside = pulumi.ResourceOptions(provider=cluster)
kubernetes.core.v1.Secret(
    "token",
    metadata={"name": "token", "annotations": {"note": "s3cr3t-of-a-manifest"}},
    string_data={"plain": "s3cr3t-of-a-manifest", "size": plain},
    data={"encoded": base64.b64encode(b"s3cr3t-of-a-manifest").decode()},
    opts=inside,
)
kubernetes.core.v1.ConfigMap(
    "settings",
    metadata={"name": "settings"},
    data={
        "url": given.apply(lambda text: f"postgres://user:{text}@db"),
        "encoded": given.apply(lambda text: base64.b64encode(f"user:{text}".encode()).decode()),
        "size": plain,
        # Whoever unwraps a secret has it in the open; the command knows the value nevertheless.
        "unwrapped": pulumi.Output.unsecret(given),
    },
    opts=inside,
)
kubernetes.apps.v1.Deployment(
    "web",
    metadata={"name": "web"},
    spec={
        "selector": {"match_labels": {"app": "server"}},
        "template": {
            "metadata": {"labels": {"app": "server"}},
            "spec": {
                "containers": [
                    {
                        "name": "server",
                        "image": "registry.example.com/server:1",
                        "env": [{"name": "PASSWORD", "value": given}, {"name": "OUTPUT", "value": value}],
                        "args": ["--size", plain],
                    }
                ]
            },
        },
    },
    opts=inside,
)
gcp.storage.Bucket(
    "data", name="acme-data", location="EU", labels={"password": given, "size": plain},
    opts=pulumi.ResourceOptions(provider=google),
)
pulumi.export("password", given)
pulumi.export("output", value)
given.apply(lambda text: pulumi.log.warn(f"the password is {text}"))
"""


def test_a_secret_is_nowhere_wherever_it_was_put(
    small: Small, look: Callable[..., Preview], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    project = small(EVERYWHERE, {"plain": "1"})
    project.run("config", "set", "--secret", "password", SECRETS["config"])
    new = look(project, "secrets-new")
    project.up()
    project.run("config", "set", "--secret", "password", f"{SECRETS['config']}-changed")
    project.run("config", "set", "plain", "2")
    changed = look(project, "secrets-changed")
    assert {change.name for change in changed.changes} >= {"token", "settings", "web", "data"}, changed
    for number, found in enumerate((new, changed)):
        assert found.outcome == "ok", found
        write(found, tmp_path / str(number))
    written = "".join(path.read_text() for path in tmp_path.glob("[01]/*"))
    printed = "".join(capfd.readouterr())
    assert "the password is [secret]" in printed
    for text in (written, printed, render([new, changed]), "\n".join([*listing(new), *listing(changed)])):
        assert plain_secrets(text, *SECRETS.values()) == []
        assert "s3cr3t" not in text
    assert "data.size: 2" in render([changed]), "all was hidden, not the secrets"


FAILING = """\
import pulumi
import pulumi_gcp as gcp

given = pulumi.Config().require_secret("password")
gcp.storage.Bucket("data", name="Not_A_Name!", location="EU")
pulumi.log.error("the cloud says:\\n</details> @team `s3cr3t-of-the-config`")
"""


def test_a_preview_that_fails_says_why_and_tells_no_secret(small: Small, look: Callable[..., Preview]) -> None:
    project = small(FAILING)
    project.run("config", "set", "--secret", "password", SECRETS["config"])
    found = look(project, "failed")
    assert found.outcome == "failed"
    assert any("Not_A_Name!" in error for error in found.errors), found
    assert any("</details> @team `[secret]`" in error for error in found.errors), found
    assert [*listing(found)][-1].startswith("test: the preview failed. Pulumi exited with code"), "not: no changes"


BUCKETS = """\
import pulumi_gcp as gcp

gcp.storage.Bucket("ours", name="acme-ours", location="US", labels={"owner": "team"})
gcp.storage.Bucket("whose", name="s3cr3t-of-the-config", location="EU")
"""


def test_policies_that_are_violated_are_in_the_preview(
    small: Small, look: Callable[..., Preview], home: Path, tmp_path: Path
) -> None:
    project = small(BUCKETS)
    project.run("config", "set", "--secret", "password", SECRETS["config"])
    found = look(project, "policies", policy_packs=[policy_standin.install(home, tmp_path / "pack")])
    assert found.outcome == "failed"
    assert sorted((each.policy, each.level, each.resource, each.message) for each in found.violations) == [
        ("buckets-in-europe", "advisory", "Bucket ours", "`US` is far </details>"),
        ("owned-buckets", "mandatory", "Bucket whose", "@all: nobody owns [secret]"),
    ]


RELEASED = """\
import pulumi_gcp as gcp

gcp.storage.Bucket("data", name="acme-data", location="EU", labels={{"version": "{version}"}})
"""


def test_what_main_has_released_since_is_no_change_of_an_older_branch(small: Small) -> None:
    project = small("")
    first = commit(project, RELEASED.format(version="1.0"))
    commit(project, RELEASED.format(version="1.1"))
    assert run(project, "deploy", "--stack", project.stack).code == 0
    git(project, "switch", "--quiet", "--create", "words", first)
    (project.folder / "README.md").write_text("another word\n")
    commit(project)
    shown = run(project, "preview", "--stack", project.stack, "--out", "previews")
    assert shown.code == 0, shown
    assert "This branch is 1 commit behind what is live. It was previewed merged with what is live." in shown.text
    assert shown.text.splitlines()[-1].startswith("test: no changes, "), shown
    conflicting = RELEASED.format(version="2.0")
    commit(project, conflicting)
    shown = run(project, "preview", "--stack", project.stack, "--out", "previews")
    assert "1 commit behind what is live, and merging conflicts in __main__.py" in shown.text, shown
    assert "+   labels.version: 2.0" in shown.text, shown


DRIFTING = """\
import pulumi_gcp as gcp

for name in ("kept", "changed", "lost"):
    gcp.storage.Bucket(name, name=f"acme-{name}", location="EU", labels={"owner": "team"})
"""


@pytest.mark.thorough(
    "tests/engine/test_drift.py, whose issue tells it; a preview with refresh is in each of test_stacks.py"
)
def test_drift_is_told_as_what_mends_it(small: Small, look: Callable[..., Preview]) -> None:
    project = small(DRIFTING)
    project.up()
    path = project.cloud.folder / "gcp.json"
    content = json.loads(path.read_text())
    content["resources"]["gcp:storage/bucket:Bucket::acme-changed"]["outputs"]["labels"] = {"owner": "nobody"}
    del content["resources"]["gcp:storage/bucket:Bucket::acme-lost"]
    path.write_text(json.dumps(content))
    assert look(project, "unseen-drift").changes == ()
    found = look(project, "drift", refresh=True)
    assert sorted((change.operation, change.name) for change in found.changes) == [
        ("create", "lost"),
        ("update", "changed"),
    ]
    (changed,) = (change for change in found.changes if change.operation == "update")
    assert [(each.path, each.old, each.new) for each in changed.differences] == [("labels.owner", "nobody", "team")]
    assert found.unchanged == 1


def test_a_stack_that_is_not_there_is_a_preview_that_failed(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    project = small("")
    monkeypatch.chdir(project.folder)
    found = preview("absent", commit=COMMIT, environ=project.environment)
    assert found.outcome == "failed"
    assert re.search("no stack named 'absent' found", "\n".join(found.errors)), found


NAMES = [
    "plain",
    "`tick` ``two`` ```three",
    "</details></summary><script>alert(1)</script><!-- hidden",
    "@all @team/maintainers #12 !3 %4 ~bug :tada: $`x`$",
    "[link](https://evil.example/) ![x](https://evil.example/x.png) www.evil.example user@evil.example",
    "a | b \\| c",
    "line\n/close\n# heading\n```\n\u202egnp.exe",
    "*bold* _it_ ~~gone~~ {{ site }} ${HOME} $(id)",
    '" --> x[\\"y\\"] %% end; click m0 "javascript:alert(1)"',
]
MARKDOWN = f"""\
import pulumi
import pulumi_kubernetes as kubernetes

NAMES = {NAMES!r}
size = pulumi.Config().require("size")
weights = {{"1": [100, 0], "2": [90, 10]}}[size]
cluster = kubernetes.Provider("cluster", kubeconfig="{{}}")
inside = pulumi.ResourceOptions(provider=cluster)


class Part(pulumi.ComponentResource):
    def __init__(self, name):
        super().__init__("model-serving:index:ModelServer", name, None, pulumi.ResourceOptions(providers=[cluster]))


for number, name in enumerate(NAMES):
    if size == "1" or number != 1:
        kubernetes.core.v1.ConfigMap(
            name, metadata={{"name": f"map-{{number}}"}}, data={{name.replace('"', "'"): f"{{name}} {{size}}"}},
            opts=pulumi.ResourceOptions(parent=Part(name)),
        )
    model = name.replace("/", " ")
    for path, backends in (
        (model, weights), *((f"{{model}}/versions/{{model}} {{at}}", [1]) for at in ("1", "2"))
    ):
        at = path[-1] if backends == [1] else None
        kubernetes.apiextensions.CustomResource(
            f"{{name}}{{f' {{at}}' if at else ''}}", api_version="gateway.networking.k8s.io/v1", kind="HTTPRoute",
            metadata={{"name": f"route-{{number}}-{{at}}"}},
            spec={{"rules": [{{
                "matches": [{{"path": {{"type": "PathPrefix", "value": f"/mlapi/v2/models/{{path}}"}}}}],
                "backendRefs": [
                    {{"name": f"s{{number}}-{{at or n}}", "port": 80, "weight": weight}}
                    for n, weight in enumerate(backends, 1)
                ],
            }}]}},
            opts=inside,
        )
"""


@pytest.mark.thorough("tests/unit/test_note.py on what this test has recorded")
def test_names_that_are_markup_come_through_the_engine_as_they_are(small: Small, look: Callable[..., Preview]) -> None:
    project = small(MARKDOWN, {"size": "1"})
    project.up()
    project.run("config", "set", "size", "2")
    found = look(project, "markdown")
    assert found.outcome == "ok", found
    assert {change.name for change in found.changes} >= {*NAMES}
    assert len(found.models) == len(NAMES)
