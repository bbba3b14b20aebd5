"""The HTTPRoutes of a model: one per version, one that splits the traffic by the versions' weights, one for gRPC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pulumi import ComponentResource, Input, Output, Resource, ResourceHook, ResourceHookBinding, ResourceOptions

from components.manifest import Manifest
from components.serving.gateway import API_VERSION
from components.serving.server import GRPC_PORT, HTTP_PORT

PUBLIC_PREFIX: Final = "/mlapi"
"""Before MLServer's own paths, so that the host can also serve a page or another API."""
VERSION_HEADER: Final = "x-model-version"
"""Header by which a tester chooses a version at the model's own URL, and metadata of gRPC that does the same."""
MODEL_HEADER: Final = "x-model-name"
"""Metadata of gRPC that chooses the model: its name is in the message, which no gateway reads."""
GRPC_SERVICE: Final = "inference.GRPCInferenceService"
GRPC_METHODS: Final = (
    *("ServerLive", "ServerReady", "ServerMetadata"),
    *("ModelReady", "ModelMetadata", "ModelInfer", "ModelStreamInfer"),
)
"""Each exactly: the service can also load and unload models."""
GRPC_SUFFIX: Final = ".grpc"
"""Of the name of the route for gRPC; with a dot and what is not a version, like the portal's."""


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A version that can be routed to.

    Attributes:
        slug: the version as a part of a DNS label.
        service: name of its Service.
        weight: percent of the model's traffic.
        shadow: whether it gets a copy of the model's requests; clients never see its responses.
        ready: must exist before its own route, besides the Service.
        proven: must exist before it gets a part of the model's traffic.
        shown: must be known before that; the values do not matter.
    """

    slug: str
    service: Input[str]
    weight: int
    shadow: bool = False
    ready: Sequence[Resource] = ()
    proven: Sequence[Resource] = ()
    shown: Sequence[Output[None]] = ()


@dataclass(frozen=True, kw_only=True)
class ModelRouteArgs:
    """The routes of one model.

    Attributes:
        gateway: name of the Gateway, in the same namespace.
        backends: by version.
        answer_seconds: request timeout; None keeps the gateway's own. Envoy's default is 15 s.
        grpc: whether the model can be asked over gRPC as well.
        settled: waits until the gateway follows, after the model's traffic has moved.
    """

    model: str
    namespace: Input[str]
    gateway: Input[str]
    backends: Mapping[str, Backend]
    answer_seconds: int | None = None
    grpc: bool = False
    settled: ResourceHook | None = None


def pinned_path(model: str, version: str) -> str:
    """Public path of exactly that version."""
    return f"{PUBLIC_PREFIX}{_inside(model)}/versions/{version}"


def _inside(model: str) -> str:
    return f"/v2/models/{model}"


class ModelRoute(ComponentResource):
    """Pinned routes ``…/models/<name>/versions/<version>``, the model's own ``…/models/<name>``, and one for gRPC.

    The last one is an HTTPRoute as well: a GRPCRoute has no timeouts, and a gateway has to refuse one beside HTTPRoutes
    for the same hosts, https://gateway-api.sigs.k8s.io/reference/spec/#grpcroutespec.

    No route leads to the rest of MLServer's API, e.g. its repository API, which can unload a model.
    """

    def __init__(self, name: str, args: ModelRouteArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:ModelRoute", name, None, opts)
        pinned = [self._pinned(name, args, version, backend) for version, backend in args.backends.items()]
        moving = [self._weighted(name, args, pinned), *([self._grpc(name, args, pinned)] if args.grpc else [])]
        # Known only when the traffic has moved, so that a release is only reported once it is done.
        moved = Output.all(*(route.metadata["name"] for route in moving))
        self.path: Output[str] = moved.apply(lambda _: f"{PUBLIC_PREFIX}{_inside(args.model)}")
        self.register_outputs({"path": self.path})

    def _pinned(self, name: str, args: ModelRouteArgs, version: str, backend: Backend) -> Manifest:
        rules = [_rule(f"{_inside(args.model)}/versions/{version}", [_to(backend, weight=1)])]
        if args.grpc and not backend.shadow:
            # Here, so that a gateway knows the port for gRPC before traffic moves to it: Envoy, which learns of both at
            # once otherwise, answers some requests with UNAVAILABLE meanwhile.
            rules.append(_grpc_rule(args.model, [_to(backend, weight=1, port=GRPC_PORT)], version=version))
        opts = ResourceOptions(parent=self, depends_on=[*backend.ready])
        # With a dot, because a name with a dash may be another model's route.
        return _route(f"{name}.{backend.slug}", args, args.gateway, rules, opts)

    def _weighted(self, name: str, args: ModelRouteArgs, pinned: Sequence[Resource]) -> Manifest:
        """The model's traffic by weight; last, so that it only moves to versions that have proven themselves."""
        path = _inside(args.model)
        answering = _answering(args)
        by_header = [
            _rule(path, [_to(backend, weight=1)], header=version) for version, backend in sorted(answering.items())
        ]
        weights = [_to(backend, weight=backend.weight) for backend in answering.values()]
        by_weight = _rule(path, weights, copies=_copies(args, HTTP_PORT))
        return self._moving(name, args, pinned, [*by_header, by_weight])

    def _grpc(self, name: str, args: ModelRouteArgs, pinned: Sequence[Resource]) -> Manifest:
        """The same for gRPC, whose metadata for a version is a matter of the pinned routes."""
        weights = [_to(backend, weight=backend.weight, port=GRPC_PORT) for backend in _answering(args).values()]
        by_weight = _grpc_rule(args.model, weights, copies=_copies(args, GRPC_PORT))
        return self._moving(f"{name}{GRPC_SUFFIX}", args, pinned, [by_weight])

    def _moving(
        self, name: str, args: ModelRouteArgs, pinned: Sequence[Resource], rules: Sequence[dict[str, Any]]
    ) -> Manifest:
        backends = args.backends.values()
        # The engine registers a route once its inputs are known: this one waits for every version's contract.
        shown = [known for backend in backends for known in backend.shown]
        gateway = Output.all(args.gateway, *shown).apply(lambda known: str(known[0]))
        opts = ResourceOptions(
            parent=self,
            depends_on=[*pinned, *(resource for backend in backends for resource in backend.proven)],
            hooks=ResourceHookBinding(after_update=[args.settled]) if args.settled else None,
        )
        return _route(name, args, gateway, rules, opts)


def _answering(args: ModelRouteArgs) -> dict[str, Backend]:
    return {version: backend for version, backend in args.backends.items() if not backend.shadow}


def _copies(args: ModelRouteArgs, port: int) -> list[dict[str, Any]]:
    return [
        {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": backend.service, "port": port}}}
        for backend in args.backends.values()
        if backend.shadow
    ]


def _route(
    name: str, args: ModelRouteArgs, gateway: Input[str], rules: Sequence[dict[str, Any]], opts: ResourceOptions
) -> Manifest:
    limit = {"timeouts": {"request": f"{args.answer_seconds}s"}} if args.answer_seconds else {}
    return Manifest(
        name,
        API_VERSION,
        "HTTPRoute",
        metadata={"name": name, "namespace": args.namespace},
        spec={"parentRefs": [{"name": gateway}], "rules": [{**rule, **limit} for rule in rules]},
        opts=opts,
    )


def leaves_out(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a route no longer leads to a Service to which it led before."""
    return not _services(old) <= _services(new)


def _services(route: Mapping[str, Any]) -> set[str]:
    return {reference["name"] for rule in route["spec"]["rules"] for reference in rule["backendRefs"]}


def _to(backend: Backend, *, weight: int, port: int = HTTP_PORT) -> dict[str, Any]:
    return {"name": backend.service, "port": port, "weight": weight}


def _rule(
    path: str, backends: list[dict[str, Any]], *, header: str | None = None, copies: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    match: dict[str, Any] = {"path": {"type": "PathPrefix", "value": PUBLIC_PREFIX + path}}
    inside = path
    if header is not None:
        match["headers"] = [{"type": "Exact", "name": VERSION_HEADER, "value": header}]
        # By its full path: what the server takes for the newest version never counts.
        inside = f"{path}/versions/{header}"
    rewrite = {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": inside}}
    return {
        "matches": [match],
        "filters": [{"type": "URLRewrite", "urlRewrite": rewrite}, *copies],
        "backendRefs": backends,
    }


def _grpc_rule(
    model: str, backends: list[dict[str, Any]], *, version: str | None = None, copies: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    chosen = {MODEL_HEADER: model} | ({VERSION_HEADER: version} if version else {})
    headers = [{"type": "Exact", "name": name, "value": value} for name, value in chosen.items()]
    return {
        "matches": [
            {"path": {"type": "Exact", "value": f"/{GRPC_SERVICE}/{method}"}, "headers": headers}
            for method in GRPC_METHODS
        ],
        **({"filters": [*copies]} if copies else {}),
        "backendRefs": backends,
    }
