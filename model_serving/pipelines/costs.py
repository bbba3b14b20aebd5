"""What a change costs a month, as far as the kind of a resource alone tells.

US dollars for a month of 730 hours in europe-west1, without discounts and taxes, by the public price lists of 2026: the
figures of docs/gcp.md. Other regions differ, by up to a third. What is paid by use, such as storage, traffic and
metrics, has no figure here: a preview does not know the use.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

HOURS: Final = 730
REGION: Final = "europe-west1"

Inputs = Mapping[str, Any]


class Cost(BaseModel):
    """What one kind of resource costs, all of a stack together.

    Attributes:
        before: US dollars a month.
        after: US dollars a month.
        basis: how the figure comes about.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str
    before: float
    after: float
    basis: str


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A resource of a stack, changed or not; None where it is not there."""

    token: str
    old: Inputs | None
    new: Inputs | None


@dataclass(frozen=True, kw_only=True)
class Price:
    """How the price of a kind of resource is found.

    Attributes:
        monthly: its arguments -> US dollars a month.
        basis: the figures, for people.
        source: Google's list, where they can be looked up.
    """

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

_UNITS: Final[Mapping[str, float]] = {
    "": 1,
    "m": 1e-3,
    **{unit: 1000.0**power for power, unit in enumerate("KMGT", start=1)},
    **{f"{unit}i": 1024.0**power for power, unit in enumerate("KMGT", start=1)},
}
_GIB: Final = 1024.0**3


def quantity(text: object) -> float:
    """A Kubernetes quantity as a number; 0 if it is none or not known yet."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(m|[KMGT]i?)?", str(text))
    return float(found[1]) * _UNITS[found[2] or ""] if found else 0.0


def _pods(inputs: Inputs) -> float:
    spec = inputs.get("spec", {})
    hourly = 0.0
    for container in spec.get("template", {}).get("spec", {}).get("containers", ()):
        requests = container.get("resources", {}).get("requests", {})
        hourly += quantity(requests.get("cpu", 0)) * POD_CPU_HOUR
        hourly += quantity(requests.get("memory", 0)) / _GIB * POD_GIB_HOUR
    return quantity(spec.get("replicas", 1)) * hourly * HOURS


def _gateway(inputs: Inputs) -> float:
    name = str(inputs.get("spec", {}).get("gatewayClassName", ""))
    if not name.startswith("gke-l7"):
        return 0.0
    has_own_proxies = name.startswith(("gke-l7-rilb", "gke-l7-regional"))
    return (BALANCER_HOUR + (PROXY_HOUR if has_own_proxies else 0.0)) * HOURS


PRICES: Final[Mapping[str, Price]] = {
    "gcp:container/cluster:Cluster": Price(
        what="clusters",
        monthly=lambda inputs: CLUSTER_HOUR * HOURS,
        basis=f"{CLUSTER_HOUR:.2f} an hour; Google gives 74.40 a month back, once per billing account",
        source="https://cloud.google.com/kubernetes-engine/pricing",
    ),
    DEPLOYMENT: Price(
        what="pods on Autopilot",
        monthly=_pods,
        basis=f"{POD_CPU_HOUR} an hour for a vCPU and {POD_GIB_HOUR} for a GiB that pods reserve",
        source="https://cloud.google.com/kubernetes-engine/pricing",
    ),
    "kubernetes:gateway.networking.k8s.io/v1:Gateway": Price(
        what="load balancers",
        monthly=_gateway,
        basis=f"{BALANCER_HOUR} an hour for the first rules, the same for one proxy of a regional one; besides traffic",
        source="https://cloud.google.com/vpc/network-pricing",
    ),
    "gcp:compute/routerNat:RouterNat": Price(
        what="Cloud NAT",
        monthly=lambda inputs: (NAT_ADDRESS_HOUR + NAT_NODE_HOUR) * HOURS,
        basis=f"{NAT_ADDRESS_HOUR} an hour for an address, {NAT_NODE_HOUR} for one node; besides traffic",
        source="https://cloud.google.com/nat/pricing",
    ),
    "gcp:compute/securityPolicy:SecurityPolicy": Price(
        what="Cloud Armor",
        monthly=lambda inputs: ARMOR_POLICY + ARMOR_RULE * len(inputs.get("rules", ())),
        basis=f"{ARMOR_POLICY:.0f} for a policy, {ARMOR_RULE:.0f} for a rule; besides requests",
        source="https://cloud.google.com/armor/pricing",
    ),
    "gcp:monitoring/alertPolicy:AlertPolicy": Price(
        what="alerts",
        monthly=lambda inputs: ALERT_CONDITION * len(inputs.get("conditions", ())),
        basis=f"{ALERT_CONDITION:.2f} for a condition; besides the series that it returns",
        source="https://cloud.google.com/stackdriver/pricing",
    ),
}
"""Type of a resource -> its price. A kind that is not here is free or has no figure."""

NO_FIGURE: Final[Mapping[str, str]] = {
    "gcp:container/nodePool:NodePool": "node pools (by machine)",
    "gcp:storage/bucket:Bucket": "buckets (by use)",
    "gcp:artifactregistry/repository:Repository": "registries (by use)",
    "kubernetes:monitoring.googleapis.com/v1:PodMonitoring": "metrics (by use)",
}
"""Kinds that cost something which a preview cannot tell."""


def estimate(resources: Iterable[Resource]) -> tuple[Cost, ...]:
    """What changes in a stack's costs; nothing for a stack without a cloud.

    Args:
        resources: all of the stack, those that stay as they are, too: their price may depend on another's mode.
    """
    known = [*resources]
    before, after = _totals((each.token, each.old) for each in known), _totals((each.token, each.new) for each in known)
    return tuple(
        Cost(what=price.what, before=round(before[token], 2), after=round(after[token], 2), basis=price.basis)
        for token, price in PRICES.items()
        if round(before[token], 2) != round(after[token], 2)
    )


def without_figure(resources: Iterable[Resource]) -> tuple[str, ...]:
    """The kinds among these that cost something nobody can tell from a preview."""
    return tuple(sorted({NO_FIGURE[each.token] for each in resources if each.token in NO_FIGURE}))


def _totals(resources: Iterable[tuple[str, Inputs | None]]) -> Mapping[str, float]:
    there = [(token, inputs) for token, inputs in resources if inputs is not None]
    # Elsewhere pods cost nothing by themselves: the nodes do, which are there anyway.
    pays_for_pods = any(token.endswith(":Cluster") and inputs.get("enableAutopilot") for token, inputs in there)
    totals: defaultdict[str, float] = defaultdict(float)
    for token, inputs in there:
        if token in PRICES and (pays_for_pods or token != DEPLOYMENT):
            totals[token] += PRICES[token].monthly(inputs)
    return totals
