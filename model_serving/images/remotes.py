"""Where large files are kept: a folder or a bucket in the layout of a DVC remote.

A file is named by its content, ``files/md5/<two digits>/<thirty digits>``, and never changes. That is DVC's own layout
since version 3: ``dvc pull`` finds what is put here, and what ``dvc push`` has put there is found here.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Protocol
from urllib.parse import unquote, urlsplit

from model_serving.catalog.pointers import MEBIBYTE

if TYPE_CHECKING:
    from hashlib import _Hash

PART_BYTES: Final = 1 << 20
TELL_SECONDS: Final = 10
"""Between two lines on how far a transfer is."""
_READABLE: Final = 0o644

Say = Callable[[str], None]


class RemoteError(Exception):
    """A remote did not do what it was asked.

    Attributes:
        what: happened, with the remote's address and the object's hash.
        remedy: what to do about it, one sentence.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}\n  {remedy}")
        self.what = what
        self.remedy = remedy


class Remote(Protocol):
    """A place for files. Every method raises RemoteError."""

    def has(self, md5: str, size: int) -> bool:
        """Whether a file is there; one that is there and differs from its name is an error."""

    def put(self, path: Path, md5: str) -> None:
        """Stores a file, whole or not at all; one that is there already is not sent again."""

    def get(self, md5: str, target: Path) -> None:
        """Writes a file to a path, whole and verified or not at all."""


def open_remote(url: str, *, say: Say = print) -> Remote:
    """Opens a remote; nothing is asked of it yet.

    Args:
        url: ``file:///a/folder``, or ``gs://bucket`` with an optional path.
        say: is told how far a long transfer is.

    Raises:
        RemoteError: if there is no such kind of remote, or no account for it.
    """
    if url.startswith("gs://"):
        try:
            # Only who uses a bucket needs Google's package.
            from model_serving.images.google_storage import Bucket  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise RemoteError(
                f"{url} needs the package {error.name}, which is not installed",
                "Install this package with its extra gcs: pip install 'model-serving[gcs] @ <address of its checkout>'",
            ) from None
        return Bucket(url, say=say)
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return Folder(Path(unquote(parts.path)), say=say)
    raise RemoteError(f"{url} is no remote", "Write gs://bucket, with a path if need be, or file:///path/of/a/folder.")


class Folder:
    """A remote in a folder, of this machine or mounted."""

    def __init__(self, root: Path, *, say: Say) -> None:
        self._root = root
        self._say = say

    def __str__(self) -> str:
        return self._root.as_uri()

    def has(self, md5: str, size: int) -> bool:
        place = self._root / key(md5)
        with self._failing(f"has no readable {md5}"):
            if not place.is_file():
                return False
            if place.stat().st_size != size or md5_of(place) != md5:
                raise altered(str(self), md5)
        return True

    def put(self, path: Path, md5: str) -> None:
        size = path.stat().st_size
        if self.has(md5, size):
            return
        place = self._root / key(md5)
        with self._failing(f"takes no file, {md5}"), path.open("rb") as file:
            place.parent.mkdir(parents=True, exist_ok=True)
            # Not beside its place, where DVC would take what a killed command leaves for an object.
            with replacing(place, scratch=self._root) as copy:
                if _copy(Progress("stored", size, self._say).of(_parts(file)), copy) != md5:
                    raise changed_meanwhile(path)

    def get(self, md5: str, target: Path) -> None:
        place = self._root / key(md5)
        try:
            with place.open("rb") as file:
                total = place.stat().st_size
                receive(Progress("read", total, self._say).of(_parts(file)), md5, target, source=str(self))
        except FileNotFoundError:
            raise missing(str(self), md5) from None
        except PermissionError:
            raise RemoteError(f"{place} may not be read by this account", "Let it read the folder.") from None

    @contextmanager
    def _failing(self, how: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RemoteError(
                f"{self} {how}: {error.strerror}",
                "Free some space there." if error.errno == errno.ENOSPC else "Let this account read and write there.",
            ) from None


def key(md5: str) -> str:
    """Where a remote has a file, relative to its root."""
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def md5_of(path: Path) -> str:
    """What DVC names a file by."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, _md5).hexdigest()


def missing(url: str, md5: str) -> RemoteError:
    return RemoteError(
        f"{url} has no {key(md5)}",
        "Publish the release again, or `dvc push` the file from where it was made; nothing else has its content.",
    )


def altered(url: str, md5: str) -> RemoteError:
    return RemoteError(
        f"{url} has another content in {key(md5)} than its name says",
        "Remove that object, find out who wrote it, and put the right file back by publishing again or by `dvc push`.",
    )


def changed_meanwhile(path: Path) -> RemoteError:
    return RemoteError(
        f"{path.name} was changed while it was read",
        "Let whatever writes it come to its end, and run the same command again.",
    )


def receive(parts: Iterable[bytes], md5: str, target: Path, *, source: str) -> None:
    """Writes what comes from a remote to a path, if it is what it should be.

    Args:
        parts: the bytes, in order.
        md5: that they must have.
        target: path to write to; keeps what it has if this fails.
        source: the remote's address.

    Raises:
        RemoteError: if the bytes are others, or the path cannot be written.
    """
    try:
        with replacing(target, scratch=target.parent) as file:
            if _copy(parts, file) != md5:
                raise altered(source, md5)
    except OSError as error:
        raise RemoteError(
            f"{target} could not be written from {source}: {error.strerror}",
            "Make room there, or let this account write.",
        ) from None


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


class Progress:
    """Tells now and then how far a transfer is; nothing of a short one."""

    def __init__(self, done: str, total: int, say: Say) -> None:
        """Begins to count the time.

        Args:
            done: what has happened to the bytes, e.g. ``stored``.
            total: bytes in all.
            say: is told.
        """
        self._done = done
        self._total = total
        self._say = say
        self._begun = self._told = time.monotonic()

    def of(self, parts: Iterable[bytes]) -> Iterator[bytes]:
        """The same parts, each told of after it was used."""
        reached = 0
        for part in parts:
            yield part
            reached += len(part)
            self.reach(reached)

    def reach(self, count: int) -> None:
        """So many bytes are done."""
        now = time.monotonic()
        if now - self._told >= TELL_SECONDS:
            self._told = now
            mebibytes = f"{count / MEBIBYTE:,.0f} of {self._total / MEBIBYTE:,.0f} MiB"
            self._say(f"{mebibytes} {self._done}, {now - self._begun:.0f} s")


def _parts(file: IO[bytes]) -> Iterator[bytes]:
    while part := file.read(PART_BYTES):
        yield part


def _copy(parts: Iterable[bytes], target: IO[bytes]) -> str:
    """Writes the parts to a file; returns their MD5."""
    total = _md5()
    for part in parts:
        total.update(part)
        target.write(part)
    return total.hexdigest()


def _md5() -> _Hash:
    # It tells files apart and keeps no secret: some machines refuse it for anything else.
    return hashlib.md5(usedforsecurity=False)
