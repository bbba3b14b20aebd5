"""What this program declares in Kubernetes against the types of the provider's SDK."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pulumi
import pytest

from components.google.cluster import ClusterAccess
from components.manifest import CORE, Manifest
from components.serving.contract import CheckArgs, ContractChecks, ContractChecksArgs
from components.serving.namespace import ServingNamespace
from components.serving.server import ModelServer
from tests.engine import sdk_types
from tests.unit.conftest import Recorder
from tests.unit.test_components import server_args

Declare = Callable[[Callable[[], object]], Recorder]


def test_every_key_of_a_manifest_is_one_that_kubernetes_has(declare: Declare) -> None:
    def program() -> None:
        ServingNamespace("models", "models")
        server = server_args(autoscaling={"maximum": 2}, gpu={"type": "nvidia-l4"}, priority="high")
        ModelServer("iris-dtc-1-0", server)
        checks = ContractChecks("contract", ContractChecksArgs(namespace="models", scripts={}, url="http://10.0.0.5"))
        checks.check(
            CheckArgs(label="a", model="a", version="1", image="a", fingerprint="f00d", seconds=1, answer_seconds=1)
        )
        ClusterAccess("access", {"plan": "plan@example.com"})

    made = {key: inputs for key, inputs in declare(program).made.items() if key[0].startswith("kubernetes:")}
    assert {token.rpartition(":")[2] for token, _ in made} == {
        *("ClusterRole", "ClusterRoleBinding", "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "Job"),
        *("Namespace", "NetworkPolicy", "PodDisruptionBudget", "Service"),
    }
    assert {key: found for key, inputs in made.items() if (found := list(sdk_types.problems(key[0], inputs)))} == {}


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"replica": 1}, "spec.replica"),
        ({"template": {"spec": {"containers": [{"name": "a", "image_": "b"}]}}}, "spec.template.spec.containers[0]"),
    ],
)
def test_a_misspelt_key_would_be_seen(declare: Declare, spec: dict[str, Any], told: str) -> None:
    def program() -> None:
        Manifest("server", "apps/v1", "Deployment", metadata={}, spec=spec, opts=pulumi.ResourceOptions())

    ((token, _),) = (recorder := declare(program)).made
    assert any(place.startswith(told) for place, _ in sdk_types.problems(token, recorder.made[token, "server"]))


def test_the_core_of_kubernetes_has_a_name_in_types_and_none_in_manifests(declare: Declare) -> None:
    def program() -> None:
        Manifest("server", CORE, "Service", metadata={}, opts=pulumi.ResourceOptions())

    assert declare(program).made == {
        ("kubernetes:core/v1:Service", "server"): {"apiVersion": "v1", "kind": "Service", "metadata": {}}
    }
