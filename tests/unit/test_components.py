"""What each component of the model servers declares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pulumi
import pytest

from components.gateway import Gateway, GatewayArgs
from components.image import CONTENT_LABEL, BuildArgs, ModelImage, ModelImageArgs, RuntimeImage, RuntimeImageArgs
from components.namespace import ServingNamespace, ServingNamespaceArgs
from components.route import Backend, ModelRoute, ModelRouteArgs
from components.server import ModelServer, ModelServerArgs
from tests.unit.conftest import Recorder

Declare = Callable[[Callable[[], object]], Recorder]


def server_args(**changes: Any) -> ModelServerArgs:
    arguments: dict[str, Any] = {
        "name": "iris-dtc-1-0",
        "model": "iris-dtc",
        "version": "1.0",
        "namespace": "models",
        "image": "localhost:5000/iris-dtc:1.0@sha256:1234",
        "client_ranges": ["10.0.0.0/24"],
        "scraper_namespaces": ["gmp-system"],
    }
    return ModelServerArgs(**(arguments | changes))


def declared_server(declare: Declare, **changes: Any) -> Recorder:
    return declare(lambda: ModelServer("iris-dtc-1-0", server_args(**changes)) and None)


def pod_of(recorder: Recorder) -> dict[str, Any]:
    pod: dict[str, Any] = recorder.of_kind("Deployment")["iris-dtc-1-0"]["spec"]["template"]["spec"]
    return pod


def test_namespace_admits_restricted_pods_alone_and_denies_traffic_by_default(declare: Declare) -> None:
    recorder = declare(lambda: ServingNamespace("models", ServingNamespaceArgs(namespace="models")) and None)
    labels = recorder.of_kind("Namespace")["models"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    policy = recorder.of_kind("NetworkPolicy")["models-deny"]["spec"]
    assert policy == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_pod_is_restricted_and_has_no_token(declare: Declare) -> None:
    pod = pod_of(declared_server(declare))
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_probes_ask_for_exactly_this_version(declare: Declare) -> None:
    container = pod_of(declared_server(declare))["containers"][0]
    path = "/v2/models/iris-dtc/versions/1.0/ready"
    assert container["startupProbe"]["httpGet"]["path"] == path
    assert container["readinessProbe"]["httpGet"]["path"] == path
    assert container["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"


def test_server_runs_without_debug_and_in_one_process(declare: Declare) -> None:
    container = pod_of(declared_server(declare, environment={"MLSERVER_PARALLEL_WORKERS": "2"}))["containers"][0]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert environment["MLSERVER_DEBUG"] == "false"
    assert environment["MLSERVER_PARALLEL_WORKERS"] == "2", "a stack's own value wins"


def test_memory_is_limited_and_cores_are_not(declare: Declare) -> None:
    resources = pod_of(declared_server(declare, memory="1Gi", cpu="2"))["containers"][0]["resources"]
    assert resources == {"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}


def test_a_leaving_pod_drains_before_it_is_stopped(declare: Declare) -> None:
    pod = pod_of(declared_server(declare, drain_seconds=20))
    assert pod["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 20}}}
    assert pod["terminationGracePeriodSeconds"] > 20


def test_policy_lets_in_the_gateway_and_the_scraper_and_nothing_out(declare: Declare) -> None:
    policy = declared_server(declare).of_kind("NetworkPolicy")["iris-dtc-1-0"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policy
    gateway, scraper = policy["ingress"]
    assert gateway == {"from": [{"ipBlock": {"cidr": "10.0.0.0/24"}}], "ports": [{"port": 8080}]}
    assert scraper["ports"] == [{"port": 8082}]
    assert scraper["from"][0]["namespaceSelector"]["matchExpressions"][0]["values"] == ["gmp-system"]


def test_without_known_clients_nobody_is_let_in(declare: Declare) -> None:
    recorder = declared_server(declare, client_ranges=[], scraper_namespaces=[])
    assert recorder.of_kind("NetworkPolicy")["iris-dtc-1-0"]["spec"]["ingress"] == []


@pytest.mark.parametrize(("replicas", "budgets"), [(1, 0), (2, 1)])
def test_only_several_replicas_are_spread_and_kept_from_going_at_once(
    declare: Declare, replicas: int, budgets: int
) -> None:
    recorder = declared_server(declare, replicas=replicas)
    assert len(recorder.of_kind("PodDisruptionBudget")) == budgets
    assert len(pod_of(recorder).get("topologySpreadConstraints", [])) == 2 * budgets


def test_service_is_not_awaited(declare: Declare) -> None:
    service = declared_server(declare).of_kind("Service")["iris-dtc-1-0"]
    assert service["metadata"]["annotations"] == {"pulumi.com/skipAwait": "true"}


def declared_routes(declare: Declare) -> dict[str, dict[str, Any]]:
    backends = {
        "1.0": Backend(slug="1-0", service="iris-dtc-1-0", weight=90),
        "1.1": Backend(slug="1-1", service="iris-dtc-1-1", weight=10),
    }
    args = ModelRouteArgs(model="iris-dtc", namespace="models", gateway="gateway", backends=backends)
    return declare(lambda: ModelRoute("iris-dtc", args) and None).of_kind("HTTPRoute")


def test_a_model_has_a_route_per_version_and_one_by_weight(declare: Declare) -> None:
    routes = declared_routes(declare)
    weights = {
        name: {ref["name"]: ref["weight"] for ref in route["spec"]["rules"][0]["backendRefs"]}
        for name, route in routes.items()
    }
    assert weights == {
        "iris-dtc": {"iris-dtc-1-0": 90, "iris-dtc-1-1": 10},
        "iris-dtc.1-0": {"iris-dtc-1-0": 1},
        "iris-dtc.1-1": {"iris-dtc-1-1": 1},
    }


def test_routes_rewrite_the_prefix_and_lead_to_models_alone(declare: Declare) -> None:
    for route in declared_routes(declare).values():
        (rule,) = route["spec"]["rules"]
        (match,) = rule["matches"]
        inside = rule["filters"][0]["urlRewrite"]["path"]["replacePrefixMatch"]
        assert match["path"] == {"type": "PathPrefix", "value": f"/mlapi{inside}"}
        assert inside.startswith("/v2/models/iris-dtc")


@pytest.mark.parametrize(
    ("stated", "endpoint"), [(None, "http://192.0.2.10"), ("http://127.0.0.1:8080", "http://127.0.0.1:8080")]
)
def test_endpoint_is_what_the_stack_says_or_the_address_that_the_gateway_reports(
    declare: Declare, stated: str | None, endpoint: str
) -> None:
    seen: list[str] = []

    def program() -> pulumi.Output[Any]:
        gateway = Gateway("gateway", GatewayArgs(namespace="models", class_name="contour", endpoint=stated))
        return gateway.endpoint.apply(seen.append)

    declare(program)
    assert seen == [endpoint]


def test_gateway_takes_routes_of_its_own_namespace_alone(declare: Declare) -> None:
    args = GatewayArgs(namespace="models", class_name="contour")
    gateway = declare(lambda: Gateway("gateway", args) and None).of_kind("Gateway")["gateway"]
    (listener,) = gateway["spec"]["listeners"]
    assert listener["allowedRoutes"] == {"namespaces": {"from": "Same"}}


def test_model_image_is_tagged_with_its_version_and_labelled_with_its_content(declare: Declare) -> None:
    def program() -> None:
        args = ModelImageArgs(
            build=BuildArgs(registry="localhost:5000", builder="model-serving"),
            model="iris-dtc",
            version="1.0",
            runtime="localhost:5000/runtime:abc@sha256:1234",
            dockerfile="images/model.Dockerfile",
            folder="models/iris-dtc/1.0",
            content_hash="f00d",
        )
        ModelImage("iris-dtc-1-0", args)

    image = declare(program).of_kind("Image")["iris-dtc-1-0"]
    assert image["tags"] == ["localhost:5000/iris-dtc:1.0"]
    assert image["labels"] == {CONTENT_LABEL: "f00d"}
    assert image["buildArgs"]["RUNTIME"] == "localhost:5000/runtime:abc@sha256:1234"
    assert image["builder"] == {"name": "model-serving"}
    assert image["push"] is True


@pytest.mark.parametrize(("wheels", "no_index"), [(None, "0"), (".state/wheels/abc", "1")])
def test_runtime_image_asks_the_package_index_only_without_wheels(
    declare: Declare, wheels: str | None, no_index: str
) -> None:
    args = RuntimeImageArgs(
        build=BuildArgs(registry="localhost:5000"),
        tag="abc",
        base="python:3.11-slim-bookworm",
        dockerfile="images/runtime.Dockerfile",
        context=".state/runtimes/abc",
        wheels=wheels,
    )
    image = declare(lambda: RuntimeImage("runtime-abc", args) and None).of_kind("Image")["runtime-abc"]
    assert image["buildArgs"]["PIP_NO_INDEX"] == no_index
    assert ("wheels" in image["context"].get("named", {})) == bool(wheels)
