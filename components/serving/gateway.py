"""The gateway: the one door through which clients reach the models."""

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


@dataclass(frozen=True, kw_only=True)
class GatewayArgs:
    """A gateway.

    Attributes:
        class_name: the GatewayClass, which decides who implements it.
        endpoint: where clients reach it, if that is not the address in its status.
        cluster_endpoint: where pods reach it, if that is not the address in its status either.
        protocol: HTTP, or HTTPS alone.
        tls_options: where its class finds the certificate, if not in an annotation.
        annotations: what its class wants to know besides.
        address_name: name of a reserved address; without it the class chooses one.
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
        """The gateway of a stack: the one that its settings name, else the platform's load balancer."""
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

    @property
    def listener(self) -> dict[str, Any]:
        listener: dict[str, Any] = {
            "name": self.protocol.lower(),
            "protocol": self.protocol,
            "port": self.port,
            "allowedRoutes": {"namespaces": {"from": "Same"}},
        }
        if self.protocol == "HTTPS":
            listener["tls"] = {"mode": "Terminate"} | ({"options": self.tls_options} if self.tls_options else {})
        return listener

    @property
    def addresses(self) -> list[dict[str, Any]]:
        return [{"type": "NamedAddress", "value": self.address_name}] if self.address_name else []


class Gateway(ComponentResource):
    """A Gateway with one listener, for routes of its own namespace.

    It leaves the proxies alone: a cloud or the local cluster runs them, as its class says.
    """

    def __init__(self, name: str, args: GatewayArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:Gateway", name, None, opts)
        gateway = self._gateway(name, args)
        self.name: Output[str] = Output.from_input(name)
        # A domain or what the stack says is known before the Gateway is; its own address only afterwards.
        address = gateway.status.apply(lambda status: str(status["addresses"][0]["value"]))
        reported = Output.concat(f"{args.protocol.lower()}://", address)
        self.endpoint: Output[str] = Output.from_input(args.endpoint or reported)
        # A certificate is good for one name, which need not be known in the cluster; plain HTTP has no need of a name.
        by_name = args.endpoint if args.protocol == "HTTPS" and not args.cluster_endpoint else None
        self.cluster_endpoint: Output[str] = Output.from_input(args.cluster_endpoint or by_name or reported)
        """Where pods reach it."""
        self.cluster_address: Output[str | None] = address if by_name else Output.from_input(None)
        """Where the name in that is."""
        self.register_outputs({"endpoint": self.endpoint})

    def _gateway(self, name: str, args: GatewayArgs) -> Manifest:
        spec = {"gatewayClassName": args.class_name, "listeners": [args.listener]}
        return Manifest(
            name,
            API_VERSION,
            "Gateway",
            metadata={
                "name": name,
                "namespace": args.namespace,
                "annotations": {"pulumi.com/waitFor": "condition=Programmed", **args.annotations},
            },
            spec=spec | ({"addresses": args.addresses} if args.addresses else {}),
            status=None,
            opts=ResourceOptions(parent=self),
        )
