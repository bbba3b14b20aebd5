"""The processes of a node: containerd, the kubelet, kube-proxy and kube-router.

All their folders belong to this instance, so that a containerd or a kubelet that the user runs is not affected.
"""

from __future__ import annotations

import json
from pathlib import Path

from local.cluster import certificates, ports, probes
from local.cluster.layout import BRIDGE, EVERY_ADDRESS, LOOPBACK, NODE, POD_RANGE, SERVICE_RANGE, Layout
from local.cluster.pause import PAUSE_IMAGE
from local.cluster.processes import Process

CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"), Path("/usr/libexec/cni"))
CNI_PLUGINS = ("bridge", "host-local", "loopback")
EVICTION_SIGNALS = (
    *("memory.available", "nodefs.available", "nodefs.inodesFree"),
    *("imagefs.available", "imagefs.inodesFree", "pid.available"),
)
RESOLVERS = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))


def cni_folder() -> Path | None:
    """Folder of the distribution's CNI plugins."""
    return next((path for path in CNI_FOLDERS if all((path / plugin).exists() for plugin in CNI_PLUGINS)), None)


def containerd(layout: Layout) -> Process:
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


def kubelet(layout: Layout, address: str) -> Process:
    configuration = layout.configuration / "kubelet.json"
    return Process(
        name="kubelet",
        command=(
            f"{layout.bin}/kubelet",
            f"--config={configuration}",
            f"--kubeconfig={certificates.kubeconfig(layout, 'kubelet')}",
            f"--root-dir={layout.kubelet}",
            f"--cert-dir={layout.cluster}/kubelet-certificates",
            f"--hostname-override={NODE}",
            f"--node-ip={address}",
        ),
        ready=lambda: probes.http_ok(ports.KUBELET_HEALTH, "/healthz"),
        after=("kube-apiserver", "containerd"),
        ports={ports.KUBELET: "the kubelet", ports.KUBELET_HEALTH: "the kubelet, health"},
        address=address,
        files={configuration: json.dumps(_kubelet_configuration(layout, address), indent=2)},
    )


def _kubelet_configuration(layout: Layout, address: str) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": address,
        "port": ports.KUBELET,
        "healthzBindAddress": LOOPBACK,
        "healthzPort": ports.KUBELET_HEALTH,
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
        # The user's other programs share this disk and memory: a full disk is not a reason to evict a model.
        "evictionHard": dict.fromkeys(EVICTION_SIGNALS, "0%"),
        "imageGCHighThresholdPercent": 100,  # off
        "serializeImagePulls": False,
        "registryPullQPS": 0,
    }


def kube_proxy(layout: Layout) -> Process:
    configuration = layout.configuration / "kube-proxy.json"
    content = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(certificates.kubeconfig(layout, "admin"))},
        "clusterCIDR": str(POD_RANGE),
        "hostnameOverride": NODE,
        "healthzBindAddress": f"{LOOPBACK}:{ports.KUBE_PROXY_HEALTH}",
        "metricsBindAddress": f"{LOOPBACK}:{ports.KUBE_PROXY_METRICS}",
        # Connection tracking is for the user to tune, and cannot be set in a network namespace.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"localhostNodePorts": False},  # they would let the network reach services bound to loopback
    }
    return Process(
        name="kube-proxy",
        command=(f"{layout.bin}/kube-proxy", f"--config={configuration}"),
        ready=lambda: probes.http_ok(ports.KUBE_PROXY_HEALTH, "/healthz"),
        after=("kube-apiserver",),
        ports={ports.KUBE_PROXY_HEALTH: "kube-proxy, health", ports.KUBE_PROXY_METRICS: "kube-proxy, metrics"},
        files={configuration: json.dumps(content, indent=2)},
    )


def kube_router(layout: Layout) -> Process:
    """kube-router, which only enforces NetworkPolicy."""
    return Process(
        name="kube-router",
        command=(
            f"{layout.bin}/kube-router",
            f"--kubeconfig={certificates.kubeconfig(layout, 'admin')}",
            f"--hostname-override={NODE}",
            *("--run-firewall=true", "--run-router=false", "--run-service-proxy=false", "--run-loadbalancer=false"),
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            f"--health-port={ports.KUBE_ROUTER_HEALTH}",
            "--metrics-port=0",
        ),
        ready=lambda: probes.http_ok(ports.KUBE_ROUTER_HEALTH, "/healthz"),
        after=("node",),
        ports={ports.KUBE_ROUTER_HEALTH: "kube-router, health"},
        address=EVERY_ADDRESS,  # it has no flag for another; it only answers that it works
    )
