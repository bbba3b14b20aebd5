"""etcd, the API server, the controller manager and the scheduler.

The API server listens on the machine's own address, because pods reach it there; all others listen on loopback.
"""

from __future__ import annotations

from local.cluster import ports, probes
from local.cluster.api import Api
from local.cluster.configuration import command
from local.cluster.layout import POD_RANGE, Layout
from local.cluster.processes import Process


def etcd(layout: Layout) -> Process:
    return Process(
        name="etcd",
        command=command("etcd", layout),
        ready=lambda: probes.http_ok(ports.ETCD_HEALTH, "/readyz"),
        after=("certificates",),
        ports={ports.ETCD: "etcd", ports.ETCD_PEER: "etcd, peers", ports.ETCD_HEALTH: "etcd, health"},
    )


def api_server(layout: Layout, address: str) -> Process:
    return Process(
        name="kube-apiserver",
        command=command("kube-apiserver", layout, own_address=address),
        ready=Api(layout, address).is_ready,
        after=("certificates", "etcd"),
        ports={ports.API: "the Kubernetes API"},
        address=address,
    )


def controller_manager(layout: Layout) -> Process:
    return Process(
        name="kube-controller-manager",
        command=command("kube-controller-manager", layout, pod_range_bits=POD_RANGE.prefixlen),
        ready=lambda: probes.https_ok(ports.CONTROLLER_MANAGER, "/healthz"),
        after=("kube-apiserver",),
        ports={ports.CONTROLLER_MANAGER: "the controller manager, health"},
    )


def scheduler(layout: Layout) -> Process:
    return Process(
        name="kube-scheduler",
        command=command("kube-scheduler", layout),
        ready=lambda: probes.https_ok(ports.SCHEDULER, "/healthz"),
        after=("kube-apiserver",),
        ports={ports.SCHEDULER: "the scheduler, health"},
    )
