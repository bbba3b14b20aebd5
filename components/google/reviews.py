"""What a stack on Google Cloud has for reviews: the part of the cluster in which their account may serve something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pulumi import ComponentResource, Input, ResourceOptions

from components.google.cluster import RBAC
from components.google.identity import PERMISSIONS
from components.manifest import CORE, Manifest
from components.serving.access import ServerAccess, ServerAccessArgs
from components.serving.contract import ContractChecksArgs, allow_gateway
from components.serving.gateway import Gateway, GatewayArgs
from components.serving.namespace import ServingNamespace
from model_serving.stack.google import REVIEW
from model_serving.stack.reviews import Place

if TYPE_CHECKING:
    from components.google.platform import Platform
    from model_serving.stack.settings import Settings

READ: Final = ("get", "list", "watch")
WRITE: Final = (*READ, "create", "update", "patch", "delete", "deletecollection")
LIMITS: Final = {
    # Each would be a way in that is not the gateway.
    "services.loadbalancers": "0",
    "services.nodeports": "0",
    # A branch that makes ever more would take the cluster from the models.
    "pods": "50",
}


class Reviews(ComponentResource):
    """A namespace with a Gateway of its own, and a Role for the account *review* in it.

    It shares nothing with the models but the cluster: a branch's route on their Gateway could take their traffic, and a
    branch's pod in their namespace could read their Secrets. Branches write pods and routes, but neither the policies
    that let only this Gateway reach the pods, nor the Gateway. It is Google's, internal, and without a certificate.
    """

    def __init__(self, name: str, settings: Settings, platform: Platform, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:Reviews", name, None, opts)
        place, child = Place.of(settings), ResourceOptions(parent=self)
        namespace = ServingNamespace(name, place.namespace, child).name
        gateway_args = GatewayArgs(namespace=namespace, class_name=platform.edge.class_name)
        gateway = Gateway(place.gateway, gateway_args, child)
        proxies = [*settings.gateway.client_ranges, *platform.edge.client_ranges]
        ServerAccess(f"{name}-servers", ServerAccessArgs(namespace=namespace, client_ranges=proxies), child)
        asked = ContractChecksArgs(
            namespace=namespace, scripts={}, url=gateway.cluster_endpoint, proxy_ranges=proxies, name="contract-checks"
        )
        allow_gateway(f"{name}-contract", asked, child)
        self._declare(f"{name}-limits", CORE, "ResourceQuota", namespace, spec={"hard": LIMITS})
        self._let_serve("model-serving-review", namespace, platform.identity.emails[REVIEW])
        self.register_outputs({})

    def _let_serve(self, name: str, namespace: Input[str], email: Input[str]) -> None:
        rules = [
            {"apiGroups": [group], "resources": kinds, "verbs": verbs}
            for part, verbs in (("owned", WRITE), ("read", READ))
            for group, kinds in PERMISSIONS["review"][part].items()
        ]
        role = self._declare(name, f"{RBAC}/v1", "Role", namespace, rules=rules)
        self._declare(
            name,
            f"{RBAC}/v1",
            "RoleBinding",
            namespace,
            roleRef={"apiGroup": RBAC, "kind": "Role", "name": role.metadata["name"]},
            subjects=[{"apiGroup": RBAC, "kind": "User", "name": email}],
        )

    def _declare(self, name: str, api_version: str, kind: str, namespace: Input[str], **rest: Any) -> Manifest:
        metadata = {"name": name, "namespace": namespace}
        return Manifest(name, api_version, kind, metadata=metadata, opts=ResourceOptions(parent=self), **rest)
