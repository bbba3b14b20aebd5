"""A namespace, closed until a policy opens it."""

from __future__ import annotations

from pulumi import ComponentResource, Output, ResourceOptions

from components.manifest import CORE, Manifest


class ServingNamespace(ComponentResource):
    """A namespace that only admits restricted pods and blocks all traffic that no policy allows.

    It grants no access: RBAC in the namespace belongs to the platform around it.
    """

    def __init__(self, name: str, namespace: str, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:ServingNamespace", name, None, opts)
        # The strictest of three levels, https://kubernetes.io/docs/concepts/security/pod-security-standards/.
        levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
        metadata = {"name": namespace, "labels": levels}
        manifest = Manifest(name, CORE, "Namespace", metadata=metadata, opts=ResourceOptions(parent=self))
        self.name: Output[str] = manifest.metadata["name"]
        Manifest(
            f"{name}-deny",
            "networking.k8s.io/v1",
            "NetworkPolicy",
            metadata={"name": "deny-by-default", "namespace": self.name},
            spec={"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
            opts=ResourceOptions(parent=self),
        )
        self.register_outputs({"name": self.name})
