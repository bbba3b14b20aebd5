"""The bare way to release a version: what a careful person types, with manifests of her own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.bench.checkout import MODEL, kubectl, run

NAME: Final = "bench-bare"
PATH: Final = f"/{NAME}"
PORT: Final = 8080
LABELS: Final = {"app": NAME}
ROLLOUT: Final = "--timeout=180s"


class Bare:
    """One Deployment that is updated in place, its Service and its route.

    Its pod is that of the program's own server: the same image layers, probes, settings and time to drain.

    Args:
        deployment: the program's own, as kubectl shows it.
        registry: where images are pushed to.
        runtime: image below the model's, by digest.
    """

    def __init__(self, deployment: dict[str, Any], *, registry: str, runtime: str) -> None:
        self._deployment = deployment
        self._registry = registry
        self._runtime = runtime

    def image(self, version: str) -> str:
        return f"{self._registry}/{NAME}:{version}"

    def build(self, folder: Path) -> None:
        output = f"type=image,name={self.image(folder.name)},push=true,oci-mediatypes=true,compression=zstd"
        run(
            *("buildctl", "--addr", builder_address(), "build", "--frontend", "dockerfile.v0"),
            *("--local", f"context={folder}", "--local", "dockerfile=server", "--opt", "filename=model.Dockerfile"),
            *("--opt", f"build-arg:RUNTIME={self._runtime}", "--opt", f"build-arg:MODEL={MODEL}"),
            *("--output", output),
        )

    def apply(self, version: str) -> None:
        items = [server(self._deployment, NAME, image=self.image(version), version=version), _service(), _route()]
        kubectl("apply", "--filename=-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))

    def await_rollout(self) -> None:
        kubectl("rollout", "status", f"deployment/{NAME}", ROLLOUT)

    @contextmanager
    def deployed(self, folder: Path) -> Iterator[None]:
        """With a first version, for a while."""
        try:
            self.build(folder)
            self.apply(folder.name)
            self.await_rollout()
            yield
        finally:
            kubectl("delete", f"deployment/{NAME}", f"service/{NAME}", f"httproute/{NAME}", "--ignore-not-found")


def builder_address() -> str:
    """Of the build daemon that the stack's builder leads to."""
    instance = Path(os.environ["BUILDX_CONFIG"]) / "instances" / "model-serving"
    address: str = json.loads(instance.read_text())["Nodes"][0]["Endpoint"]
    return address


def server(deployment: dict[str, Any], name: str, *, image: str | None = None, version: str | None = None) -> Any:
    """A Deployment of another name with the same pod, or the same but for its image and the version in its probes."""
    spec: dict[str, Any] = json.loads(json.dumps(deployment["spec"]))
    own_version = spec["template"]["metadata"]["labels"]["app.kubernetes.io/version"]
    (container,) = spec["template"]["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe"):
        request = container[probe]["httpGet"]
        request["path"] = request["path"].replace(f"/versions/{own_version}/", f"/versions/{version or own_version}/")
    container["image"] = image or container["image"]
    labels = {"app": name}
    spec["selector"] = {"matchLabels": labels}
    spec["template"]["metadata"] = {"labels": labels}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def _service() -> dict[str, Any]:
    spec = {"selector": LABELS, "ports": [{"port": PORT, "targetPort": "http"}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME}, "spec": spec}


def _route() -> dict[str, Any]:
    rewrite = {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": f"/v2/models/{MODEL}"}}
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": PATH}}],
        "filters": [{"type": "URLRewrite", "urlRewrite": rewrite}],
        "backendRefs": [{"name": NAME, "port": PORT}],
    }
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": NAME},
        "spec": {"parentRefs": [{"name": "gateway"}], "rules": [rule]},
    }
