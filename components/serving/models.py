"""From a model to resources: an image, a server and a contract check per version, then the model's routes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pulumi

from components.providers import Reach
from components.serving import hooks, portal
from components.serving.access import ServerAccess, ServerAccessArgs
from components.serving.contract import Check, CheckArgs, ContractChecks, ContractChecksArgs
from components.serving.gateway import Gateway
from components.serving.image import ModelImage
from components.serving.images import ModelImages
from components.serving.portal import Portal, PortalArgs, ServedVersion
from components.serving.rollouts import Rollouts, Version
from components.serving.route import Backend, ModelRoute, ModelRouteArgs
from components.serving.server import HTTP_PORT, ModelServer, ModelServerArgs
from model_serving.catalog import Release
from model_serving.catalog.description import describe
from model_serving.images import runtimes
from model_serving.stack.live import LiveModel, LiveVersion
from model_serving.stack.models import ANSWER_SECONDS
from model_serving.stack.settings import Settings

if TYPE_CHECKING:
    from components.google.platform import Platform

CONTRACT_SCRIPTS: Final = (Path("server/contract.py"), Path("server/tensors.py"))


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast a gateway follows changes, in seconds.

    Attributes:
        learn: until it routes to a new version.
        settle: until it follows when a model's traffic moves.
        drain: until it stops sending requests to a server that shuts down.
    """

    learn: int
    settle: int
    drain: int


IN_CLUSTER: Final = Pace(learn=30, settle=1, drain=5)
"""Proxies in the cluster, which learn of changes within a second; Contour waits half a second for further ones."""
GOOGLE: Final = Pace(learn=240, settle=60, drain=60)
"""Google's load balancer: minutes for a new Service; the others were not measured."""


def pace_of(settings: Settings) -> Pace:
    return GOOGLE if settings.has_googles_gateway else IN_CLUSTER


@dataclass(frozen=True, kw_only=True)
class Place:
    """The namespace, gateway and cluster in which models are served.

    Attributes:
        namespace: of the model servers.
        platform: Google's, if the stack has one.
        opts: with the provider of the cluster.
    """

    settings: Settings
    namespace: pulumi.Input[str]
    gateway: Gateway
    platform: Platform | None
    reach: Reach
    opts: pulumi.ResourceOptions

    @property
    def pace(self) -> Pace:
        return pace_of(self.settings)

    def drain_seconds(self, model: LiveModel) -> int:
        """For which a server of a model that shuts down keeps serving."""
        chosen = model.settings.drain_seconds
        return self.pace.drain if chosen is None else chosen

    @property
    def client_ranges(self) -> list[str]:
        """Sources of requests to models."""
        return [*self.settings.gateway.client_ranges, *(self.platform.edge.client_ranges if self.platform else ())]

    @property
    def scraper_namespaces(self) -> list[str]:
        of_platform = self.platform.scraper_namespaces if self.platform else ()
        return [*self.settings.scraper_namespaces, *of_platform]

    def equip_service(
        self, name: str, *, ready_path: str, drain_seconds: int, answer_seconds: int, grpc: bool = False
    ) -> list[pulumi.Resource]:
        """The platform's load balancer needs its policies before a route leads to a Service."""
        if self.platform is None:
            return []
        policies = self.platform.equip_service(
            name,
            namespace=self.namespace,
            ready_path=ready_path,
            # The policy is the Service's, whichever port a route leads to.
            ready_port=HTTP_PORT if grpc else None,
            drain_seconds=drain_seconds,
            answer_seconds=answer_seconds,
            opts=self.opts,
        )
        return [policies]


class Serving:
    """Declares the models of a stack."""

    def __init__(self, place: Place, images: ModelImages) -> None:
        self._place = place
        self._images = images
        access = ServerAccessArgs(
            namespace=place.namespace,
            client_ranges=place.client_ranges,
            scraper_namespaces=place.scraper_namespaces,
            grpc=place.settings.gateway.grpc,
            asking=portal.LABELS if place.settings.has_portal else {},
        )
        ServerAccess("model-servers", access, place.opts)
        self._rollouts = Rollouts(place.reach, place.namespace)
        self._served: list[ServedVersion] = []
        self._moved: list[pulumi.Output[str]] = []
        self._settled = hooks.traffic_moves_before_servers_go(place.pace.settle)

    def serve(self, model: LiveModel) -> dict[str, Any]:
        """Declares one model; returns its entry in the stack's outputs."""
        place = self._place
        backends, versions = {}, {}
        for version in model.versions:
            image = self._images.of(version.release)
            backends[version.release.version] = self._backend(model, version, image)
            shadow = {"shadow": True} if version.shadow else {}
            versions[version.release.version] = {"weight": version.weight, "digest": image.digest, **shadow}
        route = ModelRoute(
            model.object_name,
            ModelRouteArgs(
                model=model.name,
                namespace=place.namespace,
                gateway=place.gateway.name,
                backends=backends,
                grpc=place.settings.gateway.grpc,
                settled=self._settled,
                # Google's load balancer takes it from a policy, not from the route.
                answer_seconds=None if place.settings.has_googles_gateway else gateway_seconds(model),
            ),
            place.opts,
        )
        self._moved.append(route.path)
        return {
            "url": pulumi.Output.concat(place.gateway.endpoint, route.path),
            "versions": route.path.apply(lambda _: versions),
        }

    def open_portal(self) -> None:
        """Declares the portal of what was served; without models there is none."""
        place = self._place
        if not place.settings.has_portal:
            return
        ready = place.equip_service(
            portal.NAME, ready_path=portal.LIVE_PATH, drain_seconds=place.pace.drain, answer_seconds=ANSWER_SECONDS
        )
        args = PortalArgs(
            namespace=place.namespace,
            image=self._images.portal(),
            gateway=place.gateway.name,
            replicas=2 if place.settings.has_several_pods else 1,
            served=self._served,
            client_ranges=place.client_ranges,
            allowed_origins=place.settings.gateway.allowed_origins,
            drain_seconds=place.pace.drain,
            after=self._moved,
            ready=ready,
        )
        Portal(portal.NAME, args, place.opts)

    def _backend(self, model: LiveModel, version: LiveVersion, image: ModelImage) -> Backend:
        server = self._server(model, version, image)
        self._served.append(
            ServedVersion(
                model=model.name,
                version=version.release.version,
                address=server.address,
                ready_path=server.ready_path,
                weight=version.weight,
                shadow=version.shadow,
                deployed=server.created,
                grpc=self._place.settings.gateway.grpc,
                about=describe(version.release) if self._place.settings.has_portal else {},
            )
        )
        known = self._policies(model, version.release, server)
        awaited = Version(
            title=f"{model.name} {version.release.version}",
            pods=server.pods,
            seconds=model.settings.provision_seconds + model.settings.start_seconds,
            check=self._contract(model, version.release, image, known),
        )
        return Backend(
            slug=version.release.slug,
            service=server.service,
            weight=version.weight,
            shadow=version.shadow,
            ready=known,
            proven=[server.pods, *([awaited.check.job] if awaited.check else [])],
            shown=[self._rollouts.proven(awaited)],
        )

    def _server(self, model: LiveModel, version: LiveVersion, image: ModelImage) -> ModelServer:
        args = ModelServerArgs(
            model=model.name,
            version=version.release.version,
            namespace=self._place.namespace,
            image=image.reference,
            settings=model.settings,
            resources=version.resources,
            drain_seconds=self._place.drain_seconds(model),
            allowed_origins=self._place.settings.gateway.allowed_origins,
            grpc=self._place.settings.gateway.grpc,
            changes=self._rollouts.changes,
        )
        return ModelServer(version.release.label, args, self._place.opts)

    def _policies(self, model: LiveModel, release: Release, server: ModelServer) -> list[pulumi.Resource]:
        return self._place.equip_service(
            release.label,
            ready_path=server.ready_path,
            drain_seconds=self._place.drain_seconds(model),
            answer_seconds=gateway_seconds(model),
            grpc=self._place.settings.gateway.grpc,
        )

    def _contract(
        self, model: LiveModel, release: Release, image: ModelImage, after: list[pulumi.Resource]
    ) -> Check | None:
        """The check that must succeed before the version gets traffic; none without a request to send."""
        chosen = model.settings.contract
        if not (chosen.check and release.can_be_asked):
            if pulumi.runtime.is_dry_run():
                reason = "it has no request.json and no inputs in its settings" if chosen.check else "the stack says so"
                pulumi.log.info(f"{model.name} {release.version} gets traffic as soon as its pods are ready: {reason}.")
            return None
        args = CheckArgs(
            label=release.label,
            model=model.name,
            version=release.version,
            image=image.reference,
            fingerprint=runtimes.fingerprint(release, self._place.settings.images),
            start_seconds=model.settings.start_seconds,
            provision_seconds=model.settings.provision_seconds,
            seconds=chosen.seconds or self._place.pace.learn,
            answer_seconds=model.settings.answer_seconds,
            after=after,
        )
        return self._contract_checks.check(args)

    @cached_property
    def _contract_checks(self) -> ContractChecks:
        place = self._place
        return ContractChecks(
            "contract",
            ContractChecksArgs(
                namespace=place.namespace,
                scripts={path.name: path.read_text(encoding="utf-8") for path in CONTRACT_SCRIPTS},
                url=place.gateway.cluster_endpoint,
                address=place.gateway.cluster_address,
                proxy_ranges=place.client_ranges,
            ),
            place.opts,
        )


def gateway_seconds(model: LiveModel) -> int:
    """For which the gateway waits for an answer: longer than the server, whose refusal has a reason and Retry-After."""
    return model.settings.answer_seconds + 1
