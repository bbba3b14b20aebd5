"""The stacks on Google Cloud through the real engine, with every cloud stood in for."""

from __future__ import annotations

import json
import re

import pytest

from tests.engine import invariants
from tests.engine.conftest import Standing, Whole
from tests.engine.gcp_standin import PRIVATE_KEY
from tests.engine.harness import STANDINS, Cloud, plain_secrets

STAGING = pytest.param("staging", marks=pytest.mark.thorough("dev, which is Autopilot too, and production"))
STACKS = ("dev", STAGING, "production")
PUBLIC_GATEWAY = "    gateway: {public: true, access: open, domain: models.example.com}\n"
PIPELINES = """\
    state:
      bucket: my-models-production-pulumi-state
      key: projects/my-models-production/locations/europe-west1/keyRings/pulumi/cryptoKeys/stack-secrets
    identity: {gitlab: {projectId: 1, modelProjectIds: [2]}, keyForCi: true}
"""
FAULTS = ("permission-denied", "quota-exceeded", "api-not-enabled", "half-made", "timeout")
DEPLOYMENT = "kubernetes:apps/v1:Deployment"
REPOSITORY = "gcp:artifactregistry/repository:Repository"
LONGEST_CHAIN = 12
"""Resources that wait for each other, at most: one more run brings at least one more link."""


def held(cloud: Cloud) -> set[str]:
    return {resource["id"] for package in STANDINS for resource in cloud.resources(package).values()}


@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_comes_up_stays_as_it_is_mends_drift_and_goes(whole: Whole, stack: str) -> None:
    project = whole(stack)
    assert project.preview().changes.keys() == {"create"}
    assert held(project.cloud) == set(), "a preview made something"
    project.up()
    resources = project.resources()
    assert {each["id"] for each in resources} == held(project.cloud)

    assert list(invariants.made_before_their_api(resources)) == []
    assert list(invariants.broad_bindings(resources)) == []
    assert list(invariants.public_doors(resources)) == [], "no stack says public as it is committed"
    shown = project.export() + project.outputs()
    assert plain_secrets(shown, PRIVATE_KEY) == []
    assert not re.search(r"-----BEGIN [A-Z ]*PRIVATE KEY|\bya29\.|\bglpat-", shown)

    again = project.preview()
    assert again.changes == {}, again
    project.cloud.drift(REPOSITORY, dockerConfig={"immutableTags": False})
    seen = project.refresh()
    assert seen.changes == {"update": 1}, seen
    undone = project.up()
    assert [(step.token, step.operation) for step in undone.steps] == [(REPOSITORY, "update")], undone
    assert project.cloud.of(REPOSITORY)["dockerConfig"] == {"immutableTags": True}

    if "deletionProtection: true" in project.settings():
        assert "deletion" in project.destroy(fails=True).text
        project.edit_settings("deletionProtection: true", "deletionProtection: false")
        project.up()
    project.destroy()
    kept = {each["token"].rpartition(":")[2] for each in project.cloud.resources().values()}
    assert kept <= {"WorkloadIdentityPool", "WorkloadIdentityPoolProvider"}, "destroy left something behind"
    assert project.cloud.resources("kubernetes") == {}


def test_the_number_of_pods_is_the_autoscalers(standing: Standing) -> None:
    project = standing("dev")
    project.edit_settings("wine-lgbm: {}", "wine-lgbm: {autoscaling: {minimum: 2, maximum: 4}}")
    project.up()
    (server,) = (
        each["outputs"]
        for each in project.cloud.resources("kubernetes").values()
        if each["name"] == "wine-lgbm-1-0" and each["token"] == DEPLOYMENT
    )
    project.cloud.drift(DEPLOYMENT, name="wine-lgbm-1-0", spec={**server["spec"], "replicas": 3})
    assert project.run("preview", "--refresh", "--expect-no-changes").code == 0


def test_everything_waits_for_an_answer_as_long_as_the_model_may_take(standing: Standing) -> None:
    project = standing("dev")
    project.edit_settings("wine-lgbm: {}", "wine-lgbm: {answerSeconds: 90}")
    project.up()
    specs = {
        each["token"].rpartition(":")[2]: each["outputs"]["spec"]
        for each in project.cloud.resources("kubernetes").values()
        if each["name"] in ("wine-lgbm-1-0", "wine-lgbm-1-0-contract") and "spec" in each["outputs"]
    }
    pod = specs["Deployment"]["template"]["spec"]
    assert {"name": "MODEL_SERVING_ANSWER_SECONDS", "value": "90"} in pod["containers"][0]["env"]
    assert pod["terminationGracePeriodSeconds"] == 60 + 90, "after the drain"
    # The server's own refusal comes first, because it has a reason.
    assert specs["GCPBackendPolicy"]["default"] == {
        "timeoutSec": 91,
        "connectionDraining": {"drainingTimeoutSec": 91},
    }
    assert "--answer-seconds=90" in specs["Job"]["template"]["spec"]["containers"][0]["args"]


def test_a_stack_that_says_public_has_a_guarded_address_and_a_certificate(whole: Whole) -> None:
    project = whole("staging")
    project.edit_settings("  model-serving:gcp:\n", f"  model-serving:gcp:\n{PUBLIC_GATEWAY}")
    kinds = {step.token.rpartition(":")[2] for step in project.preview().steps}
    assert {"GlobalAddress", "SecurityPolicy", "Certificate", "SSLPolicy"} <= kinds
    project.up()
    doors = {door.partition(":")[0] for door in invariants.public_doors(project.resources())}
    assert doors == {"edge", "gateway"}


def test_production_converges_after_a_failure_at_each_kind_of_resource(whole: Whole) -> None:
    project = whole("production")
    project.edit_settings("  model-serving:gcp:\n", f"  model-serving:gcp:\n{PUBLIC_GATEWAY}{PIPELINES}")
    kinds = sorted({step.token for step in project.preview().steps if step.token.startswith("gcp:")})
    assert len(kinds) > 20, kinds
    # The first of each kind fails, each time in another way; the rest of the kind may succeed.
    faults = [{"fault": FAULTS[n % len(FAULTS)], "token": kind} for n, kind in enumerate(kinds)]
    project.cloud.fail(*faults)
    runs = 0
    while (runs := runs + 1) <= LONGEST_CHAIN and (failed := project.up(fails=None, keep_going=True)).code:
        assert failed.errors, failed
    assert runs <= LONGEST_CHAIN, failed
    met = json.loads((project.cloud.folder / "gcp.json").read_text())["calls"]
    assert len(met) == len(faults), "a kind was never made, so its fault proved nothing"
    assert {each["id"] for each in project.resources()} == held(project.cloud), "a failure left something behind"
    assert project.preview().changes == {}
