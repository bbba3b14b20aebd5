"""A model server: the pods that serve one version of one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pulumi_kubernetes as kubernetes
from pulumi import ComponentResource, Input, Output, ResourceOptions

HTTP_PORT: Final = 8080
GRPC_PORT: Final = 8081
METRICS_PORT: Final = 8082
START_SECONDS: Final = 120
"""How long a server may take to load its model before its release counts as failed."""
IN_FLIGHT_SECONDS: Final = 30
"""How long a request that came in before the end may still take."""

SKIP_AWAIT: Final = {"pulumi.com/skipAwait": "true"}
"""For what is ready as soon as it exists. Awaiting a Service costs 10 s and tells what its Deployment has told."""


@dataclass(frozen=True, kw_only=True)
class ModelServerArgs:
    """One live version.

    Attributes:
        name: name of the Deployment and the Service, unique in the namespace.
        image: reference by digest.
        replicas: pods.
        cpu: cores reserved for a pod, as a Kubernetes quantity; not limited, because throttling costs latency.
        memory: memory of a pod, as a Kubernetes quantity, both request and limit.
        environment: further environment variables of the server.
        drain_seconds: for how long a leaving pod goes on serving, until every proxy has forgotten it.
        client_ranges: CIDR ranges of the gateway's proxies; nobody else reaches the model.
        scraper_namespaces: namespaces whose pods may read the metrics.
    """

    name: str
    model: str
    version: str
    namespace: Input[str]
    image: Input[str]
    replicas: int = 1
    cpu: str = "100m"
    memory: str = "512Mi"
    environment: Mapping[str, str] = field(default_factory=dict)
    drain_seconds: int = 10
    client_ranges: Sequence[str] = ()
    scraper_namespaces: Sequence[str] = ()

    @property
    def ready_path(self) -> str:
        # Exactly this version: MLServer calls itself ready with an empty model list, and drops a model that failed.
        return f"/v2/models/{self.model}/versions/{self.version}/ready"

    @property
    def labels(self) -> dict[str, str]:
        return {"app.kubernetes.io/name": self.model, "app.kubernetes.io/version": self.version}

    @property
    def environment_of_server(self) -> list[dict[str, str]]:
        values = {
            # MLServer's defaults are debug on and a pool of processes, which multiplies the memory.
            "MLSERVER_DEBUG": "false",
            "MLSERVER_PARALLEL_WORKERS": "0",
            "MLSERVER_HTTP_PORT": str(HTTP_PORT),
            "MLSERVER_GRPC_PORT": str(GRPC_PORT),
            "MLSERVER_METRICS_PORT": str(METRICS_PORT),
            # The one folder that can be written, see the volume of this name.
            "MLSERVER_METRICS_DIR": "/tmp/metrics",  # noqa: S108 - a volume of the pod's own
            **self.environment,
        }
        return [{"name": key, "value": value} for key, value in values.items()]


class ModelServer(ComponentResource):
    """Deployment, Service, NetworkPolicy and, from two replicas on, PodDisruptionBudget of one model version.

    It leaves traffic alone: a server that nobody routes to is ready and idle.
    """

    def __init__(self, name: str, args: ModelServerArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:ModelServer", name, None, opts)
        self._allow_gateway_and_scraper(name, args)
        deployment = self._deployment(name, args)
        service = self._service(name, args)
        if args.replicas > 1:
            self._disruption_budget(name, args)
        # Known only when the pods are ready: who routes to this name, routes to a server that answers.
        self.service: Output[str] = Output.all(service.metadata.name, deployment.metadata.name).apply(
            lambda names: str(names[0])
        )
        self.ready_path = args.ready_path
        self.register_outputs({"service": self.service})

    def _metadata(self, args: ModelServerArgs) -> dict[str, Any]:
        return {"name": args.name, "namespace": args.namespace, "labels": args.labels}

    def _allow_gateway_and_scraper(self, name: str, args: ModelServerArgs) -> None:
        """In from the proxies and the scraper, out to nobody. A rule without sources would let everybody in."""
        rules: list[dict[str, Any]] = []
        if args.client_ranges:
            sources = [{"ip_block": {"cidr": cidr}} for cidr in args.client_ranges]
            rules.append({"from_": sources, "ports": [{"port": HTTP_PORT}]})
        if args.scraper_namespaces:
            expression = {
                "key": "kubernetes.io/metadata.name",
                "operator": "In",
                "values": [*args.scraper_namespaces],
            }
            scraper = {"namespace_selector": {"match_expressions": [expression]}}
            rules.append({"from_": [scraper], "ports": [{"port": METRICS_PORT}]})
        kubernetes.networking.v1.NetworkPolicy(
            name,
            metadata=self._metadata(args),
            spec={
                "pod_selector": {"match_labels": args.labels},
                "policy_types": ["Ingress", "Egress"],
                "ingress": rules,
            },
            opts=ResourceOptions(parent=self),
        )

    def _deployment(self, name: str, args: ModelServerArgs) -> kubernetes.apps.v1.Deployment:
        return kubernetes.apps.v1.Deployment(
            name,
            metadata=self._metadata(args),
            spec={
                "replicas": args.replicas,
                "selector": {"match_labels": args.labels},
                "progress_deadline_seconds": START_SECONDS,
                "strategy": {"type": "RollingUpdate", "rolling_update": {"max_surge": 1, "max_unavailable": 0}},
                "template": {"metadata": {"labels": args.labels}, "spec": _pod(args)},
            },
            opts=ResourceOptions(parent=self),
        )

    def _service(self, name: str, args: ModelServerArgs) -> kubernetes.core.v1.Service:
        return kubernetes.core.v1.Service(
            name,
            metadata={**self._metadata(args), "annotations": SKIP_AWAIT},
            spec={
                "selector": args.labels,
                "ports": [{"name": "http", "port": HTTP_PORT, "target_port": "http"}],
            },
            opts=ResourceOptions(parent=self),
        )

    def _disruption_budget(self, name: str, args: ModelServerArgs) -> None:
        kubernetes.policy.v1.PodDisruptionBudget(
            name,
            metadata={**self._metadata(args), "annotations": SKIP_AWAIT},
            spec={"max_unavailable": 1, "selector": {"match_labels": args.labels}},
            opts=ResourceOptions(parent=self),
        )


def _pod(args: ModelServerArgs) -> dict[str, Any]:
    return {
        "containers": [_container(args)],
        "automount_service_account_token": False,
        "enable_service_links": False,
        "termination_grace_period_seconds": args.drain_seconds + IN_FLIGHT_SECONDS,
        "security_context": {"run_as_non_root": True, "seccomp_profile": {"type": "RuntimeDefault"}},
        "topology_spread_constraints": _spread(args) if args.replicas > 1 else [],
        "volumes": [{"name": "tmp", "empty_dir": {"medium": "Memory", "size_limit": "64Mi"}}],
    }


def _container(args: ModelServerArgs) -> dict[str, Any]:
    ready = {"path": args.ready_path, "port": "http"}
    return {
        "name": "mlserver",
        "image": args.image,
        "env": args.environment_of_server,
        "ports": [
            {"name": "http", "container_port": HTTP_PORT},
            {"name": "grpc", "container_port": GRPC_PORT},
            {"name": "metrics", "container_port": METRICS_PORT},
        ],
        "resources": {"requests": {"cpu": args.cpu, "memory": args.memory}, "limits": {"memory": args.memory}},
        "startup_probe": {"http_get": ready, "period_seconds": 1, "failure_threshold": START_SECONDS},
        "readiness_probe": {"http_get": ready, "period_seconds": 5, "failure_threshold": 2, "timeout_seconds": 3},
        # More patient than readiness: a server that is merely busy must not be restarted.
        "liveness_probe": {
            "http_get": {"path": "/v2/health/live", "port": "http"},
            "period_seconds": 10,
            "failure_threshold": 6,
            "timeout_seconds": 5,
        },
        "lifecycle": {"pre_stop": {"sleep": {"seconds": args.drain_seconds}}} if args.drain_seconds else None,
        "security_context": {
            "allow_privilege_escalation": False,
            "read_only_root_filesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volume_mounts": [{"name": "tmp", "mount_path": "/tmp"}],  # noqa: S108 - the volume above
    }


def _spread(args: ModelServerArgs) -> list[dict[str, Any]]:
    """Over zones, then over nodes, as far as there are any: better crowded than not running."""
    return [
        {
            "max_skew": 1,
            "topology_key": key,
            "when_unsatisfiable": "ScheduleAnyway",
            "label_selector": {"match_labels": args.labels},
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]
