"""A model server: the pods of one version of one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pulumi import ComponentResource, Input, Output, ResourceHook, ResourceHookBinding, ResourceOptions

from components.manifest import CORE, EXISTS, RESTRICTED_CONTAINER, RESTRICTED_POD, Manifest
from model_serving.stack.models import Autoscaling, ModelSettings
from model_serving.stack.resources import PodResources, request_bytes

HTTP_PORT: Final = 8080
GRPC_PORT: Final = 8081
METRICS_PORT: Final = 8082
NAME_LABEL: Final = "app.kubernetes.io/name"
VERSION_LABEL: Final = "app.kubernetes.io/version"
"""Only model servers' pods have it in the namespace."""

SKIP_AWAIT: Final = {"pulumi.com/skipAwait": "true"}
"""For kinds that are ready once they exist. Awaiting a Service takes 10 s and only repeats its Deployment's status."""


@dataclass(frozen=True, kw_only=True)
class ModelServerArgs:
    """One live version.

    Attributes:
        image: reference by digest.
        settings: the stack's section of the model.
        resources: of each pod; cores are reserved, but not limited, because throttling costs latency.
        drain_seconds: for which a pod that shuts down keeps serving, until every proxy has removed it.
        allowed_origins: of web pages whose scripts may ask it.
        grpc: whether its Service has the port for gRPC.
        changes: called before the Deployment is created or updated.
        more_labels: of its objects and pods; they replace others of the same key.
    """

    model: str
    version: str
    namespace: Input[str]
    image: Input[str]
    settings: ModelSettings
    resources: PodResources
    drain_seconds: int
    allowed_origins: Sequence[str] = ()
    grpc: bool = False
    changes: ResourceHook | None = None
    more_labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def ready_path(self) -> str:
        # Of exactly this version: MLServer drops a model that failed, and is ready with an empty model list.
        return f"/v2/models/{self.model}/versions/{self.version}/ready"

    @property
    def several(self) -> bool:
        """Whether there can be more than one pod."""
        return self.settings.most_pods > 1

    @property
    def labels(self) -> dict[str, str]:
        return {NAME_LABEL: self.model, VERSION_LABEL: self.version, **self.more_labels}


class ModelServer(ComponentResource):
    """Deployment, Service and, if there can be several pods, PodDisruptionBudget and autoscaler.

    It gets no traffic until a route leads to it. ServerAccess decides who may reach it.
    """

    def __init__(self, name: str, args: ModelServerArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:ModelServer", name, None, opts)
        self._metadata = {"name": name, "namespace": args.namespace, "labels": args.labels}
        self.pods = self._deployment(name, args)
        """The Deployment, which exists before its pods are ready."""
        service = self._service(name, args)
        if args.several:
            self._disruption_budget(name, args)
        if args.settings.autoscaling:
            self._autoscaler(name, args.settings.autoscaling)
        self.service: Output[str] = service.metadata["name"]
        """Name of the Service, which may exist before any pod is ready."""
        self.address: Output[str | None] = service.spec.apply(lambda spec: spec.get("clusterIP"))
        """Address of the Service; None is not known in a preview."""
        self.created: Output[str | None] = service.metadata.apply(_created)
        """Time at which the Service was created, in the form of RFC 3339; None is not known."""
        self.ready_path = args.ready_path
        self.register_outputs({"service": self.service})

    def _deployment(self, name: str, args: ModelServerArgs) -> Manifest:
        settings, autoscaling = args.settings, args.settings.autoscaling
        # Resets a number of pods that a former autoscaler or a person has set.
        force = {} if autoscaling else {"pulumi.com/patchForce": "true"}
        return Manifest(
            name,
            "apps/v1",
            "Deployment",
            metadata={**self._metadata, "annotations": {**EXISTS, **force}},
            spec={
                "replicas": autoscaling.minimum if autoscaling else settings.replicas,
                "selector": {"matchLabels": args.labels},
                "progressDeadlineSeconds": settings.start_seconds,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "template": {"metadata": {"labels": args.labels}, "spec": _pod(args)},
            },
            opts=ResourceOptions(
                parent=self,
                # Starts with the minimum, because the autoscaler only looks every 15 s and a single pod would get all
                # traffic until then. Afterwards the autoscaler owns the number.
                ignore_changes=["spec.replicas"] if autoscaling else None,
                hooks=_before(args.changes) if args.changes else None,
            ),
        )

    def _service(self, name: str, args: ModelServerArgs) -> Manifest:
        # Without the protocol, a gateway would speak HTTP/1.1 to it.
        grpc = {"name": "grpc", "port": GRPC_PORT, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c"}
        return Manifest(
            name,
            CORE,
            "Service",
            metadata={**self._metadata, "annotations": SKIP_AWAIT},
            spec={
                "selector": args.labels,
                "ports": [{"name": "http", "port": HTTP_PORT, "targetPort": "http"}, *([grpc] if args.grpc else [])],
            },
            opts=ResourceOptions(parent=self),
        )

    def _disruption_budget(self, name: str, args: ModelServerArgs) -> None:
        Manifest(
            name,
            "policy/v1",
            "PodDisruptionBudget",
            metadata={**self._metadata, "annotations": SKIP_AWAIT},
            spec={"maxUnavailable": 1, "selector": {"matchLabels": args.labels}},
            opts=ResourceOptions(parent=self),
        )

    def _autoscaler(self, name: str, bounds: Autoscaling) -> None:
        target = {"type": "Utilization", "averageUtilization": bounds.cpu_percent}
        Manifest(
            name,
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            metadata=self._metadata,
            spec={
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                "minReplicas": bounds.minimum,
                "maxReplicas": bounds.maximum,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            },
            opts=ResourceOptions(parent=self),
        )


def _created(metadata: Mapping[str, Any]) -> str | None:
    # A preview also gets a time for an object that it only pretends to create, but no resource version.
    return metadata.get("creationTimestamp") if metadata.get("resourceVersion") else None


def _before(hook: ResourceHook) -> ResourceHookBinding:
    return ResourceHookBinding(before_create=[hook], before_update=[hook])


def _pod(args: ModelServerArgs) -> dict[str, Any]:
    settings = args.settings
    optional: dict[str, Any] = {}
    if args.several:
        optional["topologySpreadConstraints"] = spread(args.labels)
    if settings.priority:
        optional["priorityClassName"] = settings.priority
    if settings.gpu:
        # https://cloud.google.com/kubernetes-engine/docs/how-to/autopilot-gpus
        optional["nodeSelector"] = {"cloud.google.com/gke-accelerator": settings.gpu.type}
    return {
        **optional,
        "containers": [_container(args)],
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # Requests in progress finish after the drain.
        "terminationGracePeriodSeconds": args.drain_seconds + settings.answer_seconds,
        "securityContext": RESTRICTED_POD,
        "volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}],
    }


def _container(args: ModelServerArgs) -> dict[str, Any]:
    ready = {"path": args.ready_path, "port": "http"}
    return {
        "name": "mlserver",
        "image": args.image,
        "env": [{"name": key, "value": value} for key, value in _environment(args).items()],
        "ports": [
            {"name": "http", "containerPort": HTTP_PORT},
            {"name": "grpc", "containerPort": GRPC_PORT},
            {"name": "metrics", "containerPort": METRICS_PORT},
        ],
        "resources": _resources(args),
        "startupProbe": {"httpGet": ready, "periodSeconds": 1, "failureThreshold": args.settings.start_seconds},
        "readinessProbe": {"httpGet": ready, "periodSeconds": 5, "failureThreshold": 2, "timeoutSeconds": 3},
        # More patient than readiness: a busy server must not be restarted.
        "livenessProbe": {
            "httpGet": {"path": "/v2/health/live", "port": "http"},
            "periodSeconds": 10,
            "failureThreshold": 6,
            "timeoutSeconds": 5,
        },
        "lifecycle": {"preStop": {"sleep": {"seconds": args.drain_seconds}}} if args.drain_seconds else None,
        # The launcher's reason, or else the end of the log, which the program reports if the model cannot be loaded.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": RESTRICTED_CONTAINER,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - the volume above
    }


def _environment(args: ModelServerArgs) -> dict[str, str]:
    settings = args.settings
    return {
        # MLServer's defaults are debug mode and a pool of one process, which doubles the memory and is no faster.
        "MLSERVER_DEBUG": "false",
        "MLSERVER_PARALLEL_WORKERS": str(settings.workers),
        "MLSERVER_HTTP_PORT": str(HTTP_PORT),
        "MLSERVER_GRPC_PORT": str(GRPC_PORT),
        "MLSERVER_METRICS_PORT": str(METRICS_PORT),
        # In the only writable folder, the volume tmp. The second is only created for workers.
        "MLSERVER_METRICS_DIR": "/tmp/metrics",  # noqa: S108 - a volume of the pod's own
        "MLSERVER_ENVIRONMENTS_DIR": "/tmp/environments",  # noqa: S108 - the same
        "MODEL_SERVING_REQUEST_BYTES": str(request_bytes(settings, args.resources.memory)),
        "MODEL_SERVING_ANSWER_SECONDS": str(settings.answer_seconds),
        "MODEL_SERVING_WAITING": str(settings.waiting),
        **origins(args.allowed_origins),
        **({"OMP_NUM_THREADS": str(args.resources.threads)} if args.resources.threads else {}),
        **settings.environment,
    }


def origins(allowed: Sequence[str]) -> dict[str, str]:
    """The environment variable that lets browsers on pages of these origins in."""
    return {"MODEL_SERVING_ALLOWED_ORIGINS": " ".join(allowed)} if allowed else {}


def _resources(args: ModelServerArgs) -> dict[str, Any]:
    gpu, memory = args.settings.gpu, args.resources.memory
    # Kubernetes uses an accelerator's limit as its request.
    accelerators = {"nvidia.com/gpu": str(gpu.count)} if gpu else {}
    return {"requests": {"cpu": args.resources.cpu, "memory": memory}, "limits": {"memory": memory, **accelerators}}


def spread(labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Prefers different zones, then different nodes; pods share a node rather than not run."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": labels},
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]
