"""One runtime per distinct lock."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from model_serving.catalog import Release
from model_serving.images import runtimes
from model_serving.images.settings import ImageSettings
from model_serving.stack.models import ModelSettings
from model_serving.stack.resources import PodResources, resources_of
from tests.unit import releases


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runtimes.LAUNCHER.mkdir(parents=True)
    (runtimes.LAUNCHER / "main.py").write_text("start()")
    runtimes.DOCKERFILE.write_text("FROM base")


def release(version: str, lock: str) -> Release:
    made = releases.release("iris", version)
    made.folder.mkdir(parents=True)
    made.lock.write_text(lock)
    return made


def test_releases_with_one_lock_share_a_runtime() -> None:
    images = ImageSettings()
    first, second = (runtimes.runtime_of(release(version, "mlserver==1"), images) for version in ("1.0", "1.1"))
    other = runtimes.runtime_of(release("1.2", "mlserver==2"), images)
    assert first == second
    assert other.tag != first.tag


def test_base_dockerfile_and_launcher_are_part_of_the_tag() -> None:
    iris = release("1.0", "mlserver==1")
    tags = {runtimes.runtime_of(iris, ImageSettings(base=base)).tag for base in ("python:3.11", "python:3.12")}
    for path in (runtimes.DOCKERFILE, runtimes.LAUNCHER / "main.py", runtimes.LAUNCHER / "another.py"):
        path.write_text("other")
        tags.add(runtimes.runtime_of(iris, ImageSettings(base="python:3.11")).tag)
    assert len(tags) == 5


def test_the_build_context_is_what_the_image_is_made_of() -> None:
    (runtimes.LAUNCHER / "__pycache__").mkdir()
    context = runtimes.runtime_of(release("1.0", "mlserver==1"), ImageSettings()).context
    names = sorted(str(path.relative_to(context)) for path in context.rglob("*") if path.is_file())
    assert names == ["launcher/main.py", "requirements.lock"]


@pytest.mark.parametrize("name", ["requirements.lock", "launcher/main.py"])
@pytest.mark.parametrize("left", [None, "", "star"])
def test_a_build_context_that_a_killed_run_left_is_finished(name: str, left: str | None) -> None:
    iris, images = release("1.0", "mlserver==1"), ImageSettings()
    path = runtimes.runtime_of(iris, images).context / name
    whole = path.read_text()
    path.write_text(left) if left is not None else path.unlink()
    assert (runtimes.runtime_of(iris, images).context / name).read_text() == whole
    assert [each.name for each in runtimes.CONTEXTS.iterdir()] == [runtimes.tag_of(iris, images)]


def test_the_build_context_outlives_the_release() -> None:
    runtime = runtimes.runtime_of(release("1.0", "mlserver==1"), ImageSettings())
    assert (runtime.context / "requirements.lock").read_text() == "mlserver==1"
    assert not runtime.context.is_relative_to("models")


@pytest.mark.parametrize("left", ["", "mlser", "mlserver==2"])
def test_a_build_context_that_a_killed_run_left_is_written_again(left: str) -> None:
    iris, images = release("1.0", "mlserver==1"), ImageSettings()
    lock = runtimes.runtime_of(iris, images).context / "requirements.lock"
    lock.write_text(left)
    assert runtimes.runtime_of(iris, images).context == lock.parent
    assert lock.read_text() == "mlserver==1"
    assert {path.name for path in lock.parent.iterdir()} == {"requirements.lock", "launcher"}


def test_a_build_context_is_not_written_again_without_need() -> None:
    iris, images = release("1.0", "mlserver==1"), ImageSettings()
    lock = runtimes.runtime_of(iris, images).context / "requirements.lock"
    before = lock.stat().st_ino
    runtimes.runtime_of(iris, images)
    assert lock.stat().st_ino == before


def test_wheels_are_used_once_they_are_there() -> None:
    iris, images = release("1.0", "mlserver==1"), ImageSettings(wheels="wheels")
    assert runtimes.runtime_of(iris, images).wheels is None
    prepared = Path("wheels", hashlib.sha256(b"mlserver==1").hexdigest()[:12])
    prepared.mkdir(parents=True)
    assert runtimes.runtime_of(iris, images).wheels == prepared


def served_by(implementation: str) -> Release:
    folder = Path("models/iris-dtc/1.0")
    return Release(
        name="iris-dtc",
        version="1.0",
        folder=folder,
        implementation=implementation,
        lock=folder / "requirements.lock",
        request=None,
        response=None,
    )


@pytest.mark.parametrize(
    ("implementation", "model", "resources"),
    [
        ("mlserver_sklearn.SKLearnModel", {}, PodResources(cpu="100m", memory="512Mi", threads=1)),
        ("mlserver_sklearn.SKLearnModel", {"workers": 3}, PodResources(cpu="100m", memory="2048Mi", threads=1)),
        (
            "mlserver_lightgbm.LightGBMModel",
            {"workers": 2, "resources": {"cpu": "4500m"}},
            PodResources(cpu="4500m", memory="1536Mi", threads=3),
        ),
        ("mlserver_mlflow.MLflowRuntime", {}, PodResources(cpu="100m", memory="1024Mi")),
        ("mlserver_huggingface.HuggingFaceRuntime", {}, PodResources(cpu="1", memory="4096Mi")),
        ("own.Model", {}, PodResources(cpu="100m", memory="1024Mi")),
        (
            "own.Model",
            {"workers": 2, "resources": {"cpu": "2", "memory": "3Gi"}},
            PodResources(cpu="2", memory="3Gi"),
        ),
    ],
)
def test_a_pod_gets_what_the_stack_says_or_what_its_implementation_needs(
    implementation: str, model: dict[str, Any], resources: PodResources
) -> None:
    assert resources_of(served_by(implementation), ModelSettings.model_validate(model)) == resources
