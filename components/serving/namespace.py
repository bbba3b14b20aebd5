"""The namespace in which everything of this project runs."""

from __future__ import annotations

from dataclasses import dataclass

from pulumi import ComponentResource, Output, ResourceOptions

from components.manifest import CORE, Manifest


@dataclass(frozen=True, kw_only=True)
class ServingNamespaceArgs:
    """A namespace.

    Attributes:
        namespace: its name in Kubernetes, a DNS label.
    """

    namespace: str


class ServingNamespace(ComponentResource):
    """A namespace that admits restricted pods alone and lets no traffic in or out unless a policy says so.

    It grants nobody access: who may do what in it is a matter of the platform around it.
    """

    def __init__(self, name: str, args: ServingNamespaceArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:ServingNamespace", name, None, opts)
        namespace = self._namespace(name, args)
        self._deny_by_default(name, namespace)
        self.name: Output[str] = namespace.metadata["name"]
        self.register_outputs({"name": self.name})

    def _namespace(self, name: str, args: ServingNamespaceArgs) -> Manifest:
        # https://kubernetes.io/docs/concepts/security/pod-security-standards/: the strictest of the three levels.
        levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
        return Manifest(
            name,
            CORE,
            "Namespace",
            metadata={"name": args.namespace, "labels": levels},
            opts=ResourceOptions(parent=self),
        )

    def _deny_by_default(self, name: str, namespace: Manifest) -> None:
        Manifest(
            f"{name}-deny",
            "networking.k8s.io/v1",
            "NetworkPolicy",
            metadata={"name": "deny-by-default", "namespace": namespace.metadata["name"]},
            spec={"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
            opts=ResourceOptions(parent=self),
        )
