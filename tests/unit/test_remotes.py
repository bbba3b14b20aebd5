"""Files go to a remote and come back, whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.oauth2.credentials import Credentials

from model_serving.images import google_storage
from model_serving.images.google_storage import Bucket, Patience
from model_serving.images.remotes import Progress, Remote, RemoteError, key, md5_of, open_remote
from tests.google_storage import Storage, storage

CONTENT = bytes(range(256)) * 4096
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
KEY = f"files/md5/{MD5[:2]}/{MD5[2:]}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.bin"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "remote"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    with storage() as standin:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", standin.address)
        yield standin


def connect(said: list[str] | None = None) -> Bucket:
    patience = Patience(retries=2, backoff_seconds=0, timeout_seconds=5)
    return Bucket("gs://models/dvc", say=(said if said is not None else []).append, patience=patience)


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.name.startswith(".")]


def folder(root: Path) -> Remote:
    return open_remote(root.as_uri())


# A folder


def test_a_file_is_where_dvc_looks_for_it_and_comes_back_as_it_was(file: Path, root: Path, tmp_path: Path) -> None:
    remote, back = folder(root), tmp_path / "deep" / "back.bin"
    assert not remote.has(MD5, len(CONTENT))
    remote.put(file, MD5)
    assert (root / KEY).read_bytes() == CONTENT
    assert remote.has(MD5, len(CONTENT))
    remote.get(MD5, back)
    assert back.read_bytes() == CONTENT
    assert md5_of(back) == MD5
    assert leftovers(root) == leftovers(back.parent) == []


def test_a_file_that_is_there_is_not_written_again(file: Path, root: Path) -> None:
    folder(root).put(file, MD5)
    before = (root / KEY).stat()
    folder(root).put(file, MD5)
    assert (root / KEY).stat().st_mtime_ns == before.st_mtime_ns


def test_a_missing_object_is_told_with_its_place(root: Path, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match=f"has no {KEY}(.|\n)*dvc push"):
        folder(root).get(MD5, tmp_path / "back.bin")


def test_an_altered_object_is_refused_and_what_was_there_stays(file: Path, root: Path, tmp_path: Path) -> None:
    remote, back = folder(root), tmp_path / "back.bin"
    remote.put(file, MD5)
    (root / KEY).write_bytes(CONTENT[:-1] + b"!")
    back.write_text("before")
    for use in (lambda: remote.get(MD5, back), lambda: remote.put(file, MD5), lambda: remote.has(MD5, len(CONTENT))):
        with pytest.raises(RemoteError, match=f"another content in {KEY}"):
            use()
    assert back.read_text() == "before"
    assert leftovers(tmp_path) == []


def test_a_file_that_changes_while_it_is_stored_is_refused(file: Path, root: Path) -> None:
    with pytest.raises(RemoteError, match=r"model\.bin was changed while it was read"):
        folder(root).put(file, "0" * 32)
    assert [path for path in root.rglob("*") if path.is_file()] == []


def test_a_remote_that_cannot_be_written_is_told(file: Path, root: Path) -> None:
    root.write_text("no folder")
    with pytest.raises(RemoteError, match="takes no file"):
        folder(root).put(file, MD5)


@pytest.mark.parametrize("url", ["s3://models", "/srv/dvc", "file://host/dvc", "file:", "models"])
def test_what_is_no_remote_is_refused_with_what_to_write(url: str) -> None:
    with pytest.raises(RemoteError, match="is no remote\n  Write gs://bucket"):
        open_remote(url)


# A bucket


def test_a_file_goes_to_a_bucket_and_comes_back_as_it_was(bucket: Storage, file: Path, tmp_path: Path) -> None:
    remote, back = connect(), tmp_path / "back.bin"
    assert not remote.has(MD5, len(CONTENT))
    remote.put(file, MD5)
    assert bucket.objects == {f"dvc/{KEY}": CONTENT}
    assert remote.has(MD5, len(CONTENT))
    remote.get(MD5, back)
    assert back.read_bytes() == CONTENT
    assert f"GET /storage/v1/b/models/o/dvc/{KEY}" in bucket.requests


def test_an_empty_file_goes_to_a_bucket_and_comes_back(bucket: Storage, tmp_path: Path) -> None:
    empty, back = tmp_path / "empty", tmp_path / "back"
    empty.touch()
    connect().put(empty, md5_of(empty))
    connect().get(md5_of(empty), back)
    assert [*bucket.objects.values()] == [b""]
    assert back.read_bytes() == b""


def test_a_file_that_a_bucket_has_is_not_sent_again(bucket: Storage, file: Path) -> None:
    connect().put(file, MD5)
    bucket.requests.clear()
    connect().put(file, MD5)
    assert [request.partition(" ")[0] for request in bucket.requests] == ["GET"]


def test_a_large_file_is_sent_in_parts_from_where_the_bucket_has_them(
    bucket: Storage, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(google_storage, "UPLOAD_BYTES", 300_000)
    bucket.keeps = 262_144
    connect().put(file, MD5)
    assert bucket.objects[f"dvc/{KEY}"] == CONTENT
    assert sum(request.startswith("PUT") for request in bucket.requests) == 4


def test_two_releases_with_the_same_file_both_succeed(
    bucket: Storage, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one is quicker between the question and the upload."""
    remote, answers = connect(), iter([False, True])
    bucket.objects[f"dvc/{KEY}"] = CONTENT
    monkeypatch.setattr(remote, "has", lambda *_: next(answers))
    remote.put(file, MD5)
    assert next(answers, None) is None


def test_what_the_bucket_cannot_do_now_is_tried_again(bucket: Storage, file: Path, tmp_path: Path) -> None:
    bucket.failures = [503, 429]
    connect().put(file, MD5)
    bucket.failures = [500, 502]
    connect().get(MD5, tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == CONTENT


def test_a_bucket_that_never_can_is_told_with_its_own_words(bucket: Storage, tmp_path: Path) -> None:
    bucket.failures = [503] * 3
    with pytest.raises(RemoteError, match=r"gs://models/dvc answered 503 .* told to fail(.|\n)*same command again"):
        connect().get(MD5, tmp_path / "back.bin")


def test_a_download_that_breaks_off_goes_on_from_there(
    bucket: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(google_storage, "PART_BYTES", 100_000)
    bucket.objects[f"dvc/{KEY}"] = CONTENT
    bucket.cut = [300_000, 0, 300_000]
    connect().get(MD5, tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == CONTENT
    assert len(bucket.requests) == 4


def test_a_download_that_keeps_breaking_off_is_given_up_and_leaves_nothing(
    bucket: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(google_storage, "PART_BYTES", 1000)
    bucket.objects[f"dvc/{KEY}"] = CONTENT
    bucket.cut = [1000, 0, 0, 0]
    with pytest.raises(RemoteError, match=r"breaks off after 1,000 bytes"):
        connect().get(MD5, tmp_path / "back.bin")
    assert [*tmp_path.iterdir()] == []


def test_a_missing_and_an_altered_object_of_a_bucket_are_told(bucket: Storage, file: Path, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match=f"gs://models/dvc has no {KEY}"):
        connect().get(MD5, tmp_path / "back.bin")
    bucket.objects[f"dvc/{KEY}"] = CONTENT[::-1]
    with pytest.raises(RemoteError, match=f"another content in {KEY}"):
        connect().get(MD5, tmp_path / "back.bin")
    with pytest.raises(RemoteError, match=f"another content in {KEY}"):
        connect().put(file, MD5)


def test_an_account_without_the_right_is_told_which_role(bucket: Storage, file: Path) -> None:
    bucket.refuses = True
    with pytest.raises(RemoteError, match=r"answered 403 .* storage\.objects\.get(.|\n)*roles/storage\.objectUser"):
        connect().put(file, MD5)


def test_a_file_that_changes_on_its_way_to_a_bucket_is_refused(bucket: Storage, file: Path) -> None:
    with pytest.raises(RemoteError, match="Provided MD5 hash"):
        connect().put(file, "0" * 32)
    assert bucket.objects == {}


def test_a_bucket_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with storage() as standin:
        address = standin.address
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{address}")
    with pytest.raises(RemoteError, match=r"gs://models/dvc did not answer"):
        connect().get(MD5, tmp_path / "back.bin")


def test_google_itself_is_asked_with_the_machines_account_and_a_stand_in_with_none(
    bucket: Storage, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect().put(file, MD5)
    assert bucket.accounts == {None}
    bucket.accounts.clear()
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setattr(google_storage, "GOOGLE", f"http://{bucket.address}")
    account = Credentials("of-this-machine")  # type: ignore[no-untyped-call]  # google-auth has no types there
    monkeypatch.setattr("google.auth.default", lambda scopes: (account, "project"))
    connect().put(file, MD5)
    assert bucket.accounts == {"Bearer of-this-machine"}


def test_a_machine_without_an_account_is_told_how_to_sign_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(RemoteError, match="application-default login"):
        open_remote("gs://models")


# What is told meanwhile


def test_a_long_transfer_tells_how_far_it_is_and_a_short_one_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    clock = iter([0.0, 1.0, 11.0, 12.0, 22.0])
    monkeypatch.setattr("model_serving.images.remotes.time.monotonic", lambda: next(clock))
    assert [*Progress("stored", 4 << 20, said.append).of([b"x" * (1 << 20)] * 4)]
    assert said == ["2 of 4 MiB stored, 11 s", "4 of 4 MiB stored, 22 s"]


def test_the_key_is_that_of_dvc_3() -> None:
    assert key("a304afb96060aad90176268345e10355") == "files/md5/a3/04afb96060aad90176268345e10355"
