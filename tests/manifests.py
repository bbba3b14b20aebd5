"""What the program declares in Kubernetes for a stack on Google Cloud, as manifests."""

from __future__ import annotations

import json
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pulumi
import pytest
import yaml

from components.serving.rollouts import Rollouts
from tests.engine.provider import is_secret
from tests.unit.conftest import mocked
from tests.unit.test_gcp_components import ADOPTED, CLUSTER_KEY, EVERYTHING, STATE, CloudRecorder

PROJECT: Final = Path(__file__).resolve().parents[1]
PUBLIC: Final = {"gateway": {"public": True, "access": "open", "domain": "models.example.com"}}
AGENT: Final = {
    "name": "dev",
    "project": "group/models",
    "projectId": 11,
    "groupIds": [1],
    "tokens": ["first", "second"],
    "configuration": "written",
}
VARIANTS: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "dev": ("dev", {}),
    "staging": ("staging", {}),
    "production": ("production", {}),
    "public": ("production", {"gcp": PUBLIC, "gateway": {"grpc": True}}),
    "internal with a domain": ("staging", {"gcp": {"gateway": {"domain": "models.acme.internal.example"}}}),
    "zonal": ("dev", {"gcp": {"zone": "europe-west1-b", "cluster": {"mode": "standard"}}}),
    "regional": ("production", {"gcp": {"cluster": {"mode": "standard"}}}),
    "encrypted": ("dev", {"gcp": {"cluster": {"encryptionKey": CLUSTER_KEY}}}),
    "in a fleet": ("dev", {"gcp": {"cluster": {"fleet": True}}}),
    "with pipelines": ("dev", {"gcp": {"identity": EVERYTHING["identity"], "state": STATE}}),
    "everything exists": ("dev", {"gcp": ADOPTED}),
    "unobserved": ("dev", {"gcp": {"observability": {"enabled": False}}}),
    "with an agent": ("dev", {"agent": AGENT}),
    "with reviews": ("dev", {"ci": {"review": {}}, "agent": AGENT}),
    "with each kind of traffic": (
        "dev",
        {
            "models": {
                "iris-dtc": {"autoscaling": {"minimum": 1, "maximum": 3}},
                "wine-lgbm": {"gpu": {"type": "nvidia-l4"}, "priority": "high"},
            }
        },
    ),
}
"""Name -> a stack of this repository, and what its file says besides, under ``model-serving:``."""


class NoHooks:
    """Takes the program's hooks and never calls them: the SDK's mocks have no place for any."""

    def register_resource_hook(self, hook: pulumi.ResourceHook) -> None:
        pass


class Program(CloudRecorder):
    """A stack that has no outputs yet, and GitLab."""

    def outputs(self, args: pulumi.runtime.MockResourceArgs) -> dict[str, Any]:
        match args.typ.rpartition(":")[2]:
            case "ClusterAgent":
                return {"agentId": 7}
            case "ClusterAgentToken":
                return {"token": "glagent-made-up"}
            case _:
                return super().outputs(args)

    def call(self, args: pulumi.runtime.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        if args.token.endswith(":readStackOutputs"):
            return {"outputs": {}}, []
        return super().call(args)


def run_program(patch: pytest.MonkeyPatch) -> CloudRecorder:
    """Notes what is declared for the settings in PULUMI_CONFIG, without a cluster whose pods could be awaited."""
    patch.setattr(Rollouts, "proven", lambda *_: pulumi.Output.from_input(None))
    with mocked(Program()) as recorder:
        patch.setattr(pulumi.runtime.settings.SETTINGS, "callbacks", NoHooks())
        # The SDK's decorator has no types.
        pulumi.runtime.test(lambda: runpy.run_path("__main__.py") and None)()  # type: ignore[no-untyped-call]
    return recorder


def manifests(variant: str, patch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The manifests of a variant; a Helm release is none."""
    stack, sections = VARIANTS[variant]
    config = yaml.safe_load((PROJECT / "stacks" / f"Pulumi.{stack}.yaml").read_text())["config"]
    for section, content in sections.items():
        key = f"model-serving:{section}"
        config[key] = _merged(config.get(key, {}), content)
    patch.chdir(PROJECT)
    patch.setenv("PULUMI_CONFIG", json.dumps({key: json.dumps(value) for key, value in config.items()}))
    recorder = run_program(patch)
    return [
        _named(name, _plain(inputs))
        for (token, name), inputs in recorder.made.items()
        if token.startswith("kubernetes:") and not token.startswith("kubernetes:helm.sh/")
    ]


def _merged(base: Any, patch: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(patch, dict)):
        return patch
    return base | {key: _merged(base.get(key), value) for key, value in patch.items()}


def _plain(value: Any) -> Any:
    """Inputs without the marks of secrets, and without what is not set."""
    if is_secret(value):
        return _plain(value["value"])
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items() if each is not None}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _named(name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with a name: the provider makes one up where the program has none."""
    metadata = {"name": f"{name}-1a2b3c4d", **inputs.get("metadata", {})}
    return {**inputs, "metadata": metadata}
