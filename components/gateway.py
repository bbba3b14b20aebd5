"""The gateway: the one door through which clients reach the models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import pulumi
from pulumi import ComponentResource, Input, Output, ResourceOptions

API_VERSION: Final = "gateway.networking.k8s.io/v1"
PORT: Final = 80


class GatewayObject(pulumi.CustomResource):
    """A Gateway as the Kubernetes provider knows it.

    The provider's SDK has a class for any custom resource, but none that hands out the status, which has the address.
    """

    status: Output[dict[str, Any]]

    def __init__(self, name: str, *, metadata: dict[str, Any], spec: dict[str, Any], opts: ResourceOptions) -> None:
        properties = {
            "apiVersion": API_VERSION,
            "kind": "Gateway",
            "metadata": metadata,
            "spec": spec,
            "status": None,
        }
        super().__init__(f"kubernetes:{API_VERSION}:Gateway", name, properties, opts)


@dataclass(frozen=True, kw_only=True)
class GatewayArgs:
    """A gateway.

    Attributes:
        class_name: the GatewayClass, which decides who implements it.
        endpoint: where clients reach it, if that is not the address in its status.
    """

    namespace: Input[str]
    class_name: str
    endpoint: str | None = None


class Gateway(ComponentResource):
    """A Gateway with one HTTP listener, for routes of its own namespace.

    It leaves the proxies alone: a cloud or the local cluster runs them, as its class says.
    """

    def __init__(self, name: str, args: GatewayArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:Gateway", name, None, opts)
        gateway = self._gateway(name, args)
        self.name: Output[str] = Output.from_input(name).apply(str)
        self.endpoint: Output[str] = Output.from_input(args.endpoint or gateway.status.apply(_address))
        self.register_outputs({"endpoint": self.endpoint})

    def _gateway(self, name: str, args: GatewayArgs) -> GatewayObject:
        return GatewayObject(
            name,
            metadata={
                "name": name,
                "namespace": args.namespace,
                "annotations": {"pulumi.com/waitFor": "condition=Programmed"},
            },
            spec={
                "gatewayClassName": args.class_name,
                "listeners": [
                    {
                        "name": "http",
                        "protocol": "HTTP",
                        "port": PORT,
                        "allowedRoutes": {"namespaces": {"from": "Same"}},
                    }
                ],
            },
            opts=ResourceOptions(parent=self),
        )


def _address(status: dict[str, Any]) -> str:
    return f"http://{status['addresses'][0]['value']}"
