"""The portal: the stack's front door, with its page, API description and what concerns all models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pulumi import ComponentResource, Input, Output, Resource, ResourceOptions

from components.manifest import CORE, RESTRICTED_CONTAINER, RESTRICTED_POD, Manifest
from components.serving.gateway import API_VERSION
from components.serving.route import PUBLIC_PREFIX
from components.serving.server import HTTP_PORT, SKIP_AWAIT, VERSION_LABEL, origins, spread
from model_serving.images import runtimes

NAME: Final = "portal"
"""Of its objects in Kubernetes. A model server's name has a version behind it."""
ROUTE_NAME: Final = f"{NAME}.stack"
"""Of its route: with a dot and what is not a version, so that no model's route has it."""
LABELS: Final = {"app.kubernetes.io/component": NAME}
"""Of its pods. They have no label of a model server, or a Service would send them requests."""
FOLDER: Final = "/portal"
FILE: Final = "served.json"
LIVE_PATH: Final = f"{PUBLIC_PREFIX}/v2/health/live"
PATHS: Final = (
    f"{PUBLIC_PREFIX}/v2",
    LIVE_PATH,
    f"{PUBLIC_PREFIX}/v2/health/ready",
    f"{PUBLIC_PREFIX}/v2/repository/index",
)
"""Each exactly: no other path of the repository's API leads anywhere."""


@dataclass(frozen=True, kw_only=True)
class ServedVersion:
    """A deployed version, as the portal lists it.

    Attributes:
        address: of its Service; None is not known in a preview.
        weight: percent of the model's traffic.
    """

    model: str
    version: str
    address: Output[str | None]
    ready_path: str
    weight: int

    @property
    def entry(self) -> Output[dict[str, Any]]:
        """What server/portal/served.py reads."""
        return self.address.apply(
            lambda address: {
                "model": self.model,
                "version": self.version,
                "weight": self.weight,
                "readyUrl": f"http://{address}:{HTTP_PORT}{self.ready_path}",
            }
        )


@dataclass(frozen=True, kw_only=True)
class PortalArgs:
    """The portal of a stack.

    Attributes:
        image: reference by digest.
        gateway: name of the Gateway, in the same namespace.
        replicas: number of pods.
        served: versions that it lists.
        client_ranges: CIDR ranges of the gateway's proxies, the only sources of requests.
        allowed_origins: of web pages whose scripts may ask it.
        drain_seconds: for which a pod that shuts down keeps serving.
        after: must exist before it lists the versions.
        ready: must exist before its route.
    """

    namespace: Input[str]
    image: Input[str]
    gateway: Input[str]
    served: Sequence[ServedVersion]
    client_ranges: Sequence[str]
    drain_seconds: int
    replicas: int = 1
    allowed_origins: Sequence[str] = ()
    after: Sequence[Input[Any]] = ()
    ready: Sequence[Resource] = ()


class Portal(ComponentResource):
    """Deployment, Service and route of the portal, and what it lists.

    No update waits for its pods: models are served without it.
    """

    def __init__(self, name: str, args: PortalArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:Portal", name, None, opts)
        self._metadata = {"name": NAME, "namespace": args.namespace, "labels": LABELS, "annotations": SKIP_AWAIT}
        # Once the traffic has moved: until then the former list is right.
        entries = Output.all(*(version.entry for version in args.served), *args.after)
        listed = entries.apply(lambda known: json.dumps(known[: len(args.served)], indent=1))
        self._object(name, CORE, "ConfigMap", data={FILE: listed})
        self._object(name, "networking.k8s.io/v1", "NetworkPolicy", spec=_access(args))
        self._deployment(name, args, listed)
        ports = [{"name": "http", "port": HTTP_PORT, "targetPort": "http"}]
        service = self._object(name, CORE, "Service", spec={"selector": LABELS, "ports": ports})
        self._route(name, args, service)
        self.register_outputs({})

    def _object(self, name: str, version: str, kind: str, **content: Any) -> Manifest:
        return Manifest(name, version, kind, metadata=self._metadata, opts=ResourceOptions(parent=self), **content)

    def _deployment(self, name: str, args: PortalArgs, listed: Output[str]) -> None:
        # A pod reads the list when it starts.
        digest = listed.apply(lambda text: runtimes.digest(text.encode()))
        annotations = {"model-serving/served": digest}
        self._object(
            name,
            "apps/v1",
            "Deployment",
            spec={
                "replicas": args.replicas,
                "selector": {"matchLabels": LABELS},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "template": {"metadata": {"labels": LABELS, "annotations": annotations}, "spec": _pod(args)},
            },
        )

    def _route(self, name: str, args: PortalArgs, service: Manifest) -> None:
        matches = [{"path": {"type": "Exact", "value": path}} for path in PATHS]
        backend = {"name": service.metadata["name"], "port": HTTP_PORT}
        Manifest(
            name,
            API_VERSION,
            "HTTPRoute",
            metadata={"name": ROUTE_NAME, "namespace": args.namespace},
            spec={"parentRefs": [{"name": args.gateway}], "rules": [{"matches": matches, "backendRefs": [backend]}]},
            opts=ResourceOptions(parent=self, depends_on=[*args.ready]),
        )


def _access(args: PortalArgs) -> dict[str, Any]:
    """In from the gateway's proxies, and out to the model servers."""
    sources = [{"ipBlock": {"cidr": cidr}} for cidr in args.client_ranges]
    servers = {"podSelector": {"matchExpressions": [{"key": VERSION_LABEL, "operator": "Exists"}]}}
    return {
        "podSelector": {"matchLabels": LABELS},
        "policyTypes": ["Ingress", "Egress"],
        # A rule without sources would allow every source.
        "ingress": [{"from": sources, "ports": [{"port": HTTP_PORT}]}] if sources else [],
        "egress": [{"to": [servers], "ports": [{"port": HTTP_PORT}]}],
    }


def _pod(args: PortalArgs) -> dict[str, Any]:
    return {
        "containers": [_container(args)],
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": args.drain_seconds + 10,
        "securityContext": RESTRICTED_POD,
        "topologySpreadConstraints": spread(LABELS) if args.replicas > 1 else [],
        "volumes": [{"name": NAME, "configMap": {"name": NAME}}],
    }


def _container(args: PortalArgs) -> dict[str, Any]:
    probe = {"httpGet": {"path": LIVE_PATH, "port": "http"}, "timeoutSeconds": 3}
    return {
        "name": NAME,
        "image": args.image,
        "args": [f"{FOLDER}/{FILE}"],
        "env": [{"name": key, "value": value} for key, value in origins(args.allowed_origins).items()],
        "ports": [{"name": "http", "containerPort": HTTP_PORT}],
        "resources": {"requests": {"cpu": "10m", "memory": "96Mi"}, "limits": {"memory": "96Mi"}},
        "readinessProbe": {**probe, "periodSeconds": 2},
        "livenessProbe": {**probe, "periodSeconds": 10, "failureThreshold": 6},
        "lifecycle": {"preStop": {"sleep": {"seconds": args.drain_seconds}}} if args.drain_seconds else None,
        "securityContext": RESTRICTED_CONTAINER,
        "volumeMounts": [{"name": NAME, "mountPath": FOLDER, "readOnly": True}],
    }
