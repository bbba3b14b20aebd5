"""The whole stack dev: Google Cloud by the stand-in, everything in Kubernetes for real."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from components.google.observability import MLSERVER_METRICS
from tests.cluster import gke
from tests.cluster.conftest import ENDPOINT, Project, ask
from tests.cluster.test_serving import IRIS
from tests.engine.harness import pulumi_home

STACK = "dev"
HERE = {
    # Google's registry, gateway and image builder are far away; these are on this machine.
    "model-serving:registry": "localhost:5000",
    "model-serving:gateway": {"className": "contour", "endpoint": ENDPOINT},
}
SCRAPE = """
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:8082/metrics", timeout=5).read().decode())
"""


def credentials(kubeconfig: Path) -> tuple[str, dict[str, str]]:
    """Address of the local API server, and what its administrator shows to it."""
    content = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
    (cluster,), (user,) = content["clusters"], content["users"]
    authority = kubeconfig.with_name("authority.crt")
    authority.write_bytes(base64.b64decode(cluster["cluster"]["certificate-authority-data"]))
    certificate, key = (
        base64.b64decode(user["user"][f"client-{part}-data"]).decode() for part in ("certificate", "key")
    )
    return cluster["cluster"]["server"], {"clientCertificateData": certificate, "clientKeyData": key}


def write_login(folder: Path, status: dict[str, str]) -> None:
    """A program in the place of GKE's login plugin; it says who the administrator of the local cluster is."""
    credential = {"apiVersion": "client.authentication.k8s.io/v1beta1", "kind": "ExecCredential", "status": status}
    folder.mkdir()
    (folder / "credential.json").write_text(json.dumps(credential))
    plugin = folder / "gke-gcloud-auth-plugin"
    plugin.write_text(f"#!/bin/sh\ncat {folder / 'credential.json'}\n")
    plugin.chmod(0o755)


def write_stack(folder: Path) -> None:
    """The stack file as it is committed, with what is on this machine in the place of what is at Google."""
    path = folder / "stacks" / f"Pulumi.{STACK}.yaml"
    stack = yaml.safe_load(path.read_text())
    local = yaml.safe_load((folder / "stacks" / "Pulumi.local.yaml").read_text())
    stack["config"] |= HERE | {"model-serving:images": local["config"]["model-serving:images"]}
    path.write_text(yaml.safe_dump(stack))


def program_environment(project: Project, cloud: Path) -> dict[str, str]:
    server, status = credentials(project.folder / ".state" / "kubeconfig")
    write_login(cloud / "login", status)
    (cloud / "backend").mkdir()
    home = pulumi_home(cloud / "home", standins=("gcp",))
    return {
        **project.environment,
        "PATH": f"{cloud / 'login'}{os.pathsep}{project.environment['PATH']}",
        "PULUMI_HOME": str(home),
        "PULUMI_BACKEND_URL": f"file://{cloud / 'backend'}?metadata=skip",
        "STANDIN_STATE": str(cloud),
        "STANDIN_FAULTS": str(cloud / "faults.json"),
        "STANDIN_TYPES": str(home / "types"),
        # Nothing listens there: Google would not know this cluster's status.
        "GOOGLE_CONTAINER_CUSTOM_ENDPOINT": "http://127.0.0.1:9/",
        "STANDIN_CLUSTER_DNS_ENDPOINT": server.removeprefix("https://"),
        # The kubeconfig has no authority, because Google's front door has a public certificate; this one's is here.
        "SSL_CERT_FILE": str(project.folder / ".state" / "authority.crt"),
    }


@pytest.fixture
def dev(vacated: Project) -> Iterator[Project]:
    """The stack dev in the cluster of these tests."""
    gke.install_definitions(vacated)
    cloud = vacated.folder / ".state" / "cloud"
    cloud.mkdir()
    write_stack(vacated.folder)
    project = replace(vacated, environment=program_environment(vacated, cloud))
    project.run("pulumi", "stack", "init", STACK, "--secrets-provider", "passphrase")
    yield project
    project.run("pulumi", "destroy", "--yes", "--skip-preview", "--stack", STACK)
    vacated.run("git", "checkout", "--quiet", "stacks")


def held(project: Project) -> set[str]:
    state = json.loads((project.folder / ".state" / "cloud" / "gcp.json").read_text())
    return {resource["token"] for resource in state["resources"].values()}


@pytest.mark.thorough(
    "tests/engine/test_stacks.py, test_manifests.py with the kinds of GKE, and the stack local for what serves"
)
def test_the_stack_comes_up_serves_takes_a_version_and_goes(dev: Project) -> None:
    update = ("pulumi", "up", "--yes", "--skip-preview", "--stack", STACK)
    dev.run(*update)
    assert "gcp:container/cluster:Cluster" in held(dev)
    assert ask("/mlapi/v2/models/iris-dtc/infer", IRIS)[1]["model_version"] == "1.0"
    dev.run(*update, "--expect-no-changes")

    exported_metrics_are_those_that_dashboards_and_alerts_use(dev)

    folder = dev.release("iris-dtc", "1.0.1", like="1.0")
    try:
        dev.run(*update)
        assert ask("/mlapi/v2/models/iris-dtc/infer", IRIS)[1]["model_version"] == "1.0.1"
    finally:
        dev.run("rm", "--recursive", str(folder))
    assert "PRIVATE KEY" not in dev.run("pulumi", "stack", "export", "--stack", STACK).stdout

    dev.run("pulumi", "destroy", "--yes", "--skip-preview", "--stack", STACK)
    assert {token for token in held(dev) if "workloadIdentityPool" not in token} == set()
    assert "NotFound" in dev.run("kubectl", "get", "namespace", "models", check=False).stdout


def exported_metrics_are_those_that_dashboards_and_alerts_use(dev: Project) -> None:
    scraped = dev.kubectl("exec", "deployment/iris-dtc-1-0", "--", "python", "-c", SCRAPE).stdout
    for metric, labels in MLSERVER_METRICS.items():
        samples = re.findall(rf"^{metric}\{{(.*?)\}} ", scraped, re.MULTILINE)
        assert samples, f"{metric} is not exported"
        assert {name for sample in samples for name in re.findall(r'(\w+)="', sample)} == labels, metric
