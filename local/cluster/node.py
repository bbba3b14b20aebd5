"""containerd, the kubelet, kube-proxy and kube-router: what makes this machine a node.

All of their folders are this instance's own, so that a containerd or a kubelet that the user runs is never touched.
"""

from __future__ import annotations

import json
from pathlib import Path

from local.cluster import certificates, probes
from local.cluster.layout import (
    BRIDGE,
    EVERY_ADDRESS,
    KUBE_PROXY_HEALTH_PORT,
    KUBE_PROXY_METRICS_PORT,
    KUBE_ROUTER_HEALTH_PORT,
    KUBELET_HEALTH_PORT,
    KUBELET_PORT,
    LOOPBACK,
    NODE,
    POD_RANGE,
    SERVICE_RANGE,
    Layout,
)
from local.cluster.pause import PAUSE_IMAGE
from local.cluster.processes import Process

CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"), Path("/usr/libexec/cni"))
CNI_PLUGINS = ("bridge", "host-local", "loopback")
RESOLVERS = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))


def cni_folder() -> Path | None:
    """Where the distribution keeps its CNI plugins."""
    return next((path for path in CNI_FOLDERS if all((path / plugin).exists() for plugin in CNI_PLUGINS)), None)


def processes(layout: Layout, address: str) -> list[Process]:
    return [_containerd(layout), _kubelet(layout, address), _kube_proxy(layout), _kube_router(layout)]


def _containerd(layout: Layout) -> Process:
    configuration = layout.configuration / "containerd.toml"
    return Process(
        name="containerd",
        command=("containerd", "--config", str(configuration)),
        ready=lambda: probes.socket_accepts(layout.containerd_socket),
        files={
            configuration: _containerd_configuration(layout),
            layout.cni / "10-model-serving.conflist": _network(layout),
        },
    )


def _containerd_configuration(layout: Layout) -> str:
    return f"""\
version = 2
root = "{layout.cache}/containerd"
state = "{layout.run}/containerd"
[grpc]
  address = "{layout.containerd_socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{layout.cluster}/containerd-opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Without it a sandbox fails where this very process may not lower its score: "can't get final child's PID from pipe".
  restrict_oom_score_adj = true
  # Under our own state folder instead of /run/netns, where `stop` could not tell whose they are.
  netns_mounts_under_state_dir = true
  stream_server_address = "{LOOPBACK}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_folder()}"
    conf_dir = "{layout.cni}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{layout.run}/runc"
"""


def _network(layout: Layout) -> str:
    addresses = {"type": "host-local", "dataDir": str(layout.pod_addresses), "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,  # a pod may reach itself through its own Service
        "ipam": addresses | {"ranges": [[{"subnet": str(POD_RANGE)}]]},
    }
    return json.dumps({"cniVersion": "0.4.0", "name": layout.network, "plugins": [bridge]}, indent=2)


def _kubelet(layout: Layout, address: str) -> Process:
    configuration = layout.configuration / "kubelet.json"
    return Process(
        name="kubelet",
        command=(
            layout.tool("kubelet"),
            f"--config={configuration}",
            f"--kubeconfig={certificates.kubeconfig(layout, 'kubelet')}",
            f"--root-dir={layout.kubelet}",
            f"--cert-dir={layout.cluster}/kubelet-certificates",
            f"--hostname-override={NODE}",
            f"--node-ip={address}",
        ),
        ready=lambda: probes.http_ok(KUBELET_HEALTH_PORT, "/healthz"),
        after=("kube-apiserver", "containerd"),
        ports={KUBELET_PORT: "the kubelet", KUBELET_HEALTH_PORT: "the kubelet, health"},
        address=address,
        files={configuration: json.dumps(_kubelet_configuration(layout, address), indent=2)},
    )


def _kubelet_configuration(layout: Layout, address: str) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": address,
        "port": KUBELET_PORT,
        "healthzBindAddress": LOOPBACK,
        "healthzPort": KUBELET_HEALTH_PORT,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.certificates / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}",
        "failSwapOn": False,
        "failCgroupV1": False,
        "podLogsDir": str(layout.pod_logs),
        "volumePluginDir": str(layout.cluster / "volume-plugins"),
        "resolvConf": next((str(path) for path in RESOLVERS if path.exists()), ""),
        # The user's disk and memory are shared with everything else on it: a full disk is no reason to evict a model.
        "evictionHard": dict.fromkeys(
            (
                "memory.available",
                "nodefs.available",
                "nodefs.inodesFree",
                "imagefs.available",
                "imagefs.inodesFree",
                "pid.available",
            ),
            "0%",
        ),
        "imageGCHighThresholdPercent": 100,  # off
        "serializeImagePulls": False,
        "registryPullQPS": 0,
    }


def _kube_proxy(layout: Layout) -> Process:
    configuration = layout.configuration / "kube-proxy.json"
    return Process(
        name="kube-proxy",
        command=(layout.tool("kube-proxy"), f"--config={configuration}"),
        ready=lambda: probes.http_ok(KUBE_PROXY_HEALTH_PORT, "/healthz"),
        after=("kube-apiserver",),
        ports={KUBE_PROXY_HEALTH_PORT: "kube-proxy, health", KUBE_PROXY_METRICS_PORT: "kube-proxy, metrics"},
        files={configuration: json.dumps(_kube_proxy_configuration(layout), indent=2)},
    )


def _kube_proxy_configuration(layout: Layout) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(certificates.kubeconfig(layout, "admin"))},
        "clusterCIDR": str(POD_RANGE),
        "hostnameOverride": NODE,
        "healthzBindAddress": f"{LOOPBACK}:{KUBE_PROXY_HEALTH_PORT}",
        "metricsBindAddress": f"{LOOPBACK}:{KUBE_PROXY_METRICS_PORT}",
        # The machine's connection tracking is the user's own to tune, and cannot be set in a network namespace.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"localhostNodePorts": False},  # would let the network reach services bound to loopback
    }


def _kube_router(layout: Layout) -> Process:
    """Enforces NetworkPolicy and nothing else."""
    return Process(
        name="kube-router",
        command=(
            layout.tool("kube-router"),
            f"--kubeconfig={certificates.kubeconfig(layout, 'admin')}",
            f"--hostname-override={NODE}",
            "--run-firewall=true",
            "--run-router=false",
            "--run-service-proxy=false",
            "--run-loadbalancer=false",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            f"--health-port={KUBE_ROUTER_HEALTH_PORT}",
            "--metrics-port=0",
        ),
        ready=lambda: probes.http_ok(KUBE_ROUTER_HEALTH_PORT, "/healthz"),
        after=("node",),
        ports={KUBE_ROUTER_HEALTH_PORT: "kube-router, health"},
        address=EVERY_ADDRESS,  # it has no flag for another; it tells nothing but that it works
    )
