"""What each component of the model servers declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pulumi
import pytest
from pydantic import ValidationError

from components.serving import contract
from components.serving.access import ServerAccess, ServerAccessArgs
from components.serving.contract import CheckArgs, ContractChecks, ContractChecksArgs
from components.serving.gateway import Gateway, GatewayArgs
from components.serving.image import BuildArgs, ModelImage, ModelImageArgs, RuntimeImage, RuntimeImageArgs
from components.serving.namespace import ServingNamespace
from components.serving.route import Backend, ModelRoute, ModelRouteArgs, leaves_out
from components.serving.server import ModelServer, ModelServerArgs
from model_serving.images.builds import CONTENT_LABEL
from model_serving.stack.models import ModelSettings
from model_serving.stack.resources import PodResources
from server import contract as script
from tests.unit.conftest import Recorder

Declare = Callable[[Callable[[], object]], Recorder]


def server_args(
    *,
    cpu: str = "100m",
    memory: str = "512Mi",
    threads: int | None = None,
    drain_seconds: int = 5,
    grpc: bool = False,
    **section: Any,
) -> ModelServerArgs:
    return ModelServerArgs(
        model="iris-dtc",
        version="1.0",
        namespace="models",
        image="localhost:5000/iris-dtc:1.0@sha256:1234",
        settings=ModelSettings.model_validate(section),
        resources=PodResources(cpu=cpu, memory=memory, threads=threads),
        drain_seconds=drain_seconds,
        grpc=grpc,
    )


def declared_server(declare: Declare, **changes: Any) -> Recorder:
    return declare(lambda: ModelServer("iris-dtc-1-0", server_args(**changes)) and None)


def pod_of(recorder: Recorder) -> dict[str, Any]:
    pod: dict[str, Any] = recorder.of_kind("Deployment")["iris-dtc-1-0"]["spec"]["template"]["spec"]
    return pod


def environment_of(recorder: Recorder) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in pod_of(recorder)["containers"][0]["env"]}


def test_namespace_admits_restricted_pods_alone_and_denies_traffic_by_default(declare: Declare) -> None:
    recorder = declare(lambda: ServingNamespace("models", "models") and None)
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


def test_server_runs_in_one_process_and_as_its_stack_says(declare: Declare) -> None:
    environment = environment_of(declared_server(declare, environment={"MLSERVER_DEBUG": "true"}))
    assert environment["MLSERVER_PARALLEL_WORKERS"] == "0"
    assert environment["MLSERVER_DEBUG"] == "true", "a stack's own value wins"


@pytest.mark.parametrize(
    ("threads", "environment", "told"),
    [(None, {}, None), (2, {}, "2"), (2, {"OMP_NUM_THREADS": "8"}, "8")],
)
def test_openmp_gets_the_threads_that_are_reserved_or_what_the_stack_says(
    declare: Declare, threads: int | None, environment: dict[str, str], told: str | None
) -> None:
    recorder = declared_server(declare, threads=threads, environment=environment)
    assert environment_of(recorder).get("OMP_NUM_THREADS") == told


def test_memory_is_limited_and_cores_are_not(declare: Declare) -> None:
    resources = pod_of(declared_server(declare, memory="1Gi", cpu="2"))["containers"][0]["resources"]
    assert resources == {"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}


def test_a_leaving_pod_drains_before_it_is_stopped(declare: Declare) -> None:
    pod = pod_of(declared_server(declare, drain_seconds=20))
    assert pod["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 20}}}
    assert pod["terminationGracePeriodSeconds"] == 20 + 30


def test_a_leaving_pod_finishes_its_slowest_answer(declare: Declare) -> None:
    pod = pod_of(declared_server(declare, drain_seconds=20, answerSeconds=60))
    assert pod["terminationGracePeriodSeconds"] == 20 + 60


def test_the_server_is_told_the_limits_of_requests(declare: Declare) -> None:
    limits = {"requestSize": "2Mi", "answerSeconds": 60, "waiting": 7}
    environment = environment_of(declared_server(declare, **limits))
    assert {key: value for key, value in environment.items() if key.startswith("MODEL_SERVING_")} == {
        "MODEL_SERVING_REQUEST_BYTES": "2097152",
        "MODEL_SERVING_ANSWER_SECONDS": "60",
        "MODEL_SERVING_WAITING": "7",
    }


def test_what_the_program_sets_is_not_for_a_stack_to_set(declare: Declare) -> None:
    for name in environment_of(declared_server(declare)).keys() - {"MLSERVER_DEBUG"}:
        with pytest.raises(ValidationError, match="not for a stack to set"):
            server_args(environment={name: "1"})


def declared_policy(declare: Declare, **arguments: Any) -> dict[str, Any]:
    access = ServerAccessArgs(namespace="models", **arguments)
    recorder = declare(lambda: ServerAccess("model-servers", access) and None)
    spec: dict[str, Any] = recorder.of_kind("NetworkPolicy")["model-servers"]["spec"]
    return spec


def test_policy_lets_in_the_gateway_and_the_scraper_and_nothing_out(declare: Declare) -> None:
    policy = declared_policy(declare, client_ranges=["10.0.0.0/24"], scraper_namespaces=["gmp-system"])
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policy
    gateway, scraper = policy["ingress"]
    assert gateway == {"from": [{"ipBlock": {"cidr": "10.0.0.0/24"}}], "ports": [{"port": 8080}]}
    assert scraper["ports"] == [{"port": 8082}]
    assert scraper["from"][0]["namespaceSelector"]["matchExpressions"][0]["values"] == ["gmp-system"]


def test_policy_lets_the_gateway_in_over_grpc_if_the_stack_says_so_and_the_portal_never(declare: Declare) -> None:
    policy = declared_policy(declare, client_ranges=["10.0.0.0/24"], asking={"a": "b"}, grpc=True)
    gateway = {"ipBlock": {"cidr": "10.0.0.0/24"}}
    assert policy["ingress"] == [
        {"from": [gateway, {"podSelector": {"matchLabels": {"a": "b"}}}], "ports": [{"port": 8080}]},
        {"from": [gateway], "ports": [{"port": 8081}]},
    ]


@pytest.mark.parametrize("grpc", [False, True])
def test_without_known_clients_nobody_is_let_in(declare: Declare, grpc: bool) -> None:
    assert declared_policy(declare, grpc=grpc)["ingress"] == []


def test_policy_is_for_model_servers_and_not_for_those_who_check_their_contract(declare: Declare) -> None:
    selector = declared_policy(declare)["podSelector"]
    assert selector == {"matchExpressions": [{"key": "app.kubernetes.io/version", "operator": "Exists"}]}
    server = declared_server(declare).of_kind("Deployment")["iris-dtc-1-0"]["spec"]["template"]
    assert "app.kubernetes.io/version" in server["metadata"]["labels"]
    assert "app.kubernetes.io/version" not in contract.LABELS


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


@pytest.mark.parametrize("grpc", [False, True])
def test_a_service_says_which_of_its_ports_speaks_http_2(declare: Declare, grpc: bool) -> None:
    service = declared_server(declare, grpc=grpc).of_kind("Service")["iris-dtc-1-0"]
    other = {"name": "grpc", "port": 8081, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c"}
    assert service["spec"]["ports"] == [
        {"name": "http", "port": 8080, "targetPort": "http"},
        *([other] if grpc else []),
    ]


def test_an_accelerator_is_a_limit_and_chooses_the_node(declare: Declare) -> None:
    pod = pod_of(declared_server(declare, gpu={"type": "nvidia-l4", "count": 2}))
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}


def test_without_accelerator_and_priority_a_pod_says_nothing_of_them(declare: Declare) -> None:
    assert not {"nodeSelector", "priorityClassName"} & pod_of(declared_server(declare)).keys()


def test_priority_is_that_of_a_class(declare: Declare) -> None:
    assert pod_of(declared_server(declare, priority="high"))["priorityClassName"] == "high"


def test_autoscaler_has_the_bounds_of_the_stack_and_several_pods_are_spread(declare: Declare) -> None:
    recorder = declared_server(declare, autoscaling={"minimum": 1, "maximum": 4, "cpuPercent": 60})
    scaler = recorder.of_kind("HorizontalPodAutoscaler")["iris-dtc-1-0"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (1, 4)
    assert scaler["scaleTargetRef"]["name"] == "iris-dtc-1-0"
    assert scaler["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 60}
    assert len(recorder.of_kind("PodDisruptionBudget")) == 1
    assert pod_of(recorder)["topologySpreadConstraints"]


def declared_routes(
    declare: Declare,
    shadow: Mapping[str, Backend] | None = None,
    *,
    answer_seconds: int | None = None,
    grpc: bool = False,
) -> dict[str, dict[str, Any]]:
    backends = {
        "1.0": Backend(slug="1-0", service="iris-dtc-1-0", weight=90),
        "1.1": Backend(slug="1-1", service="iris-dtc-1-1", weight=10),
        **(shadow or {}),
    }
    args = ModelRouteArgs(
        model="iris-dtc",
        namespace="models",
        gateway="gateway",
        backends=backends,
        answer_seconds=answer_seconds,
        grpc=grpc,
    )
    return declare(lambda: ModelRoute("iris-dtc", args) and None).of_kind("HTTPRoute")


def destinations(rule: dict[str, Any]) -> dict[str, int]:
    return {reference["name"]: reference["weight"] for reference in rule["backendRefs"]}


def test_a_model_has_a_route_per_version_and_one_by_weight(declare: Declare) -> None:
    routes = declared_routes(declare)
    assert {name: destinations(route["spec"]["rules"][-1]) for name, route in routes.items()} == {
        "iris-dtc": {"iris-dtc-1-0": 90, "iris-dtc-1-1": 10},
        "iris-dtc.1-0": {"iris-dtc-1-0": 1},
        "iris-dtc.1-1": {"iris-dtc-1-1": 1},
    }


def test_every_route_waits_for_an_answer_as_long_as_the_model_may_take(declare: Declare) -> None:
    routes = declared_routes(declare, answer_seconds=60).values()
    assert {rule["timeouts"]["request"] for route in routes for rule in route["spec"]["rules"]} == {"60s"}


def test_a_header_chooses_a_version_on_the_models_own_route(declare: Declare) -> None:
    *chosen, everybody = declared_routes(declare)["iris-dtc"]["spec"]["rules"]
    assert {rule["matches"][0]["headers"][0]["value"]: destinations(rule) for rule in chosen} == {
        "1.0": {"iris-dtc-1-0": 1},
        "1.1": {"iris-dtc-1-1": 1},
    }
    assert {rule["matches"][0]["headers"][0]["name"] for rule in chosen} == {"x-model-version"}
    assert "headers" not in everybody["matches"][0]


def test_a_shadow_gets_a_copy_of_what_everybody_asks_and_answers_nobody(declare: Declare) -> None:
    shadow = Backend(slug="1-2", service="iris-dtc-1-2", weight=0, shadow=True)
    *chosen, everybody = declared_routes(declare, {"1.2": shadow})["iris-dtc"]["spec"]["rules"]
    assert everybody["filters"][1:] == [
        {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "iris-dtc-1-2", "port": 8080}}}
    ]
    assert all("iris-dtc-1-2" not in destinations(rule) for rule in (*chosen, everybody))
    assert all(len(rule["filters"]) == 1 for rule in chosen), "what a tester asks is not copied"


def test_routes_rewrite_the_prefix_and_lead_to_models_alone(declare: Declare) -> None:
    for route in declared_routes(declare).values():
        for rule in route["spec"]["rules"]:
            (match,) = rule["matches"]
            assert match["path"]["type"] == "PathPrefix"
            asked = match["path"]["value"]
            assert asked.startswith("/mlapi/v2/models/iris-dtc")
            # With the header, to the full path of the version.
            more = "".join(f"/versions/{header['value']}" for header in match.get("headers", ()))
            inside = rule["filters"][0]["urlRewrite"]["path"]
            assert inside == {"type": "ReplacePrefixMatch", "replacePrefixMatch": asked.removeprefix("/mlapi") + more}


def test_metadata_of_grpc_chooses_the_model_and_a_version_and_without_one_the_weights_decide(declare: Declare) -> None:
    shadow = Backend(slug="1-2", service="iris-dtc-1-2", weight=0, shadow=True)
    routes = declared_routes(declare, {"1.2": shadow}, answer_seconds=60, grpc=True)
    # A version's own route is there before traffic moves to it, and with it what a gateway has to know of its port.
    by_metadata = [routes[f"iris-dtc.{slug}"]["spec"]["rules"][1] for slug in ("1-0", "1-1")]
    assert len(routes["iris-dtc.1-2"]["spec"]["rules"]) == 1, "a shadow is not asked"
    rules = [*by_metadata, *routes["iris-dtc.grpc"]["spec"]["rules"]]
    assert [
        ({header["name"]: header["value"] for header in rule["matches"][0]["headers"]}, destinations(rule))
        for rule in rules
    ] == [
        ({"x-model-name": "iris-dtc", "x-model-version": "1.0"}, {"iris-dtc-1-0": 1}),
        ({"x-model-name": "iris-dtc", "x-model-version": "1.1"}, {"iris-dtc-1-1": 1}),
        ({"x-model-name": "iris-dtc"}, {"iris-dtc-1-0": 90, "iris-dtc-1-1": 10}),
    ]
    assert {reference["port"] for rule in rules for reference in rule["backendRefs"]} == {8081}
    copy = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "iris-dtc-1-2", "port": 8081}}}
    assert [rule.get("filters") for rule in rules] == [None, None, [copy]]
    assert {rule["timeouts"]["request"] for rule in rules} == {"60s"}


def test_grpc_leads_to_no_method_that_loads_or_unloads_models(declare: Declare) -> None:
    routes = declared_routes(declare, grpc=True)
    rules = [routes["iris-dtc.1-0"]["spec"]["rules"][1], *routes["iris-dtc.grpc"]["spec"]["rules"]]
    paths = [match["path"] for rule in rules for match in rule["matches"]]
    assert {path["type"] for path in paths} == {"Exact"}
    assert {path["value"].rpartition("/")[0] for path in paths} == {"/inference.GRPCInferenceService"}
    assert not [path for path in paths if "Repository" in path["value"]]


def declared_check(declare: Declare, *, url: str = "http://10.0.0.5", **changes: Any) -> Recorder:
    def program() -> None:
        shared = ContractChecksArgs(namespace="models", scripts={"contract.py": "print()"}, url=url, **changes)
        ContractChecks("contract", shared).check(
            CheckArgs(
                label="iris-dtc-1-0",
                model="iris-dtc",
                version="1.0",
                image="localhost:5000/iris-dtc:1.0@sha256:1234",
                fingerprint="f00df00df00d",
                seconds=30,
                answer_seconds=50,
            )
        )

    return declare(program)


def test_a_check_asks_the_pinned_route_once_in_a_restricted_pod(declare: Declare) -> None:
    job = declared_check(declare).of_kind("Job")["iris-dtc-1-0-contract"]
    assert job["metadata"]["name"] == "iris-dtc-1-0-contract-f00df00d"
    assert job["spec"]["backoffLimit"] == 0
    assert "ttlSecondsAfterFinished" not in job["spec"], "it is the record of the check"
    pod = job["spec"]["template"]["spec"]
    server = pod_of(declared_server(declare))
    for key in ("securityContext", "automountServiceAccountToken", "enableServiceLinks"):
        assert pod[key] == server[key]
    (container,) = pod["containers"]
    assert container["securityContext"] == server["containers"][0]["securityContext"]
    assert "--path=/mlapi/v2/models/iris-dtc/versions/1.0/infer" in container["args"]
    assert "--url=http://10.0.0.5" in container["args"]


def test_a_check_waits_for_an_answer_as_long_as_a_client_and_its_job_for_three_more(declare: Declare) -> None:
    job = declared_check(declare).of_kind("Job")["iris-dtc-1-0-contract"]
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert {"--seconds=150", "--answer-seconds=50"} <= {*arguments}
    assert job["spec"]["activeDeadlineSeconds"] == 300 + 150 + 3 * 50
    assert contract.FEWEST_ANSWERS == script.FEWEST_ANSWERS


def test_a_check_is_sent_no_requests_by_the_service_of_its_model(declare: Declare) -> None:
    labels = declared_check(declare).of_kind("Job")["iris-dtc-1-0-contract"]["spec"]["template"]["metadata"]["labels"]
    assert not labels.keys() & server_args().labels.keys()


def test_the_name_of_a_job_fits_however_long_the_releases_is() -> None:
    args = CheckArgs(
        label=f"{'a' * 43}-{'b' * 19}",
        model="a",
        version="b",
        image="",
        fingerprint="f00df00df00d",
        seconds=1,
        answer_seconds=1,
    )
    assert len(args.job_name) <= 63
    assert args.job_name == f"{'a' * 43}-contract-f00df00d"


@pytest.mark.parametrize(
    ("url", "changes", "egress"),
    [
        (
            "http://10.0.0.5",
            {},
            [{"to": [{"ipBlock": {"cidr": "10.0.0.5/32"}}], "ports": [{"port": 80, "protocol": "TCP"}]}],
        ),
        (
            "https://models.example.com",
            {"address": "10.0.0.5", "proxy_ranges": ["10.1.0.0/24"]},
            [
                {"to": [{"ipBlock": {"cidr": "10.1.0.0/24"}}]},
                {"to": [{"ipBlock": {"cidr": "10.0.0.5/32"}}], "ports": [{"port": 443, "protocol": "TCP"}]},
            ],
        ),
        (
            "http://gateway.ingress:8080",
            {},
            [
                {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]},
                {"ports": [{"port": 8080, "protocol": "TCP"}]},
            ],
        ),
    ],
)
def test_a_check_reaches_the_gateway_and_a_name_server_only_for_a_name(
    declare: Declare, url: str, changes: dict[str, Any], egress: list[dict[str, Any]]
) -> None:
    policy = declared_check(declare, url=url, **changes).of_kind("NetworkPolicy")["contract"]["spec"]
    assert policy["egress"] == egress
    assert "ingress" not in policy
    assert policy["policyTypes"] == ["Ingress", "Egress"]


@pytest.mark.parametrize(
    ("changes", "inside"),
    [
        ({}, ("http://192.0.2.10", None)),
        ({"endpoint": "http://127.0.0.1:8080"}, ("http://192.0.2.10", None)),
        ({"endpoint": "https://models.example.com", "protocol": "HTTPS"}, ("https://models.example.com", "192.0.2.10")),
        ({"cluster_endpoint": "http://gateway.ingress"}, ("http://gateway.ingress", None)),
    ],
)
def test_pods_reach_the_gateway_where_it_is_under_the_name_of_its_certificate(
    declare: Declare, changes: dict[str, Any], inside: tuple[str, str | None]
) -> None:
    seen: list[object] = []

    def program() -> pulumi.Output[Any]:
        gateway = Gateway("gateway", GatewayArgs(namespace="models", class_name="contour", **changes))
        return pulumi.Output.all(gateway.cluster_endpoint, gateway.cluster_address).apply(seen.append)

    declare(program)
    assert seen == [list(inside)]


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


@pytest.mark.parametrize(
    ("compression", "level"),
    [(None, None), ("gzip", 6), ("zstd", 1)],
)
def test_an_image_is_pushed_as_the_stack_wants_it_compressed(
    declare: Declare, compression: str | None, level: int | None
) -> None:
    build = BuildArgs(registry="localhost:5000", compression=compression)
    args = RuntimeImageArgs(build=build, repository="runtime", tag="1", base="base", dockerfile="x", context=".")
    image = declare(lambda: RuntimeImage("runtime", args) and None).of_kind("Image")["runtime"]
    assert image["push"] is (compression is None)
    exports = [each["registry"] for each in image.get("exports", ())]
    # The provider ignores a compression without a level, and Docker's media types know no zstd.
    assert [
        (each["push"], each["compression"], each["compressionLevel"], each["ociMediaTypes"]) for each in exports
    ] == ([(True, compression, level, True)] if compression else [])


def test_model_image_is_tagged_with_its_version_and_labelled_with_its_content(declare: Declare) -> None:
    def program() -> None:
        args = ModelImageArgs(
            build=BuildArgs(registry="localhost:5000", builder="model-serving"),
            model="iris-dtc",
            version="1.0",
            runtime="localhost:5000/runtime:abc@sha256:1234",
            dockerfile="server/model.Dockerfile",
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


def test_an_image_of_a_model_with_capitals_has_a_name_that_registries_allow(declare: Declare) -> None:
    def program() -> None:
        args = ModelImageArgs(
            build=BuildArgs(registry="localhost:5000"),
            model="Apple_RF_Model",
            version="1.0",
            runtime="localhost:5000/runtime:abc@sha256:1234",
            dockerfile="server/model.Dockerfile",
            folder="models/Apple_RF_Model/1.0",
            content_hash="f00d",
        )
        ModelImage("apple-rf-model-fc039d4b-1-0", args)

    image = declare(program).of_kind("Image")["apple-rf-model-fc039d4b-1-0"]
    assert image["tags"] == ["localhost:5000/apple-rf-model-fc039d4b:1.0"]
    assert image["buildArgs"]["MODEL"] == "Apple_RF_Model", "MLServer finds it under its own name"


def test_large_files_are_a_context_of_their_own_and_models_without_any_see_none_of_it(declare: Declare) -> None:
    def program() -> None:
        for name, context in {"small-1-0": None, "large-1-0": ".state/artefacts/f00d"}.items():
            args = ModelImageArgs(
                build=BuildArgs(registry="localhost:5000"),
                model=name.removesuffix("-1-0"),
                version="1.0",
                runtime="localhost:5000/runtime:abc@sha256:1234",
                dockerfile="server/model.Dockerfile",
                folder="models/iris-dtc/1.0",
                content_hash="f00d",
                artefacts=context,
            )
            ModelImage(name, args)

    images = declare(program).of_kind("Image")
    assert images["large-1-0"]["context"]["named"] == {"artefacts": {"location": ".state/artefacts/f00d"}}
    assert "named" not in images["small-1-0"]["context"]


@pytest.mark.parametrize(("wheels", "no_index"), [(None, "0"), (".state/wheels/abc", "1")])
def test_runtime_image_asks_the_package_index_only_without_wheels(
    declare: Declare, wheels: str | None, no_index: str
) -> None:
    args = RuntimeImageArgs(
        repository="runtime",
        build=BuildArgs(registry="localhost:5000"),
        tag="abc",
        base="python:3.11-slim-bookworm",
        dockerfile="server/runtime.Dockerfile",
        context=".state/runtimes/abc",
        wheels=wheels,
    )
    image = declare(lambda: RuntimeImage("runtime-abc", args) and None).of_kind("Image")["runtime-abc"]
    assert image["buildArgs"]["PIP_NO_INDEX"] == no_index
    assert ("wheels" in image["context"].get("named", {})) == bool(wheels)


def route_to(*services: str) -> dict[str, Any]:
    return {"spec": {"rules": [{"backendRefs": [{"name": name, "weight": 1} for name in services]}]}}


def test_only_a_route_that_leaves_a_server_has_to_settle() -> None:
    assert leaves_out(route_to("a", "b"), route_to("b"))
    assert leaves_out(route_to("a"), route_to("b"))
    assert not leaves_out(route_to("a", "b"), route_to("b", "a"))
    assert not leaves_out(route_to("a"), route_to("a", "b"))
