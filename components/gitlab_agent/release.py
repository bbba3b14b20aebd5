"""The agent in the cluster: its Helm release, its tokens and its NetworkPolicy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import pulumi_kubernetes as kubernetes
from pulumi import ComponentResource, Input, Output, Resource, ResourceOptions

from components.gitlab_agent.access import AgentAccess, token_secret
from components.manifest import RESTRICTED_CONTAINER
from components.serving.server import SKIP_AWAIT
from model_serving.stack.gitlab_agent import AgentSettings

RELEASE: Final = "gitlab-agent"
READY_SECONDS: Final = 300
"""Timeout for the pods to connect, after which the release fails and is rolled back."""
KEPT_RELEASES: Final = 5
NOBODY: Final = 65532
"""User of the agent's image, https://gitlab.com/gitlab-org/cluster-integration/gitlab-agent."""
TLS_PORT: Final = 443
DNS_PORT: Final = 53


@dataclass(frozen=True, kw_only=True)
class AgentReleaseArgs:
    """An installed agent.

    Attributes:
        namespace: for the agent only, because policies here select every pod in it.
        access: the agent's account and rights, which exist before a pod starts.
        tokens: name -> value.
    """

    settings: AgentSettings
    namespace: Input[str]
    access: AgentAccess
    tokens: Mapping[str, Input[str]]


class AgentRelease(ComponentResource):
    """A Helm release of GitLab's chart, a Secret per token, a NetworkPolicy and a PodDisruptionBudget.

    The chart creates no RBAC, see AgentAccess.
    """

    def __init__(self, name: str, args: AgentReleaseArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:AgentRelease", name, None, opts)
        policy = self._let_out(name, args)
        secrets = {key: self._secret(f"{name}-{key}", key, token, args) for key, token in args.tokens.items()}
        self._release(name, args, secrets[args.settings.mounted_token], policy)
        self._disruption_budget(name, args)
        self.register_outputs({})

    def _secret(self, name: str, key: str, token: Input[str], args: AgentReleaseArgs) -> Output[str]:
        return kubernetes.core.v1.Secret(
            name,
            metadata={"name": token_secret(key), "namespace": args.namespace},
            string_data={"token": Output.secret(token)},
            opts=ResourceOptions(parent=self),
        ).metadata.name

    def _release(self, name: str, args: AgentReleaseArgs, secret: Output[str], policy: Resource) -> None:
        chart = args.settings.chart
        kubernetes.helm.v3.Release(
            name,
            name=RELEASE,
            namespace=args.namespace,
            chart=chart.reference,
            version=chart.pinned_version,
            repository_opts={"repo": chart.address} if chart.address else None,
            values={**args.settings.values, **_values(args, secret)},
            # Waits for the pods, and rolls back if they do not become ready.
            atomic=True,
            timeout=READY_SECONDS,
            max_history=KEPT_RELEASES,
            opts=ResourceOptions(parent=self, depends_on=[args.access, policy]),
        )

    def _let_out(self, name: str, args: AgentReleaseArgs) -> Resource:
        """Allows KAS, the API server and DNS; DNS anywhere, because its address differs between clusters."""
        settings = args.settings
        return kubernetes.networking.v1.NetworkPolicy(
            name,
            metadata={"name": RELEASE, "namespace": args.namespace},
            spec={
                "pod_selector": {},
                "policy_types": ["Egress"],
                "egress": [
                    _to(settings.kas_ranges, urlsplit(settings.kas).port or TLS_PORT),
                    _to(settings.api_server_ranges, settings.api_server_port),
                    {"ports": [{"port": DNS_PORT, "protocol": protocol} for protocol in ("UDP", "TCP")]},
                ],
            },
            opts=ResourceOptions(parent=self),
        )

    def _disruption_budget(self, name: str, args: AgentReleaseArgs) -> None:
        kubernetes.policy.v1.PodDisruptionBudget(
            name,
            metadata={"name": RELEASE, "namespace": args.namespace, "annotations": SKIP_AWAIT},
            spec={"max_unavailable": 1, "selector": {}},
            opts=ResourceOptions(parent=self),
        )


def _to(ranges: Sequence[str], port: int) -> dict[str, Any]:
    return {"to": [{"ip_block": {"cidr": cidr}} for cidr in ranges], "ports": [{"port": port, "protocol": "TCP"}]}


def _values(args: AgentReleaseArgs, secret: Output[str]) -> dict[str, Any]:
    """Values in the chart's own spelling."""
    settings = args.settings
    return {
        "replicas": settings.replicas,
        "config": {
            "kasAddress": settings.kas,
            "secretName": secret,
            # It would add a ServiceAccount that can read every Secret of the cluster.
            "operational_container_scanning": {"enabled": False},
        },
        # The chart only has bindings for the whole cluster.
        "rbac": {"create": False},
        "serviceAccount": {"create": False, "name": args.access.account},
        "podSecurityContext": {
            "runAsNonRoot": True,
            "runAsUser": NOBODY,
            "runAsGroup": NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "securityContext": RESTRICTED_CONTAINER,
        "resources": {
            "requests": {"cpu": settings.cpu, "memory": settings.memory},
            "limits": {"memory": settings.memory},
        },
        "affinity": _apart(),
    }


def _apart() -> dict[str, Any]:
    """Prefers different nodes and zones; the chart has no key for topologySpreadConstraints."""
    return {
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": weight, "podAffinityTerm": {"labelSelector": {}, "topologyKey": key}}
                for key, weight in (("topology.kubernetes.io/zone", 50), ("kubernetes.io/hostname", 100))
            ]
        }
    }
