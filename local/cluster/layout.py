"""Paths, names and address ranges of the local cluster."""

import os
import re
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from string import Template

from local.cluster import ports
from local.tools.recipe import cache_folder
from model_serving.problems import Failure

PROJECT = Path(__file__).resolve().parents[2]
SETTINGS = Path(__file__).with_name("settings")

NODE = "local"
CONTEXT = "model-serving-local"
BUILDER = "model-serving"

# Ranges that home routers, container engines and other local clusters rarely use; podman has 10.88.0.0/16,
# kubeadm 10.96.0.0/12, kind 10.244.0.0/16.
POD_RANGE = IPv4Network("10.213.0.0/24")
SERVICE_RANGE = IPv4Network("10.214.0.0/16")
FALLBACK_ADDRESS = "10.215.0.1"  # for a machine without an address of its own

BRIDGE = "ms-pods"
BRIDGE_ADDRESS = str(POD_RANGE[1])  # the bridge plugin assigns it as the pods' gateway

LOOPBACK = "127.0.0.1"
REGISTRY_PORT = ports.IMAGE_REGISTRY
REGISTRY = f"localhost:{REGISTRY_PORT}"

# The kernel allows 107 bytes for a socket's path; the kubelet's longest is this below its root folder.
SOCKET_PATH_LIMIT = 107
LONGEST_KUBELET_SOCKET = "/plugins_registry/0123456789012"
SHORT = Path("/var/lib/model-serving")  # the kubelet's root folder if a checkout's path is too long for its sockets


@dataclass(kw_only=True)
class Layout:
    """Paths of one instance.

    Attributes:
        name: tells instances on one machine apart; part of the runtime folder, the cgroup and the caches.
        state: folder of this checkout's data: the cluster's data, logs, kubeconfig and builder definition.
        bin: folder of the tools that `make tools` builds.
    """

    name: str
    state: Path
    bin: Path

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", self.name):
            raise Failure(
                f"--name is {self.name!r}, which cannot be part of a path and a cgroup.\n"
                "  Use up to 31 lower-case letters, digits and dashes, starting with a letter."
            )
        self.run = Path("/run/model-serving") / self.name  # short paths for sockets; worthless after a reboot
        self.containerd_socket = self.run / "containerd.sock"
        self.buildkit_socket = self.run / "buildkit.sock"
        self.envoy_socket = self.run / "envoy.sock"
        self.kernel = self.run / "kernel"
        self.cgroup = self.network = f"model-serving-{self.name}"
        self.cache = cache_folder() / "local" / self.name

        self.kubeconfig = self.state / "kubeconfig"
        self.builder = self.state / "buildx" / "instances" / BUILDER
        self.wheels = self.state / "wheels"
        self.manifests = self.bin.parent / "share-contour" / "crds"

        self.cluster = self.state / "local"
        self.lock = self.cluster / "lock"
        self.pids = self.cluster / "pids"
        self.logs = self.cluster / "logs"
        self.configuration = self.cluster / "configuration"
        self.certificates = self.cluster / "certificates"
        self.etcd = self.cluster / "etcd"
        self.kubelet = self.cluster / "kubelet"
        self.pod_logs = self.cluster / "pod-logs"
        self.cni = self.cluster / "cni"
        self.pod_addresses = self.cluster / "pod-addresses"
        self.address = self.cluster / "address"  # the address with which the cluster was started
        if len(f"{self.kubelet}{LONGEST_KUBELET_SOCKET}".encode()) > SOCKET_PATH_LIMIT:
            self.kubelet = SHORT / self.name / "kubelet"

    @property
    def owner(self) -> tuple[int, int]:
        """User and group that the files of the checkout belong to, also where root does the work."""
        folder = next(path for path in (self.state, *self.state.parents) if path.exists())
        return folder.stat().st_uid, folder.stat().st_gid

    def filled(self, name: str, **further: object) -> str:
        """A file of ``settings/`` with its placeholders filled by this module, ports.py, these paths, or the caller."""
        values = {**globals(), **vars(ports), **vars(self), **further}
        return Template((SETTINGS / name).read_text(encoding="utf-8")).substitute(values)


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a whole file or none, even when the command is killed."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.touch(mode)
    temporary.write_text(text, encoding="utf-8")
    temporary.rename(path)


def hand_over(layout: Layout) -> None:
    """Give what was written as root to the checkout's owner, except what the running processes keep as theirs."""
    user, group = layout.owner
    if not user:
        return
    written = [layout.kubeconfig, layout.cluster, layout.lock, layout.logs, *layout.logs.glob("*")]
    written += [cache_folder(), layout.cache.parent]
    for folder in (layout.state / "buildx", layout.wheels, cache_folder() / "base-images", cache_folder() / "wheels"):
        written.append(folder)
        for entry in folder.glob("[!.]*"):  # not one that is being made, whose files have owners of their own
            written += [entry, *entry.rglob("*")]
    for path in written:
        if os.path.lexists(path) and path.lstat().st_uid != user:
            os.lchown(path, user, group)
