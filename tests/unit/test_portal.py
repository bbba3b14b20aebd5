"""What the portal declares, and what becomes of its image."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pulumi import Output

from components.serving.access import ServerAccess, ServerAccessArgs
from components.serving.portal import LABELS, Portal, PortalArgs, ServedVersion
from model_serving.images import builds, portal
from model_serving.images.registry import Image
from model_serving.images.settings import ImageSettings
from model_serving.stack.settings import Settings
from tests.unit.conftest import Recorder
from tests.unit.test_components import Declare

IMAGES = ImageSettings()


def served(version: str, weight: int = 100, **more: Any) -> ServedVersion:
    return ServedVersion(
        model="iris",
        version=version,
        address=Output.from_input("10.0.0.1"),
        ready_path=f"/v2/models/iris/versions/{version}/ready",
        weight=weight,
        **more,
    )


def declared(declare: Declare, **changes: Any) -> Recorder:
    arguments: dict[str, Any] = {
        "served": [served("1.0")],
        "client_ranges": ["10.1.0.0/16"],
        "drain_seconds": 5,
    } | changes
    args = PortalArgs(namespace="models", image="localhost:5000/portal:1@sha256:1", gateway="gateway", **arguments)
    return declare(lambda: Portal("portal", args) and None)


def listed_by(recorder: Recorder) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(recorder.of_kind("ConfigMap")["portal"]["data"]["served.json"])
    return listed


def pods_of(recorder: Recorder) -> dict[str, Any]:
    spec: dict[str, Any] = recorder.of_kind("Deployment")["portal"]["spec"]
    return spec


def test_it_lists_what_is_served_and_starts_again_when_that_changes(declare: Declare) -> None:
    recorder = declared(declare, served=[served("1.0"), served("1.1", 0)])
    listed = listed_by(recorder)
    assert [(each["version"], each["weight"]) for each in listed] == [("1.0", 100), ("1.1", 0)]
    assert listed[0]["readyUrl"] == "http://10.0.0.1:8080/v2/models/iris/versions/1.0/ready"
    annotation = pods_of(recorder)["template"]["metadata"]["annotations"]
    assert annotation["model-serving/served"]


def test_it_lists_what_the_page_shows_of_a_version(declare: Declare) -> None:
    about = {"implementation": "own.Model"}
    shadow = served("1.1", 0, shadow=True, deployed="2026-11-29T12:00:00Z", grpc=True, about=about)
    listed = listed_by(declared(declare, served=[served("1.0"), shadow]))
    assert [(each["shadow"], each["deployed"], each["grpc"], each["about"]) for each in listed] == [
        (False, None, False, {}),
        (True, "2026-11-29T12:00:00Z", True, about),
    ]


@pytest.mark.parametrize(
    ("example", "inputs", "kept"),
    [
        (380, 100, ["implementation", "inputs", "request"]),
        (600, 100, ["implementation", "inputs"]),
        (600, 600, ["implementation"]),
    ],
)
def test_a_list_that_is_too_large_for_its_configmap_goes_without_examples(
    declare: Declare, example: int, inputs: int, kept: list[str]
) -> None:
    about = {"implementation": "own.Model", "inputs": "i" * inputs * 1024, "request": "r" * example * 1024}
    recorder = declared(declare, served=[served("1.0", about=about), served("1.1", about=about)])
    assert len(recorder.of_kind("ConfigMap")["portal"]["data"]["served.json"]) < 1024 * 1024
    assert [sorted(each["about"]) for each in listed_by(recorder)] == [kept, kept]


def test_only_these_paths_lead_to_it(declare: Declare) -> None:
    (rule,) = declared(declare).of_kind("HTTPRoute")["portal"]["spec"]["rules"]
    *exact, files = [match["path"] for match in rule["matches"]]
    assert files == {"type": "PathPrefix", "value": "/portal"}
    assert {path["type"] for path in exact} == {"Exact"}
    assert [path["value"] for path in exact] == [
        "/",
        "/mlapi/openapi.json",
        "/mlapi/v2",
        "/mlapi/v2/health/live",
        "/mlapi/v2/health/ready",
        "/mlapi/v2/repository/index",
    ]


def test_its_pods_are_restricted_and_reach_only_model_servers(declare: Declare) -> None:
    recorder = declared(declare)
    pod = pods_of(recorder)["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    policy = recorder.of_kind("NetworkPolicy")["portal"]["spec"]
    assert policy["ingress"][0]["from"] == [{"ipBlock": {"cidr": "10.1.0.0/16"}}]
    ((target,),) = [rule["to"] for rule in policy["egress"]]
    assert target["podSelector"]["matchExpressions"][0]["key"] == "app.kubernetes.io/version"


def test_without_known_proxies_it_admits_no_one(declare: Declare) -> None:
    assert declared(declare, client_ranges=[]).of_kind("NetworkPolicy")["portal"]["spec"]["ingress"] == []


def test_model_servers_let_the_portal_in(declare: Declare) -> None:
    args = ServerAccessArgs(namespace="models", asking=LABELS)
    policy = declare(lambda: ServerAccess("model-servers", args) and None).of_kind("NetworkPolicy")["model-servers"]
    assert policy["spec"]["ingress"] == [
        {"from": [{"podSelector": {"matchLabels": LABELS}}], "ports": [{"port": 8080}]}
    ]


def settings(models: dict[str, Any], **more: Any) -> Settings:
    return Settings.model_validate({"registry": "localhost:5000", "models": models} | more)


def test_a_stack_with_models_has_a_portal_unless_it_says_otherwise() -> None:
    assert settings({"iris": {}}).has_portal
    assert not settings({}).has_portal
    assert not settings({"iris": {}}, portal=False).has_portal
    assert [settings({"a": {}, "b": each}).has_several_pods for each in ({}, {"replicas": 2})] == [False, True]
    assert settings({"a": {"autoscaling": {"maximum": 3}}}).has_several_pods


def test_its_image_is_built_once_and_then_run_by_digest() -> None:
    name = portal.image_name(IMAGES)
    planned = builds.plan([], IMAGES, known=(), found={}, has_portal=True)
    assert [*planned.declared] == [name]
    there = {name: Image(repository="portal", tag=portal.tag_of(IMAGES), digest="sha256:1")}
    assert builds.plan([], IMAGES, known=(), found=there, has_portal=True).reused == {name: "sha256:1"}
    known = planned.declared.values()
    assert builds.plan([], IMAGES, known=known, found=there, has_portal=True).declared == planned.declared
    assert builds.plan([], IMAGES, known=known, found=there).declared == {}


def test_its_build_context_has_all_that_the_image_needs() -> None:
    context = portal.recipe_of(IMAGES).context
    assert {"requirements.lock", "portal/app.py", "portal/__main__.py", "portal/static/index.html"} <= {
        str(path.relative_to(context)) for path in context.rglob("*") if path.is_file()
    }
