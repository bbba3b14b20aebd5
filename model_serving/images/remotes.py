"""Where large files are kept: a folder or a bucket in the layout of a DVC remote.

A file is named by its content, ``files/md5/<two digits>/<thirty digits>``, and never changes. That is DVC's own layout
since version 3: ``dvc pull`` finds what is put here, and what ``dvc push`` has put there is found here.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from model_serving.catalog.pointers import MEBIBYTE
from model_serving.problems import Failure
from model_serving.sections import REMOTE_PATTERN

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

PART_BYTES: Final = 8 << 20
"""Of one request, which is repeated by itself: Google wants a multiple of 256 KiB, and S3 at least 5 MiB."""
TELL_SECONDS: Final = 10
"""Between two lines on how far a transfer is."""
_TIMEOUT_SECONDS: Final = 60
_READABLE: Final = 0o644
_PACKAGES: Final = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3"), "az": ("adlfs", "az")}
"""What reads a kind of bucket, and the extra that installs it."""
_ACCESS: Final = {
    "file": "Let this account read and write there.",
    "gs": "Sign in, in a pipeline as its training or deploy jobs do and on a laptop with gcloud auth "
    "application-default login; the account needs roles/storage.objectUser on the bucket, or "
    "roles/storage.objectViewer where it only reads.",
    "s3": "Sign in, e.g. with aws configure or AWS_PROFILE; the account needs s3:ListBucket and s3:GetObject on the "
    "bucket, and s3:PutObject where it publishes.",
    "az": "Set AZURE_STORAGE_ACCOUNT_NAME and sign in, e.g. with az login; the account needs the role Storage Blob "
    "Data Contributor, or Storage Blob Data Reader where it only reads.",
}

Say = Callable[[str], None]


class RemoteError(Failure):
    """A remote did not do what it was asked: what happened, with its address and the file's hash, and the remedy."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}\n  No file was transferred.\n  {remedy}")
        self.what = what
        self.remedy = remedy


class Remote:
    """A folder or a bucket. Every method raises RemoteError."""

    def __init__(self, url: str, filesystem: AbstractFileSystem, *, say: Say) -> None:
        self._url = url.rstrip("/")
        self._scheme, _, place = self._url.partition("://")
        self._root = unquote(place) if self._scheme == "file" else place
        self._filesystem = filesystem
        self._say = say

    def __str__(self) -> str:
        return self._url

    def has(self, md5: str, size: int) -> bool:
        """Whether a file is there; one that is there and differs from its name is an error."""
        with self._failing("cannot be read", md5):
            try:
                there = self._filesystem.info(self._place(md5))
            except (FileNotFoundError, NotADirectoryError):
                return False
            if there["size"] != size or self._md5_of(there, md5) != md5:
                raise self._altered(md5)
        return True

    def put(self, path: Path, md5: str) -> None:
        """Stores a file, whole or not at all; one that is there already is not sent again."""
        size = path.stat().st_size
        if self.has(md5, size):
            return
        with path.open("rb") as file, self._failing("takes no file", md5):
            parts = iter(lambda: file.read(PART_BYTES), b"")
            try:
                with self._writing(self._place(md5)) as target:
                    if _copy(progress(parts, "stored", size, self._say), target) != md5:
                        raise RemoteError(
                            f"{path.name} was changed while it was read",
                            "Let whatever writes it come to its end, and run the same command again.",
                        )
            except FileNotFoundError:
                raise RemoteError(f"{self} has no bucket", "Make the bucket, or correct its name.") from None
            except FileExistsError:
                # Another release with the same file may have been quicker.
                if not self.has(md5, size):
                    raise

    def get(self, md5: str, target: Path) -> None:
        """Writes a file to a path, whole and verified or not at all."""
        with self._failing("cannot be read", md5):
            size = self._filesystem.info(self._place(md5))["size"]
        try:
            with replacing(target, scratch=target.parent) as file:
                if _copy(progress(self._parts(md5, size), "read", size, self._say), file) != md5:
                    raise self._altered(md5)
        except OSError as error:
            raise RemoteError(
                f"{target} could not be written from {self}: {error.strerror}",
                "Make room there, or let this account write.",
            ) from None

    def _parts(self, md5: str, size: int) -> Iterator[bytes]:
        """An object's bytes; what breaks off goes on where its part began."""
        for start in range(0, size, PART_BYTES):
            with self._failing(f"breaks off after {start:,} bytes", md5):
                part = self._filesystem.cat_file(self._place(md5), start=start, end=min(start + PART_BYTES, size))
            yield part

    @contextmanager
    def _writing(self, place: str) -> Iterator[IO[bytes]]:
        """A file that is in its place when the block has ended well, and nowhere otherwise."""
        if self._scheme == "file":
            # Not beside its place, where DVC would take what a killed command leaves for an object.
            with replacing(Path(place), scratch=Path(self._root)) as file:
                yield file
            return
        upload = self._filesystem.open(place, "xb", block_size=PART_BYTES)
        try:
            yield upload
            upload.close()
        except BaseException:
            with suppress(Exception):
                upload.discard()
            raise
        finally:
            # One that is left open would be completed when it is collected.
            upload.closed = True

    @contextmanager
    def _failing(self, how: str, md5: str) -> Iterator[None]:
        """Says every failure in this project's words: each filesystem has errors of its own."""
        try:
            yield
        except RemoteError:
            raise
        except FileNotFoundError:
            raise RemoteError(
                f"{self} has no {key(md5)}",
                "Publish the release again, or `dvc push` the file from where it was made; no other place has it.",
            ) from None
        except Exception as error:
            remedy = "Run the same command again when it answers; it goes on from what is there."
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                remedy = "Free some space there."
            elif self._scheme == "file" or _refused(error):
                remedy = _ACCESS[self._scheme]
            raise RemoteError(f"{self} {how}, md5 {md5}: {_said(error)}", remedy) from None

    def _altered(self, md5: str) -> RemoteError:
        return RemoteError(
            f"{self} has another content in {key(md5)} than its name says",
            "Remove that object, find out who wrote it, and publish again or `dvc push` to put the right file back.",
        )

    def _place(self, md5: str) -> str:
        return f"{self._root}/{key(md5)}"

    def _md5_of(self, there: dict[str, Any], expected: str) -> str:
        if self._scheme == "file":
            return md5_of(Path(there["name"]))
        # Only Google tells it, and not of what was put together from parts: elsewhere the size has to do.
        return base64.b64decode(there["md5Hash"]).hex() if "md5Hash" in there else expected


def open_remote(url: str, *, say: Say = print) -> Remote:
    """Opens a remote; nothing is asked of it yet.

    Args:
        url: ``file:///a/folder``, or ``gs://bucket``, ``s3://bucket`` or ``az://container`` with an optional path.
        say: is told how far a long transfer is.

    Raises:
        RemoteError: if there is no such kind of remote, or no package or no account for it.
    """
    if not re.fullmatch(REMOTE_PATTERN, url):
        raise RemoteError(
            f"{url} is no remote",
            "Write gs://bucket, s3://bucket or az://container, with a path if need be, or file:///path/of/a/folder.",
        )
    scheme = url.partition("://")[0]
    try:
        return Remote(url, filesystem(scheme), say=say)
    except ImportError:
        package, extra = _PACKAGES[scheme]
        raise RemoteError(
            f"{url} needs the package {package}, which is not installed",
            f'Install its extra: pip install "model-serving[{extra}] @ <address of this project\'s checkout>"',
        ) from None
    except Exception as error:
        raise RemoteError(f"{url} finds no account that works: {_said(error)}", _ACCESS[scheme]) from None


def filesystem(scheme: str) -> AbstractFileSystem:
    """The files of a kind of address: ``file``, ``gs``, ``s3`` or ``az``; ImportError if its package is missing."""
    import fsspec  # noqa: PLC0415  # A stack without remotes does not wait for it.

    # Not one of before, which would keep the account of then.
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if scheme == "gs":
        import aiohttp  # noqa: PLC0415  # It is slow, and only buckets need it.

        # It logs, with a traceback, what it raises as well.
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
        # Its default class asks for the kind of a bucket by gRPC, which emulators of the JSON API do not answer.
        fsspec.register_implementation("gs", "gcsfs.core.GCSFileSystem", clobber=True)
        timeout = aiohttp.ClientTimeout(sock_connect=_TIMEOUT_SECONDS, sock_read=_TIMEOUT_SECONDS)
        options |= {
            "token": "anon" if os.environ.get("STORAGE_EMULATOR_HOST") else "google_default",
            "access": "read_write",
            "consistency": "md5",
            "session_kwargs": {"trust_env": True, "timeout": timeout},
        }
    return fsspec.filesystem(scheme, **options)


def _refused(error: Exception) -> bool:
    """Whether the account is the reason; told by names, because the packages need not be installed."""
    causes = (error, error.__cause__)
    codes = {getattr(each, name, None) for each in causes for name in ("code", "status_code")}
    names = " ".join(base.__name__ for each in causes for base in type(each).__mro__)
    return bool(codes & {401, 403}) or bool(re.search("Auth|Credential|Permission", names)) or "Forbidden" in str(error)


def _said(error: Exception) -> str:
    """An error in its own words, without the query of an address: that of an upload lets whoever has it write."""
    return " ".join(re.sub(r"\?\S*", "", str(error)).split()) or type(error).__name__


def key(md5: str) -> str:
    """Where a remote has a file, relative to its root."""
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def md5_of(path: Path) -> str:
    """What DVC names a file by."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@contextmanager
def replacing(target: Path, *, scratch: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which takes its place when the block has ended well and is gone otherwise.

    Args:
        target: its place.
        scratch: folder on the same disk where it grows.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(prefix=".unfinished-", dir=scratch)
    unfinished = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            yield file
        # A temporary file is its owner's alone.
        unfinished.chmod(_READABLE)
        unfinished.rename(target)
    finally:
        unfinished.unlink(missing_ok=True)


def progress(parts: Iterable[bytes], done: str, total: int, say: Say) -> Iterator[bytes]:
    """The same parts; says every ten seconds how many of the total bytes are done, e.g. ``stored``."""
    begun = said = time.monotonic()
    reached = 0
    for part in parts:
        yield part
        reached += len(part)
        now = time.monotonic()
        if now - said >= TELL_SECONDS:
            said = now
            say(f"{reached / MEBIBYTE:,.0f} of {total / MEBIBYTE:,.0f} MiB {done}, {now - begun:.0f} s")


def _copy(parts: Iterable[bytes], target: IO[bytes]) -> str:
    """Writes the parts to a file; returns their MD5, which tells files apart and keeps no secret."""
    total = hashlib.md5(usedforsecurity=False)
    for part in parts:
        total.update(part)
        target.write(part)
    return total.hexdigest()
