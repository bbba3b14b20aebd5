"""Kubernetes and image builds as far as the engine sees them: everything is accepted, nothing runs.

They check no types: that manifests are right and images work is proved by the cluster tests, on a real cluster.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, ClassVar, Final

from tests.engine.provider import Path_, Provider
from tests.engine.store import Properties, Request

_REPLACED_BY: Final = (("metadata", "name"), ("metadata", "namespace"), ("spec", "selector"), ("spec", "clusterIP"))


class Kubernetes(Provider):
    package: ClassVar[str] = "kubernetes"

    def defaulted(self, token: str, name: str, inputs: Properties, old: Properties, seed: str) -> Properties:
        metadata = inputs.get("metadata", {})
        if "name" in metadata or "generateName" in metadata:
            return inputs
        given = old.get("metadata", {}).get("name") or f"{name}-{seed[:8]}"
        return {**inputs, "metadata": {**metadata, "name": given}}

    def identify(self, request: Request) -> str:
        metadata = request.inputs.get("metadata", {})
        name = metadata.get("name", request.name)
        return f"{metadata['namespace']}/{name}" if "namespace" in metadata else str(name)

    def computed(self, request: Request) -> Properties:
        outputs: Properties = {
            "metadata": {"uid": _digest(request.identifier)[:36], "resourceVersion": "1", "generation": 1}
        }
        if request.token.endswith(":Gateway"):
            outputs["status"] = {"addresses": [{"type": "IPAddress", "value": "10.10.0.9"}]}
        if request.token.endswith(":Service"):
            outputs["spec"] = {"clusterIP": "10.30.0.9"}
        return outputs

    def replaced_by(self, token: str, path: Path_) -> bool:
        immutable = _REPLACED_BY[:2] if token.endswith(":Service") else _REPLACED_BY
        return any(path[: len(place)] == place for place in immutable)

    def config_replaced_by(self, key: str) -> bool:
        return key == "clusterIdentifier"


class DockerBuild(Provider):
    package: ClassVar[str] = "docker-build"
    can_make_again: ClassVar[bool] = True

    def identify(self, request: Request) -> str:
        return f"sha256:{_digest(request.inputs)}"

    def computed(self, request: Request) -> Properties:
        digest = self.identify(request)
        tag = (request.inputs.get("tags") or [request.name])[0]
        return {"digest": digest, "ref": f"{tag}@{digest}", "contextHash": _digest(request.inputs)}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
