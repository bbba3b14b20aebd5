"""The routes of a model: one to each version by name, and one that shares the traffic among the versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pulumi_kubernetes as kubernetes
from pulumi import ComponentResource, Input, Resource, ResourceOptions

from components.gateway import API_VERSION
from components.server import HTTP_PORT

PUBLIC_PREFIX: Final = "/mlapi"
"""In front of MLServer's own paths, so that a page or another API can live beside the models."""


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A version that can be routed to.

    Attributes:
        slug: the version as a part of a DNS label.
        service: name of its Service.
        weight: percent of the model's traffic.
        ready: what has to be there before the first request, besides the Service.
    """

    slug: str
    service: Input[str]
    weight: int
    ready: Sequence[Resource] = ()


@dataclass(frozen=True, kw_only=True)
class ModelRouteArgs:
    """The routes of one model.

    Attributes:
        gateway: name of the Gateway, in the same namespace.
        backends: version -> where it is served and how much it gets.
    """

    model: str
    namespace: Input[str]
    gateway: Input[str]
    backends: Mapping[str, Backend]


class ModelRoute(ComponentResource):
    """Pinned routes ``…/models/<name>/versions/<version>`` and the model's own ``…/models/<name>``.

    Everything else that MLServer offers stays inside: no route leads to its repository API, which could unload a model.
    """

    def __init__(self, name: str, args: ModelRouteArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:ModelRoute", name, None, opts)
        pinned = [self._pinned(name, args, version, backend) for version, backend in args.backends.items()]
        # Last, so that the model's traffic moves to a version only once that version can be reached.
        self._route(name, args, f"/v2/models/{args.model}", list(args.backends.values()), depends_on=pinned)
        self.path = f"{PUBLIC_PREFIX}/v2/models/{args.model}"
        self.register_outputs({"path": self.path})

    def _pinned(
        self, name: str, args: ModelRouteArgs, version: str, backend: Backend
    ) -> kubernetes.apiextensions.CustomResource:
        # A dot, because a name with a dash may be that of another model's route.
        alone = replace(backend, weight=1)
        path = f"/v2/models/{args.model}/versions/{version}"
        return self._route(f"{name}.{backend.slug}", args, path, [alone], depends_on=backend.ready)

    def _route(
        self,
        name: str,
        args: ModelRouteArgs,
        path: str,
        backends: list[Backend],
        depends_on: Sequence[Resource] = (),
    ) -> kubernetes.apiextensions.CustomResource:
        rule: dict[str, Any] = {
            "matches": [{"path": {"type": "PathPrefix", "value": PUBLIC_PREFIX + path}}],
            "filters": [
                {
                    "type": "URLRewrite",
                    "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": path}},
                }
            ],
            "backendRefs": [
                {"name": backend.service, "port": HTTP_PORT, "weight": backend.weight} for backend in backends
            ],
        }
        return kubernetes.apiextensions.CustomResource(
            name,
            api_version=API_VERSION,
            kind="HTTPRoute",
            metadata={"name": name, "namespace": args.namespace},
            spec={"parentRefs": [{"name": args.gateway}], "rules": [rule]},
            opts=ResourceOptions(parent=self, depends_on=[*depends_on]),
        )
