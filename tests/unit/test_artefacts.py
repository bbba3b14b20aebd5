"""Large files are on this machine for as long as their image is built, and in the image alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_serving.catalog import Release
from model_serving.images import artefacts, large_files
from model_serving.images.remotes import RemoteError
from model_serving.problems import InvalidInput

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A release whose weights are in a remote."""
    monkeypatch.chdir(tmp_path)
    folder = Path("models", "doubler", "1.0")
    folder.mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"w" * 2000)
    large_files.replace_large(folder, largest=1000, remote=(tmp_path / "remote").as_uri(), say=print)
    return folder


def test_a_context_holds_the_files_where_the_dockerfile_takes_them_from(folder: Path, tmp_path: Path) -> None:
    release = Release(
        name="doubler",
        version="1.0",
        folder=folder,
        implementation="own.Model",
        lock=folder / "requirements.lock",
        request=None,
        response=None,
    )
    context = artefacts.context_of(release)
    assert context == Path(".state/artefacts", release.content_hash)
    artefacts.fetch(folder, context, remote=(tmp_path / "remote").as_uri(), say=print)
    assert (context / artefacts.FETCHED / "weights.bin").read_bytes() == b"w" * 2000
    assert f"--from=artefacts {artefacts.FETCHED}/ " in (PROJECT / artefacts.DOCKERFILE).read_text()
    artefacts.remove(context)
    artefacts.remove(context)
    assert not context.exists()


def test_what_cannot_be_fetched_is_told_with_the_pointer(folder: Path, tmp_path: Path) -> None:
    [stored] = [path for path in (tmp_path / "remote").rglob("*") if path.is_file()]
    stored.unlink()
    with pytest.raises(InvalidInput, match=r"^models/doubler/1\.0/weights\.bin\.dvc: md5 \w+: file://.* has no files"):
        artefacts.fetch(folder, tmp_path / "context", remote=(tmp_path / "remote").as_uri(), say=print)
    with pytest.raises(RemoteError, match="ftp://models is no remote"):
        artefacts.fetch(folder, tmp_path / "context", remote="ftp://models", say=print)


def test_the_provider_leaves_the_files_out_of_its_hash_and_nothing_else_that_other_models_have() -> None:
    """Its hash goes by the Dockerfile's own ignore file, for every context."""
    ours, others = (
        (PROJECT / f"{dockerfile}.dockerignore").read_text().split()
        for dockerfile in (artefacts.DOCKERFILE, "server/model.Dockerfile")
    )
    assert artefacts.FETCHED.startswith(".")
    assert ours == others == ["**/.*", "**/__pycache__"]
