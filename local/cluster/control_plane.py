"""etcd, the API server, the controller manager and the scheduler.

The API server listens on the machine's own address, because pods reach it there; everything else is on loopback.
"""

from __future__ import annotations

from pathlib import Path

from local.cluster import certificates, probes
from local.cluster.api import Api
from local.cluster.layout import (
    API_PORT,
    CONTROLLER_MANAGER_PORT,
    ETCD_HEALTH_PORT,
    ETCD_PEER_PORT,
    ETCD_PORT,
    LOOPBACK,
    POD_RANGE,
    SCHEDULER_PORT,
    SERVICE_RANGE,
    Layout,
)
from local.cluster.processes import Process


def processes(layout: Layout, address: str, api: Api) -> list[Process]:
    return [_etcd(layout), _api_server(layout, address, api), _controller_manager(layout), _scheduler(layout)]


def _etcd(layout: Layout) -> Process:
    keys = layout.certificates / "etcd"
    peer = f"https://{LOOPBACK}:{ETCD_PEER_PORT}"
    client = f"https://{LOOPBACK}:{ETCD_PORT}"
    flags = {
        "name": "local",
        "data-dir": layout.etcd,
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"local={peer}",
        "listen-metrics-urls": f"http://{LOOPBACK}:{ETCD_HEALTH_PORT}",
        "client-cert-auth": "true",
        "trusted-ca-file": keys / "ca.crt",
        "cert-file": keys / "server.crt",
        "key-file": keys / "server.key",
        "peer-client-cert-auth": "true",
        "peer-trusted-ca-file": keys / "ca.crt",
        "peer-cert-file": keys / "peer.crt",
        "peer-key-file": keys / "peer.key",
        "auto-compaction-retention": "5m",
    }
    return Process(
        name="etcd",
        command=_command(layout, "etcd", flags),
        ready=lambda: probes.http_ok(ETCD_HEALTH_PORT, "/readyz"),
        after=("certificates",),
        ports={ETCD_PORT: "etcd", ETCD_PEER_PORT: "etcd, peers", ETCD_HEALTH_PORT: "etcd, health"},
    )


def _api_server(layout: Layout, address: str, api: Api) -> Process:
    keys = layout.certificates
    flags = {
        "advertise-address": address,
        "bind-address": address,
        "secure-port": API_PORT,
        "allow-privileged": "true",
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "client-ca-file": keys / "ca.crt",
        "tls-cert-file": keys / "apiserver.crt",
        "tls-private-key-file": keys / "apiserver.key",
        "etcd-servers": f"https://{LOOPBACK}:{ETCD_PORT}",
        "etcd-cafile": keys / "etcd/ca.crt",
        "etcd-certfile": keys / "apiserver-etcd-client.crt",
        "etcd-keyfile": keys / "apiserver-etcd-client.key",
        "kubelet-client-certificate": keys / "apiserver-kubelet-client.crt",
        "kubelet-client-key": keys / "apiserver-kubelet-client.key",
        # Otherwise exec and logs look up the node's name, which no DNS server knows.
        "kubelet-preferred-address-types": "InternalIP",
        "proxy-client-cert-file": keys / "front-proxy-client.crt",
        "proxy-client-key-file": keys / "front-proxy-client.key",
        "requestheader-client-ca-file": keys / "front-proxy-ca.crt",
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-username-headers": "X-Remote-User",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
        "service-account-key-file": keys / "sa.pub",
        "service-account-signing-key-file": keys / "sa.key",
        "service-cluster-ip-range": SERVICE_RANGE,
        "profiling": "false",
    }
    return Process(
        name="kube-apiserver",
        command=_command(layout, "kube-apiserver", flags),
        ready=api.is_ready,
        after=("certificates", "etcd"),
        ports={API_PORT: "the Kubernetes API"},
        address=address,
    )


def _controller_manager(layout: Layout) -> Process:
    keys = layout.certificates
    user = certificates.kubeconfig(layout, "controller-manager")
    flags = _controller_flags(user, CONTROLLER_MANAGER_PORT) | {
        "allocate-node-cidrs": "true",
        "cluster-cidr": POD_RANGE,
        "node-cidr-mask-size": POD_RANGE.prefixlen,
        "service-cluster-ip-range": SERVICE_RANGE,
        "cluster-signing-cert-file": keys / "ca.crt",
        "cluster-signing-key-file": keys / "ca.key",
        "client-ca-file": keys / "ca.crt",
        "root-ca-file": keys / "ca.crt",
        "requestheader-client-ca-file": keys / "front-proxy-ca.crt",
        "service-account-private-key-file": keys / "sa.key",
        "use-service-account-credentials": "true",
        # Its defaults stretch the first start by seconds: each controller fetches a token of its own.
        "kube-api-qps": 500,
        "kube-api-burst": 1000,
        # Its default is a folder of the host that other kubelets use too.
        "flex-volume-plugin-dir": layout.cluster / "volume-plugins",
    }
    return Process(
        name="kube-controller-manager",
        command=_command(layout, "kube-controller-manager", flags),
        ready=lambda: probes.https_ok(CONTROLLER_MANAGER_PORT, "/healthz"),
        after=("kube-apiserver",),
        ports={CONTROLLER_MANAGER_PORT: "the controller manager, health"},
    )


def _scheduler(layout: Layout) -> Process:
    user = certificates.kubeconfig(layout, "scheduler")
    return Process(
        name="kube-scheduler",
        command=_command(layout, "kube-scheduler", _controller_flags(user, SCHEDULER_PORT)),
        ready=lambda: probes.https_ok(SCHEDULER_PORT, "/healthz"),
        after=("kube-apiserver",),
        ports={SCHEDULER_PORT: "the scheduler, health"},
    )


def _controller_flags(user: Path, port: int) -> dict[str, object]:
    return {
        "kubeconfig": user,
        "authentication-kubeconfig": user,
        "authorization-kubeconfig": user,
        "bind-address": LOOPBACK,
        "secure-port": port,
        "leader-elect": "false",  # there is one of each; waiting for a lease would cost seconds
        "profiling": "false",
    }


def _command(layout: Layout, program: str, flags: dict[str, object]) -> tuple[str, ...]:
    return (layout.tool(program), *(f"--{key}={value}" for key, value in flags.items()))
