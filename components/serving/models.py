"""How a model becomes resources: of each version an image, a server and its contract check; then the model's routes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pulumi

from components.providers import Reach
from components.serving import hooks
from components.serving.access import ServerAccess, ServerAccessArgs
from components.serving.contract import Check, CheckArgs, ContractChecks, ContractChecksArgs
from components.serving.contracts import Contracts
from components.serving.gateway import Gateway
from components.serving.image import ModelImage
from components.serving.images import ModelImages
from components.serving.route import Backend, ModelRoute, ModelRouteArgs, pinned_path
from components.serving.server import IN_FLIGHT_SECONDS, Accelerators, Autoscaling, ModelServer, ModelServerArgs
from model_serving.catalog import Release
from model_serving.images import runtimes
from model_serving.stack.live import LiveModel, LiveVersion
from model_serving.stack.settings import Settings

if TYPE_CHECKING:
    from components.google.platform import Platform

CONTRACT_SCRIPT: Final = Path("server/contract.py")
ANSWER_SECONDS: Final = 30
CLOUD_ANSWER_SECONDS: Final = 240
"""How long a gateway may take to find the way to a new version: a proxy of the cluster's own, Google's."""
SETTLE_SECONDS: Final = 1
CLOUD_SETTLE_SECONDS: Final = 60
"""How long a gateway may take to follow when a model's traffic moves. Contour waits half a second for further changes
at most; Google's load balancer is given a minute, which was not measured."""
DRAIN_SECONDS: Final = 5
CLOUD_DRAIN_SECONDS: Final = 60
"""How long a gateway may take to forget a server that leaves: proxies in the cluster, which hear of it within a second,
and Google's load balancer, which is given a minute."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where models are served.

    Attributes:
        namespace: of the model servers.
        platform: Google's, if the stack has one.
        reach: the way into the cluster.
        opts: with the provider of the cluster.
    """

    settings: Settings
    namespace: pulumi.Input[str]
    gateway: Gateway
    platform: Platform | None
    reach: Reach
    opts: pulumi.ResourceOptions

    def drain_seconds(self, model: LiveModel) -> int:
        """For how long a leaving server of a model goes on serving."""
        if model.settings.drain_seconds is not None:
            return model.settings.drain_seconds
        return CLOUD_DRAIN_SECONDS if self.settings.has_googles_gateway else DRAIN_SECONDS

    @property
    def client_ranges(self) -> list[str]:
        """Where requests to models come from."""
        return [*self.settings.gateway.client_ranges, *(self.platform.edge.client_ranges if self.platform else ())]

    @property
    def scraper_namespaces(self) -> list[str]:
        of_platform = self.platform.scraper_namespaces if self.platform else ()
        return [*self.settings.scraper_namespaces, *of_platform]


class Serving:
    """Declares models in their place."""

    def __init__(self, place: Place, images: ModelImages) -> None:
        self._place = place
        self._images = images
        seconds = CLOUD_SETTLE_SECONDS if place.settings.has_googles_gateway else SETTLE_SECONDS
        access = ServerAccessArgs(
            namespace=place.namespace,
            client_ranges=place.client_ranges,
            scraper_namespaces=place.scraper_namespaces,
        )
        ServerAccess("model-servers", access, place.opts)
        self._contracts = Contracts(place.namespace, kubectl=place.reach.kubectl)
        self._settled = hooks.traffic_moves_before_servers_go(seconds)

    def serve(self, model: LiveModel) -> dict[str, Any]:
        """Declares one model; returns what the stack's outputs tell of it."""
        place = self._place
        backends, versions = {}, {}
        for version in model.versions:
            image = self._images.of(version.release)
            backends[version.release.version] = self._backend(model, version, image)
            shadow = {"shadow": True} if version.shadow else {}
            versions[version.release.version] = {"weight": version.weight, "digest": image.digest, **shadow}
        route = ModelRoute(
            model.name,
            ModelRouteArgs(
                model=model.name,
                namespace=place.namespace,
                gateway=place.gateway.name,
                backends=backends,
                settled=self._settled,
                # Google's load balancer is told by a policy, and has no use for it in a route.
                answer_seconds=None if place.settings.has_googles_gateway else IN_FLIGHT_SECONDS,
            ),
            place.opts,
        )
        return {
            "url": pulumi.Output.concat(place.gateway.endpoint, route.path),
            "versions": route.path.apply(lambda _: versions),
        }

    def _backend(self, model: LiveModel, version: LiveVersion, image: ModelImage) -> Backend:
        server = self._server(model, version, image)
        known = self._policies(model, version.release, server)
        checks = self._contract(model, version.release, image, known)
        return Backend(
            slug=version.release.slug,
            service=server.service,
            weight=version.weight,
            shadow=version.shadow,
            ready=known,
            proven=[server.pods],
            shown=[self._contracts.kept(check, pods=server.pods) for check in checks],
        )

    def _server(self, model: LiveModel, version: LiveVersion, image: ModelImage) -> ModelServer:
        place, release, chosen = self._place, version.release, model.settings
        bounds, gpu = chosen.autoscaling, chosen.gpu
        return ModelServer(
            release.label,
            ModelServerArgs(
                name=release.label,
                model=model.name,
                version=release.version,
                namespace=place.namespace,
                image=image.reference,
                replicas=chosen.replicas,
                autoscaling=Autoscaling(**bounds.model_dump()) if bounds else None,
                cpu=version.resources.cpu,
                memory=version.resources.memory,
                workers=chosen.workers,
                accelerators=Accelerators(**gpu.model_dump()) if gpu else None,
                priority_class=chosen.priority,
                environment=chosen.environment,
                start_seconds=chosen.start_seconds,
                provision_seconds=chosen.provision_seconds,
                drain_seconds=place.drain_seconds(model),
            ),
            place.opts,
        )

    def _policies(self, model: LiveModel, release: Release, server: ModelServer) -> list[pulumi.Resource]:
        """What the platform's load balancer has to know of a Service before a route leads to it."""
        if self._place.platform is None:
            return []
        service = self._place.platform.equip_service(
            release.label,
            namespace=self._place.namespace,
            ready_path=server.ready_path,
            drain_seconds=self._place.drain_seconds(model),
            opts=self._place.opts,
        )
        return [service]

    def _contract(
        self, model: LiveModel, release: Release, image: ModelImage, after: list[pulumi.Resource]
    ) -> list[Check]:
        """What has to succeed before the version gets traffic: nothing, if there is nothing to ask."""
        chosen, settings = model.settings.contract, self._place.settings
        if not (chosen.check and release.can_be_asked):
            if pulumi.runtime.is_dry_run():
                reason = "it has no request.json and no inputs in its settings" if chosen.check else "the stack says so"
                pulumi.log.info(f"{model.name} {release.version} gets traffic as soon as its pods are ready: {reason}.")
            return []
        args = CheckArgs(
            label=release.label,
            model=model.name,
            version=release.version,
            image=image.reference,
            fingerprint=runtimes.fingerprint(release, settings.images),
            path=pinned_path(model.name, release.version),
            start_seconds=model.settings.start_seconds,
            provision_seconds=model.settings.provision_seconds,
            seconds=chosen.seconds or (CLOUD_ANSWER_SECONDS if settings.has_googles_gateway else ANSWER_SECONDS),
            after=after,
        )
        return [self._contract_checks.check(args)]

    @cached_property
    def _contract_checks(self) -> ContractChecks:
        place = self._place
        return ContractChecks(
            "contract",
            ContractChecksArgs(
                namespace=place.namespace,
                script=CONTRACT_SCRIPT.read_text(encoding="utf-8"),
                url=place.gateway.cluster_endpoint,
                address=place.gateway.cluster_address,
                proxy_ranges=place.client_ranges,
                begins=self._contracts.begins,
            ),
            place.opts,
        )
