"""Network access to the model servers of a namespace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pulumi import ComponentResource, Input, ResourceOptions

from components.manifest import Manifest
from components.serving.server import GRPC_PORT, HTTP_PORT, METRICS_PORT, VERSION_LABEL


@dataclass(frozen=True, kw_only=True)
class ServerAccessArgs:
    """Allowed sources.

    Attributes:
        client_ranges: CIDR ranges of the gateway's proxies, the only sources of requests.
        scraper_namespaces: namespaces whose pods may read the metrics.
        grpc: whether those proxies may ask over gRPC as well.
        asking: labels of pods in the namespace that may ask whether a server is ready.
    """

    namespace: Input[str]
    client_ranges: Sequence[str] = ()
    scraper_namespaces: Sequence[str] = ()
    grpc: bool = False
    asking: Mapping[str, str] = field(default_factory=dict)


class ServerAccess(ComponentResource):
    """One NetworkPolicy for all model servers: in from the proxies, the portal and the scraper, and nothing out.

    A policy per server would have the same content: with 50 versions those were an eighth of all resources.
    """

    def __init__(self, name: str, args: ServerAccessArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:ServerAccess", name, None, opts)
        Manifest(
            name,
            "networking.k8s.io/v1",
            "NetworkPolicy",
            metadata={"name": name, "namespace": args.namespace},
            spec={
                "podSelector": {"matchExpressions": [{"key": VERSION_LABEL, "operator": "Exists"}]},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [*_rules(args)],
            },
            opts=ResourceOptions(parent=self),
        )
        self.register_outputs({})


def _rules(args: ServerAccessArgs) -> Iterator[dict[str, Any]]:
    """One rule per kind of source; a rule without sources would allow every source."""
    proxies: list[dict[str, Any]] = [{"ipBlock": {"cidr": cidr}} for cidr in args.client_ranges]
    sources = [*proxies, *([{"podSelector": {"matchLabels": args.asking}}] if args.asking else [])]
    if sources:
        yield {"from": sources, "ports": [{"port": HTTP_PORT}]}
    if proxies and args.grpc:
        yield {"from": proxies, "ports": [{"port": GRPC_PORT}]}
    if args.scraper_namespaces:
        names = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": [*args.scraper_namespaces]}
        scraper = {"namespaceSelector": {"matchExpressions": [names]}}
        yield {"from": [scraper], "ports": [{"port": METRICS_PORT}]}
