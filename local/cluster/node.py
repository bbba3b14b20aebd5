"""The processes of a node: containerd, the kubelet, kube-proxy and kube-router.

All their folders belong to this instance, so that a containerd or a kubelet that the user runs is not affected.
"""

from __future__ import annotations

from pathlib import Path

from local.cluster import ports, probes
from local.cluster.configuration import command, files, filled
from local.cluster.layout import EVERY_ADDRESS, Layout
from local.cluster.pause import PAUSE_IMAGE
from local.cluster.processes import Process

CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"), Path("/usr/libexec/cni"))
CNI_PLUGINS = ("bridge", "host-local", "loopback")
RESOLVERS = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))


def cni_folder() -> Path | None:
    """Folder of the distribution's CNI plugins."""
    return next((path for path in CNI_FOLDERS if all((path / plugin).exists() for plugin in CNI_PLUGINS)), None)


def containerd(layout: Layout) -> Process:
    configuration = files(layout, "containerd.toml", pause_image=PAUSE_IMAGE, cni_folder=cni_folder())
    return Process(
        name="containerd",
        command=("containerd", "--config", *map(str, configuration)),
        ready=lambda: probes.socket_accepts(layout.containerd_socket),
        files=configuration | {layout.cni / "10-model-serving.conflist": filled("network.conflist", layout)},
    )


def kubelet(layout: Layout, address: str) -> Process:
    resolver = next(filter(Path.exists, RESOLVERS), "")
    return Process(
        name="kubelet",
        command=command("kubelet", layout, own_address=address),
        ready=lambda: probes.http_ok(ports.KUBELET_HEALTH, "/healthz"),
        after=("kube-apiserver", "containerd"),
        ports={ports.KUBELET: "the kubelet", ports.KUBELET_HEALTH: "the kubelet, health"},
        address=address,
        files=files(layout, "kubelet.yaml", own_address=address, resolver=resolver),
    )


def kube_proxy(layout: Layout) -> Process:
    return Process(
        name="kube-proxy",
        command=command("kube-proxy", layout),
        ready=lambda: probes.http_ok(ports.KUBE_PROXY_HEALTH, "/healthz"),
        after=("kube-apiserver",),
        ports={ports.KUBE_PROXY_HEALTH: "kube-proxy, health", ports.KUBE_PROXY_METRICS: "kube-proxy, metrics"},
        files=files(layout, "kube-proxy.yaml"),
    )


def kube_router(layout: Layout) -> Process:
    return Process(
        name="kube-router",
        command=command("kube-router", layout),
        ready=lambda: probes.http_ok(ports.KUBE_ROUTER_HEALTH, "/healthz"),
        after=("node",),
        ports={ports.KUBE_ROUTER_HEALTH: "kube-router, health"},
        address=EVERY_ADDRESS,  # it has no flag for another; it only answers that it works
    )
