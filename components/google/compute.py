"""A resource of Compute Engine."""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi import Output, ResourceOptions


class Compute(pulumi.CustomResource):
    """A resource of Google's provider, of any kind of Compute Engine, under the type of its SDK.

    The SDK's own classes check the keys, but loading one of them loads all 300 of ``pulumi_gcp.compute``: a second of
    CPU, as much as an empty program's preview (two cores, 2026-11-30). tests/unit/test_gcp_components.py and the
    stand-in of tests/engine check the keys against the SDK's types, and the latter also against Google's API.
    """

    name: Output[str]
    address: Output[str]
    """Only with ``address=None`` among the properties."""

    def __init__(self, kind: str, resource_name: str, *, opts: ResourceOptions, **properties: Any) -> None:
        """Declares it.

        Args:
            kind: name of the SDK's class.
            resource_name: in the program.
            opts: of the resource.
            properties: of the resource, in camelCase.
        """
        super().__init__(f"gcp:compute/{kind[0].lower()}{kind[1:]}:{kind}", resource_name, properties, opts)
