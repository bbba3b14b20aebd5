"""What every kind of stack on Google Cloud declares in Kubernetes, held to the definitions that a GKE cluster has.

The API server judges: unknown fields, types, enumerations, limits and CEL rules. A dry run goes through all of it and
stores nothing.
"""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cluster import gke
from tests.cluster.conftest import Project
from tests.manifests import VARIANTS, manifests

NAMESPACE: Final = "manifests"
"""In the place of a stack's own, whose objects may be there."""
Apply = Callable[[Sequence[dict[str, Any]]], "subprocess.CompletedProcess[str]"]

# Google's SDK marks modules as deprecated that it loads itself.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def cluster(checkout: Project) -> Iterator[Project]:
    gke.install_definitions(checkout)
    checkout.run("kubectl", "create", "namespace", NAMESPACE)
    yield checkout
    checkout.run("kubectl", "delete", "namespace", NAMESPACE)


@pytest.fixture
def apply(cluster: Project, tmp_path: Path) -> Apply:
    def run(items: Sequence[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
        placed = copy.deepcopy([*items])
        for metadata in (item["metadata"] for item in placed if "namespace" in item["metadata"]):
            metadata["namespace"] = NAMESPACE
        path = tmp_path / "manifests.json"
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": placed}))
        how = ("--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict")
        return cluster.run("kubectl", "apply", *how, "--filename", str(path), check=False)

    return run


@pytest.mark.parametrize("variant", VARIANTS)
def test_gke_would_take_every_manifest(variant: str, apply: Apply, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = manifests(variant, monkeypatch)
    done = apply(declared)
    assert done.returncode == 0, done.stdout
    assert len(done.stdout.splitlines()) == len(declared), done.stdout


def gateway(**tls: Any) -> dict[str, Any]:
    listener = {"name": "models", "port": 443, "protocol": "HTTPS", **({"tls": tls} if tls else {})}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "bad", "namespace": "models"},
        "spec": {"gatewayClassName": "gke-l7-global-external-managed", "listeners": [listener]},
    }


def of_gke(kind: str, default: dict[str, Any], target: str = "Service") -> dict[str, Any]:
    group = "" if target == "Service" else "gateway.networking.k8s.io"
    return {
        "apiVersion": "networking.gke.io/v1",
        "kind": kind,
        "metadata": {"name": "bad", "namespace": "models"},
        "spec": {"default": default, "targetRef": {"group": group, "kind": target, "name": "iris"}},
    }


def pod_monitoring(**endpoint: Any) -> dict[str, Any]:
    return {
        "apiVersion": "monitoring.googleapis.com/v1",
        "kind": "PodMonitoring",
        "metadata": {"name": "bad", "namespace": "models"},
        "spec": {"selector": {}, "endpoints": [{"port": "metrics", "interval": "30s", **endpoint}]},
    }


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        (gateway(mode="Terminate"), "certificateRefs or options must be specified"),
        (gateway(mode="Terminates"), "Unsupported value"),
        (of_gke("HealthCheckPolicy", {"config": {"type": "HTTP", "httpHealthCheck": {"path": "/"}}}), "unknown field"),
        (of_gke("HealthCheckPolicy", {"checkIntervalSec": 0}), "checkIntervalSec"),
        (of_gke("HealthCheckPolicy", {"config": {"type": "http"}}), "Unsupported value"),
        (of_gke("GCPBackendPolicy", {"timeoutSec": "30"}), "timeoutSec"),
        (of_gke("GCPBackendPolicy", {"connectionDraining": {"drainingTimeoutSec": 3601}}), "drainingTimeoutSec"),
        (of_gke("GCPGatewayPolicy", {"sslPolicies": "modern"}, "Gateway"), "unknown field"),
        (pod_monitoring(intervall="30s"), "unknown field"),
        (pod_monitoring(interval="half a minute"), "interval"),
    ],
)
def test_what_gke_refuses_is_refused_here(manifest: dict[str, Any], told: str, apply: Apply) -> None:
    done = apply([manifest])
    assert done.returncode != 0, done.stdout
    assert told in done.stdout
