"""An object in Kubernetes, written as its API has it."""

from __future__ import annotations

from typing import Any, Final

import pulumi
from pulumi import Output, ResourceOptions

CORE: Final = "v1"
"""The API version of namespaces and Services, which Pulumi's types call core/v1."""


class Manifest(pulumi.CustomResource):
    """A resource of the Kubernetes provider, of any kind, under the type that its SDK has for the kind.

    The SDK's own classes know which keys there are, and load for a Service or a Deployment everything that a pod may
    have: 0.3 s of a processor for what this program declares (two cores, 2026-11-23), a quarter of an empty program's
    preview. They hand out no status of a custom resource either. tests/unit/test_manifest.py holds every manifest of
    this program against the SDK's types.
    """

    metadata: Output[dict[str, Any]]
    status: Output[dict[str, Any]]
    """Of one that is declared with ``status=None``: each output costs time, and few are asked for."""

    def __init__(
        self, name: str, api_version: str, kind: str, *, metadata: dict[str, Any], opts: ResourceOptions, **rest: Any
    ) -> None:
        content = {"apiVersion": api_version, "kind": kind, "metadata": metadata, **rest}
        group = f"core/{CORE}" if api_version == CORE else api_version
        super().__init__(f"kubernetes:{group}:{kind}", name, content, opts)
