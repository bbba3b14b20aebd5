"""What the program declares for a review, beside what its stack serves already."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.serving.server import ModelServerArgs
from model_serving import catalog
from model_serving.images.registry import Image, Registry
from model_serving.pipelines import stacks
from model_serving.pipelines.review import stack_of_review
from model_serving.stack import preflight
from model_serving.stack.models import ModelSettings
from model_serving.stack.resources import PodResources
from model_serving.stack.reviews import Review
from tests.manifests import run_program
from tests.unit.conftest import Recorder

PROJECT = Path(__file__).resolve().parents[2]
MODEL = "iris-dtc"
REVIEW = Review(request=12, until=1_764_000_000)
PATH = f"/mlapi/review/12/v2/models/{MODEL}"


def declared(
    monkeypatch: pytest.MonkeyPatch, found: Mapping[str, str], *, stack: str = "local", **model: Any
) -> Recorder:
    """The program's resources for a merge request that adds the model.

    Args:
        found: image with its tag, as far as its name is given -> digest, of those that the registry has.
        stack: that serves it.
        model: the stack's settings of the model.
    """
    config = yaml.safe_load((PROJECT / "stacks" / f"Pulumi.{stack}.yaml").read_text())
    config["config"]["model-serving:models"] = {MODEL: model}
    chosen = stacks.parse(stack, json.dumps(config))
    added = [*catalog.read(PROJECT / "models").releases(MODEL)]
    content = stack_of_review(chosen, added, endpoint="http://192.0.2.10")

    def find(registry: Registry, repository: str, tag: str) -> Image | None:
        name = f"{registry._name}/{repository}:{tag}"  # the address is in no method
        digests = [digest for start, digest in found.items() if name.startswith(start)]
        return Image(repository=repository, tag=tag, digest=digests[0]) if digests else None

    monkeypatch.chdir(PROJECT)
    monkeypatch.setattr(Registry, "find", find)
    monkeypatch.setattr(preflight, "check", lambda *_, **__: None)
    values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in content.items()}
    monkeypatch.setenv("PULUMI_CONFIG", json.dumps(values))
    for name, value in REVIEW.environment().items():
        monkeypatch.setenv(name, value)
    return run_program(monkeypatch)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return declared(monkeypatch, {"localhost:5000/runtime:": "sha256:12"}, replicas=3)


def test_it_declares_what_serves_the_release_and_nothing_of_the_stacks_own(recorder: Recorder) -> None:
    kinds = sorted(typ.rpartition(":")[2] for typ, _ in recorder.made if typ.startswith("kubernetes:"))
    assert kinds == ["ConfigMap", "Deployment", "HTTPRoute", "Job", "NetworkPolicy", "Service"]


def test_all_of_it_carries_the_labels_by_which_it_is_removed(recorder: Recorder) -> None:
    objects = {name: made for (typ, name), made in recorder.made.items() if typ.startswith("kubernetes:")}
    assert objects
    for name, made in objects.items():
        assert made["metadata"]["labels"].items() >= REVIEW.labels.items(), name
        assert made["metadata"]["name"].startswith("review-12-"), name
        assert made["metadata"]["namespace"] == "models"
    (deployment,) = recorder.of_kind("Deployment").values()
    assert deployment["spec"]["replicas"] == 1


def test_no_service_of_the_stack_finds_its_pods(recorder: Recorder) -> None:
    (deployment,) = recorder.of_kind("Deployment").values()
    pods = deployment["spec"]["template"]["metadata"]["labels"]
    (service,) = recorder.of_kind("Service").values()
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == pods
    own = ModelServerArgs(
        model=MODEL,
        version="1.0",
        namespace="models",
        image="image",
        settings=ModelSettings(),
        resources=PodResources(cpu="1", memory="1Gi"),
        drain_seconds=0,
    )
    assert not own.labels.items() <= pods.items()
    assert own.labels.keys() <= pods.keys(), "the network's policy goes by them"


def test_it_is_reached_by_its_own_path_alone_and_asked_there(recorder: Recorder) -> None:
    (route,) = recorder.of_kind("HTTPRoute").values()
    paths = [match["path"]["value"] for rule in route["spec"]["rules"] for match in rule["matches"]]
    assert paths == [f"{PATH}/versions/1.0", PATH]
    rewritten = [rule["filters"][0]["urlRewrite"]["path"]["replacePrefixMatch"] for rule in route["spec"]["rules"]]
    assert rewritten == [f"/v2/models/{MODEL}/versions/1.0", f"/v2/models/{MODEL}"]
    (job,) = recorder.of_kind("Job").values()
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert f"--path={PATH}/versions/1.0/infer" in arguments
    assert "--url=http://192.0.2.10" in arguments
    (policy,) = recorder.of_kind("NetworkPolicy").values()
    pods = job["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= pods.items()
    (scripts,) = recorder.of_kind("ConfigMap").values()
    assert job["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"] == scripts["metadata"]["name"]


def test_its_images_are_where_no_stack_looks_and_the_stacks_runtime_is_used(recorder: Recorder) -> None:
    (image,) = recorder.of_kind("Image").values()
    (tag,) = image["tags"]
    assert tag.startswith(f"localhost:5000/review/{MODEL}:1.0-"), "named by its content, which may still change"
    assert image["buildArgs"]["RUNTIME"].startswith("localhost:5000/runtime:")
    assert image["buildArgs"]["RUNTIME"].endswith("@sha256:12")


def test_a_new_runtime_is_built_where_no_stack_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    images = declared(monkeypatch, {}).of_kind("Image")
    assert sorted(tag.partition(":5000")[2][:12] for image in images.values() for tag in image["tags"]) == [
        "/review/iris",
        "/review/runt",
    ]


def test_the_same_content_is_not_built_again(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = declared(monkeypatch, {f"localhost:5000/review/{MODEL}:": "sha256:34"})
    assert recorder.of_kind("Image") == {}
    (deployment,) = recorder.of_kind("Deployment").values()
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image.startswith(f"localhost:5000/review/{MODEL}:1.0-")
    assert image.endswith("@sha256:34")


def test_a_stack_that_checks_no_contract_checks_none_of_a_review(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = declared(monkeypatch, {}, contract={"check": False})
    assert recorder.of_kind("Job") == recorder.of_kind("NetworkPolicy") == {}


REGISTRY = "europe-west1-docker.pkg.dev/my-models-dev/model-serving"


@pytest.fixture
def on_google(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return declared(monkeypatch, {f"{REGISTRY}/runtime:": "sha256:12"}, stack="dev")


def test_on_google_cloud_everything_is_in_the_namespace_of_reviews_and_behind_their_gateway(
    on_google: Recorder,
) -> None:
    objects = {key: made for key, made in on_google.made.items() if key[0].startswith("kubernetes:")}
    # No network policy: those of the namespace are the stack's, and no branch's.
    kinds = sorted(typ.rpartition(":")[2] for typ, _ in objects)
    policies = ["GCPBackendPolicy", "HealthCheckPolicy"]
    assert kinds == ["ConfigMap", "Deployment", policies[0], "HTTPRoute", policies[1], "Job", "Service"]
    for (_, name), made in objects.items():
        assert made["metadata"]["namespace"] == "models-review", name
        assert made["metadata"]["labels"].items() >= REVIEW.labels.items(), name
    (route,) = on_google.of_kind("HTTPRoute").values()
    assert route["spec"]["parentRefs"] == [{"name": "review-gateway"}]
    assert "timeouts" not in str(route), "they are the policy's"
    (backend,) = on_google.of_kind("GCPBackendPolicy").values()
    assert backend["spec"]["targetRef"]["name"] in on_google.of_kind("Service")
    assert not [typ for typ, _ in on_google.made if typ.startswith("gcp:")], "nothing of Google's own"


def test_on_google_cloud_its_images_are_in_a_repository_of_their_own(on_google: Recorder) -> None:
    (image,) = on_google.of_kind("Image").values()
    (tag,) = image["tags"]
    assert tag.startswith(f"{REGISTRY}-review/{MODEL}:1.0-")
    assert image["buildArgs"]["RUNTIME"].startswith(f"{REGISTRY}/runtime:"), "the stack's own is built upon"
