"""The stacks on Google Cloud through the real engine, with every cloud stood in for."""

from __future__ import annotations

import json
import re

import pytest

from tests.engine import invariants
from tests.engine.conftest import Standing, Whole
from tests.engine.google_outputs import PRIVATE_KEY
from tests.engine.harness import STANDINS, Project, plain_secrets
from tests.engine.variants import TOGETHER, VARIANTS

PUBLIC_GATEWAY = "    gateway: {public: true, access: open, domain: models.example.com}\n"
PIPELINES = """\
    state:
      bucket: my-models-production-pulumi-state
      key: projects/my-models-production/locations/europe-west1/keyRings/pulumi/cryptoKeys/stack-secrets
    identity: {gitlab: {projectId: 1, modelProjectIds: [2]}, keyForCi: true}
"""
SCALED_AND_SLOW = (("wine-lgbm: {}", "wine-lgbm: {autoscaling: {minimum: 2, maximum: 4}, answerSeconds: 90}"),)
FAULTS = ("permission-denied", "quota-exceeded", "api-not-enabled", "half-made", "timeout")
ALWAYS = ("dev", "existing", *TOGETHER)
OTHERS = [pytest.mark.thorough("those of dev in TOGETHER; tests/unit/test_gcp_apis.py for staging and production")]
DEPLOYMENT = "kubernetes:apps/v1:Deployment"
POOLS = {f"gcp:iam/workloadIdentityPool{kind}:WorkloadIdentityPool{kind}" for kind in ("", "Provider")}
REPOSITORY = "gcp:artifactregistry/repository:Repository"
LONGEST_CHAIN = 12
"""Resources that wait for each other, at most: one more run brings at least one more link."""


def of_the_stack(project: Project) -> dict[str, set[str]]:
    """Package to the ids of its resources in the state."""
    found: dict[str, set[str]] = {}
    for each in project.resources():
        found.setdefault(each["type"].partition(":")[0], set()).add(f"{each['type']} {each['id']}")
    return found


def held(project: Project) -> dict[str, set[str]]:
    """Package to the ids of what its cloud has."""
    clouds = {package: project.cloud.resources(package).values() for package in STANDINS}
    return {
        package: {f"{each['token']} {each['id']}" for each in resources}
        for package, resources in clouds.items()
        if resources
    }


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in ALWAYS else OTHERS) for name in VARIANTS])
def test_each_variant_comes_up_stays_as_it_is_and_goes(whole: Whole, name: str) -> None:
    variant = VARIANTS[name]
    project = whole(variant.stack)
    variant.lay_over(project)
    before = held(project)
    project.up()
    made = of_the_stack(project)
    assert {package: found - before.get(package, set()) for package, found in held(project).items()} == made
    assert len(made["gcp"]) == variant.resources

    resources = project.resources()
    assert list(invariants.made_before_their_api(resources)) == []
    assert list(invariants.routes_before_their_contract(resources)) == []
    assert list(invariants.broad_bindings(resources)) == []
    assert {door.partition(":")[0] for door in invariants.public_doors(resources)} == variant.doors
    shown = project.export()
    assert plain_secrets(shown, PRIVATE_KEY) == []
    assert not re.search(r"-----BEGIN [A-Z ]*PRIVATE KEY|\bya29\.|\bglpat-", shown)

    # What Google returns is what the program asks for, and what the provider takes for the same.
    project.run("preview", "--refresh", "--expect-no-changes")

    if "deletionProtection: true" in project.settings():
        assert "deletion" in project.destroy(fails=True).text
        project.edit_settings("deletionProtection: true", "deletionProtection: false")
        project.up()
    project.destroy()
    left = held(project)
    kept = {each.partition(" ")[0] for each in left.pop("gcp", set()) - before.get("gcp", set())}
    assert kept <= POOLS, "destroy left something behind"
    # Images stay, because a rollback may need them.
    assert left == {"docker-build": made["docker-build"]}


def test_a_preview_makes_nothing_and_drift_is_mended(standing: Standing) -> None:
    project = standing("dev")
    before = held(project)
    project.edit_settings("wine-lgbm: {}", "wine-lgbm: {replicas: 2}")
    # Two pods have a budget of disruptions, and a stack that has several pods of something has two of the portal.
    steps = [(step.operation, step.token.rpartition(":")[2], step.name) for step in project.preview().steps]
    assert sorted(steps) == [
        ("create", "PodDisruptionBudget", "wine-lgbm-1-0"),
        ("update", "Deployment", "portal"),
        ("update", "Deployment", "wine-lgbm-1-0"),
    ]
    assert held(project) == before, "a preview made something"
    project.edit_settings("wine-lgbm: {replicas: 2}", "wine-lgbm: {}")

    project.cloud.drift(REPOSITORY, dockerConfig={"immutableTags": False})
    seen = project.refresh()
    assert seen.changes == {"update": 1}, seen
    undone = project.up()
    assert [(step.token, step.operation) for step in undone.steps] == [(REPOSITORY, "update")], undone
    assert project.cloud.of(REPOSITORY)["dockerConfig"] == {"immutableTags": True}


def test_the_number_of_pods_is_the_autoscalers(standing: Standing) -> None:
    project = standing("dev", SCALED_AND_SLOW)
    (server,) = (
        each["outputs"]
        for each in project.cloud.resources("kubernetes").values()
        if each["name"] == "wine-lgbm-1-0" and each["token"] == DEPLOYMENT
    )
    project.cloud.drift(DEPLOYMENT, name="wine-lgbm-1-0", spec={**server["spec"], "replicas": 3})
    assert project.run("preview", "--refresh", "--expect-no-changes").code == 0


def test_everything_waits_for_an_answer_as_long_as_the_model_may_take(standing: Standing) -> None:
    project = standing("dev", SCALED_AND_SLOW)
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


def test_production_converges_after_a_failure_at_each_kind_of_resource(whole: Whole) -> None:
    project = whole("production")
    project.edit_settings("  model-serving:gcp:\n", f"  model-serving:gcp:\n{PUBLIC_GATEWAY}{PIPELINES}")
    project.set_settings("models", {"iris-dtc": {}})
    kinds = sorted({step.token for step in project.preview().steps if step.token.startswith("gcp:")})
    assert held(project) == {}, "a preview made something"
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
    assert of_the_stack(project) == held(project), "a failure left something behind"
    assert project.preview().changes == {}
