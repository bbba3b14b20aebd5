"""The network: where the nodes are, which addresses they have, and how they call out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pulumi_gcp as gcp
from pulumi import ComponentResource, Input, Output, Resource, ResourceOptions

PODS_RANGE: Final = "pods"
SERVICES_RANGE: Final = "services"


@dataclass(frozen=True, kw_only=True)
class ExistingNetwork:
    """A network that is there already, by the names of its parts."""

    network: str
    subnetwork: str
    pods_range: str
    services_range: str


@dataclass(frozen=True, kw_only=True)
class NetworkArgs:
    """A network.

    Attributes:
        name: what names in Google begin with.
        nodes: range of the nodes, e.g. ``10.0.0.0/22``.
        pods: range of the pods.
        services: range of Kubernetes Services.
        proxies: range of an internal gateway's proxies; None if the gateway needs none.
        nat: whether nodes and pods may call out to the internet.
        existing: a network to use instead; nothing is declared then.
    """

    project: str
    region: str
    name: str
    nodes: str
    pods: str
    services: str
    proxies: str | None
    nat: bool = True
    existing: ExistingNetwork | None = None


class Network(ComponentResource):
    """A VPC with one subnet, its way out, and room for the internal gateway's proxies.

    It leaves the firewall alone: without a rule of its own a VPC lets nobody in, and GKE adds what its nodes and
    load balancers need.
    """

    def __init__(self, name: str, args: NetworkArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:Network", name, None, opts)
        self.ready: Sequence[Resource] = ()
        """What must be there before a cluster or a gateway, though neither names it: the way out and the proxies."""
        self.pods_range, self.services_range = PODS_RANGE, SERVICES_RANGE
        if args.existing:
            self._adopt(args, args.existing)
        else:
            self._make(name, args)
        self.register_outputs({"network": self.network, "subnetwork": self.subnetwork})

    def _adopt(self, args: NetworkArgs, existing: ExistingNetwork) -> None:
        self.pods_range, self.services_range = existing.pods_range, existing.services_range
        base = f"projects/{args.project}"
        self.network: Output[str] = Output.from_input(f"{base}/global/networks/{existing.network}")
        self.subnetwork: Output[str] = Output.from_input(
            f"{base}/regions/{args.region}/subnetworks/{existing.subnetwork}"
        )

    def _make(self, name: str, args: NetworkArgs) -> None:
        network = self._network(name, args)
        self.network = network.id
        self.subnetwork = self._subnetwork(name, args, network.id).id
        ready: list[Resource] = []
        if args.proxies:
            ready.append(self._proxies(name, args, network.id, args.proxies))
        if args.nat:
            ready.append(self._nat(name, args, network.id))
        self.ready = tuple(ready)

    def _network(self, name: str, args: NetworkArgs) -> gcp.compute.Network:
        return gcp.compute.Network(
            name,
            name=args.name,
            project=args.project,
            auto_create_subnetworks=False,
            routing_mode="REGIONAL",
            opts=ResourceOptions(parent=self),
        )

    def _subnetwork(self, name: str, args: NetworkArgs, network: Input[str]) -> gcp.compute.Subnetwork:
        return gcp.compute.Subnetwork(
            f"{name}-nodes",
            name=f"{args.name}-nodes",
            project=args.project,
            region=args.region,
            network=network,
            ip_cidr_range=args.nodes,
            # Images come from Artifact Registry over Google's own network, at no charge for NAT.
            private_ip_google_access=True,
            secondary_ip_ranges=[
                {"range_name": PODS_RANGE, "ip_cidr_range": args.pods},
                {"range_name": SERVICES_RANGE, "ip_cidr_range": args.services},
            ],
            opts=ResourceOptions(parent=self),
        )

    def _proxies(self, name: str, args: NetworkArgs, network: Input[str], ip_cidr_range: str) -> gcp.compute.Subnetwork:
        return gcp.compute.Subnetwork(
            f"{name}-proxies",
            name=f"{args.name}-proxies",
            project=args.project,
            region=args.region,
            network=network,
            ip_cidr_range=ip_cidr_range,
            purpose="REGIONAL_MANAGED_PROXY",
            role="ACTIVE",
            opts=ResourceOptions(parent=self),
        )

    def _nat(self, name: str, args: NetworkArgs, network: Input[str]) -> gcp.compute.RouterNat:
        router = gcp.compute.Router(
            name,
            name=args.name,
            project=args.project,
            region=args.region,
            network=network,
            opts=ResourceOptions(parent=self),
        )
        return gcp.compute.RouterNat(
            name,
            name=args.name,
            project=args.project,
            region=args.region,
            router=router.name,
            nat_ip_allocate_option="AUTO_ONLY",
            source_subnetwork_ip_ranges_to_nat="ALL_SUBNETWORKS_ALL_IP_RANGES",
            log_config={"enable": True, "filter": "ERRORS_ONLY"},
            opts=ResourceOptions(parent=self),
        )
