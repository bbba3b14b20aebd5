"""The edge: address, certificate and Cloud Armor of the gateway, and the load balancer's policies for each Service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pulumi_gcp as gcp
from pulumi import ComponentResource, Input, Output, ResourceOptions

from components.google.compute import Compute
from components.google.network import Network
from components.manifest import Manifest
from model_serving.stack.google import EdgeSettings, GcpSettings, IapSettings

GOOGLE_RANGES: Final = ("35.191.0.0/16", "130.211.0.0/22")
"""Sources of health checks and Google's front ends, https://cloud.google.com/load-balancing/docs/firewall-rules."""
WHO_MAY_ASK: Final = {
    "iap": "people and service accounts that sign in with Google and have the role IAP-secured Web App User",
    "ranges": "everyone at the addresses in allowedRanges",
    "open": "everyone on the internet",
}
"""Value of ``access`` -> what it means; the note of a merge request shows it."""


class Edge(ComponentResource):
    """Address, certificate and, for a public gateway, Cloud Armor; and the settings with which a Gateway uses them.

    It does not manage DNS, which is rarely in the same hands: ``dns_records`` lists the records to create.
    """

    def __init__(self, name: str, settings: GcpSettings, network: Network, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:Edge", name, None, opts)
        public, domain = settings.gateway.public, settings.gateway.domain
        self.class_name: str = "gke-l7-global-external-managed" if public else "gke-l7-rilb"
        self.client_ranges: tuple[str, ...] = GOOGLE_RANGES if public else (settings.network.proxies, *GOOGLE_RANGES)
        """Sources of the requests that reach a pod."""
        self.protocol, self.port = ("HTTPS", 443) if domain else ("HTTP", 80)
        self.endpoint: str | None = f"https://{domain}" if domain else None
        address = (self._public_address if public else self._internal_address)(name, settings, network)
        self.address_name: Output[str] = address.name
        self.address: Output[str] = address.address
        self.annotations: Mapping[str, Input[str]] = {}
        self.tls_options: Mapping[str, Input[str]] = {}
        self.dns_records: Output[list[dict[str, Any]]] = Output.from_input([])
        """The domain's address, and the record that proves who owns the domain."""
        if domain:
            self._certify(name, settings, domain)
        self.security_policy: Output[str] | None = self._armor(name, settings) if public else None
        self.ssl_policy: Output[str] | None = self._ssl_policy(name, settings) if public else None
        self.register_outputs({"address": self.address})

    def _public_address(self, name: str, settings: GcpSettings, network: Network) -> Compute:
        child = ResourceOptions(parent=self, depends_on=[*network.ready])
        return Compute("GlobalAddress", name, name=settings.name, project=settings.project, address=None, opts=child)

    def _internal_address(self, name: str, settings: GcpSettings, network: Network) -> Compute:
        return Compute(
            "Address",
            name,
            name=settings.name,
            project=settings.project,
            region=settings.region,
            address=None,
            addressType="INTERNAL",
            purpose="SHARED_LOADBALANCER_VIP",
            subnetwork=network.subnetwork,
            opts=ResourceOptions(parent=self, depends_on=[*network.ready]),
        )

    def _certify(self, name: str, settings: GcpSettings, domain: str) -> None:
        child, public = ResourceOptions(parent=self), settings.gateway.public
        # A regional gateway only takes regional certificates, a global one takes them from a map.
        location = None if public else settings.region
        proof = gcp.certificatemanager.DnsAuthorization(
            name,
            name=settings.name,
            project=settings.project,
            location=location,
            domain=domain,
            type="FIXED_RECORD" if public else "PER_PROJECT_RECORD",
            opts=child,
        )
        certificate = gcp.certificatemanager.Certificate(
            name,
            name=settings.name,
            project=settings.project,
            location=location,
            managed={"domains": [domain], "dns_authorizations": [proof.id]},
            opts=child,
        )
        if public:
            self.annotations = {"networking.gke.io/certmap": self._map(name, settings, domain, certificate.id)}
        else:
            self.tls_options = {"networking.gke.io/cert-manager-certs": certificate.name}
        self.dns_records = Output.all(self.address, proof.dns_resource_records).apply(
            lambda found: [
                {"name": f"{domain}.", "type": "A", "data": found[0]},
                *({key: record[key] for key in ("name", "type", "data")} for record in found[1]),
            ]
        )

    def _map(self, name: str, settings: GcpSettings, domain: str, certificate: Input[str]) -> Output[str]:
        project, child = settings.project, ResourceOptions(parent=self)
        certificates = gcp.certificatemanager.CertificateMap(name, name=settings.name, project=project, opts=child)
        entry = gcp.certificatemanager.CertificateMapEntry(
            name,
            name=settings.name,
            project=project,
            map=certificates.name,
            hostname=domain,
            certificates=[certificate],
            opts=child,
        )
        # Through the entry: a gateway with an empty map has no certificate.
        return Output.all(certificates.name, entry.id).apply(lambda values: str(values[0]))

    def _armor(self, name: str, settings: GcpSettings) -> Output[str]:
        return Compute(
            "SecurityPolicy",
            name,
            name=settings.name,
            project=settings.project,
            description=f"Who may ask the models: {WHO_MAY_ASK[settings.gateway.access or 'open']}",
            rules=_rules(settings.gateway),
            opts=ResourceOptions(parent=self),
        ).name

    def _ssl_policy(self, name: str, settings: GcpSettings) -> Output[str]:
        return Compute(
            "SSLPolicy",
            name,
            name=settings.name,
            project=settings.project,
            minTlsVersion="TLS_1_2",
            profile="MODERN",
            opts=ResourceOptions(parent=self),
        ).name


def _rules(gateway: EdgeSettings) -> list[dict[str, Any]]:
    throttle = {
        "priority": 1000,
        "description": "So many requests a minute for each client",
        "action": "throttle",
        "match": _from(gateway.allowed_ranges or ["*"]),
        "rateLimitOptions": {
            "conformAction": "allow",
            "exceedAction": "deny(429)",
            "enforceOnKey": "IP",
            "rateLimitThreshold": {"count": gateway.requests_per_minute, "intervalSec": 60},
        },
    }
    # The default rule, which every policy must have under this number.
    rest = {
        "priority": 2147483647,
        "description": "Everybody else",
        "action": "deny(403)",
        "match": _from(["*"]),
    }
    return [throttle, rest]


def _from(ranges: Sequence[str]) -> dict[str, Any]:
    return {"versionedExpr": "SRC_IPS_V1", "config": {"srcIpRanges": [*ranges]}}


class GatewayPolicy(ComponentResource):
    """The TLS versions that Google's load balancer accepts for a Gateway."""

    def __init__(
        self,
        name: str,
        opts: ResourceOptions | None = None,
        *,
        namespace: Input[str],
        gateway: Input[str],
        ssl_policy: Input[str],
    ) -> None:
        super().__init__("model-serving:index:GatewayPolicy", name, None, opts)
        target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway}
        _policy(self, name, "GCPGatewayPolicy", namespace, target=target, default={"sslPolicy": ssl_policy})
        self.register_outputs({})


class ServicePolicies(ComponentResource):
    """Health check, connection draining and Cloud Armor of one Service.

    Google's default health check requests ``/``, which MLServer does not have, so every request would get 503.

    Args:
        name: of the Service; plain, because the policies exist before the Service has ready pods.
        opts: with the provider of the cluster.
        namespace: of the Service.
        ready_path: answers 200 exactly when the server can serve.
        ready_port: that answers it; None if the Service has no other port.
        drain_seconds: for which a pod that shuts down keeps serving.
        answer_seconds: for which a request may take.
        security_policy: name of a Cloud Armor policy; None for an internal gateway.
        iap: the OAuth client of Identity-Aware Proxy; None lets in requests that nobody has signed in for.
        labels: of the policies.
    """

    def __init__(
        self,
        name: str,
        opts: ResourceOptions | None = None,
        *,
        namespace: Input[str],
        ready_path: str,
        ready_port: int | None = None,
        drain_seconds: int,
        answer_seconds: int,
        security_policy: Input[str] | None = None,
        iap: IapSettings | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__("model-serving:index:ServicePolicies", name, None, opts)
        target = {"group": "", "kind": "Service", "name": name}
        backend: dict[str, Any] = {
            "timeoutSec": answer_seconds,
            # Also for a request that comes just before its pod shuts down.
            "connectionDraining": {"drainingTimeoutSec": max(drain_seconds, answer_seconds)},
        }
        if security_policy is not None:
            backend["securityPolicy"] = security_policy
        if iap is not None:
            backend["iap"] = {
                "enabled": True,
                "clientID": iap.client_id,
                "oauth2ClientSecret": {"name": iap.secret_name},
            }
        check = _health_check(ready_path, ready_port)
        _policy(self, name, "HealthCheckPolicy", namespace, target=target, default=check, labels=labels)
        _policy(self, name, "GCPBackendPolicy", namespace, target=target, default=backend, labels=labels)
        self.register_outputs({})


def _health_check(path: str, port: int | None) -> dict[str, Any]:
    where = {"portSpecification": "USE_FIXED_PORT", "port": port} if port else {"portSpecification": "USE_SERVING_PORT"}
    return {
        "checkIntervalSec": 5,
        "timeoutSec": 3,
        "healthyThreshold": 1,
        "unhealthyThreshold": 2,
        "config": {"type": "HTTP", "httpHealthCheck": {**where, "requestPath": path}},
    }


def _policy(
    parent: ComponentResource,
    name: str,
    kind: str,
    namespace: Input[str],
    *,
    target: Mapping[str, Input[str]],
    default: Mapping[str, Any],
    labels: Mapping[str, str] | None = None,
) -> None:
    Manifest(
        name,
        "networking.gke.io/v1",
        kind,
        metadata={"name": target["name"], "namespace": namespace, **({"labels": labels} if labels else {})},
        spec={"default": default, "targetRef": target},
        opts=ResourceOptions(parent=parent),
    )
