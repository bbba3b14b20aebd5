"""The stand-in proved through the real engine: whatever it gets wrong here, the tests of the stacks get wrong too."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from pulumi.runtime.proto import provider_pb2

from tests.engine.conftest import SmallProject
from tests.engine.gcp_standin import Google
from tests.engine.google_outputs import PRIVATE_KEY
from tests.engine.harness import ENDPOINT, Cloud, plain_secrets
from tests.engine.provider import UNKNOWN, write

EU = {"location": "EU"}
BUCKET = "gcp:storage/bucket:Bucket"
URN = "urn:pulumi:test::small::{token}::{name}"


class _Aborted(Exception):
    pass


class _Context:
    """What gRPC hands to a provider, as far as a refusal needs it."""

    def abort(self, code: grpc.StatusCode, message: str) -> None:
        raise _Aborted(message)


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path / "cloud")


@pytest.fixture
def google(cloud: Cloud) -> Google:
    """The stand-in without the engine, where milliseconds are enough to see what it refuses."""
    google = Google(cloud.folder, cloud.faults)
    google.config = {"project": "acme-models", "region": "europe-west1"}
    return google


def _create(google: Google, token: str, name: str, inputs: dict[str, Any]) -> str:
    """Makes a resource; returns what the refusal says, nothing if it was made."""
    urn = URN.format(token=f"gcp:{token}", name=name)
    named = google.defaulted(f"gcp:{token}", name, inputs, {}, "0123456")
    try:
        google.Create(provider_pb2.CreateRequest(urn=urn, properties=write(named)), _Context())
    except _Aborted as error:
        return str(error)
    return ""


def _delete(google: Google, token: str, name: str) -> str:
    with google.store.open() as content:
        (found,) = (each["id"] for each in content["resources"].values() if each["name"] == name)
    try:
        google.Delete(provider_pb2.DeleteRequest(urn=URN.format(token=f"gcp:{token}", name=name), id=found), _Context())
    except _Aborted as error:
        return str(error)
    return ""


PROGRAM = """
import pulumi
import pulumi_gcp as gcp

apis = gcp.projects.Service("registry-api", service="artifactregistry.googleapis.com", disable_on_destroy=False)
account = gcp.serviceaccount.Account("train", account_id="training")
key = gcp.serviceaccount.Key("key", service_account_id=account.name)
bucket = gcp.storage.Bucket("data", location="EU", labels={"team": "one"}, uniform_bucket_level_access=True)
gcp.storage.BucketIAMMember("reader", bucket=bucket.name, role="roles/storage.objectViewer", member=account.member)
repository = gcp.artifactregistry.Repository(
    "images", repository_id="models", location="europe-west1", format="DOCKER",
    docker_config={"immutable_tags": True}, opts=pulumi.ResourceOptions(depends_on=[apis]),
)
pulumi.export("registry", repository.registry_uri)
pulumi.export("key", key.private_key)
"""
MADE = 6


def test_a_program_lives_through_up_drift_update_replacement_and_destroy(small: SmallProject) -> None:
    project = small(PROGRAM)
    cloud, program = project.cloud, project.folder / "__main__.py"

    assert project.preview().changes["create"] == MADE + 1
    assert cloud.resources() == {}, "a preview made something"
    first = project.up()
    assert first.changes == {"create": MADE + 1}  # and the stack
    assert len(cloud.resources()) == MADE
    assert json.loads(project.outputs())["registry"] == "europe-west1-docker.pkg.dev/acme-models/models"
    member = cloud.of("gcp:storage/bucketIAMMember:BucketIAMMember")["member"]
    assert member == "serviceAccount:training@acme-models.iam.gserviceaccount.com"

    assert f"{PRIVATE_KEY}-" in json.dumps(cloud.resources()), "the stand-in made no key, so nothing could leak"
    assert plain_secrets(project.export(), PRIVATE_KEY) == []

    assert project.preview().changes == {}

    cloud.drift(BUCKET, labels={"team": "somebody"})
    cloud.lose("gcp:artifactregistry/repository:Repository")
    seen = project.refresh()
    assert seen.changes == {"update": 1, "delete": 1}, seen
    (bucket,) = (each for each in project.resources() if each["id"] == cloud.of(BUCKET)["name"])
    assert bucket["outputs"]["labels"] == {"team": "somebody"}
    repair = project.preview()
    assert (repair.names("update"), repair.names("create")) == ({"data"}, {"images"}), repair

    # A label is changed in place; a location and what depends on it are replaced.
    program.write_text(PROGRAM.replace('"one"', '"two"').replace('location="EU"', 'location="US"'))
    second = project.up()
    assert second.changes == {"replace": 2, "create": 1}
    assert cloud.of(BUCKET)["location"] == "US"
    program.write_text(PROGRAM.replace('"one"', '"three"').replace('location="EU"', 'location="US"'))
    assert project.up().changes == {"update": 1}
    assert cloud.of(BUCKET)["labels"] == {"team": "three"}

    assert project.destroy().changes["delete"] == MADE + 1
    assert cloud.resources() == {}


def test_a_misspelt_nested_property_stops_the_preview(small: SmallProject) -> None:
    program = """
import pulumi_gcp as gcp
gcp.storage.Bucket("b", location="EU", lifecycle_rules=[{"action": {"type": "Delete"}, "condition": {"age_days": 1}}])
"""
    outcome = small(program).preview(fails=True)
    assert "lifecycleRules[0].condition.age_days" in outcome.text, outcome
    assert "is no property of BucketLifecycleRuleConditionArgs" in outcome.text, outcome


@pytest.mark.parametrize(
    ("token", "inputs", "place", "told"),
    [
        ("storage/bucket:Bucket", {}, "location", "BucketArgs requires it"),
        ("storage/bucket:Bucket", {**EU, "versionning": {}}, "versionning", "did you mean versioning"),
        ("storage/bucket:Bucket", {**EU, "versioning": {"enabled": "yes"}}, "versioning.enabled", "has to be bool"),
        ("storage/bucket:Bucket", {**EU, "softDeletePolicy": {"retentionDurationSeconds": 9}}, "", "604800"),
        ("storage/bucket:Bucket", {**EU, "cors": {"origins": []}}, "cors", "has to be a list"),
        ("container/cluster:Cluster", {"ipAllocationPolicy": {"stack_type": "x"}}, "", "did you mean stackType"),
        ("container/cluster:Cluster", {"maintenancePolicy": {"recurringWindow": {}}}, "", "requires it"),
        ("container/cluster:Cluster", {"enableAutopilot": True, "enableShieldedNodes": True}, "", "conflicts"),
        ("container/cluster:Cluster", {"name": "n" * 41}, "name", "does not take"),
        ("projects/iAMMember:IAMMember", {"project": "p", "role": "viewer", "member": "user:a"}, "role", "not take"),
        ("storage/buckets:Buckets", {}, "", "has no resource"),
    ],
)
def test_what_the_api_would_refuse_is_refused_with_its_place(
    google: Google, token: str, inputs: dict[str, Any], place: str, told: str
) -> None:
    found = list(google.problems(f"gcp:{token}", inputs))
    assert [(where, reason) for where, reason in found if where.startswith(place) and told in reason], found


def test_right_properties_and_values_that_a_preview_does_not_know_are_not_refused(google: Google) -> None:
    inputs = {**EU, "name": UNKNOWN, "labels": UNKNOWN, "versioning": {"enabled": UNKNOWN}}
    assert list(google.problems("gcp:storage/bucket:Bucket", inputs)) == []


@pytest.mark.parametrize(
    ("token", "path", "replaces"),
    [
        ("kms/cryptoKey:CryptoKey", ("purpose",), True),  # the SDK's text says so
        ("container/nodePool:NodePool", ("initialNodeCount",), True),
        ("container/cluster:Cluster", ("ipAllocationPolicy", "podCidrOverprovisionConfig"), True),  # our table does
        ("storage/bucketIAMMember:BucketIAMMember", ("member",), True),
        ("storage/bucket:Bucket", ("name",), True),
        ("storage/bucket:Bucket", ("versioning", "enabled"), False),
        ("container/cluster:Cluster", ("deletionProtection",), False),
    ],
)
def test_what_replaces_a_resource_is_known(google: Google, token: str, path: tuple[str, ...], replaces: bool) -> None:
    assert google.replaced_by(f"gcp:{token}", path) is replaces


ADOPTED = """
import pulumi
import pulumi_gcp as gcp

bucket = gcp.storage.Bucket("data", name="acme-data", location="EU", opts=pulumi.ResourceOptions(import_="acme-data"))
cluster = gcp.container.get_cluster_output(name="shared", location="europe-west1")
pulumi.export("endpoint", cluster.control_plane_endpoints_configs[0].dns_endpoint_configs[0].endpoint)
"""


def test_what_is_there_already_is_looked_up_and_imported(small: SmallProject) -> None:
    project = small(ADOPTED)
    there = Google(project.cloud.folder, None, os.environ)
    there.config = {"project": "acme-models", "region": "europe-west1"}
    _create(there, "storage/bucket:Bucket", "there", {"name": "acme-data", **EU})
    _create(there, "projects/service:Service", "api", {"service": "container.googleapis.com"})
    _create(there, "container/cluster:Cluster", "there", {"name": "shared", "location": "europe-west1"})
    before = project.cloud.resources()
    assert project.up().names("import") == {"data"}
    assert project.cloud.resources() == before
    assert json.loads(project.outputs())["endpoint"] == os.environ[ENDPOINT]


SIX = """
import pulumi_gcp as gcp
for name in ("denied", "quota", "disabled", "late", "half", "well"):
    gcp.storage.Bucket(name, name=f"acme-{name}", location="EU")
"""


def test_each_injected_fault_stops_its_own_resource_and_the_next_run_converges(small: SmallProject) -> None:
    project = small(SIX)
    kinds = {
        "denied": ("permission-denied", "Permission denied on resource denied"),
        "quota": ("quota-exceeded", "Quota exceeded"),
        "disabled": ("api-not-enabled", "accessNotConfigured"),
        "late": ("timeout", "timeout while waiting for late"),
        "half": ("half-made", "acme-half was made but is not ready"),
    }
    project.cloud.fail(
        *({"fault": fault, "token": "gcp:storage/*", "name": name} for name, (fault, _) in kinds.items())
    )
    failed = project.up(fails=True, keep_going=True)
    for name, (_, message) in kinds.items():
        assert message in failed.text, (name, failed)
    held = {each["name"] for each in project.cloud.resources().values()}
    assert held == {"half", "well"}, "what failed is there, or what did not fail is not"

    second = project.up()
    assert (second.names("create"), second.names("update")) == ({"denied", "quota", "disabled", "late"}, {"half"})
    assert project.preview().changes == {}


def test_a_fault_waits_for_its_call_and_its_operation(google: Google, cloud: Cloud) -> None:
    cloud.fail(
        {"fault": "quota-exceeded", "nth": 2, "times": 2},
        {"fault": "permission-denied", "operation": "delete", "name": "bucket-4"},
        {"fault": "slow", "name": "bucket-5", "seconds": 0.2},
    )
    answers = [_create(google, "storage/bucket:Bucket", f"bucket-{number}", EU) for number in range(1, 6)]
    assert ["Quota exceeded for gcp:storage/bucket:Bucket" in answer for answer in answers[:4]] == [0, 1, 1, 0]
    assert {each["name"] for each in cloud.resources().values()} == {"bucket-1", "bucket-4", "bucket-5"}
    assert "Permission denied" in _delete(google, "storage/bucket:Bucket", "bucket-4")
    assert _delete(google, "storage/bucket:Bucket", "bucket-4") == ""
    assert len(cloud.resources()) == 2

    cloud.fail({"fault": "slow", "seconds": 0.2})
    started = time.monotonic()
    _create(google, "storage/bucket:Bucket", "bucket-6", EU)
    assert time.monotonic() - started >= 0.2


def test_requests_at_one_time_lose_nothing(google: Google, cloud: Cloud) -> None:
    other = Google(cloud.folder, cloud.faults)  # As a second provider of the program would start a second process
    other.config = google.config
    with ThreadPoolExecutor(16) as pool:
        made = [
            pool.submit(_create, (google, other)[number % 2], "storage/bucket:Bucket", f"bucket-{number}", EU)
            for number in range(60)
        ]
    assert {future.result() for future in made} == {""}
    assert len(cloud.resources()) == 60


CLUSTER = """
import pulumi
import pulumi_gcp as gcp

compute = gcp.projects.Service("compute", service="compute.googleapis.com", disable_on_destroy=False)
container = gcp.projects.Service("container", service="container.googleapis.com", disable_on_destroy=False)
after = pulumi.ResourceOptions(depends_on=[compute, container])
network = gcp.compute.Network("network", name="models", auto_create_subnetworks=False, opts=after)
subnet = gcp.compute.Subnetwork("subnet", name="models", network=network.id, ip_cidr_range="10.0.0.0/20")
cluster = gcp.container.Cluster(
    "cluster", name="models", location="europe-west1", network=network.id, subnetwork=subnet.id,
    enable_autopilot=True, deletion_protection=True,
    control_plane_endpoints_config={"dns_endpoint_config": {"allow_external_traffic": True}},
    workload_identity_config={"workload_pool": "acme-models.svc.id.goog"},
)
pulumi.export("endpoint", cluster.control_plane_endpoints_config.dns_endpoint_config.endpoint)
"""


def test_a_protected_cluster_is_destroyed_only_after_it_was_released(small: SmallProject) -> None:
    project = small(CLUSTER)
    project.environment["STANDIN_CLUSTER_DNS_ENDPOINT"] = "cluster.example"
    project.up()
    assert json.loads(project.outputs()) == {"endpoint": "cluster.example"}
    refused = project.destroy(fails=True)
    assert "deletion_protection is set to true" in refused.text, refused
    assert "gcp:compute/network:Network" in {each["token"] for each in project.cloud.resources().values()}

    source = project.folder / "__main__.py"
    source.write_text(source.read_text().replace("deletion_protection=True", "deletion_protection=False"))
    assert project.up().names("update") == {"cluster"}
    project.destroy()
    assert project.cloud.resources() == {}


NETWORK = {"name": "models", "autoCreateSubnetworks": False}


def test_what_is_made_before_its_api_is_enabled_fails(google: Google) -> None:
    assert "compute.googleapis.com has not been used" in _create(google, "compute/network:Network", "network", NETWORK)
    _create(google, "projects/service:Service", "api", {"service": "compute.googleapis.com"})
    assert _create(google, "compute/network:Network", "network", NETWORK) == ""


def test_a_network_goes_after_what_is_in_it(google: Google) -> None:
    subnet = {"name": "models", "network": "models", "region": "europe-west1"}
    _create(google, "projects/service:Service", "api", {"service": "compute.googleapis.com"})
    assert "network models was not found" in _create(google, "compute/subnetwork:Subnetwork", "subnet", subnet)
    _create(google, "compute/network:Network", "network", NETWORK)
    assert _create(google, "compute/subnetwork:Subnetwork", "subnet", subnet) == ""
    assert "is already being used by" in _delete(google, "compute/network:Network", "network")
    assert _delete(google, "compute/subnetwork:Subnetwork", "subnet") == ""
    assert _delete(google, "compute/network:Network", "network") == ""


@pytest.mark.parametrize(
    ("member", "told"),
    [
        ("serviceAccount:nobody@acme-models.iam.gserviceaccount.com", "nobody@acme-models.iam"),
        ("serviceAccount:acme-models.svc.id.goog[models/server]", "no cluster has Workload Identity"),
        ("principalSet://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/ci/x/y", "pools/ci"),
    ],
)
def test_a_grant_to_nobody_is_refused(google: Google, member: str, told: str) -> None:
    grant = {"bucket": "b", "role": "roles/storage.objectViewer", "member": member}
    assert told.lower() in _create(google, "storage/bucketIAMMember:BucketIAMMember", "grant", grant).lower()


def test_a_name_that_is_taken_is_refused_and_some_stay_taken(google: Google) -> None:
    pool = {"workloadIdentityPoolId": "ci-pool"}
    assert _create(google, "iam/workloadIdentityPool:WorkloadIdentityPool", "pool", pool) == ""
    assert "already exists" in _create(google, "iam/workloadIdentityPool:WorkloadIdentityPool", "twin", pool)
    assert _delete(google, "iam/workloadIdentityPool:WorkloadIdentityPool", "pool") == ""
    assert "already exists" in _create(google, "iam/workloadIdentityPool:WorkloadIdentityPool", "pool", pool)


OTHERS = """
import pulumi
import pulumi_docker_build as docker_build
import pulumi_gcp as gcp
import pulumi_kubernetes as kubernetes

account = gcp.serviceaccount.Account("server", account_id="server")
cluster = kubernetes.Provider("cluster", kubeconfig="{}", cluster_identifier="one")
image = docker_build.Image("image", push=True, tags=["registry/model:1"], context={"location": "."})
kubernetes.apps.v1.Deployment(
    "server", metadata={"namespace": "models"}, opts=pulumi.ResourceOptions(provider=cluster),
    spec={
        "selector": {"matchLabels": {"app": "server"}},
        "template": {
            "metadata": {"labels": {"app": "server"}, "annotations": {"account": account.email}},
            "spec": {"containers": [{"name": "server", "image": image.ref}]},
        },
    },
)
pulumi.export("image", image.ref)
"""


@pytest.mark.thorough("every stack of tests/engine/test_stacks.py, which has all of them")
def test_three_clouds_are_stood_in_for_in_one_program(small: SmallProject) -> None:
    project = small(OTHERS)
    assert project.up().changes == {"create": 5}  # the stack, the cluster's provider and a resource of each
    (deployment,) = project.cloud.resources("kubernetes").values()
    (container,) = deployment["inputs"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == json.loads(project.outputs())["image"]
    assert container["image"].startswith("registry/model:1@sha256:")
    assert project.preview().changes == {}
    project.destroy()
    assert project.cloud.resources("kubernetes") == {}
