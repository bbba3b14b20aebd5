"""Where the local cluster keeps its files, and which ports and address ranges it uses."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from local.cluster.errors import LocalError

PROJECT = Path(__file__).resolve().parents[2]

NODE = "local"
CONTEXT = "model-serving-local"
BUILDER = "model-serving"

# Ranges that home routers, container engines and other local clusters rarely use; podman has 10.88.0.0/16,
# kubeadm 10.96.0.0/12, kind 10.244.0.0/16.
POD_RANGE = IPv4Network("10.213.0.0/24")
SERVICE_RANGE = IPv4Network("10.214.0.0/16")
FALLBACK_ADDRESS = "10.215.0.1"  # for a machine that has no address of its own

BRIDGE = "ms-pods"
BRIDGE_ADDRESS = str(POD_RANGE[1])  # what the bridge plugin gives it, as the pods' gateway
OWN_INTERFACE = "ms-address"

LOOPBACK = "127.0.0.1"
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - for what cannot be told to listen on less
GATEWAY_ADDRESS = LOOPBACK  # where Envoy listens
GATEWAY_PORT = 8080
CLUSTER_GATEWAY_PORT = 80  # where pods find it, at the bridge's address: the port of the Gateway's listener
REGISTRY_PORT = 5000
REGISTRY = f"localhost:{REGISTRY_PORT}"

ETCD_PORT = 2379
ETCD_PEER_PORT = 2380
ETCD_HEALTH_PORT = 2381
API_PORT = 6443
CONTROLLER_MANAGER_PORT = 10257
SCHEDULER_PORT = 10259
KUBELET_PORT = 10250
KUBELET_HEALTH_PORT = 10248
KUBE_PROXY_HEALTH_PORT = 10256
KUBE_PROXY_METRICS_PORT = 10249
KUBE_ROUTER_HEALTH_PORT = 20244
CONTOUR_XDS_PORT = 8001
CONTOUR_HEALTH_PORT = 8000
CONTOUR_DEBUG_PORT = 6060
ENVOY_STATS_PORT = 8002
ENVOY_ADMINISTRATION_PORT = 9001

# The kernel takes 107 bytes as a socket's path; the kubelet's longest is ROOT/pod-resources/<random digits>.
SOCKET_PATH_LIMIT = 107
LONGEST_KUBELET_SOCKET = "/plugins_registry/0123456789012"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Every path of one instance.

    Attributes:
        name: tells instances on one machine apart; part of the runtime folder, the cgroup and the caches.
        state: what belongs to this checkout: the cluster's data, logs, kubeconfig and builder definition.
        bin: the tools that `make tools` built.
    """

    name: str
    state: Path
    bin: Path

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", self.name):
            raise LocalError(
                f"--name is {self.name!r}, which cannot be part of a path and a cgroup.\n"
                "  Write up to 31 lower-case letters, digits and dashes that start with a letter."
            )
        if len(f"{self.kubelet}{LONGEST_KUBELET_SOCKET}".encode()) > SOCKET_PATH_LIMIT:
            room = SOCKET_PATH_LIMIT - len(f"/local/kubelet{LONGEST_KUBELET_SOCKET}")
            raise LocalError(
                f"The state folder's path is too long for the kubelet's sockets: {self.state}\n"
                f"  Choose one of at most {room} bytes with --state, or move the checkout up."
            )

    @property
    def run(self) -> Path:
        """Sockets and the containers' runtime state: short paths that are worthless after a reboot."""
        return Path("/run/model-serving") / self.name

    @property
    def cgroup(self) -> str:
        return f"model-serving-{self.name}"

    @property
    def network(self) -> str:
        """Name of the CNI network."""
        return f"model-serving-{self.name}"

    @property
    def cluster(self) -> Path:
        return self.state / "local"

    @property
    def lock(self) -> Path:
        return self.cluster / "lock"

    @property
    def pids(self) -> Path:
        return self.cluster / "pids"

    @property
    def logs(self) -> Path:
        return self.cluster / "logs"

    @property
    def configuration(self) -> Path:
        return self.cluster / "configuration"

    @property
    def certificates(self) -> Path:
        return self.cluster / "certificates"

    @property
    def etcd(self) -> Path:
        return self.cluster / "etcd"

    @property
    def kubelet(self) -> Path:
        return self.cluster / "kubelet"

    @property
    def pod_logs(self) -> Path:
        return self.cluster / "pod-logs"

    @property
    def cni(self) -> Path:
        return self.cluster / "cni"

    @property
    def pod_addresses(self) -> Path:
        return self.cluster / "pod-addresses"

    @property
    def address(self) -> Path:
        """File that holds the address with which the cluster was started."""
        return self.cluster / "address"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def builder(self) -> Path:
        return self.state / "buildx" / "instances" / BUILDER

    @property
    def wheels(self) -> Path:
        return self.state / "wheels"

    @property
    def manifests(self) -> Path:
        """The custom resource definitions that came with Contour, laid beside the tools by `make tools`."""
        return self.bin.parent / "share-contour" / "crds"

    @property
    def shared_cache(self) -> Path:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "model-serving"

    @property
    def cache(self) -> Path:
        return self.shared_cache / "local" / self.name

    @property
    def containerd_socket(self) -> Path:
        return self.run / "containerd.sock"

    @property
    def buildkit_socket(self) -> Path:
        return self.run / "buildkit.sock"

    @property
    def envoy_socket(self) -> Path:
        return self.run / "envoy.sock"

    def tool(self, name: str) -> str:
        return str(self.bin / name)
