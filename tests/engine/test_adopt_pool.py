"""A pool that outlived its stack is taken up by the command that docs/gcp.md names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.engine.conftest import Whole
from tests.engine.harness import Project

POOL = "gcp:iam/workloadIdentityPool:WorkloadIdentityPool"
PIPELINES = """\
    state:
      bucket: my-models-dev-pulumi-state
      key: projects/my-models-dev/locations/europe-west1/keyRings/pulumi/cryptoKeys/stack-secrets
    identity: {gitlab: {projectId: 1, modelProjectIds: [2]}, github: {repositoryId: 3, ownerId: 4}}
"""


def leave_pool(project: Project) -> None:
    """What an earlier stack left at Google: a pool, and a provider that trusts other repositories."""
    identifier = "projects/my-models-dev/locations/global/workloadIdentityPools/model-serving"
    left: dict[str, dict[str, Any]] = {
        f"{POOL}::{identifier}": {
            "project": "my-models-dev",
            "workloadIdentityPoolId": "model-serving",
            "displayName": "model-serving",
            "description": "Pipelines that act without a key",
        },
        f"{POOL.replace('Pool', 'PoolProvider')}::{identifier}/providers/gitlab": {
            "project": "my-models-dev",
            "workloadIdentityPoolId": "model-serving",
            "workloadIdentityPoolProviderId": "gitlab",
            "attributeMapping": {"google.subject": "assertion.project_id", "attribute.duty": "'none'"},
            "attributeCondition": "assertion.project_id in ['99']",
            "oidc": {"issuerUri": "https://gitlab.com"},
        },
    }
    resources = {
        key: {
            "token": key.partition("::")[0],
            "id": key.partition("::")[2],
            "name": "left",
            "inputs": inputs,
            "outputs": {**inputs, "name": key.partition("::")[2], "state": "ACTIVE"},
        }
        for key, inputs in left.items()
    }
    (project.cloud.folder / "gcp.json").write_text(json.dumps({"resources": resources, "deleted": [], "calls": {}}))


def answer_as_gcloud(folder: Path) -> None:
    """A gcloud that knows the pool and one provider."""
    gcloud = folder / "gcloud"
    gcloud.parent.mkdir()
    gcloud.write_text(
        '#!/bin/sh\ncase "$*" in *github*) echo NOT_FOUND >&2; exit 1;; esac\necho \'{"state": "ACTIVE"}\'\n'
    )
    gcloud.chmod(0o755)


def test_a_kept_pool_is_taken_up(whole: Whole, tmp_path: Path) -> None:
    project = whole("dev")
    project.edit_settings("  model-serving:gcp:\n", f"  model-serving:gcp:\n{PIPELINES}")
    project.edit_settings("    iris-dtc: {}\n    classificador-produtos: {}\n", "")
    leave_pool(project)
    answer_as_gcloud(tmp_path / "bin")
    failed = project.up(fails=True)
    assert any("409" in error and "workloadIdentityPools/model-serving" in error for error in failed.errors), failed

    path = f"{tmp_path / 'bin'}:{project.environment['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "model_serving", "adopt-pool", "--stack", project.stack],
        cwd=project.folder,
        env=project.environment | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

    taken_up = project.up()
    updated = {step.name for step in taken_up.steps if step.operation == "update"}
    assert updated == {"identity-gitlab"}, "it trusts this repository now"
    assert "identity-github" in taken_up.names("create")
    assert project.preview().changes == {}
    parents = {
        each["parent"].rpartition("::")[2] for each in project.resources() if "workloadIdentityPool" in each["type"]
    }
    assert parents == {"identity"}
