"""A release whose artefact is in a remote: its image has the real file, and without the file nothing else suffers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import pytest

from model_serving import catalog
from model_serving.images import large_files
from model_serving.images.artefacts import FETCHED, context_of
from model_serving.images.remotes import key
from tests.cluster.conftest import Project, ask
from tests.cluster.stack import MODEL, Stack, changed
from tests.cluster.test_serving import IRIS
from tests.google_storage import storage

EMULATOR: Final = "STORAGE_EMULATOR_HOST"
ARTEFACT: Final = "iris-decision-tree.joblib"
PADDING: Final = bytes(1 << 20)
"""Behind the end of a pickle, where nobody reads."""
PATH: Final = f"/mlapi/v2/models/{MODEL}/infer"
OTHERS: Final = ("classificador-produtos", "wine-lgbm")


class Objects(Protocol):
    """What is in a remote, by its key."""

    def __getitem__(self, key: str) -> bytes: ...
    def __setitem__(self, key: str, content: bytes) -> None: ...
    def __delitem__(self, key: str) -> None: ...


class Files:
    """The objects of a remote in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getitem__(self, key: str) -> bytes:
        return (self._folder / key).read_bytes()

    def __setitem__(self, key: str, content: bytes) -> None:
        (self._folder / key).write_bytes(content)

    def __delitem__(self, key: str) -> None:
        (self._folder / key).unlink()


@dataclass(frozen=True, kw_only=True)
class Remote:
    """Where large files are.

    Attributes:
        url: its address.
        objects: what is in it.
        environment: of the commands that use it.
    """

    url: str
    objects: Objects
    environment: Mapping[str, str]


@pytest.fixture
def remote(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    if request.param == "folder":
        folder = tmp_path / "remote"
        yield Remote(url=folder.as_uri(), objects=Files(folder), environment={})
        return
    with storage() as standin:
        monkeypatch.setenv(EMULATOR, standin.address)
        yield Remote(url="gs://models", objects=standin.objects, environment={EMULATOR: standin.address})


@dataclass(frozen=True, kw_only=True)
class Large:
    """A release with a pointer, which is not live yet.

    Attributes:
        stack: that serves it with the next update.
        version: its own.
        key: of its artefact in the remote.
        remote: that has the artefact.
    """

    stack: Stack
    version: str
    key: str
    remote: Remote

    @property
    def context(self) -> Path:
        """Where the artefact is while the image is built."""
        folder = self.stack.project.folder
        return folder / context_of(catalog.read(folder / "models").get(MODEL, self.version))


@pytest.fixture
def large(project: Project, remote: Remote) -> Iterator[Large]:
    project = replace(project, environment={**project.environment, **remote.environment})
    with changed(project, as_left=True) as stack:
        stack.set("artefacts", {"remote": remote.url})
        version = stack.release()
        folder = project.folder / "models" / MODEL / version
        with (folder / ARTEFACT).open("ab") as file:
            file.write(PADDING)
        [pointer] = large_files.replace_large(folder, largest=len(PADDING), remote=remote.url, say=print)
        yield Large(stack=stack, version=version, key=key(pointer.md5), remote=remote)


def served() -> str:
    """The version that answers, and answers right."""
    status, body = ask(PATH, IRIS)
    assert status == 200, body
    assert body["outputs"][0]["data"] == [0]
    version: str = body["model_version"]
    return version


def assert_unchanged(project: Project) -> None:
    shown = project.run("pulumi", "preview", "--expect-no-changes", "--stack", "local", check=False)
    assert shown.returncode == 0, shown.stdout


@pytest.mark.thorough("the folder, below; tests/release/test_dvc.py for buckets")
@pytest.mark.parametrize("remote", ["bucket"], indirect=True)
def test_the_real_file_is_served_and_a_rollback_to_it_needs_the_registry_alone(large: Large) -> None:
    project = large.stack.project
    assert "fetching" not in project.run("pulumi", "preview", "--stack", "local").stdout
    said = project.up().stdout
    assert f"fetching {ARTEFACT} (1.0 MiB), 1 of 1, from {large.remote.url}" in said
    assert served() == large.version
    assert not large.context.exists(), "the file is in the image, and the disk is free again"
    assert_unchanged(project)
    (large.context / FETCHED).mkdir(parents=True)
    (large.context / FETCHED / ARTEFACT).write_bytes(PADDING)
    assert_unchanged(project)

    large.stack.serve(versions={"1.0": 100})
    assert served() == "1.0"
    del large.remote.objects[large.key]
    large.stack.serve(versions={large.version: 100})
    assert served() == large.version


@pytest.mark.parametrize(
    ("remote", "broken"),
    [
        ("folder", "missing"),
        pytest.param(
            "bucket", "altered", marks=pytest.mark.thorough("tests/unit/test_pointers.py, and the missing one")
        ),
    ],
    indirect=["remote"],
)
@pytest.mark.thorough(
    "tests/unit/test_pointers.py and test_remotes.py; tests/release/test_dvc.py and test_publish.py with real files"
)
def test_a_file_that_cannot_be_had_stops_its_release_alone_until_it_is_put_back(large: Large, broken: str) -> None:
    project, objects = large.stack.project, large.remote.objects
    before, content = served(), objects[large.key]
    del objects[large.key]
    if broken == "altered":
        objects[large.key] = content[:-1] + b"!"
    failed = project.up(check=False)
    assert failed.returncode != 0
    assert f"models/{MODEL}/{large.version}/{ARTEFACT}.dvc" in failed.stdout
    told = f"has no {large.key}" if broken == "missing" else f"has another content in {large.key}"
    assert f"{large.remote.url} {told}" in failed.stdout
    assert "what served before serves on" in failed.stdout
    assert "Traceback" not in failed.stdout
    assert served() == before
    for model in OTHERS:
        assert ask(f"/mlapi/v2/models/{model}")[0] == 200
    if broken == "altered":
        del objects[large.key]
    objects[large.key] = content
    project.make("up")
    assert served() == large.version
