"""The custom resource definitions, namespace and GatewayClass that Contour and Envoy need.

The Pulumi program declares the Gateway; without it, Envoy serves nothing.
"""

import hashlib
import json
import re
from pathlib import Path

from local.cluster.api import Api
from local.cluster.layout import Layout
from local.cluster.probes import wait_until
from model_serving.problems import Failure

CLASS = "contour"
NAMESPACE = "projectcontour"
VERSION_ANNOTATION = "model-serving.local/manifests"
SERVED_SECONDS = 20

_CLASSES = "/apis/gateway.networking.k8s.io/v1/gatewayclasses"
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_SEPARATOR = re.compile(r"^---.*$", re.MULTILINE)
_KIND = re.compile(r"^kind: CustomResourceDefinition$", re.MULTILINE)
_NAME = re.compile(r"^  name: (\S+)$", re.MULTILINE)


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
        raise Failure(
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
