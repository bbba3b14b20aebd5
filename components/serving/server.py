"""A model server: the pods that serve one version of one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pulumi import ComponentResource, CustomTimeouts, Input, Output, Resource, ResourceOptions

from components.manifest import CORE, Manifest

HTTP_PORT: Final = 8080
GRPC_PORT: Final = 8081
METRICS_PORT: Final = 8082
VERSION_LABEL: Final = "app.kubernetes.io/version"
"""Of the pods of model servers, and of no others in the namespace."""
IN_FLIGHT_SECONDS: Final = 30
"""How long a request that came in before the end may still take."""

SKIP_AWAIT: Final = {"pulumi.com/skipAwait": "true"}
"""For what is ready as soon as it exists. Awaiting a Service costs 10 s and tells what its Deployment has told."""


@dataclass(frozen=True, kw_only=True)
class Autoscaling:
    """How many pods there may be, and the load in percent of the reserved cores above which there are more."""

    minimum: int
    maximum: int
    cpu_percent: int


@dataclass(frozen=True, kw_only=True)
class Accelerators:
    """What a pod is given besides cores.

    Attributes:
        type: as GKE labels the nodes that have it.
    """

    type: str
    count: int


@dataclass(frozen=True, kw_only=True)
class ModelServerArgs:
    """One live version.

    Attributes:
        name: name of the Deployment and the Service, unique in the namespace.
        image: reference by digest.
        replicas: pods, if no autoscaler decides on them.
        autoscaling: bounds of the autoscaler; None is a fixed number of pods.
        cpu: cores reserved for a pod, as a Kubernetes quantity; not limited, because throttling costs latency.
        memory: memory of a pod, as a Kubernetes quantity, both request and limit.
        workers: processes that predict besides the server's own; with 0 that one predicts.
        accelerators: what each pod needs of them.
        priority_class: name of a PriorityClass; None is the cluster's default.
        environment: further environment variables of the server.
        start_seconds: how long a pod may take to load its model, before its release counts as failed.
        provision_seconds: how long it may wait for a node and for its image before that.
        drain_seconds: for how long a leaving pod goes on serving, until every proxy has forgotten it.
    """

    name: str
    model: str
    version: str
    namespace: Input[str]
    image: Input[str]
    replicas: int = 1
    autoscaling: Autoscaling | None = None
    cpu: str = "100m"
    memory: str = "512Mi"
    workers: int = 0
    accelerators: Accelerators | None = None
    priority_class: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    start_seconds: int = 120
    provision_seconds: int = 300
    drain_seconds: int = 5

    @property
    def ready_path(self) -> str:
        # Exactly this version: MLServer calls itself ready with an empty model list, and drops a model that failed.
        return f"/v2/models/{self.model}/versions/{self.version}/ready"

    @property
    def several(self) -> bool:
        """Whether there can be more pods than one."""
        return (self.autoscaling.maximum if self.autoscaling else self.replicas) > 1

    @property
    def labels(self) -> dict[str, str]:
        return {"app.kubernetes.io/name": self.model, VERSION_LABEL: self.version}

    @property
    def environment_of_server(self) -> list[dict[str, str]]:
        values = {
            # MLServer's defaults are debug on and a pool of one process, which doubles the memory and is no faster.
            "MLSERVER_DEBUG": "false",
            "MLSERVER_PARALLEL_WORKERS": str(self.workers),
            "MLSERVER_HTTP_PORT": str(HTTP_PORT),
            "MLSERVER_GRPC_PORT": str(GRPC_PORT),
            "MLSERVER_METRICS_PORT": str(METRICS_PORT),
            # In the one folder that can be written, see the volume of this name. The second is made for workers alone.
            "MLSERVER_METRICS_DIR": "/tmp/metrics",  # noqa: S108 - a volume of the pod's own
            "MLSERVER_ENVIRONMENTS_DIR": "/tmp/environments",  # noqa: S108 - the same
            **self.environment,
        }
        return [{"name": key, "value": value} for key, value in values.items()]


class ModelServer(ComponentResource):
    """Deployment, Service and, where there can be several pods, PodDisruptionBudget and autoscaler.

    It leaves traffic alone: a server that nobody routes to is ready and idle. Who reaches it is ServerAccess' affair.
    """

    def __init__(self, name: str, args: ModelServerArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:ModelServer", name, None, opts)
        deployment = self._deployment(name, args)
        service = self._service(name, args)
        if args.several:
            self._disruption_budget(name, args)
        if args.autoscaling:
            self._autoscaler(name, args, args.autoscaling)
        self.service: Output[str] = service.metadata["name"]
        """Name of the Service, whether anybody answers there yet or not."""
        self.pods: Resource = deployment
        """There when the pods are ready: who depends on it, depends on a server that answers."""
        self.ready_path = args.ready_path
        self.register_outputs({"service": self.service})

    def _metadata(self, args: ModelServerArgs) -> dict[str, Any]:
        return {"name": args.name, "namespace": args.namespace, "labels": args.labels}

    def _deployment(self, name: str, args: ModelServerArgs) -> Manifest:
        patience = f"{args.provision_seconds + args.start_seconds}s"
        # A fixed number of pods is taken back from whoever has set another: an autoscaler of before, a person by hand.
        force = {} if args.autoscaling else {"annotations": {"pulumi.com/patchForce": "true"}}
        return Manifest(
            name,
            "apps/v1",
            "Deployment",
            metadata={**self._metadata(args), **force},
            spec={
                "replicas": args.autoscaling.minimum if args.autoscaling else args.replicas,
                "selector": {"matchLabels": args.labels},
                "progressDeadlineSeconds": args.start_seconds,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "template": {"metadata": {"labels": args.labels}, "spec": _pod(args)},
            },
            # The first pods are there before the autoscaler takes a look, which is every 15 s; a version that began
            # with one would get the whole traffic on it. From then on the number is the autoscaler's alone.
            opts=ResourceOptions(
                parent=self,
                ignore_changes=["spec.replicas"] if args.autoscaling else None,
                # Pulumi's own is 10 minutes; what a pod is still allowed to take is Kubernetes' to say.
                custom_timeouts=CustomTimeouts(create=patience, update=patience),
            ),
        )

    def _service(self, name: str, args: ModelServerArgs) -> Manifest:
        return Manifest(
            name,
            CORE,
            "Service",
            metadata={**self._metadata(args), "annotations": SKIP_AWAIT},
            spec={
                "selector": args.labels,
                "ports": [{"name": "http", "port": HTTP_PORT, "targetPort": "http"}],
            },
            opts=ResourceOptions(parent=self),
        )

    def _disruption_budget(self, name: str, args: ModelServerArgs) -> None:
        Manifest(
            name,
            "policy/v1",
            "PodDisruptionBudget",
            metadata={**self._metadata(args), "annotations": SKIP_AWAIT},
            spec={"maxUnavailable": 1, "selector": {"matchLabels": args.labels}},
            opts=ResourceOptions(parent=self),
        )

    def _autoscaler(self, name: str, args: ModelServerArgs, bounds: Autoscaling) -> None:
        target = {"type": "Utilization", "averageUtilization": bounds.cpu_percent}
        Manifest(
            name,
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            metadata=self._metadata(args),
            spec={
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": args.name},
                "minReplicas": bounds.minimum,
                "maxReplicas": bounds.maximum,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            },
            opts=ResourceOptions(parent=self),
        )


def _pod(args: ModelServerArgs) -> dict[str, Any]:
    optional: dict[str, Any] = {}
    if args.priority_class:
        optional["priorityClassName"] = args.priority_class
    if args.accelerators:
        # https://cloud.google.com/kubernetes-engine/docs/how-to/autopilot-gpus
        optional["nodeSelector"] = {"cloud.google.com/gke-accelerator": args.accelerators.type}
    return {
        **optional,
        "containers": [_container(args)],
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": args.drain_seconds + IN_FLIGHT_SECONDS,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "topologySpreadConstraints": _spread(args) if args.several else [],
        "volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}],
    }


def _resources(args: ModelServerArgs) -> dict[str, Any]:
    # Kubernetes takes the limit of an accelerator for its request as well.
    accelerators = {"nvidia.com/gpu": str(args.accelerators.count)} if args.accelerators else {}
    return {
        "requests": {"cpu": args.cpu, "memory": args.memory},
        "limits": {"memory": args.memory, **accelerators},
    }


def _container(args: ModelServerArgs) -> dict[str, Any]:
    ready = {"path": args.ready_path, "port": "http"}
    return {
        "name": "mlserver",
        "image": args.image,
        "env": args.environment_of_server,
        "ports": [
            {"name": "http", "containerPort": HTTP_PORT},
            {"name": "grpc", "containerPort": GRPC_PORT},
            {"name": "metrics", "containerPort": METRICS_PORT},
        ],
        "resources": _resources(args),
        "startupProbe": {"httpGet": ready, "periodSeconds": 1, "failureThreshold": args.start_seconds},
        "readinessProbe": {"httpGet": ready, "periodSeconds": 5, "failureThreshold": 2, "timeoutSeconds": 3},
        # More patient than readiness: a server that is merely busy must not be restarted.
        "livenessProbe": {
            "httpGet": {"path": "/v2/health/live", "port": "http"},
            "periodSeconds": 10,
            "failureThreshold": 6,
            "timeoutSeconds": 5,
        },
        "lifecycle": {"preStop": {"sleep": {"seconds": args.drain_seconds}}} if args.drain_seconds else None,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - the volume above
    }


def _spread(args: ModelServerArgs) -> list[dict[str, Any]]:
    """Over zones, then over nodes, as far as there are any: better crowded than not running."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": args.labels},
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]
