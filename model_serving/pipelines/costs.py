"""Estimate of the monthly costs of a change, from the resources' arguments.

US dollars for 730 hours in europe-west1 at the public list prices of 2026, without discounts and taxes, as in
docs/gcp.md. Other regions differ by up to a third. Usage-based charges such as storage, traffic and metrics have no
figure here.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from model_serving.pipelines.values import Inputs, Part, Resource, at, mappings
from model_serving.quantities import amount

HOURS: Final = 730
REGION: Final = "europe-west1"


class Cost(Part):
    """Costs of all resources of one kind in a stack, in US dollars per month; ``basis`` explains the figures."""

    what: str
    before: float
    after: float
    basis: str


@dataclass(frozen=True, kw_only=True)
class Price:
    """Price of a kind of resource: its arguments -> US dollars per month; ``source`` is Google's price list."""

    what: str
    monthly: Callable[[Inputs], float]
    basis: str
    source: str


CLUSTER_HOUR: Final = 0.10
POD_CPU_HOUR: Final = 0.049
POD_GIB_HOUR: Final = 0.0054
BALANCER_HOUR: Final = 0.025
PROXY_HOUR: Final = 0.025
NAT_ADDRESS_HOUR: Final = 0.005
NAT_NODE_HOUR: Final = 0.0014
ARMOR_POLICY: Final = 5.0
ARMOR_RULE: Final = 1.0
ALERT_CONDITION: Final = 0.10

DEPLOYMENT: Final = "kubernetes:apps/v1:Deployment"


def quantity(text: object) -> float:
    """A Kubernetes quantity as a number; 0 if it is invalid or not known yet."""
    with suppress(ValueError):
        return amount(str(text))
    return 0.0


def _pods(inputs: Inputs) -> float:
    hourly = 0.0
    for container in mappings(inputs, "spec", "template", "spec", "containers"):
        cpu, memory = (at(container, ("resources", "requests", key)) for key in ("cpu", "memory"))
        hourly += quantity(cpu) * POD_CPU_HOUR
        hourly += quantity(memory) / amount("1Gi") * POD_GIB_HOUR
    replicas = at(inputs, ("spec", "replicas"))
    return quantity(1 if replicas is None else replicas) * hourly * HOURS


def _gateway(inputs: Inputs) -> float:
    name = str(at(inputs, ("spec", "gatewayClassName")))
    if not name.startswith("gke-l7"):
        return 0.0
    has_own_proxies = name.startswith(("gke-l7-rilb", "gke-l7-regional"))
    return (BALANCER_HOUR + (PROXY_HOUR if has_own_proxies else 0.0)) * HOURS


PRICES: Final[Mapping[str, Price]] = {
    "gcp:container/cluster:Cluster": Price(
        what="clusters",
        monthly=lambda inputs: CLUSTER_HOUR * HOURS,
        basis=f"{CLUSTER_HOUR:.2f} per hour; Google credits 74.40 per month and billing account",
        source="https://cloud.google.com/kubernetes-engine/pricing",
    ),
    DEPLOYMENT: Price(
        what="pods on Autopilot",
        monthly=_pods,
        basis=f"{POD_CPU_HOUR} per hour and requested vCPU, {POD_GIB_HOUR} per GiB",
        source="https://cloud.google.com/kubernetes-engine/pricing",
    ),
    "kubernetes:gateway.networking.k8s.io/v1:Gateway": Price(
        what="load balancers",
        monthly=_gateway,
        basis=f"{BALANCER_HOUR} per hour for the first rules, the same for a regional proxy; plus traffic",
        source="https://cloud.google.com/vpc/network-pricing",
    ),
    "gcp:compute/routerNat:RouterNat": Price(
        what="Cloud NAT",
        monthly=lambda inputs: (NAT_ADDRESS_HOUR + NAT_NODE_HOUR) * HOURS,
        basis=f"{NAT_ADDRESS_HOUR} per hour and address, {NAT_NODE_HOUR} for one node; plus traffic",
        source="https://cloud.google.com/nat/pricing",
    ),
    "gcp:compute/securityPolicy:SecurityPolicy": Price(
        what="Cloud Armor",
        monthly=lambda inputs: ARMOR_POLICY + ARMOR_RULE * len(mappings(inputs, "rules")),
        basis=f"{ARMOR_POLICY:.0f} per policy, {ARMOR_RULE:.0f} per rule; plus requests",
        source="https://cloud.google.com/armor/pricing",
    ),
    "gcp:monitoring/alertPolicy:AlertPolicy": Price(
        what="alerts",
        monthly=lambda inputs: ALERT_CONDITION * len(mappings(inputs, "conditions")),
        basis=f"{ALERT_CONDITION:.2f} per condition; plus the time series it returns",
        source="https://cloud.google.com/stackdriver/pricing",
    ),
}
"""Type of a resource -> its price; other types are free or in NO_FIGURE."""

NO_FIGURE: Final[Mapping[str, str]] = {
    "gcp:container/nodePool:NodePool": "node pools (by machine)",
    "gcp:storage/bucket:Bucket": "buckets (by usage)",
    "gcp:artifactregistry/repository:Repository": "registries (by usage)",
    "kubernetes:monitoring.googleapis.com/v1:PodMonitoring": "metrics (by usage)",
}
"""Types whose costs cannot be estimated."""


def estimate(resources: Sequence[Resource]) -> tuple[Cost, ...]:
    """The costs that change in a whole stack: the price of unchanged resources may depend on the cluster's mode."""
    before = _totals((each.token, each.old) for each in resources)
    after = _totals((each.token, each.new) for each in resources)
    return tuple(
        Cost(what=price.what, before=round(before[token], 2), after=round(after[token], 2), basis=price.basis)
        for token, price in PRICES.items()
        if round(before[token], 2) != round(after[token], 2)
    )


def without_figure(resources: Iterable[Resource]) -> tuple[str, ...]:
    """The kinds of resources among these whose costs cannot be estimated."""
    return tuple(sorted({NO_FIGURE[each.token] for each in resources if each.token in NO_FIGURE}))


def _totals(resources: Iterable[tuple[str, Inputs | None]]) -> Mapping[str, float]:
    there = [(token, inputs) for token, inputs in resources if inputs is not None]
    # Only Autopilot bills pods; elsewhere the nodes are paid for.
    pays_for_pods = any(token.endswith(":Cluster") and inputs.get("enableAutopilot") for token, inputs in there)
    totals: defaultdict[str, float] = defaultdict(float)
    for token, inputs in there:
        if token in PRICES and (pays_for_pods or token != DEPLOYMENT):
            totals[token] += PRICES[token].monthly(inputs)
    return totals
