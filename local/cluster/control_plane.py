"""etcd, the API server, the controller manager and the scheduler.

The API server listens on the machine's own address, because pods reach it there; all others listen on loopback.
"""

from __future__ import annotations

from pathlib import Path

from local.cluster import certificates, ports, probes
from local.cluster.api import Api
from local.cluster.layout import LOOPBACK, POD_RANGE, SERVICE_RANGE, Layout
from local.cluster.processes import Process


def etcd(layout: Layout) -> Process:
    keys = layout.certificates / "etcd"
    peer = f"https://{LOOPBACK}:{ports.ETCD_PEER}"
    client = f"https://{LOOPBACK}:{ports.ETCD}"
    flags = {
        "name": "local",
        "data-dir": layout.etcd,
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"local={peer}",
        "listen-metrics-urls": f"http://{LOOPBACK}:{ports.ETCD_HEALTH}",
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
        ready=lambda: probes.http_ok(ports.ETCD_HEALTH, "/readyz"),
        after=("certificates",),
        ports={ports.ETCD: "etcd", ports.ETCD_PEER: "etcd, peers", ports.ETCD_HEALTH: "etcd, health"},
    )


def api_server(layout: Layout, address: str) -> Process:
    keys = layout.certificates
    flags = {
        "advertise-address": address,
        "bind-address": address,
        "secure-port": ports.API,
        "allow-privileged": "true",
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "client-ca-file": keys / "ca.crt",
        "tls-cert-file": keys / "apiserver.crt",
        "tls-private-key-file": keys / "apiserver.key",
        "etcd-servers": f"https://{LOOPBACK}:{ports.ETCD}",
        "etcd-cafile": keys / "etcd/ca.crt",
        "etcd-certfile": keys / "apiserver-etcd-client.crt",
        "etcd-keyfile": keys / "apiserver-etcd-client.key",
        "kubelet-client-certificate": keys / "apiserver-kubelet-client.crt",
        "kubelet-client-key": keys / "apiserver-kubelet-client.key",
        # Otherwise exec and logs resolve the node's name, which no DNS server knows.
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
        ready=Api(layout, address).is_ready,
        after=("certificates", "etcd"),
        ports={ports.API: "the Kubernetes API"},
        address=address,
    )


def controller_manager(layout: Layout) -> Process:
    keys = layout.certificates
    user = certificates.kubeconfig(layout, "controller-manager")
    flags = _controller_flags(user, ports.CONTROLLER_MANAGER) | {
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
        # The defaults add seconds to the first start, because each controller fetches its own token.
        "kube-api-qps": 500,
        "kube-api-burst": 1000,
        # The default is a folder of the host that other kubelets also use.
        "flex-volume-plugin-dir": layout.cluster / "volume-plugins",
    }
    return Process(
        name="kube-controller-manager",
        command=_command(layout, "kube-controller-manager", flags),
        ready=lambda: probes.https_ok(ports.CONTROLLER_MANAGER, "/healthz"),
        after=("kube-apiserver",),
        ports={ports.CONTROLLER_MANAGER: "the controller manager, health"},
    )


def scheduler(layout: Layout) -> Process:
    user = certificates.kubeconfig(layout, "scheduler")
    return Process(
        name="kube-scheduler",
        command=_command(layout, "kube-scheduler", _controller_flags(user, ports.SCHEDULER)),
        ready=lambda: probes.https_ok(ports.SCHEDULER, "/healthz"),
        after=("kube-apiserver",),
        ports={ports.SCHEDULER: "the scheduler, health"},
    )


def _controller_flags(user: Path, port: int) -> dict[str, object]:
    return {
        "kubeconfig": user,
        "authentication-kubeconfig": user,
        "authorization-kubeconfig": user,
        "bind-address": LOOPBACK,
        "secure-port": port,
        "leader-elect": "false",  # there is only one of each; waiting for a lease takes seconds
        "profiling": "false",
    }


def _command(layout: Layout, program: str, flags: dict[str, object]) -> tuple[str, ...]:
    return (f"{layout.bin}/{program}", *(f"--{key}={value}" for key, value in flags.items()))
