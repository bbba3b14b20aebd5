"""Large files of a release: pointers take their place, and a folder gets them back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from model_serving import catalog
from model_serving.catalog import pointers, training_versions
from model_serving.catalog.pointers import Pointer
from model_serving.images import large_files
from model_serving.images.remotes import RemoteError, open_remote
from model_serving.problems import InvalidInput

LARGEST = 1000
WEIGHTS = b"w" * 3000
MD5 = hashlib.md5(WEIGHTS, usedforsecurity=False).hexdigest()
OUT = {"md5": MD5, "size": 3000, "hash": "md5", "path": "weights.bin"}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "doubler" / "v1.0.0"
    (folder / "deep").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(WEIGHTS)
    (folder / "deep" / "more.bin").write_bytes(WEIGHTS + b"!")
    (folder / "small.bin").write_bytes(b"s" * LARGEST)
    return folder


@pytest.fixture
def remote(tmp_path: Path) -> str:
    return (tmp_path / "remote").as_uri()


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def ignore(_: str) -> None:
    """Says nothing."""


def replaced(folder: Path, remote: str | None) -> list[Pointer]:
    return large_files.replace_large(folder, largest=LARGEST, remote=remote, say=ignore)


def write(folder: Path, content: object) -> None:
    """Makes a release whose only file is a pointer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.bin.dvc").write_text(content if isinstance(content, str) else yaml.safe_dump(content))


# Away


def test_files_above_the_limit_become_pointers_that_say_what_was_there(release: Path, remote: str) -> None:
    said: list[str] = []
    made = large_files.replace_large(release, largest=LARGEST, remote=remote, say=said.append)
    assert names(release) == {"weights.bin.dvc", "deep/more.bin.dvc", "small.bin"}
    assert yaml.safe_load((release / "weights.bin.dvc").read_text()) == {"outs": [OUT]}
    assert pointers.of(release) == made
    assert Pointer(path="weights.bin", md5=MD5, size=3000) in made
    assert said == [
        f"storing deep/more.bin (0.0 MiB), 1 of 2, in {remote}",
        f"storing weights.bin (0.0 MiB), 2 of 2, in {remote}",
    ]


def test_a_release_without_large_files_needs_no_remote(release: Path) -> None:
    assert large_files.replace_large(release, largest=4000, remote=None, say=ignore) == []


def test_without_a_remote_every_large_file_is_refused_and_stays(release: Path) -> None:
    before = names(release)
    with pytest.raises(InvalidInput, match=r"Write artefacts\.remote in release\.yaml") as refused:
        replaced(release, None)
    assert [problem.file for problem in refused.value.problems] == ["deep/more.bin", "weights.bin"]
    assert names(release) == before


def test_what_is_read_before_a_remote_is_asked_cannot_be_a_pointer(release: Path, remote: str) -> None:
    (release / "request.json").write_bytes(b" " * 2000)
    with pytest.raises(InvalidInput, match=r"request\.json: has .*(.|\n)*Make it smaller"):
        replaced(release, remote)
    assert not (release.parents[1] / "remote").exists()


def test_what_the_catalog_reads_is_among_it() -> None:
    read = {catalog.SETTINGS, catalog.LOCK, catalog.REQUEST, catalog.RESPONSE, training_versions.PROVENANCE}
    assert read == pointers.READ_BEFORE


def test_no_file_is_replaced_unless_all_are_stored(
    release: Path, remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, kept = names(release), open_remote(remote)

    class Full:
        def put(self, path: Path, md5: str) -> None:
            if path.name == "weights.bin":
                raise RemoteError("the remote is full", "Free some space there.")
            kept.put(path, md5)

    with monkeypatch.context() as patch:
        patch.setattr(large_files, "open_remote", lambda *_, **__: Full())
        with pytest.raises(InvalidInput, match=r"weights\.bin: the remote is full(.|\n)*Free some space"):
            replaced(release, remote)
    assert names(release) == before
    assert len(replaced(release, remote)) == 2, "the same command again"


def test_a_remote_that_is_none_is_told_in_the_place_where_it_is_written(release: Path) -> None:
    with pytest.raises(InvalidInput, match=r"release\.yaml: ftp://models is no remote"):
        replaced(release, "ftp://models")


# And back


@pytest.fixture
def fetch(release: Path, remote: str, tmp_path: Path) -> Callable[[], set[str]]:
    """Fetches what the pointers of the release stand for; gives the names of what is there then."""
    replaced(release, remote)

    def run() -> set[str]:
        large_files.fetch(release, open_remote(remote), tmp_path / "target", say=ignore)
        return names(tmp_path / "target")

    return run


def test_what_comes_back_is_what_went(fetch: Callable[[], set[str]], tmp_path: Path) -> None:
    assert fetch() == {"weights.bin", "deep/more.bin"}
    assert (tmp_path / "target" / "weights.bin").read_bytes() == WEIGHTS
    assert (tmp_path / "target" / "deep" / "more.bin").read_bytes() == WEIGHTS + b"!"


def test_what_is_there_and_right_is_not_fetched_again_and_what_is_wrong_is(
    fetch: Callable[[], set[str]], tmp_path: Path
) -> None:
    fetch()
    right, wrong = tmp_path / "target" / "weights.bin", tmp_path / "target" / "deep" / "more.bin"
    before = right.stat().st_ino
    wrong.write_bytes(b"x" * 3001)
    fetch()
    assert right.stat().st_ino == before
    assert wrong.read_bytes() == WEIGHTS + b"!"


def test_what_no_pointer_names_is_removed(fetch: Callable[[], set[str]], tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    target = tmp_path / "target"
    for path in ("stray", ".unfinished-x", "deep/.unfinished-y", "other/stray", "weights.bin/in-the-way"):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).touch()
    (target / "link").symlink_to(outside)
    (target / "deep" / "more.bin").symlink_to(outside / "kept")
    assert fetch() == {"weights.bin", "deep/more.bin"}
    assert names(outside) == {"kept"}
    assert (outside / "kept").read_bytes() == b""


def test_every_file_that_cannot_be_had_is_told_and_the_others_are_fetched(
    fetch: Callable[[], set[str]], release: Path, tmp_path: Path
) -> None:
    stored = tmp_path / "remote" / "files" / "md5" / MD5[:2] / MD5[2:]
    stored.unlink()
    with pytest.raises(InvalidInput) as refused:
        fetch()
    [problem] = refused.value.problems
    assert problem.file == (release / "weights.bin.dvc").as_posix()
    assert MD5 in problem.what
    assert "what served before serves on" in problem.consequence
    assert names(tmp_path / "target") == {"deep/more.bin"}
    stored.write_bytes(WEIGHTS)
    assert fetch() == {"weights.bin", "deep/more.bin"}, "the object was put back"


# Pointers that are none


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("outs: [", r"is no YAML"),
        ("text", r"holds no `outs`"),
        ({"outs": []}, r"outs is \[\]"),
        ({"outs": [OUT, OUT]}, r"outs is"),
        ({"outs": [{**OUT, "md5": "a"}]}, r'outs\.0\.md5 is "a"'),
        ({"outs": [{**OUT, "md5": f"{MD5}.dir"}]}, r"which is a folder's(.|\n)*Add each of its files by itself"),
        ({"outs": [{**OUT, "size": -1}]}, r"outs\.0\.size is -1"),
        ({"outs": [{**OUT, "path": "../weights.bin"}]}, r"Write weights\.bin, or rename the pointer"),
        ({"outs": [{**OUT, "remote": "other"}]}, r"unknown setting outs\.0\.remote"),
        ({"outs": [{"md5": MD5, "size": 3000, "path": "weights.bin"}]}, r"outs\.0\.hash is missing"),
    ],
)
def test_a_pointer_that_is_none_is_refused(tmp_path: Path, content: object, told: str) -> None:
    write(tmp_path / "v1", content)
    with pytest.raises(InvalidInput, match=told) as refused:
        pointers.of(tmp_path / "v1")
    assert all(problem.file.endswith("v1/weights.bin.dvc") for problem in refused.value.problems)


def test_a_pointer_of_a_file_that_was_executable_is_one(tmp_path: Path) -> None:
    write(tmp_path / "v1", {"outs": [OUT | {"isexec": True}]})
    assert [pointer.path for pointer in pointers.of(tmp_path / "v1")] == ["weights.bin"]


def test_every_mistake_of_every_pointer_is_told(tmp_path: Path) -> None:
    write(tmp_path / "v1", {"outs": [{**OUT, "md5": "a", "size": -1}]})
    write(tmp_path / "v1" / "deep", "outs: [")
    with pytest.raises(InvalidInput) as refused:
        pointers.of(tmp_path / "v1")
    assert len(refused.value.problems) == 3


def test_a_file_beside_its_pointer_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "v1", {"outs": [OUT]})
    (tmp_path / "v1" / "weights.bin").write_bytes(WEIGHTS)
    with pytest.raises(InvalidInput, match=r"has weights\.bin beside it"):
        pointers.of(tmp_path / "v1")


def test_a_hidden_pointer_is_no_part_of_a_release(tmp_path: Path) -> None:
    write(tmp_path / "v1" / ".cache", "text")
    assert pointers.of(tmp_path / "v1") == []
