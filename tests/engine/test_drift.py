from __future__ import annotations

from tests.engine.checkout import commit, git, run
from tests.engine.conftest import SmallProject
from tests.engine.harness import plain_secrets

PROGRAM = """
import pulumi
import pulumi_gcp as gcp

labels = {"team": pulumi.Config().require_secret("secret")}
gcp.storage.Bucket("b", name="bucket-b", location="EU", storage_class="STANDARD", labels=labels)
"""
BUCKET = "gcp:storage/bucket:Bucket"
PLANTED = "planted-in-config"


def test_drift_is_seen_undone_and_gone(small: SmallProject) -> None:
    project = small(PROGRAM)
    project.run("config", "set", "--secret", "secret", PLANTED)
    commit(project)
    assert run(project, "deploy", "--stack", "test").code == 0
    clean = run(project, "drift", "--stack", "test")
    assert clean.code == 0, clean
    assert "test: no drift" in clean.text

    project.cloud.drift(BUCKET, storageClass="NEARLINE", labels={"team": f"{PLANTED}-too"})
    drifted = run(project, "drift", "--stack", "test")
    assert drifted.code == 2, drifted
    assert "test: has drifted" in drifted.text
    assert plain_secrets(drifted.text, PLANTED) == []

    # What was merged and waits for its approval is no drift, and the cure does not deploy it.
    live = git(project, "rev-parse", "HEAD").strip()
    assert "Bucket b was changed" in drifted.text
    assert "storageClass" in drifted.text
    commit(project, PROGRAM.replace("STANDARD", "COLDLINE"))
    merged = run(project, "drift", "--stack", "test")
    assert merged.code == 2, merged
    assert "COLDLINE" not in merged.text
    git(project, "checkout", "--quiet", live)
    undone = run(project, "deploy", "--stack", "test", "--refresh")
    assert undone.code == 0, undone
    assert project.cloud.of(BUCKET)["storageClass"] == "STANDARD"
    git(project, "checkout", "--quiet", "main")
    assert run(project, "drift", "--stack", "test").code == 0, "a commit that waits is no drift"
    project.cloud.lose(BUCKET)
    lost = run(project, "drift", "--stack", "test")
    assert lost.code == 2, lost
    assert "Bucket b was deleted" in lost.text


def test_a_look_that_fails_is_no_drift(small: SmallProject) -> None:
    project = small(PROGRAM)
    project.run("config", "set", "--secret", "secret", PLANTED)
    commit(project)
    assert run(project, "deploy", "--stack", "test").code == 0
    project.cloud.fail({"fault": "permission-denied", "operation": "read"})
    failed = run(project, "drift", "--stack", "test")
    assert failed.code == 1, failed
    assert "whether test has drifted is not known" in failed.text
