"""What the stand-in for Google takes, answers and calls a difference, by Google's own descriptions of its APIs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.engine import google_answers, google_api, google_requests, sdk_types
from tests.engine.provider import number_of

REPOSITORY = "gcp:artifactregistry/repository:Repository"
CLUSTER = "gcp:container/cluster:Cluster"
POOL = "gcp:container/nodePool:NodePool"
BUCKET = "gcp:storage/bucket:Bucket"
ALERT = "gcp:monitoring/alertPolicy:AlertPolicy"
DASHBOARD = "gcp:monitoring/dashboard:Dashboard"
SUBNET = "gcp:compute/subnetwork:Subnetwork"
CERTIFICATE = "gcp:certificatemanager/certificate:Certificate"
POLICY = "gcp:binaryauthorization/policy:Policy"
MEMBER = "gcp:serviceaccount/iAMMember:IAMMember"
NETWORK = "projects/acme-models/global/networks/models"


def kind(token: str) -> google_requests.Kind:
    return google_requests.kind(token.split(":")[1])


def refused(token: str, inputs: dict[str, Any], **address: str) -> list[str]:
    """Places and reasons, as far as the body goes; or the address, where one is given."""

    def filled(template: str) -> str:
        return template.format(**address)

    known = kind(token)
    if not address:
        schema = known.api.schema(known.call.request)
        return [f"{place} {reason}" for place, reason in known.api.problems(schema, known.request(inputs))]
    return [f"{place} {reason}" for place, reason in known.problems(inputs, filled)]


def state(token: str, inputs: dict[str, Any]) -> dict[str, Any]:
    return google_answers.state_of(kind(token), sdk_types.inputs_of(token), inputs)


def changed(token: str, now: dict[str, Any], new: dict[str, Any], old: dict[str, Any] | None = None) -> list[str]:
    found = google_answers.changes(
        kind(token),
        kept=sdk_types.kept(token),
        shape=sdk_types.inputs_of(token),
        state=now,
        old=new if old is None else old,
        new=new,
    )
    return [".".join(map(str, path)) for path in found]


def tile(**fields: object) -> dict[str, Any]:
    chart = {"dataSets": [{"timeSeriesQuery": {"prometheusQuery": "up"}, **fields.pop("data", {})}]}  # type: ignore[dict-item]
    return {"width": 24, "height": 16, "widget": {"xyChart": chart}, **fields}


def dashboard(*tiles: dict[str, Any], **fields: object) -> dict[str, Any]:
    content = {"displayName": "models", "mosaicLayout": {"columns": 48, "tiles": [*tiles]}, **fields}
    return {"dashboardJson": json.dumps(content)}


@pytest.mark.parametrize(
    ("token", "inputs", "told"),
    [
        (CLUSTER, {"releaseChannel": {"channel": "STABEL"}}, "cluster.releaseChannel.channel is"),
        (CLUSTER, {"privateClusterConfig": {"enablePrivateNodes": "yes"}}, "has to be of the type boolean"),
        (
            CLUSTER,
            {"maintenancePolicy": {"recurringWindow": {"startTime": "Saturday"}}},
            "cluster.maintenancePolicy.window.recurringWindow.window.startTime is",
        ),
        (POOL, {"nodeConfig": {"diskSizeGb": 3e9}}, "nodePool.config.diskSizeGb is 3000000000, not an integer of"),
        (BUCKET, {"softDeletePolicy": {"retentionDurationSeconds": 1.5}}, "has to be of the type string"),
        (REPOSITORY, {"cleanupPolicies": [{"id": "a", "condition": {"olderThan": "30d"}}]}, "google-duration"),
        (REPOSITORY, {"cleanupPolicies": [{"id": "a", "action": "PURGE"}]}, "cleanupPolicies.a.action is"),
        (SUBNET, {"name": "Models"}, "name is"),
        (POLICY, {"description": "no rule"}, "defaultAdmissionRule is missing: Policy requires it"),
        (ALERT, {"severity": "FATAL"}, "severity is"),
        (ALERT, {"conditions": [{"conditionPrometheusQueryLanguage": {"duration": "1s"}}]}, "query is missing"),
        (DASHBOARD, {"dashboardJson": '{"mosaicLayout": {}}'}, "displayName is missing"),
        (DASHBOARD, dashboard(tile(xpos=1)), "mosaicLayout.tiles[0].xpos is no field of Tile; did you mean xPos?"),
        (DASHBOARD, dashboard(tile(xPos="1")), "has to be of the type integer"),
        (DASHBOARD, dashboard(tile(data={"plotType": "CURVE"})), "plotType is"),
    ],
)
def test_what_google_refuses_in_a_request_is_refused_with_its_place(
    token: str, inputs: dict[str, Any], told: str
) -> None:
    assert any(told in reason for reason in refused(token, inputs)), refused(token, inputs)


def test_what_google_alone_sets_is_refused() -> None:
    api = google_api.api("container.v1beta1")
    problems = [*api.problems(api.schema("Cluster"), {"endpoint": "10.0.0.1", "nodePools": [{"status": "RUNNING"}]})]
    assert problems == [
        ("endpoint", "is for Google alone to set"),
        ("nodePools[0].status", "is for Google alone to set"),
    ]


def test_what_is_in_a_requests_address_is_held_to_its_pattern() -> None:
    account = {"serviceAccountId": "nodes@acme-models", "role": "roles/x", "member": "user:a@example.com"}
    (told,) = refused(MEMBER, account, serviceAccountId=account["serviceAccountId"])
    assert told == 'resource is "nodes@acme-models", which does not match ^projects/[^/]+/serviceAccounts/[^/]+$'


def test_each_property_that_the_table_does_not_know_is_told_with_what_there_is() -> None:
    with pytest.raises(google_requests.Incomplete) as told:
        kind(BUCKET).request({"storageKlass": "STANDARD", "versioning": {"enable": True}})
    assert str(told.value).splitlines()[1:] == [
        "  storage/bucket: storageKlass, unknown to Bucket; there is ['storageClass', 'autoclass']",
        "  storage/bucket: versioning.enable, unknown to storage.v1 buckets.insert; there is ['enabled']",
    ]
    with pytest.raises(google_requests.Incomplete, match=r"has no storage/object"):
        kind("gcp:storage/object:Object")


def test_each_kind_in_the_table_is_of_the_sdk_and_its_methods_and_fields_are_googles() -> None:
    names = google_requests.kinds()
    assert len(names) > 25
    for name in names:
        known = google_requests.kind(name)
        assert known.schema, name
        assert known.parameters.keys() <= known.call.parameters.keys(), name
        token = f"gcp:{name}:{name.rpartition('/')[2][:1].upper()}{name.rpartition('/')[2][1:]}"
        shape = sdk_types.inputs_of(token)
        for place in {*known.fields, *known.provider, *known.names}:
            assert _is_property(shape, place), f"{name}: {place} is no property"
        told = known.api.problems(known.schema, dict(known.adds))
        assert [(place, reason) for place, reason in told if "is missing" not in reason] == [], name


def _is_property(shape: sdk_types.Shape, place: str) -> bool:
    for part in place.split("."):
        shape = shape.get("items", shape)
        if part not in shape.get("fields", {}):
            return False
        shape = shape["fields"][part]
    return True


def test_zeros_are_left_out_of_answers_and_empty_objects_are_not() -> None:
    nodes = {"enablePrivateNodes": True, "enablePrivateEndpoint": False}
    inputs: dict[str, Any] = {"privateClusterConfig": nodes, "fleet": {}}
    inputs["controlPlaneEndpointsConfig"] = {"ipEndpointsConfig": {"enabled": False}}
    told = state(CLUSTER, inputs)
    assert told["privateClusterConfig"] == {"enablePrivateNodes": True}
    assert told["controlPlaneEndpointsConfig"] == {"ipEndpointsConfig": {}}
    assert told["fleet"] == {}
    assert changed(CLUSTER, told, inputs) == [], "zero and nothing are one where a type says so"


def test_a_zero_in_a_dashboard_is_an_update_for_ever() -> None:
    asked = dashboard(tile(xPos=0, yPos=16))
    told = state(DASHBOARD, asked)
    content = json.loads(told["dashboardJson"])
    assert {"name", "etag"} <= content.keys()
    assert "xPos" not in content["mosaicLayout"]["tiles"][0]
    assert changed(DASHBOARD, told, asked) == ["dashboardJson"]
    for default in (dashboard(tile(), labels={}), dashboard(tile(data={"plotType": "PLOT_TYPE_UNSPECIFIED"}))):
        assert changed(DASHBOARD, state(DASHBOARD, default), default) == ["dashboardJson"], default


def test_a_dashboard_is_compared_without_what_only_google_has() -> None:
    asked = dashboard(tile(yPos=16, data={"plotType": "LINE"}))
    assert changed(DASHBOARD, state(DASHBOARD, asked), asked) == []
    fewer = dashboard(tile(data={"plotType": "LINE"}))
    assert changed(DASHBOARD, state(DASHBOARD, asked), fewer) == [], "the provider sees no removal"


def test_names_come_back_in_full_and_are_no_difference() -> None:
    subnet = {"name": "nodes", "network": NETWORK, "ipCidrRange": "10.0.0.0/22", "region": "europe-west1"}
    told = state(SUBNET, subnet)
    assert told["network"] == f"https://www.googleapis.com/compute/v1/{NETWORK}"
    assert told["purpose"] == "PRIVATE"
    assert changed(SUBNET, told, subnet) == changed(SUBNET, told, {**subnet, "network": "models"}) == []
    assert changed(SUBNET, told, {**subnet, "network": NETWORK.replace("models", "others")}) == ["network"]

    proof = "projects/acme-models/locations/global/dnsAuthorizations/models"
    certificate = {"name": "models", "managed": {"domains": ["a.example"], "dnsAuthorizations": [proof]}}
    told = state(CERTIFICATE, certificate)
    assert told["managed"]["dnsAuthorizations"] == [proof.replace("acme-models", number_of("acme-models"))]
    assert changed(CERTIFICATE, told, certificate) == []


def test_what_google_fills_in_is_a_difference_unless_the_provider_keeps_or_expects_it() -> None:
    bucket = {"name": "acme-data", "location": "europe-west1"}
    told = state(BUCKET, bucket)
    assert told == {
        "location": "EUROPE-WEST1",
        "name": "acme-data",
        "publicAccessPrevention": "inherited",
        "softDeletePolicy": {"retentionDurationSeconds": 604800},
        "storageClass": "STANDARD",
    }
    assert changed(BUCKET, told, bucket) == []
    assert changed(BUCKET, told | {"storageClass": "NEARLINE", "rpo": "DEFAULT"}, bucket) == ["storageClass"]
    assert changed(BUCKET, told | {"labels": {"team": "a"}}, bucket) == ["labels"]


def test_what_a_program_no_longer_asks_for_is_a_difference() -> None:
    old = {"name": "models", "privateClusterConfig": {"enablePrivateNodes": True, "masterIpv4CidrBlock": "10.9.0.0/28"}}
    new = {"name": "models", "privateClusterConfig": {"enablePrivateNodes": True}}
    assert changed(CLUSTER, state(CLUSTER, old), new, old) == ["privateClusterConfig.masterIpv4CidrBlock"]


def test_a_list_that_is_a_mapping_at_google_has_no_order() -> None:
    policies = [{"id": each, "action": "KEEP", "mostRecentVersions": {"keepCount": 3}} for each in ("b", "a")]
    asked = {"repositoryId": "models", "format": "DOCKER", "cleanupPolicies": policies}
    told = state(REPOSITORY, asked)
    assert [each["id"] for each in told["cleanupPolicies"]] == ["a", "b"]
    assert changed(REPOSITORY, told, asked) == []
    policies[0]["action"] = "DELETE"
    assert changed(REPOSITORY, told, asked) == ["cleanupPolicies.1.action"]
