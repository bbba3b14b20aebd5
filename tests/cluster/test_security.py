"""What is forbidden really fails, tried from inside."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster.conftest import Project

CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()
    print("connected")
except OSError as error:
    print("refused", error)
"""


def inside(project: Project, *command: str, check: bool = True) -> str:
    """Runs a command in the server of the iris model."""
    return project.kubectl("exec", "deployment/iris-dtc-1-0", "--", *command, check=check).stdout


def address_of(project: Project, model: str) -> str:
    selector = f"app.kubernetes.io/name={model}"
    return project.kubectl("get", "pod", "--selector", selector, "--output", "jsonpath={.items[0].status.podIP}").stdout


def test_a_server_reaches_itself_and_nobody_else(project: Project) -> None:
    own, other = address_of(project, "iris-dtc"), address_of(project, "wine-lgbm")
    kubernetes = project.kubectl(
        "get", "service", "kubernetes", "--namespace", "default", "--output", "jsonpath={.spec.clusterIP}"
    ).stdout
    assert inside(project, "python", "-c", CONNECT, own, "8080").startswith("connected")
    for address, port in ((other, "8080"), (other, "8082"), (kubernetes, "443")):
        assert inside(project, "python", "-c", CONNECT, address, port).startswith("refused"), address


def test_a_server_has_no_rights_on_its_machine(project: Project) -> None:
    assert inside(project, "id", "-u").strip() == "65532"
    assert "Read-only file system" in inside(project, "touch", "/opt/mlserver/x", check=False)
    assert "Permission denied" not in inside(project, "touch", "/tmp/x")
    assert "No such file" in inside(project, "ls", "/var/run/secrets/kubernetes.io", check=False)
    status = inside(project, "cat", "/proc/1/status")
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status


def test_nothing_listens_on_all_addresses_of_the_machine(project: Project) -> None:
    listening = [line.split()[3] for line in project.run("ss", "-Hltn").stdout.splitlines()]
    assert "127.0.0.1:8080" in listening
    assert [each for each in listening if each.startswith(("*", "0.0.0.0", "[::]"))] == []  # noqa: S104 - looked for


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hostNetwork": True}, "host namespaces"),
        ({"containers": [{"name": "a", "image": "a", "securityContext": {"privileged": True}}]}, "privileged"),
        ({"securityContext": {"runAsUser": 0}}, "runAsUser=0"),
    ],
)
def test_the_namespace_refuses_other_pods(project: Project, change: dict[str, object], reason: str) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "forbidden"},
        "spec": {"containers": [{"name": "a", "image": "a"}]} | change,
    }
    path = project.folder / ".state" / "forbidden.json"
    path.write_text(json.dumps(pod))
    refused = project.kubectl("apply", "--filename", str(path), check=False)
    assert refused.returncode != 0
    assert 'violates PodSecurity "restricted:latest"' in refused.stdout
    assert reason in refused.stdout


def test_nothing_secret_is_in_the_state(project: Project) -> None:
    exported = project.run("pulumi", "stack", "export", "--stack", "local").stdout
    assert "client-key-data" not in exported
    assert "PRIVATE KEY" not in exported


def test_an_update_leaves_no_copy_of_the_kubeconfig_behind(project: Project, tmp_path: Path) -> None:
    replace(project, environment={**project.environment, "TMPDIR": str(tmp_path)}).up("--expect-no-changes")
    assert not [*tmp_path.glob("kubeconfig*")]
