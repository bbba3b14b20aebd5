"""The gateway, through which clients reach the models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pulumi import ComponentResource, Input, Output, ResourceOptions

from components.manifest import Manifest

if TYPE_CHECKING:
    from components.google.platform import Platform
    from model_serving.stack.settings import Settings

API_VERSION: Final = "gateway.networking.k8s.io/v1"


READY: Final = '["condition=Programmed", "jsonpath={.status.addresses[0].value}"]'
"""What Pulumi waits for: a gateway may report its address a moment after it is programmed."""


@dataclass(frozen=True, kw_only=True)
class GatewayArgs:
    """A gateway.

    Attributes:
        class_name: the GatewayClass, which implements it.
        endpoint: URL for clients, if not the address in its status.
        cluster_endpoint: URL for pods, if not the address in its status.
        protocol: HTTP or HTTPS.
        tls_options: its class's key for the certificate; empty if an annotation names the certificate.
        annotations: for its class.
        address_name: name of a reserved address; without one the class chooses.
    """

    namespace: Input[str]
    class_name: str
    endpoint: str | None = None
    cluster_endpoint: str | None = None
    protocol: str = "HTTP"
    port: int = 80
    tls_options: Mapping[str, Input[str]] = field(default_factory=dict)
    annotations: Mapping[str, Input[str]] = field(default_factory=dict)
    address_name: Input[str] | None = None

    @classmethod
    def of(cls, settings: Settings, namespace: Input[str], platform: Platform | None) -> GatewayArgs:
        """The class that the settings name, else the platform's load balancer."""
        chosen = settings.gateway
        if platform is None or not settings.has_googles_gateway:
            return cls(
                namespace=namespace,
                class_name=str(chosen.class_name),
                endpoint=chosen.endpoint,
                cluster_endpoint=chosen.cluster_endpoint,
            )
        edge = platform.edge
        return cls(
            namespace=namespace,
            class_name=edge.class_name,
            endpoint=chosen.endpoint or edge.endpoint,
            cluster_endpoint=chosen.cluster_endpoint,
            protocol=edge.protocol,
            port=edge.port,
            tls_options=edge.tls_options,
            annotations=edge.annotations,
            address_name=edge.address_name,
        )


class Gateway(ComponentResource):
    """A Gateway with one listener, for routes of its own namespace.

    It does not run the proxies: its class does, in a cloud or in the cluster.
    """

    def __init__(self, name: str, args: GatewayArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:Gateway", name, None, opts)
        gateway = self._gateway(name, args)
        self.name: Output[str] = Output.from_input(name)
        # A domain or a setting is known before the Gateway exists; its own address only afterwards.
        address = gateway.status.apply(lambda status: str(status["addresses"][0]["value"]))
        reported = Output.concat(f"{args.protocol.lower()}://", address)
        self.endpoint: Output[str] = Output.from_input(args.endpoint or reported)
        # A certificate is valid for one name, which the cluster may not resolve; plain HTTP needs no name.
        by_name = args.endpoint if args.protocol == "HTTPS" and not args.cluster_endpoint else None
        self.cluster_endpoint: Output[str] = Output.from_input(args.cluster_endpoint or by_name or reported)
        """URL for pods."""
        self.cluster_address: Output[str | None] = address if by_name else Output.from_input(None)
        """Address of the name in that URL, if the cluster may not resolve it."""
        self.register_outputs({"endpoint": self.endpoint})

    def _gateway(self, name: str, args: GatewayArgs) -> Manifest:
        spec: dict[str, Any] = {"gatewayClassName": args.class_name, "listeners": [_listener(args)]}
        if args.address_name:
            spec["addresses"] = [{"type": "NamedAddress", "value": args.address_name}]
        return Manifest(
            name,
            API_VERSION,
            "Gateway",
            metadata={
                "name": name,
                "namespace": args.namespace,
                "annotations": {"pulumi.com/waitFor": READY, **args.annotations},
            },
            spec=spec,
            status=None,
            opts=ResourceOptions(parent=self),
        )


def _listener(args: GatewayArgs) -> dict[str, Any]:
    listener: dict[str, Any] = {
        "name": args.protocol.lower(),
        "protocol": args.protocol,
        "port": args.port,
        "allowedRoutes": {"namespaces": {"from": "Same"}},
    }
    # Not if an annotation names the certificate: Gateway API refuses tls without a certificate or an option, and GKE
    # refuses a certificate next to its map. https://cloud.google.com/kubernetes-engine/docs/how-to/secure-gateway
    if args.tls_options:
        listener["tls"] = {"mode": "Terminate", "options": args.tls_options}
    return listener
