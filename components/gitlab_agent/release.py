"""The agent in the cluster: its pods, the token that they log in with, and whom they may talk to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pulumi_kubernetes as kubernetes
from pulumi import ComponentResource, Input, Output, Resource, ResourceOptions

from components.serving.server import SKIP_AWAIT

RELEASE: Final = "gitlab-agent"
READY_SECONDS: Final = 300
"""How long the pods may take to connect before a release counts as failed and is taken back."""
KEPT_RELEASES: Final = 5
NOBODY: Final = 65532
"""User of the agent's image, https://gitlab.com/gitlab-org/cluster-integration/gitlab-agent."""
DNS_PORT: Final = 53


@dataclass(frozen=True, kw_only=True)
class HelmChart:
    """A chart.

    Attributes:
        reference: its name in the repository, an OCI reference, or a path.
        repository: address of the Helm repository, for a chart that is named by its name.
        version: None for a path, which is one version.
    """

    reference: str
    repository: str | None = None
    version: str | None = None


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where the agent connects to.

    Attributes:
        ranges: CIDR ranges; a NetworkPolicy knows no names.
        port: TCP.
    """

    ranges: Sequence[str]
    port: int


@dataclass(frozen=True, kw_only=True)
class AgentReleaseArgs:
    """An installed agent.

    Attributes:
        namespace: of the agent, and of nothing else: policies here select every pod of it.
        account: name of the ServiceAccount that it runs as.
        tokens: name to value.
        mounted_token: name of the token in use.
        kas: address that it connects to.
        destinations: KAS and API server.
        cpu: cores reserved for a pod, as a Kubernetes quantity.
        memory: memory of a pod, request and limit alike.
        values: further values of the chart.
        after: what must be there before a pod starts, though no argument names it.
    """

    namespace: Input[str]
    account: Input[str]
    tokens: Mapping[str, Input[str]]
    mounted_token: str
    chart: HelmChart
    kas: str
    destinations: Sequence[Destination]
    replicas: int = 2
    cpu: str = "50m"
    memory: str = "128Mi"
    values: Mapping[str, Any] = field(default_factory=dict)
    after: Sequence[Resource] = ()


class AgentRelease(ComponentResource):
    """A Helm release of GitLab's chart, a Secret for each token, NetworkPolicy and PodDisruptionBudget.

    It leaves rights alone: the chart makes none, see AgentAccess.
    """

    def __init__(self, name: str, args: AgentReleaseArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:AgentRelease", name, None, opts)
        policy = self._let_out(name, args)
        secrets = {key: self._secret(f"{name}-{key}", key, token, args) for key, token in args.tokens.items()}
        self._release(name, args, secrets[args.mounted_token], [*args.after, policy])
        self._disruption_budget(name, args)
        self.register_outputs({})

    def _secret(self, name: str, key: str, token: Input[str], args: AgentReleaseArgs) -> Output[str]:
        """The token's name is in the Secret's: another token is another Secret, by which the pods are renewed."""
        return kubernetes.core.v1.Secret(
            name,
            metadata={"name": f"agent-token-{key}", "namespace": args.namespace},
            string_data={"token": Output.secret(token)},
            opts=ResourceOptions(parent=self),
        ).metadata.name

    def _release(self, name: str, args: AgentReleaseArgs, secret: Output[str], after: Sequence[Resource]) -> None:
        kubernetes.helm.v3.Release(
            name,
            name=RELEASE,
            namespace=args.namespace,
            chart=args.chart.reference,
            version=args.chart.version,
            repository_opts={"repo": args.chart.repository} if args.chart.repository else None,
            values={**args.values, **_values(args, secret)},
            # Waits for the pods, and goes back to those that were there if they do not come up.
            atomic=True,
            timeout=READY_SECONDS,
            max_history=KEPT_RELEASES,
            opts=ResourceOptions(parent=self, depends_on=[*after]),
        )

    def _let_out(self, name: str, args: AgentReleaseArgs) -> Resource:
        """To KAS, to the API server and to whoever answers for names, whose place differs from cluster to cluster."""
        named = [
            {"to": [{"ip_block": {"cidr": cidr}} for cidr in each.ranges], "ports": [_port(each.port, "TCP")]}
            for each in args.destinations
        ]
        return kubernetes.networking.v1.NetworkPolicy(
            name,
            metadata={"name": RELEASE, "namespace": args.namespace},
            spec={
                "pod_selector": {},
                "policy_types": ["Egress"],
                "egress": [*named, {"ports": [_port(DNS_PORT, "UDP"), _port(DNS_PORT, "TCP")]}],
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


def _port(number: int, protocol: str) -> dict[str, Any]:
    return {"port": number, "protocol": protocol}


def _values(args: AgentReleaseArgs, secret: Output[str]) -> dict[str, Any]:
    """In the chart's own words, which helm passes on as they are."""
    return {
        "replicas": args.replicas,
        "config": {
            "kasAddress": args.kas,
            "secretName": secret,
            # Another ServiceAccount, which may read every Secret of the cluster.
            "operational_container_scanning": {"enabled": False},
        },
        # The chart binds for the whole cluster or not at all.
        "rbac": {"create": False},
        "serviceAccount": {"create": False, "name": args.account},
        "podSecurityContext": {
            "runAsNonRoot": True,
            "runAsUser": NOBODY,
            "runAsGroup": NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {
            "requests": {"cpu": args.cpu, "memory": args.memory},
            "limits": {"memory": args.memory},
        },
        "affinity": _apart(),
    }


def _apart() -> dict[str, Any]:
    """On different nodes and zones as far as there are any; the chart has no key for topologySpreadConstraints."""
    return {
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": weight, "podAffinityTerm": {"labelSelector": {}, "topologyKey": key}}
                for key, weight in (("topology.kubernetes.io/zone", 50), ("kubernetes.io/hostname", 100))
            ]
        }
    }
