"""The edge: what Google has in front of the gateway, and how its load balancer treats each model server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pulumi_gcp as gcp
from pulumi import ComponentResource, Input, Output, Resource, ResourceOptions

from components.manifest import Manifest

GOOGLE_RANGES: Final = ("35.191.0.0/16", "130.211.0.0/22")
"""Where health checks and Google's front ends call from, https://cloud.google.com/load-balancing/docs/firewall-rules."""
HTTPS_PORT: Final = 443
HTTP_PORT: Final = 80
POLICY_VERSION: Final = "networking.gke.io/v1"


@dataclass(frozen=True, kw_only=True)
class EdgeArgs:
    """What is in front of the gateway.

    Attributes:
        name: what names in Google begin with.
        subnetwork: id of the subnet in which an internal gateway has its address.
        proxies: range of an internal gateway's proxies.
        public: whether the gateway can be reached from the internet; needs a domain.
        domain: name of the gateway; with it the gateway speaks HTTPS alone.
        requests_per_minute: what one client address may ask of a public gateway.
        allowed_ranges: client addresses that a public gateway lets in; empty is everybody.
        after: what must be there before, though no argument names it.
    """

    project: str
    region: str
    name: str
    subnetwork: Input[str]
    proxies: str
    public: bool = False
    domain: str | None = None
    requests_per_minute: int = 600
    allowed_ranges: Sequence[str] = ()
    after: Sequence[Resource] = ()


class Edge(ComponentResource):
    """Address, certificate and, for a public gateway, Cloud Armor; and what the Gateway must say to use them.

    It leaves DNS alone, which rarely is in the same hands: ``dns_records`` says what to write there.
    """

    def __init__(self, name: str, args: EdgeArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:Edge", name, None, opts)
        self.class_name: str = "gke-l7-global-external-managed" if args.public else "gke-l7-rilb"
        self.client_ranges: tuple[str, ...] = GOOGLE_RANGES if args.public else (args.proxies, *GOOGLE_RANGES)
        """Where a pod's requests come from: nobody else needs to be let in."""
        self.protocol, self.port = ("HTTPS", HTTPS_PORT) if args.domain else ("HTTP", HTTP_PORT)
        self.address_name: Output[str]
        self.address_name, self.address = self._address(name, args)
        self.annotations: Mapping[str, Input[str]] = {}
        self.tls_options: Mapping[str, Input[str]] = {}
        self.dns_records: Output[list[dict[str, Any]]] = Output.from_input([])
        """What to write into the domain's zone: the gateway's address, and what proves that the domain is yours."""
        if args.domain:
            self._certify(name, args, args.domain)
        self.security_policy: Output[str] | None = self._armor(name, args) if args.public else None
        self.ssl_policy: Output[str] | None = self._ssl_policy(name, args) if args.public else None
        self.endpoint: str | None = f"https://{args.domain}" if args.domain else None
        self.register_outputs({"address": self.address})

    def _address(self, name: str, args: EdgeArgs) -> tuple[Output[str], Output[str]]:
        child = ResourceOptions(parent=self, depends_on=[*args.after])
        if args.public:
            anywhere = gcp.compute.GlobalAddress(name, name=args.name, project=args.project, opts=child)
            return anywhere.name, anywhere.address
        inside = gcp.compute.Address(
            name,
            name=args.name,
            project=args.project,
            region=args.region,
            address_type="INTERNAL",
            purpose="SHARED_LOADBALANCER_VIP",
            subnetwork=args.subnetwork,
            opts=child,
        )
        return inside.name, inside.address

    def _certify(self, name: str, args: EdgeArgs, domain: str) -> None:
        child = ResourceOptions(parent=self)
        # A regional gateway takes regional certificates alone, a global one takes them through a map.
        location = None if args.public else args.region
        proof = gcp.certificatemanager.DnsAuthorization(
            name,
            name=args.name,
            project=args.project,
            location=location,
            domain=domain,
            type="FIXED_RECORD" if args.public else "PER_PROJECT_RECORD",
            opts=child,
        )
        certificate = gcp.certificatemanager.Certificate(
            name,
            name=args.name,
            project=args.project,
            location=location,
            managed={"domains": [domain], "dns_authorizations": [proof.id]},
            opts=child,
        )
        if args.public:
            self.annotations = {"networking.gke.io/certmap": self._map(name, args, domain, certificate)}
        else:
            self.tls_options = {"networking.gke.io/cert-manager-certs": certificate.name}
        self.dns_records = Output.all(self.address, proof.dns_resource_records).apply(
            lambda found: [
                {"name": f"{domain}.", "type": "A", "data": found[0]},
                *({key: record[key] for key in ("name", "type", "data")} for record in found[1]),
            ]
        )

    def _map(
        self, name: str, args: EdgeArgs, domain: str, certificate: gcp.certificatemanager.Certificate
    ) -> Output[str]:
        child = ResourceOptions(parent=self)
        certificates = gcp.certificatemanager.CertificateMap(name, name=args.name, project=args.project, opts=child)
        entry = gcp.certificatemanager.CertificateMapEntry(
            name,
            name=args.name,
            project=args.project,
            map=certificates.name,
            hostname=domain,
            certificates=[certificate.id],
            opts=child,
        )
        # Through the entry: a gateway with an empty map has no certificate to offer.
        return Output.all(certificates.name, entry.id).apply(lambda values: str(values[0]))

    def _armor(self, name: str, args: EdgeArgs) -> Output[str]:
        return gcp.compute.SecurityPolicy(
            name,
            name=args.name,
            project=args.project,
            description="Who may ask the models, and how often",
            rules=_rules(args),
            opts=ResourceOptions(parent=self),
        ).name

    def _ssl_policy(self, name: str, args: EdgeArgs) -> Output[str]:
        return gcp.compute.SSLPolicy(
            name,
            name=args.name,
            project=args.project,
            min_tls_version="TLS_1_2",
            profile="MODERN",
            opts=ResourceOptions(parent=self),
        ).name


def _rules(args: EdgeArgs) -> list[gcp.compute.SecurityPolicyRuleArgsDict]:
    throttle: gcp.compute.SecurityPolicyRuleArgsDict = {
        "priority": 1000,
        "description": "So many requests a minute for each client",
        "action": "throttle",
        "match": _from(args.allowed_ranges or ["*"]),
        "rate_limit_options": {
            "conform_action": "allow",
            "exceed_action": "deny(429)",
            "enforce_on_key": "IP",
            "rate_limit_threshold": {"count": args.requests_per_minute, "interval_sec": 60},
        },
    }
    # The rule of last resort, which every policy must have under this number.
    rest: gcp.compute.SecurityPolicyRuleArgsDict = {
        "priority": 2147483647,
        "description": "Everybody else",
        "action": "deny(403)",
        "match": _from(["*"]),
    }
    return [throttle, rest]


def _from(ranges: Sequence[str]) -> gcp.compute.SecurityPolicyRuleMatchArgsDict:
    return {"versioned_expr": "SRC_IPS_V1", "config": {"src_ip_ranges": [*ranges]}}


@dataclass(frozen=True, kw_only=True)
class GatewayPolicyArgs:
    """What the load balancer of one Gateway does.

    Attributes:
        namespace: of the Gateway.
        gateway: its name.
        ssl_policy: name of the SSL policy.
    """

    namespace: Input[str]
    gateway: Input[str]
    ssl_policy: Input[str]


class GatewayPolicy(ComponentResource):
    """Tells Google's load balancer which TLS a Gateway speaks."""

    def __init__(self, name: str, args: GatewayPolicyArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:GatewayPolicy", name, None, opts)
        target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": args.gateway}
        _policy(self, name, "GCPGatewayPolicy", args.namespace, target=target, default={"sslPolicy": args.ssl_policy})
        self.register_outputs({})


@dataclass(frozen=True, kw_only=True)
class ServicePoliciesArgs:
    """How the load balancer treats one Service.

    Attributes:
        service: its name. Plain: the policies are there before the server is ready, and long before its route.
        ready_path: what answers 200 exactly when the server can serve.
        drain_seconds: for how long a request that is under way may still take when its pod leaves.
        timeout_seconds: for how long a request may take at all.
        security_policy: name of a Cloud Armor policy; None for an internal gateway.
    """

    namespace: Input[str]
    service: str
    ready_path: str
    drain_seconds: int
    timeout_seconds: int = 30
    security_policy: Input[str] | None = None


class ServicePolicies(ComponentResource):
    """Health check, draining and Cloud Armor of one Service.

    Without its own, Google's health check asks for ``/``, which MLServer does not have, and every request gets 503.
    """

    def __init__(self, name: str, args: ServicePoliciesArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:ServicePolicies", name, None, opts)
        target = {"group": "", "kind": "Service", "name": args.service}
        _policy(self, name, "HealthCheckPolicy", args.namespace, target=target, default=_health_check(args))
        _policy(self, name, "GCPBackendPolicy", args.namespace, target=target, default=_backend(args))
        self.register_outputs({})


def _health_check(args: ServicePoliciesArgs) -> dict[str, Any]:
    return {
        "checkIntervalSec": 5,
        "timeoutSec": 3,
        "healthyThreshold": 1,
        "unhealthyThreshold": 2,
        "config": {
            "type": "HTTP",
            "httpHealthCheck": {"portSpecification": "USE_SERVING_PORT", "requestPath": args.ready_path},
        },
    }


def _backend(args: ServicePoliciesArgs) -> dict[str, Any]:
    backend: dict[str, Any] = {
        "timeoutSec": args.timeout_seconds,
        "connectionDraining": {"drainingTimeoutSec": args.drain_seconds},
    }
    if args.security_policy is not None:
        backend["securityPolicy"] = args.security_policy
    return backend


def _policy(
    parent: ComponentResource,
    name: str,
    kind: str,
    namespace: Input[str],
    *,
    target: Mapping[str, Input[str]],
    default: Mapping[str, Any],
) -> None:
    Manifest(
        name,
        POLICY_VERSION,
        kind,
        metadata={"name": target["name"], "namespace": namespace},
        spec={"default": default, "targetRef": target},
        opts=ResourceOptions(parent=parent),
    )
