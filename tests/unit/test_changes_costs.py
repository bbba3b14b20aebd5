"""The estimate of a change's costs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from model_serving.pipelines import costs
from model_serving.pipelines.values import Resource

pytestmark = pytest.mark.documents
DOCS = (Path(__file__).resolve().parents[2] / "docs" / "gcp.md").read_text()
CLUSTER = "gcp:container/cluster:Cluster"
GATEWAY = "kubernetes:gateway.networking.k8s.io/v1:Gateway"
BUCKET = "gcp:storage/bucket:Bucket"
AUTOPILOT = Resource(token=CLUSTER, old={"enableAutopilot": True}, new={"enableAutopilot": True})


def pods(replicas: int) -> dict[str, Any]:
    """The defaults of a model's pods."""
    requests = {"cpu": "100m", "memory": "512Mi"}
    return {
        "spec": {"replicas": replicas, "template": {"spec": {"containers": [{"resources": {"requests": requests}}]}}}
    }


def change(*resources: Resource) -> dict[str, float]:
    return {cost.what: cost.after - cost.before for cost in costs.estimate(resources)}


@pytest.mark.parametrize(
    ("text", "number"), [("500m", 0.5), ("2", 2), ("1Gi", 1024**3), ("1G", 1e9), ("1.5", 1.5), ("many", 0)]
)
def test_quantities_are_read_as_kubernetes_reads_them(text: str, number: float) -> None:
    assert costs.quantity(text) == pytest.approx(number)


def test_another_pod_of_a_model_costs_what_the_documents_say() -> None:
    more = change(AUTOPILOT, Resource(token=costs.DEPLOYMENT, old=pods(1), new=pods(2)))
    (documented,) = re.findall(r"another one costs its pods alone, about (\d+) each", DOCS)
    assert round(more["pods on Autopilot"]) == int(documented)


def test_pods_cost_nothing_by_themselves_where_nodes_are_paid_for() -> None:
    standard = Resource(token=AUTOPILOT.token, old={}, new={})
    assert change(standard, Resource(token=costs.DEPLOYMENT, old=None, new=pods(2))) == {}
    assert change(Resource(token=costs.DEPLOYMENT, old=None, new=pods(2))) == {}


def test_what_stays_as_it_is_may_cost_otherwise_because_of_the_cluster() -> None:
    to_standard = Resource(token=AUTOPILOT.token, old={"enableAutopilot": True}, new={})
    kept = Resource(token=costs.DEPLOYMENT, old=pods(3), new=pods(3))
    assert change(to_standard, kept)["pods on Autopilot"] == pytest.approx(-3 * 5.55, abs=0.01)


def test_a_new_platform_costs_what_the_documents_say() -> None:
    def gateway(name: str) -> Resource:
        spec = {"spec": {"gatewayClassName": name}}
        return Resource(token=GATEWAY, old=None, new=spec)

    assert change(Resource(token=AUTOPILOT.token, old=None, new={})) == {"clusters": 73}
    assert change(gateway("gke-l7-global-external-managed")) == {"load balancers": 18.25}
    assert change(gateway("gke-l7-rilb")) == {"load balancers": 36.5}, "with a proxy of its own"
    assert change(gateway("contour")) == {}
    for figure in (costs.POD_CPU_HOUR, costs.POD_GIB_HOUR, costs.BALANCER_HOUR, costs.NAT_ADDRESS_HOUR):
        assert str(figure) in DOCS


def test_every_price_names_its_list_and_every_kind_without_one_is_told() -> None:
    assert all(price.source.startswith("https://cloud.google.com/") for price in costs.PRICES.values())
    bucket = Resource(token=BUCKET, old=None, new={})
    assert costs.without_figure([bucket, AUTOPILOT]) == ("buckets (by usage)",)
