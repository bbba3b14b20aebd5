"""Releases: a folder appears, `pulumi up`, and the traffic is on it."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_serving.catalog import object_name
from model_serving.images.registry import MANIFESTS
from tests.cluster.conftest import Project, ask
from tests.cluster.stack import MODEL, Stack
from tests.cluster.test_serving import IRIS

POLL_SECONDS = 0.1
RELEASE_SECONDS = 120  # a bound on the wait, not a measure: see `make bench`


class Watch:
    """Asks a model without a pause worth the name, and takes down which version answered."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.answers: list[str] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        deadline = time.monotonic() + RELEASE_SECONDS
        while not self._end.wait(POLL_SECONDS) and time.monotonic() < deadline:
            status, body = ask(self.path, IRIS)
            self.answers.append(body["model_version"] if status == 200 else f"{status} {body}")


def layers(repository: str, reference: str) -> list[str]:
    """Digests of an image's layers, from the base up; the builder wraps an image in an index with its provenance."""
    request = urllib.request.Request(
        f"http://localhost:5000/v2/{repository}/manifests/{reference}",
        headers={"Accept": MANIFESTS},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        manifest = json.load(answer)
    if "manifests" in manifest:
        return layers(repository, manifest["manifests"][0]["digest"])
    return [layer["digest"] for layer in manifest["layers"]]


@pytest.fixture
def next_release(project: Project) -> Iterator[Path]:
    project.clean()
    folder = project.release("iris-dtc", "1.0.1", like="1.0")
    yield folder
    subprocess.run(["rm", "--recursive", "--force", str(folder)], check=True)
    project.left.append("a release")


def test_a_new_version_takes_the_traffic_and_nothing_else_changes(project: Project, next_release: Path) -> None:
    with Watch("/mlapi/v2/models/iris-dtc/infer") as watch:
        project.up()
    assert set(watch.answers) == {"1.0", "1.0.1"}
    assert watch.answers == sorted(watch.answers), "traffic moves once"
    assert ask("/mlapi/v2/models/iris-dtc/versions/1.0.1/infer", IRIS)[1]["model_version"] == "1.0.1"
    assert ask("/mlapi/v2/models/iris-dtc/versions/1.0/infer", IRIS)[0] == 404, "the old version is gone"
    assert list(project.outputs()["models"]["iris-dtc"]["versions"]) == ["1.0.1"]
    # The image of the old version is still there: a rollback has something to run.
    old, new = layers("iris-dtc", "1.0"), layers("iris-dtc", "1.0.1")
    assert len(old) == len(new) > 1
    assert old[:-1] == new[:-1], "all layers but the model's are shared"


def test_a_split_shares_the_traffic(project: Project, next_release: Path) -> None:
    stack = project.folder / "stacks" / "Pulumi.local.yaml"
    before = stack.read_text()
    stack.write_text(before.replace("iris-dtc: {}", 'iris-dtc: {versions: {"1.0": 50, "1.0.1": 50}}'))
    try:
        project.up()
        answers = [ask("/mlapi/v2/models/iris-dtc/infer", IRIS)[1]["model_version"] for _ in range(60)]
        assert set(answers) == {"1.0", "1.0.1"}
        for version in ("1.0", "1.0.1"):
            assert ask(f"/mlapi/v2/models/iris-dtc/versions/{version}/infer", IRIS)[1]["model_version"] == version
    finally:
        stack.write_text(before)


@pytest.mark.thorough("tests/unit/test_catalog.py and test_live.py")
def test_a_model_is_served_under_its_own_name_and_a_prerelease_takes_no_traffic(project: Project, stack: Stack) -> None:
    name, versions = "Apple_RF.Model", ("1.0", "1.1.0-rc.1")
    for version in versions:
        folder = stack.keep(project.folder / "models" / name / version)
        shutil.copytree(project.folder / "models" / MODEL / "1.0", folder)
        settings = folder / "model-settings.json"
        text = settings.read_text().replace(f'"{MODEL}"', f'"{name}"')
        settings.write_text(text.replace('"1.0"', f'"{version}"'))
    stack.serve(name)
    status, answer = ask(f"/mlapi/v2/models/{name}/infer", IRIS)
    assert (status, answer["model_name"], answer["model_version"]) == (200, name, "1.0")
    assert [ask(f"/mlapi/v2/models/{name}/versions/{version}/infer", IRIS)[0] for version in versions] == [200, 404]
    assert len(stack.pods(name)) == 1, "its pods have its name"
    served = project.kubectl("get", "deployments,httproutes", "--output", "name").stdout
    label = object_name(name)
    assert f"deployment.apps/{label}-1-0\n" in served
    assert f"httproute.gateway.networking.k8s.io/{label}.1-0\n" in served
    assert layers(label, "1.0")
    project.up("--expect-no-changes")


@pytest.fixture
def changed_model(project: Project) -> Iterator[None]:
    """A released model with a line more than it was published with."""
    settings = project.folder / "models" / "iris-dtc" / "1.0" / "model-settings.json"
    project.clean()
    before = settings.read_text()
    settings.write_text(before + "\n")
    yield
    settings.write_text(before)


def assert_refused(project: Project, *command: str) -> None:
    refused = project.run("pulumi", *command, "--stack", "local", check=False)
    assert refused.returncode != 0
    assert "models/iris-dtc/1.0 was changed after it was published" in refused.stdout
    assert "git checkout models/iris-dtc/1.0" in refused.stdout
    assert "Traceback" not in refused.stdout


@pytest.mark.usefixtures("changed_model")
def test_a_model_that_is_changed_after_its_release_is_refused(project: Project) -> None:
    assert_refused(project, "preview")
    assert_refused(project, "up", "--yes", "--skip-preview")
    assert ask("/mlapi/v2/models/iris-dtc/infer", IRIS)[0] == 200


@pytest.mark.thorough("the same while the stack knows it; tests/unit/test_builds.py")
@pytest.mark.usefixtures("changed_model")
def test_it_is_refused_as_well_when_the_stack_has_forgotten_it(project: Project) -> None:
    stack = project.folder / "stacks" / "Pulumi.local.yaml"
    before = stack.read_text()
    stack.write_text(before.replace("    iris-dtc: {}\n", ""))
    try:
        project.up()
    finally:
        stack.write_text(before)
        project.left.append("a stack without the model")
    assert ask("/mlapi/v2/models/iris-dtc/infer", IRIS)[0] == 404
    assert_refused(project, "up", "--yes", "--skip-preview")
