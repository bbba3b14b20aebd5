"""The routes of a model: one to each version by name, and one that shares the traffic among the versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pulumi import ComponentResource, Input, Output, Resource, ResourceHook, ResourceHookBinding, ResourceOptions

from components.manifest import Manifest
from components.serving.gateway import API_VERSION
from components.serving.server import HTTP_PORT

PUBLIC_PREFIX: Final = "/mlapi"
"""In front of MLServer's own paths, so that a page or another API can live beside the models."""
VERSION_HEADER: Final = "x-model-version"
"""With it a tester asks one version through the model's own address."""


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A version that can be routed to.

    Attributes:
        slug: the version as a part of a DNS label.
        service: name of its Service.
        weight: percent of the model's traffic.
        shadow: whether it gets a copy of the model's requests, and no client its answers.
        ready: what has to be there before its own route, besides the Service.
        proven: what has to be there before it gets a part of the model's traffic.
        shown: what has to be known before that; values are of no interest.
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
        backends: version -> where it is served and how much it gets.
        answer_seconds: how long an answer may take; None leaves it to the gateway. Envoy's own default is 15 s.
        settled: waits, after the model's traffic has moved, for the gateway to know it.
    """

    model: str
    namespace: Input[str]
    gateway: Input[str]
    backends: Mapping[str, Backend]
    answer_seconds: int | None = None
    settled: ResourceHook | None = None


def pinned_path(model: str, version: str) -> str:
    """Where clients find exactly that version."""
    return f"{PUBLIC_PREFIX}{_inside(model)}/versions/{version}"


def _inside(model: str) -> str:
    return f"/v2/models/{model}"


class ModelRoute(ComponentResource):
    """Pinned routes ``…/models/<name>/versions/<version>`` and the model's own ``…/models/<name>``.

    Everything else that MLServer offers stays inside: no route leads to its repository API, which could unload a model.
    """

    def __init__(self, name: str, args: ModelRouteArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:ModelRoute", name, None, opts)
        pinned = [self._pinned(name, args, version, backend) for version, backend in args.backends.items()]
        shared = self._shared(name, args, pinned)
        # Known only when the traffic is where it should be: what is told of a release is told once it is done.
        self.path: Output[str] = shared.metadata["name"].apply(lambda _: f"{PUBLIC_PREFIX}{_inside(args.model)}")
        self.register_outputs({"path": self.path})

    def _pinned(self, name: str, args: ModelRouteArgs, version: str, backend: Backend) -> Manifest:
        path = f"{_inside(args.model)}/versions/{version}"
        rule = _rule(path, [_to(backend, weight=1)])
        # A dot, because a name with a dash may be that of another model's route.
        return self._route(f"{name}.{backend.slug}", args, [rule], depends_on=backend.ready)

    def _shared(self, name: str, args: ModelRouteArgs, pinned: Sequence[Resource]) -> Manifest:
        """Last, so that the model's traffic moves to a version only once that one has shown what it can."""
        path, backends = _inside(args.model), args.backends
        answering = {version: backend for version, backend in backends.items() if not backend.shadow}
        copies = [
            {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": shadow.service, "port": HTTP_PORT}}}
            for shadow in backends.values()
            if shadow.shadow
        ]
        chosen = [
            _rule(path, [_to(backend, weight=1)], header=version) for version, backend in sorted(answering.items())
        ]
        everybody = _rule(path, [_to(backend, weight=backend.weight) for backend in answering.values()], copies=copies)
        proven = [resource for backend in backends.values() for resource in backend.proven]
        hooks = ResourceHookBinding(after_update=[args.settled]) if args.settled else None
        shown = [known for backend in backends.values() for known in backend.shown]
        # A route is declared when all that it is made of is known: this says the gateway's name only when the rest is.
        args = replace(args, gateway=Output.all(args.gateway, *shown).apply(lambda known: str(known[0])))
        return self._route(name, args, [*chosen, everybody], depends_on=[*pinned, *proven], hooks=hooks)

    def _route(
        self,
        name: str,
        args: ModelRouteArgs,
        rules: list[dict[str, Any]],
        depends_on: Sequence[Resource],
        hooks: ResourceHookBinding | None = None,
    ) -> Manifest:
        limit = {"timeouts": {"request": f"{args.answer_seconds}s"}} if args.answer_seconds else {}
        return Manifest(
            name,
            API_VERSION,
            "HTTPRoute",
            metadata={"name": name, "namespace": args.namespace},
            spec={"parentRefs": [{"name": args.gateway}], "rules": [{**rule, **limit} for rule in rules]},
            opts=ResourceOptions(parent=self, depends_on=[*depends_on], hooks=hooks),
        )


def leaves_out(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a route led to a Service before to which it leads no more."""
    return not _services(old) <= _services(new)


def _services(route: Mapping[str, Any]) -> set[str]:
    return {reference["name"] for rule in route["spec"]["rules"] for reference in rule["backendRefs"]}


def _to(backend: Backend, *, weight: int) -> dict[str, Any]:
    return {"name": backend.service, "port": HTTP_PORT, "weight": weight}


def _rule(
    path: str, backends: list[dict[str, Any]], *, header: str | None = None, copies: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    match: dict[str, Any] = {"path": {"type": "PathPrefix", "value": PUBLIC_PREFIX + path}}
    if header is not None:
        match["headers"] = [{"type": "Exact", "name": VERSION_HEADER, "value": header}]
    rewrite = {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": path}}
    return {
        "matches": [match],
        "filters": [{"type": "URLRewrite", "urlRewrite": rewrite}, *copies],
        "backendRefs": backends,
    }
