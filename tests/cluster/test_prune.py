"""`make prune` on the local stack: what nothing needs leaves the registry and the disk, and nobody notices."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.cluster.conftest import CLUSTER, Project, ask
from tests.cluster.stack import MODEL, Stack
from tests.cluster.test_release import Watch
from tests.cluster.test_serving import IRIS
from tests.conftest import Figure

URL = f"/mlapi/v2/models/{MODEL}/infer"
REGISTRY = "http://127.0.0.1:5000/v2"
MEGABYTE = 1_000_000


def tags(repository: str = MODEL) -> set[str]:
    with urllib.request.urlopen(f"{REGISTRY}/{repository}/tags/list") as answer:
        return set(json.load(answer)["tags"] or [])


def disk(project: Project) -> int:
    """Bytes of the registry's data."""
    configuration = project.folder / ".state" / "local" / "configuration" / "registry.yaml"
    folder = yaml.safe_load(configuration.read_text())["storage"]["filesystem"]["rootdirectory"]
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def prune(project: Project, *variables: str) -> str:
    return project.make("prune", *variables, f"CLUSTER={CLUSTER}").stdout


@contextmanager
def lock_of_its_own(project: Project, folder: Path) -> Iterator[None]:
    """The runtime of a release is an image of its own; it has the same packages as those of the others."""
    lock = folder / "requirements.lock"
    text = lock.read_text()
    lock.write_text(f"{text}# of {folder.name}\n")
    old, new = (project.folder / ".state" / "wheels" / _digest(each) for each in (text, lock.read_text()))
    # Where `make cluster` looks for what it would otherwise download.
    cached = old.resolve().with_name(new.name)
    shutil.copytree(old.resolve(), cached, copy_function=os.link)
    new.symlink_to(cached)
    try:
        yield
    finally:
        shutil.rmtree(cached)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@pytest.mark.thorough("tests/engine/test_prune.py on a real registry, and the README's `make prune` on the cluster's")
def test_what_nothing_needs_goes_and_frees_the_disk(project: Project, stack: Stack, figure: Figure) -> None:
    first, second, newest = (stack.release() for _ in range(3))
    with lock_of_its_own(project, project.folder / "models" / MODEL / first):
        for version in (first, second, newest):
            stack.serve(versions={version: 100})
        runtimes = tags("runtime")

        listed = prune(project, "KEEP=1")
        assert first in tags(), "it only lists"
        assert "Nothing was removed. To do it: make prune STACK=local APPLY=true" in listed

        before, start = disk(project), time.monotonic()
        with Watch(URL) as watch:
            told = prune(project, "KEEP=1", "APPLY=true")
        freed = before - disk(project)
        figure(f"{freed / MEGABYTE:.0f} of {before / MEGABYTE:.0f} MB in {time.monotonic() - start:.1f} s")
        assert first not in tags()
        assert {second, newest} <= tags(), "what is served, and what a rollback needs"
        assert len(runtimes - tags("runtime")) == 1, "the one that only the first was built on"
        assert freed > 100 * MEGABYTE, told
        assert set(watch.answers) == {newest}, "and nobody noticed"
        project.up("--expect-no-changes")

        stack.serve(versions={second: 100})
        assert ask(URL, IRIS)[1]["model_version"] == second
        # Built again, runtime and all: it is still in models/.
        stack.serve(versions={first: 100})
        assert ask(URL, IRIS)[1]["model_version"] == first


@pytest.mark.thorough("tests/engine/test_prune.py, which goes on with an interrupted run")
def test_a_collection_that_was_killed_is_put_right_by_the_next_start(project: Project) -> None:
    script = (
        "from pathlib import Path; from local.cluster import garbage, programs; "
        "from local.cluster.layout import Layout; from local.cluster.processes import Processes; "
        "state = Path('.state').absolute(); "
        f"layout = Layout(name={CLUSTER!r}, state=state, bin=state / 'bin'); "
        "garbage._restart(programs.registry(layout, is_read_only=True), Processes(layout))"
    )
    project.run("python", "-c", script)
    push = urllib.request.Request(f"{REGISTRY}/{MODEL}/blobs/uploads/", b"", method="POST")
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(push)
    assert "registry is started again" in project.make("cluster").stdout
    urllib.request.urlopen(push).close()
