"""A Kubernetes object in the spelling of its API."""

from __future__ import annotations

from typing import Any, Final

import pulumi
from pulumi import Output, ResourceOptions

CORE: Final = "v1"
"""API version of namespaces and Services, core/v1 in Pulumi's types."""
EXISTS: Final = {"pulumi.com/waitFor": "jsonpath={.metadata.uid}"}
"""Annotation of what the program waits for itself, see rollouts.py: Pulumi only waits until it exists or is gone."""

RESTRICTED_POD: Final = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
RESTRICTED_CONTAINER: Final = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
"""Security contexts that https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted admits."""


class Manifest(pulumi.CustomResource):
    """A resource of the Kubernetes provider, of any kind, under the type of its SDK.

    The SDK's own classes check the keys, but load everything that a pod may have for a Service or a Deployment: 0.3 s
    of CPU for this program (two cores, 2026-11-23), a quarter of an empty program's preview. They also do not return
    the status of a custom resource. tests/unit/test_manifest.py checks every manifest against their types.
    """

    metadata: Output[dict[str, Any]]
    spec: Output[dict[str, Any]]
    status: Output[dict[str, Any]]
    """Only with ``status=None`` among the inputs, because each output costs time."""

    def __init__(
        self, name: str, api_version: str, kind: str, *, metadata: dict[str, Any], opts: ResourceOptions, **rest: Any
    ) -> None:
        content = {"apiVersion": api_version, "kind": kind, "metadata": metadata, **rest}
        group = f"core/{CORE}" if api_version == CORE else api_version
        super().__init__(f"kubernetes:{group}:{kind}", name, content, opts)
