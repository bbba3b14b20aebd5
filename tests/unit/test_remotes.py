"""Files go to a remote and come back, whole or not at all."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import fsspec
import pytest
from google.oauth2.credentials import Credentials

from model_serving.images import artefacts, large_files, remotes
from model_serving.images.remotes import Remote, RemoteError, key, md5_of, open_remote, progress
from tests.google_storage import Storage, storage

CONTENT = bytes(range(256)) * 4096
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
KEY = f"files/md5/{MD5[:2]}/{MD5[2:]}"
PART_BYTES = remotes.PART_BYTES


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
    """A bucket whose client makes no pauses before it tries again."""
    pause = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda _: pause(0))
    with storage() as standin:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", standin.address)
        yield standin


def connect() -> Remote:
    return open_remote("gs://models/dvc")


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
    assert [path.stat().st_mode & 0o777 for path in (root / KEY, back)] == [0o644, 0o644]


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
    root.write_text("no folder", encoding="utf-8")
    with pytest.raises(RemoteError, match="takes no file"):
        folder(root).put(file, MD5)


def test_a_full_disk_is_told_on_either_side(
    file: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(root).put(file, MD5)
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(tempfile, "mkstemp", Mock(side_effect=full))
    with pytest.raises(RemoteError, match=r"takes no file, md5 .*: .*No space left(.|\n)*Free some space there"):
        folder(tmp_path / "other").put(file, MD5)
    with pytest.raises(RemoteError, match=r"back\.bin could not be written from file://.*No space(.|\n)*Make room"):
        folder(root).get(MD5, tmp_path / "back.bin")


@pytest.mark.parametrize("url", ["ftp://models", "s3://", "/srv/dvc", "file://host/dvc", "file:", "models"])
def test_what_is_no_remote_is_refused_with_what_to_write(url: str) -> None:
    with pytest.raises(RemoteError, match=r"is no remote\n  No file was transferred\.\n  Write gs://bucket"):
        open_remote(url)


@pytest.mark.parametrize(("url", "package"), [("s3://models/dvc", "s3fs"), ("az://models/dvc", "adlfs")])
def test_a_bucket_whose_package_is_missing_is_told_with_the_extra_that_brings_it(
    url: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    told = rf'{url} needs the package {package}(.|\n)*No file(.|\n)*pip install "model-serving\[{url[:2]}\]'
    with pytest.raises(RemoteError, match=told):
        open_remote(url)


def test_who_has_no_remote_does_not_wait_for_its_packages(tmp_path: Path) -> None:
    """Neither does a folder wait for those of buckets."""
    code = f"""
import sys
from model_serving.images import artefacts, large_files
from model_serving.images.remotes import open_remote
assert not {{"fsspec", "aiohttp"}} & set(sys.modules)
open_remote("{tmp_path.as_uri()}")
assert "aiohttp" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


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
    assert {request.partition(" ")[0] for request in bucket.requests} == {"GET"}


def test_a_file_is_fetched_in_a_thread_beside_a_running_loop(
    bucket: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the program of a stack does it, for several images at once."""
    release = tmp_path / "v1"
    release.mkdir()
    (release / "weights.bin").write_bytes(CONTENT)
    large_files.replace_large(release, largest=1000, remote="gs://models/dvc", say=print)
    monkeypatch.setattr(remotes, "TELL_SECONDS", 0)
    said: list[str] = []

    async def fetch() -> None:
        def run(context: Path) -> None:
            artefacts.fetch(release, context, remote="gs://models/dvc", say=said.append)

        await asyncio.gather(*(asyncio.to_thread(run, tmp_path / name) for name in ("one", "two")))

    asyncio.run(fetch())
    for name in ("one", "two"):
        assert (tmp_path / name / artefacts.FETCHED / "weights.bin").read_bytes() == CONTENT
    assert said.count("fetching weights.bin (1.0 MiB), 1 of 1, from gs://models/dvc") == 2
    assert said.count("1 of 1 MiB read, 0 s") == 2


def test_a_large_file_is_sent_in_parts_from_where_the_bucket_has_them(
    bucket: Storage, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remotes, "PART_BYTES", 300_000)
    bucket.keeps = 262_144
    connect().put(file, MD5)
    assert bucket.objects[f"dvc/{KEY}"] == CONTENT
    assert bucket.started("POST /upload") == 1 + 4


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


def test_a_bucket_that_never_can_is_told_with_its_own_words(
    bucket: Storage, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bucket.failures = [503] * 30
    with pytest.raises(
        RemoteError, match=r"gs://models/dvc cannot be read, .* told to fail, 503(.|\n)*same command again"
    ):
        connect().get(MD5, tmp_path / "back.bin")
    assert len(bucket.failures) > 10, "it is given up after a while"
    assert capfd.readouterr() == ("", "")


def test_an_upload_that_fails_leaves_nothing_and_its_address_is_not_told(
    bucket: Storage, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remotes, "PART_BYTES", 262_144)
    bucket.lost = True
    with pytest.raises(RemoteError, match="takes no file") as refused:
        connect().put(file, MD5)
    assert "secret" not in str(refused.value)
    assert (bucket.objects, bucket.uploads) == ({}, {})


def test_a_download_that_breaks_off_goes_on_from_there(
    bucket: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remotes, "PART_BYTES", 400_000)
    bucket.objects[f"dvc/{KEY}"] = CONTENT
    bucket.cut = [400_000, 100_000, 0]
    connect().get(MD5, tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == CONTENT
    assert bucket.started("GET /download") == 1 + 3 + 1


def test_a_download_that_keeps_breaking_off_is_given_up_and_leaves_nothing(
    bucket: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remotes, "PART_BYTES", 1000)
    bucket.objects[f"dvc/{KEY}"] = CONTENT
    bucket.cut = [1000] + [0] * 30
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


def test_a_missing_bucket_is_told(bucket: Storage, file: Path) -> None:
    bucket.exists = False
    with pytest.raises(RemoteError, match=r"gs://models/dvc has no bucket(.|\n)*Make the bucket, or correct its name"):
        connect().put(file, MD5)


def test_an_account_without_the_right_is_told_which_role(bucket: Storage, file: Path) -> None:
    bucket.refuses = 403
    with pytest.raises(RemoteError, match=r"Forbidden.* storage\.objects\.get(.|\n)*roles/storage\.objectUser"):
        connect().put(file, MD5)


def test_a_file_that_changes_on_its_way_to_a_bucket_is_refused(
    bucket: Storage, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its parts were sent meanwhile or not."""
    for part_bytes in (PART_BYTES, 300_000):
        monkeypatch.setattr(remotes, "PART_BYTES", part_bytes)
        with pytest.raises(RemoteError, match=r"model\.bin was changed while it was read"):
            connect().put(file, "0" * 32)
        assert (bucket.objects, bucket.uploads) == ({}, {})


def test_a_bucket_that_does_not_answer_is_told(
    bucket: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with storage() as standin:
        address = standin.address
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{address}")
    with pytest.raises(RemoteError, match=r"gs://models/dvc cannot be read, .*: Cannot connect to host"):
        connect().get(MD5, tmp_path / "back.bin")


# Accounts


def sign_in(bucket: Storage, account: Credentials, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets Google itself be the stand-in, and the machine have an account."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setitem(fsspec.config.conf, "gs", {"endpoint_url": f"http://{bucket.address}"})
    monkeypatch.setattr("google.auth.default", lambda scopes, request: (account, "project"))


def test_google_itself_is_asked_with_the_machines_account_and_a_stand_in_with_none(
    bucket: Storage, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect().put(file, MD5)
    assert bucket.accounts == {None}
    bucket.accounts.clear()
    account = Credentials("of-this-machine")  # type: ignore[no-untyped-call]  # google-auth has no types there
    sign_in(bucket, account, monkeypatch)
    connect().put(file, MD5)
    assert bucket.accounts == {"Bearer of-this-machine"}


def test_a_machine_without_an_account_is_told_how_to_sign_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(RemoteError, match=r"none\.json(.|\n)*application-default login"):
        open_remote("gs://models")


def test_an_account_that_is_not_known_any_more_is_told_how_to_sign_in(
    bucket: Storage, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = Credentials("of-this-machine")  # type: ignore[no-untyped-call]  # google-auth has no types there
    sign_in(bucket, account, monkeypatch)
    bucket.refuses = 401
    with pytest.raises(RemoteError, match=r"401(.|\n)*application-default login") as refused:
        connect().put(file, MD5)
    assert "of-this-machine" not in str(refused.value)


class NoCredentialsError(Exception):
    """As the client of S3 has it."""


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (PermissionError("Access Denied"), "s3:GetObject"),
        (NoCredentialsError("Unable to locate credentials"), "aws configure"),
        (OSError(errno.EBUSY, "Please reduce your request rate."), "same command again"),
    ],
)
def test_other_clients_have_other_errors(error: Exception, remedy: str) -> None:
    remote = Remote("s3://models/dvc", Mock(info=Mock(side_effect=error)), say=print)
    with pytest.raises(RemoteError, match=f"s3://models/dvc cannot be read, md5 {MD5}: .*\n.*\n.*{remedy}"):
        remote.has(MD5, len(CONTENT))


# What is told meanwhile


def test_a_long_transfer_tells_how_far_it_is_and_a_short_one_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    clock = iter([0.0, 1.0, 11.0, 12.0, 22.0])
    monkeypatch.setattr("model_serving.images.remotes.time.monotonic", lambda: next(clock))
    assert [*progress([b"x" * (1 << 20)] * 4, "stored", 4 << 20, said.append)]
    assert said == ["2 of 4 MiB stored, 11 s", "4 of 4 MiB stored, 22 s"]


def test_the_key_is_that_of_dvc_3() -> None:
    assert key("a304afb96060aad90176268345e10355") == "files/md5/a3/04afb96060aad90176268345e10355"
