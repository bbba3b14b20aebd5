from __future__ import annotations

from tests.engine.checkout import commit, run
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

    undone = run(project, "deploy", "--stack", "test", "--refresh")
    assert undone.code == 0, undone
    assert project.cloud.of(BUCKET)["storageClass"] == "STANDARD"
    assert run(project, "drift", "--stack", "test").code == 0


def test_a_look_that_fails_is_no_drift(small: SmallProject) -> None:
    project = small("raise SystemExit('broken program')")
    commit(project)
    failed = run(project, "drift", "--stack", "test")
    assert failed.code == 1, failed
    assert "whether test has drifted is not known" in failed.text
