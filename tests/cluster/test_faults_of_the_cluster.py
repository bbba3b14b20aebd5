"""Parts of the cluster die during a release: what is served goes on being served, and the next `make up` is enough."""

from __future__ import annotations

import time
import urllib.request
from typing import Final

import pytest

from model_serving.images.registry import MANIFESTS
from tests.cluster.faults import load_of, version
from tests.cluster.load import Load
from tests.cluster.stack import MODEL, UPDATE, Stack, name_of
from tests.conftest import Figure

pytestmark = pytest.mark.as_left

IMPATIENT: Final = {"startSeconds": 5, "provisionSeconds": 10, "contract": {"seconds": 5}}
"""Settings with which a version whose image cannot be had is given up soon; with others it has its time to start."""


def delete_image(repository: str, tag: str) -> None:
    """What a person does who clears up in a registry."""
    base = f"http://localhost:5000/v2/{repository}/manifests"
    request = urllib.request.Request(f"{base}/{tag}", headers={"Accept": MANIFESTS}, method="HEAD")
    with urllib.request.urlopen(request, timeout=10) as answer:
        digest = answer.headers["Docker-Content-Digest"]
    urllib.request.urlopen(urllib.request.Request(f"{base}/{digest}", method="DELETE"), timeout=10).close()


def finish(stack: Stack, load: Load, new: str, failed: str | None) -> str:
    """The next plain `make up` ends with the new version; returns what to take down."""
    if failed is not None:
        assert "Traceback" not in failed, failed
    began = time.monotonic()
    stack.project.make("up")
    seconds = time.monotonic() - began
    assert version() == new
    load.wait_for(50)
    stack.project.up("--expect-no-changes")
    how = "went through" if failed is None else "failed with a message"
    return f"the release {how}, the next update took {seconds:.1f} s"


@pytest.mark.parametrize(
    "name",
    [
        "kube-apiserver",
        *(
            pytest.param(name, marks=pytest.mark.thorough("the API server, and tests/cluster/test_lifecycle.py"))
            for name in ("containerd", "contour")
        ),
    ],
)
def test_a_part_is_started_again_during_a_release(stack: Stack, figure: Figure, name: str) -> None:
    new = stack.release()
    with load_of(stack.project) as load:
        with stack.update() as update:
            update.read_until(f"apps/v1:Deployment {name_of(new)} creating")
            stack.kill(name)
            told = stack.start_what_died()
            assert f"{name} (process " in told
            assert ") had died" in told
            code = update.wait()
        text = finish(stack, load, new, update.said if code else None)
    load.report.check(stack.gateway_log)
    figure(f"{text}; {load.report}")


@pytest.mark.thorough("tests/unit/test_preflight.py; the registry that goes down during a build")
def test_the_registry_is_down_before_a_release(stack: Stack, figure: Figure) -> None:
    new = stack.release()
    with load_of(stack.project) as load:
        stack.kill("registry")
        refused = stack.project.up(check=False)
        assert refused.returncode != 0
        assert "nothing was changed" in refused.stdout
        assert "model-serving:registry is localhost:5000, which does not answer" in refused.stdout
        text = finish(stack, load, new, refused.stdout)
    load.report.check(stack.gateway_log)
    figure(f"{text}; {load.report}")


def test_the_registry_goes_down_during_a_build(stack: Stack, figure: Figure) -> None:
    before, new = version(), stack.release()
    with load_of(stack.project) as load:
        with stack.stopped("buildkitd") as go_on, stack.update() as update:
            update.read_until(f"docker-build:index:Image {name_of(new)} creating")
            stack.kill("registry")
            go_on()
            assert update.wait() != 0
        assert name_of(new) in update.said
        assert "localhost:5000" in update.said
        assert version() == before
        text = finish(stack, load, new, update.said)
    load.report.check(stack.gateway_log)
    figure(f"{text}; {load.report}")


@pytest.mark.thorough("the image that is gone, which cannot be pulled either")
def test_the_registry_goes_down_before_a_pull(stack: Stack, figure: Figure) -> None:
    stack.configure(MODEL, **IMPATIENT)
    before, new = version(), stack.release()
    with load_of(stack.project) as load:
        with stack.stopped("kubelet") as go_on, stack.update(*UPDATE) as update:
            update.read_until(f"docker-build:index:Image {name_of(new)} created")
            stack.kill("registry")
            go_on()
            assert update.wait() != 0
        assert name_of(new) in update.said
        assert "localhost:5000/iris-dtc" in update.said
        assert version() == before
        stack.configure(MODEL)
        text = finish(stack, load, new, update.said)
    load.report.check(stack.gateway_log)
    figure(f"{text}; {load.report}")


@pytest.mark.thorough(
    "the registry that goes down during a build; tests/engine/test_deploy.py, which builds a lost image again"
)
def test_an_image_is_gone_from_the_registry_when_it_is_wanted(stack: Stack, figure: Figure) -> None:
    stack.configure(MODEL, **IMPATIENT)
    before, new = version(), stack.release()
    with load_of(stack.project) as load:
        with stack.stopped("kubelet") as go_on, stack.update(*UPDATE) as update:
            update.read_until(f"docker-build:index:Image {name_of(new)} created")
            delete_image(MODEL, new)
            go_on()
            assert update.wait() != 0
        assert name_of(new) in update.said
        assert "not found" in update.said
        assert version() == before
        stack.configure(MODEL)
        text = finish(stack, load, new, update.said)
    load.report.check(stack.gateway_log)
    figure(f"{text}; {load.report}")
