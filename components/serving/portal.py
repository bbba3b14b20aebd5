"""The portal: the stack's front door, with its page, API description and what concerns all models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
OPENAPI_PATH: Final = f"{PUBLIC_PREFIX}/openapi.json"
PATHS: Final = (
    "/",
    OPENAPI_PATH,
    f"{PUBLIC_PREFIX}/v2",
    LIVE_PATH,
    f"{PUBLIC_PREFIX}/v2/health/ready",
    f"{PUBLIC_PREFIX}/v2/repository/index",
)
"""Each exactly: no other path of the repository's API leads anywhere."""
FILES_PREFIX: Final = "/portal"
"""Of the files of the page at /."""
LARGEST_LIST: Final = 1000 * 1024
"""Bytes of the list. A ConfigMap has room for 1 MiB, https://kubernetes.io/docs/concepts/configuration/configmap/"""
DISPENSABLE: Final = (("request", "response"), ("inputs", "outputs"))
"""Parts of all descriptions that are left out of a list that would be too large, the first ones first."""


@dataclass(frozen=True, kw_only=True)
class ServedVersion:
    """A deployed version, as the portal lists it.

    Attributes:
        address: of its Service; None is not known in a preview.
        weight: percent of the model's traffic.
        shadow: whether it gets a copy of the model's requests.
        deployed: when, if known.
        grpc: whether it can be asked over gRPC as well.
        about: description of its release, see model_serving/catalog/description.py.
    """

    model: str
    version: str
    address: Output[str | None]
    ready_path: str
    weight: int
    shadow: bool = False
    deployed: Input[str | None] = None
    grpc: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def entry(self) -> Output[dict[str, Any]]:
        """What server/portal/served.py reads."""
        return Output.all(self.address, self.deployed).apply(
            lambda known: {
                "model": self.model,
                "version": self.version,
                "weight": self.weight,
                "shadow": self.shadow,
                "deployed": known[1],
                "grpc": self.grpc,
                "readyUrl": f"http://{known[0]}:{HTTP_PORT}{self.ready_path}",
                "about": dict(self.about),
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
        listed = entries.apply(lambda known: _listed(known[: len(args.served)]))
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
        paths = [*(("Exact", path) for path in PATHS), ("PathPrefix", FILES_PREFIX)]
        matches = [{"path": {"type": kind, "value": path}} for kind, path in paths]
        backend = {"name": service.metadata["name"], "port": HTTP_PORT}
        Manifest(
            name,
            API_VERSION,
            "HTTPRoute",
            metadata={"name": ROUTE_NAME, "namespace": args.namespace},
            spec={"parentRefs": [{"name": args.gateway}], "rules": [{"matches": matches, "backendRefs": [backend]}]},
            opts=ResourceOptions(parent=self, depends_on=[*args.ready]),
        )


def _listed(entries: Sequence[Mapping[str, Any]]) -> str:
    """The list as JSON, an entry per line."""
    left_out: list[str] = []
    for parts in ((), *DISPENSABLE):
        left_out += parts
        shown = [{**entry, "about": _without(entry["about"], left_out)} for entry in entries]
        text = "[\n" + ",\n".join(json.dumps(entry) for entry in shown) + "\n]\n"
        if len(text) <= LARGEST_LIST:
            break
    return text


def _without(about: Mapping[str, Any], parts: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in about.items() if key not in parts}


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
        # None and not []: Kubernetes drops empty lists, so a preview would show them as new in each update.
        "topologySpreadConstraints": spread(LABELS) if args.replicas > 1 else None,
        "volumes": [{"name": NAME, "configMap": {"name": NAME}}],
    }


def _container(args: PortalArgs) -> dict[str, Any]:
    probe = {"httpGet": {"path": LIVE_PATH, "port": "http"}, "timeoutSeconds": 3}
    return {
        "name": NAME,
        "image": args.image,
        "args": [f"{FOLDER}/{FILE}"],
        "env": [{"name": key, "value": value} for key, value in origins(args.allowed_origins).items()] or None,
        "ports": [{"name": "http", "containerPort": HTTP_PORT}],
        "resources": {"requests": {"cpu": "10m", "memory": "96Mi"}, "limits": {"memory": "96Mi"}},
        "readinessProbe": {**probe, "periodSeconds": 2},
        "livenessProbe": {**probe, "periodSeconds": 10, "failureThreshold": 6},
        "lifecycle": {"preStop": {"sleep": {"seconds": args.drain_seconds}}} if args.drain_seconds else None,
        "securityContext": RESTRICTED_CONTAINER,
        "volumeMounts": [{"name": NAME, "mountPath": FOLDER, "readOnly": True}],
    }
