"""Kinds of the Kubernetes provider that declare objects themselves, which a stack of one's own may use.

A compiled provider has them with types of our own, see local/tools/pulumi-resource-kubernetes/stub.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from tests.cluster.conftest import Project

PROGRAM: Final = """
import pulumi_kubernetes as kubernetes

manifest = '''
apiVersion: v1
kind: ConfigMap
metadata: {name: of-manifest, namespace: models}
data: {value: plain}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: of-manifest, namespace: models}
rules: []
'''
kubernetes.yaml.v2.ConfigGroup("manifest", yaml=manifest)
kubernetes.helm.v4.Chart(
    "chart",
    chart="./chart",
    namespace="models",
    values={"value": "given"},
    repository_opts=kubernetes.helm.v4.RepositoryOptsArgs(username="somebody"),
    post_renderer=kubernetes.helm.v4.PostRendererArgs(command="sed", args=["s/given/rendered/"]),
)
"""
CHART: Final = "apiVersion: v2\nname: chart\nversion: 1.0.0\n"
TEMPLATE: Final = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: of-chart}
data: {value: "{{ .Values.value }}"}
"""


def test_manifests_and_charts_become_objects(project: Project, tmp_path: Path) -> None:
    (tmp_path / "__main__.py").write_text(PROGRAM)
    (tmp_path / "Pulumi.yaml").write_text(
        f"name: kinds\nruntime: {{name: python, options: {{virtualenv: {project.folder}/.venv}}}}\n"
        f"backend: {{url: 'file://{tmp_path}'}}\n"
    )
    templates = tmp_path / "chart" / "templates"
    templates.mkdir(parents=True)
    (templates.parent / "Chart.yaml").write_text(CHART)
    (templates / "object.yaml").write_text(TEMPLATE)
    own = {"PULUMI_BACKEND_URL": f"file://{tmp_path}", "PULUMI_CONFIG_PASSPHRASE": "kinds"}
    other = Project(folder=tmp_path, environment={**project.environment, **own})
    other.run("pulumi", "stack", "init", "kinds")
    try:
        other.run("pulumi", "up", "--yes", "--skip-preview", "--stack", "kinds")
        maps = json.loads(project.kubectl("get", "configmaps", "of-manifest", "of-chart", "--output=json").stdout)
        assert [each["data"]["value"] for each in maps["items"]] == ["plain", "rendered"]
        project.kubectl("get", "role", "of-manifest")
    finally:
        other.run("pulumi", "destroy", "--yes", "--skip-preview", "--stack", "kinds")
    project.kubectl("wait", "--for=delete", "configmaps/of-manifest", "configmaps/of-chart", "--timeout=60s")
