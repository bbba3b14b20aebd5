"""The network: the nodes' subnet, its address ranges and its way out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pulumi import ComponentResource, Output, Resource, ResourceOptions

from components.google.compute import Compute
from model_serving.stack.google import GcpSettings
from model_serving.stack.google_cluster import ExistingNetwork

PODS_RANGE: Final = "pods"
SERVICES_RANGE: Final = "services"


class Network(ComponentResource):
    """A VPC with one subnet, Cloud NAT, and a subnet for an internal gateway's proxies; or an existing network.

    It does not manage the firewall: without a rule a VPC lets nothing in, and GKE adds the rules that its nodes and
    load balancers need.
    """

    def __init__(self, name: str, settings: GcpSettings, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:Network", name, None, opts)
        self.ready: Sequence[Resource] = ()
        """NAT and the proxies' subnet: a cluster and a gateway need them without naming them."""
        self.pods_range, self.services_range = PODS_RANGE, SERVICES_RANGE
        self.network: Output[str]
        self.subnetwork: Output[str]
        if settings.network.existing:
            self._adopt(settings, settings.network.existing)
        else:
            self._create(name, settings)
        self.register_outputs({"network": self.network, "subnetwork": self.subnetwork})

    def _adopt(self, settings: GcpSettings, existing: ExistingNetwork) -> None:
        self.pods_range, self.services_range = existing.pods_range, existing.services_range
        base = f"projects/{settings.project}"
        self.network = Output.from_input(f"{base}/global/networks/{existing.network}")
        self.subnetwork = Output.from_input(f"{base}/regions/{settings.region}/subnetworks/{existing.subnetwork}")

    def _create(self, name: str, settings: GcpSettings) -> None:
        self.network = Compute(
            "Network",
            name,
            name=settings.name,
            project=settings.project,
            autoCreateSubnetworks=False,
            routingMode="REGIONAL",
            opts=ResourceOptions(parent=self),
        ).id
        self.subnetwork = self._subnet(
            name,
            settings,
            "nodes",
            ipCidrRange=settings.network.nodes,
            # Images come from Artifact Registry over Google's own network, at no charge for NAT.
            privateIpGoogleAccess=True,
            secondaryIpRanges=[
                {"rangeName": PODS_RANGE, "ipCidrRange": settings.network.pods},
                {"rangeName": SERVICES_RANGE, "ipCidrRange": settings.network.services},
            ],
        ).id
        ready: list[Resource] = []
        # A public gateway's proxies are in Google's own network.
        if not settings.gateway.public:
            proxies = {"ipCidrRange": settings.network.proxies, "purpose": "REGIONAL_MANAGED_PROXY", "role": "ACTIVE"}
            ready.append(self._subnet(name, settings, "proxies", **proxies))
        if settings.network.nat:
            ready.append(self._nat(name, settings))
        self.ready = tuple(ready)

    def _subnet(self, name: str, settings: GcpSettings, part: str, **rest: Any) -> Compute:
        return Compute(
            "Subnetwork",
            f"{name}-{part}",
            name=f"{settings.name}-{part}",
            project=settings.project,
            region=settings.region,
            network=self.network,
            opts=ResourceOptions(parent=self),
            **rest,
        )

    def _nat(self, name: str, settings: GcpSettings) -> Compute:
        router = Compute(
            "Router",
            name,
            name=settings.name,
            project=settings.project,
            region=settings.region,
            network=self.network,
            opts=ResourceOptions(parent=self),
        )
        return Compute(
            "RouterNat",
            name,
            name=settings.name,
            project=settings.project,
            region=settings.region,
            router=router.name,
            natIpAllocateOption="AUTO_ONLY",
            sourceSubnetworkIpRangesToNat="ALL_SUBNETWORKS_ALL_IP_RANGES",
            logConfig={"enable": True, "filter": "ERRORS_ONLY"},
            opts=ResourceOptions(parent=self),
        )
