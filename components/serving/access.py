"""Who reaches the model servers of a namespace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pulumi import ComponentResource, Input, ResourceOptions

from components.manifest import Manifest
from components.serving.server import HTTP_PORT, METRICS_PORT, VERSION_LABEL


@dataclass(frozen=True, kw_only=True)
class ServerAccessArgs:
    """Who may ask.

    Attributes:
        namespace: of the model servers.
        client_ranges: CIDR ranges of the gateway's proxies; nobody else reaches a model.
        scraper_namespaces: namespaces whose pods may read the metrics.
    """

    namespace: Input[str]
    client_ranges: Sequence[str] = ()
    scraper_namespaces: Sequence[str] = ()


class ServerAccess(ComponentResource):
    """One NetworkPolicy for all model servers: in from the proxies and the scraper, out to nobody.

    One and not one for each server, which would say the same: with 50 versions they were an eighth of all resources.
    """

    def __init__(self, name: str, args: ServerAccessArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:ServerAccess", name, None, opts)
        self._policy(name, args)
        self.register_outputs({})

    def _policy(self, name: str, args: ServerAccessArgs) -> None:
        Manifest(
            name,
            "networking.k8s.io/v1",
            "NetworkPolicy",
            metadata={"name": name, "namespace": args.namespace},
            spec={
                "podSelector": {"matchExpressions": [{"key": VERSION_LABEL, "operator": "Exists"}]},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": _rules(args),
            },
            opts=ResourceOptions(parent=self),
        )


def _rules(args: ServerAccessArgs) -> list[dict[str, Any]]:
    """A rule for each kind of source that there is: one without sources would let everybody in."""
    rules: list[dict[str, Any]] = []
    if args.client_ranges:
        sources = [{"ipBlock": {"cidr": cidr}} for cidr in args.client_ranges]
        rules.append({"from": sources, "ports": [{"port": HTTP_PORT}]})
    if args.scraper_namespaces:
        expression = {
            "key": "kubernetes.io/metadata.name",
            "operator": "In",
            "values": [*args.scraper_namespaces],
        }
        scraper = {"namespaceSelector": {"matchExpressions": [expression]}}
        rules.append({"from": [scraper], "ports": [{"port": METRICS_PORT}]})
    return rules
