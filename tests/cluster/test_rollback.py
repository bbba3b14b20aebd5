"""The previous line of YAML brings the previous version back, and nothing is built for it."""

from __future__ import annotations

import time

import pytest

from model_serving.images import runtimes
from tests.cluster.conftest import Project, ask
from tests.cluster.stack import MODEL, Stack, name_of
from tests.cluster.test_release import Watch
from tests.cluster.test_serving import IRIS
from tests.cluster.test_traffic import planned

URL = f"/mlapi/v2/models/{MODEL}/infer"


def served() -> str:
    return str(ask(URL, IRIS)[1]["model_version"])


def image_of(project: Project, version: str) -> str:
    return project.kubectl("get", "deployment", name_of(version), "--output", "jsonpath={..image}").stdout


def test_the_previous_version_comes_back_as_it_was_and_nothing_is_built(project: Project, stack: Stack) -> None:
    version = stack.release()
    before = image_of(project, "1.0")
    project.up()
    assert served() == version

    shown = project.make("rollback", f"MODEL={MODEL}").stdout
    assert f'-    {MODEL}: {{}}\n+    {MODEL}: {{versions: {{"1.0": 100}}}}' in shown
    assert served() == version, "it changes the file alone"

    built = [step for step in planned(project) if "docker-build" in step[1] and step[0] != "delete"]
    assert built == []
    with Watch(URL) as watch:
        update = project.up().stdout
    assert "building with" not in update
    assert watch.answers[-1] == "1.0"
    assert set(watch.answers) <= {"1.0", version}, "and nobody noticed"
    assert image_of(project, "1.0") == before, "the very image that ran before"
    project.up("--expect-no-changes")


@pytest.mark.thorough("tests/unit/test_builds.py; above, that nothing is built")
def test_a_published_version_stays_as_it_is_when_its_runtime_is_built_in_another_way(
    project: Project, stack: Stack
) -> None:
    version = stack.release()
    project.up()
    before = image_of(project, version)
    dockerfile = project.folder / runtimes.DOCKERFILE
    text = dockerfile.read_text()
    dockerfile.write_text(f"{text}RUN true\n")
    try:
        update = project.up().stdout
        assert "building with" not in update
        assert image_of(project, version) == before
        project.up("--expect-no-changes")
    finally:
        dockerfile.write_text(text)


@pytest.mark.thorough("test_traffic.py, where weights alone change one route")
def test_a_version_that_is_kept_warm_is_back_by_a_change_of_the_route(project: Project, stack: Stack) -> None:
    version = stack.release()
    stack.serve(keepWarm=1)
    assert served() == version
    assert ask(f"/mlapi/v2/models/{MODEL}/versions/1.0/infer", IRIS)[0] == 200

    project.make("rollback", f"MODEL={MODEL}")
    start = time.monotonic()
    with Watch(URL) as watch:
        update = project.up().stdout
    assert served() == "1.0"
    assert set(watch.answers) <= {"1.0", version}
    moved = len([answer for answer in watch.answers if answer == version]) * 0.1
    print(f"moved after about {moved:.1f} s, all done after {time.monotonic() - start:.1f} s")
    created = [line for line in update.splitlines() if " created (" in line]
    assert created == [], "nothing had to start"
