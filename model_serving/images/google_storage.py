"""A remote in a bucket of Google Cloud Storage.

By its JSON API, https://cloud.google.com/storage/docs/json_api, with the account that Google's own tools find
(application default credentials). ``STORAGE_EMULATOR_HOST`` names another server, which is asked without an account, as
Google's clients do.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import quote, urlsplit

import google.auth
import requests
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.auth.transport.requests import AuthorizedSession
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from model_serving.hosts.rest import reason
from model_serving.images.remotes import (
    PART_BYTES,
    Progress,
    RemoteError,
    Say,
    altered,
    changed_meanwhile,
    key,
    missing,
    receive,
)

GOOGLE: Final = "https://storage.googleapis.com"
EMULATOR: Final = "STORAGE_EMULATOR_HOST"
SCOPES: Final = ("https://www.googleapis.com/auth/devstorage.read_write",)
UPLOAD_BYTES: Final = 32 << 20
"""Of one request of an upload, and what it holds in memory: a multiple of 256 KiB, as Google wants it."""
NOT_NOW: Final = (408, 429, 500, 502, 503, 504)
"""Statuses that are worth another try, https://cloud.google.com/storage/docs/retry-strategy. Every request here may be
repeated: an object is made only where there is none, and each part of an upload says which part it is."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to try.

    Attributes:
        retries: of one request; of a download, how often in a row it may break off without a new byte.
        backoff_seconds: times 2, 4, 8, … is the pause before the second, third, fourth, … retry of a request.
        timeout_seconds: for the connection, and for each part of an answer.
    """

    retries: int = 5
    backoff_seconds: float = 1
    timeout_seconds: float = 60


class Bucket:
    """A remote in a bucket, at its root or below a path."""

    def __init__(self, url: str, *, say: Say, patience: Patience | None = None) -> None:
        """Finds the account; asks nothing of the bucket yet.

        Args:
            url: ``gs://bucket`` or ``gs://bucket/path``.
            say: is told how far a long transfer is.
            patience: how long to try.

        Raises:
            RemoteError: if there is no account.
        """
        place = urlsplit(url)
        self._url = url.rstrip("/")
        self._bucket = place.netloc
        self._prefix = place.path.strip("/")
        self._say = say
        self._patience = patience or Patience()
        emulator = os.environ.get(EMULATOR, "")
        self._server = (emulator if "://" in emulator else f"http://{emulator}") if emulator else GOOGLE
        self._session = requests.Session() if emulator else _authorized_session(self._url)
        adapter = HTTPAdapter(max_retries=_retry(self._patience))
        for prefix in ("https://", "http://"):
            self._session.mount(prefix, adapter)

    def __str__(self) -> str:
        return self._url

    def has(self, md5: str, size: int) -> bool:
        answer = self._ask("GET", self._object(md5), params={"fields": "size,md5Hash"})
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return False
        self._check(answer, md5)
        told = answer.json()
        # What was put together from parts has no md5; its size has to do.
        if int(told["size"]) != size or told.get("md5Hash", _base64(md5)) != _base64(md5):
            raise altered(self._url, md5)
        return True

    def put(self, path: Path, md5: str) -> None:
        size = path.stat().st_size
        if self.has(md5, size):
            return
        begun = self._begin_upload(md5, size)
        last = begun if begun.status_code == HTTPStatus.PRECONDITION_FAILED else self._upload(begun, path, md5, size)
        if last.status_code == HTTPStatus.PRECONDITION_FAILED and self.has(md5, size):
            # Another release with the same file was quicker.
            return
        if last.status_code == HTTPStatus.BAD_REQUEST and path.stat().st_size != size:
            raise changed_meanwhile(path)
        self._check(last, md5)

    def get(self, md5: str, target: Path) -> None:
        receive(self._content(md5), md5, target, source=self._url)

    def _begin_upload(self, md5: str, size: int) -> requests.Response:
        """Opens an upload, whose address is in the answer; an object appears only when all of it has arrived."""
        begun = self._ask(
            "POST",
            f"{self._server}/upload/storage/v1/b/{self._bucket}/o",
            params={"uploadType": "resumable", "name": self._name(md5), "ifGenerationMatch": "0"},
            headers={"X-Upload-Content-Length": str(size)},
            json={"contentType": "application/octet-stream", "md5Hash": _base64(md5)},
        )
        if begun.status_code != HTTPStatus.PRECONDITION_FAILED:
            self._check(begun, md5)
        return begun

    def _upload(self, begun: requests.Response, path: Path, md5: str, size: int) -> requests.Response:
        """Sends all parts; returns the answer to the last."""
        progress, offset = Progress("stored", size, self._say), 0
        with path.open("rb") as file:
            while True:
                file.seek(offset)
                part = file.read(UPLOAD_BYTES)
                span = f"{offset}-{offset + len(part) - 1}" if part else "*"
                answer = self._ask(
                    "PUT", begun.headers["Location"], data=part, headers={"Content-Range": f"bytes {span}/{size}"}
                )
                if answer.status_code != HTTPStatus.PERMANENT_REDIRECT:
                    return answer
                # It may have kept less than it was sent, and nothing at all without the header.
                arrived = int(answer.headers.get("Range", "bytes=0--1").partition("-")[2]) + 1
                if arrived <= offset:
                    self._fail(f"{self._url} takes no more than {offset:,} bytes of the object with the md5 {md5}")
                offset = arrived
                progress.reach(offset)

    def _content(self, md5: str) -> Iterator[bytes]:
        """The object's bytes, asked for again from where a connection broke off."""
        received, broken = 0, 0
        progress: Progress | None = None
        while True:
            headers = {"Range": f"bytes={received}-"} if received else {}
            answer = self._ask("GET", self._object(md5), params={"alt": "media"}, headers=headers, stream=True)
            with answer:
                self._check(answer, md5)
                if received and answer.status_code != HTTPStatus.PARTIAL_CONTENT:
                    self._fail(f"{self._url} broke off and does not go on, at {received:,} bytes of the md5 {md5}")
                progress = progress or Progress("read", int(answer.headers.get("Content-Length", 0)), self._say)
                try:
                    for part in answer.iter_content(PART_BYTES):
                        received, broken = received + len(part), 0
                        yield part
                        progress.reach(received)
                except requests.RequestException as error:
                    broken += 1
                    if broken > self._patience.retries:
                        self._fail(f"{self._url} breaks off after {received:,} bytes of the md5 {md5}: {reason(error)}")
                else:
                    return

    def _ask(self, method: str, url: str, **options: Any) -> requests.Response:
        try:
            # 308 is no redirect here: "so much has arrived".
            return self._session.request(
                method, url, timeout=self._patience.timeout_seconds, allow_redirects=False, **options
            )
        except GoogleAuthError as error:
            raise _no_account(self._url, error) from None
        # "from None" and without the address: that of an upload lets whoever has it write.
        except OSError as error:
            self._fail(f"{self._url} did not answer: {reason(error)}")

    def _check(self, answer: requests.Response, md5: str) -> None:
        """Refuses an answer that is none, with what Google says of it."""
        if answer.ok:
            return
        if answer.status_code == HTTPStatus.NOT_FOUND and answer.request.method == "GET":
            raise missing(self._url, md5)
        said = f"{self._url} answered {answer.status_code} to the md5 {md5}{_said(answer)}"
        if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise RemoteError(
                said,
                "Give this account roles/storage.objectUser on the bucket, or roles/storage.objectViewer where it "
                "only reads.",
            )
        if answer.status_code == HTTPStatus.NOT_FOUND:
            raise RemoteError(said, "Make the bucket, or correct its name.")
        self._fail(said)

    def _fail(self, what: str) -> NoReturn:
        raise RemoteError(what, "Run the same command again when it answers; it goes on from what is there.")

    def _name(self, md5: str) -> str:
        return f"{self._prefix}/{key(md5)}" if self._prefix else key(md5)

    def _object(self, md5: str) -> str:
        return f"{self._server}/storage/v1/b/{self._bucket}/o/{quote(self._name(md5), safe='')}"


def _authorized_session(url: str) -> requests.Session:
    try:
        credentials, _ = google.auth.default(scopes=SCOPES)
    except DefaultCredentialsError as error:
        raise _no_account(url, error) from None
    return AuthorizedSession(credentials)  # type: ignore[no-untyped-call]  # google-auth has no types there


def _no_account(url: str, error: GoogleAuthError) -> RemoteError:
    said = " ".join(str(error).split())
    return RemoteError(
        f"{url} needs an account of Google's, and there is none that works here: {said}",
        "In a pipeline, sign in as its training or deploy jobs do; on a laptop: gcloud auth application-default login",
    )


def _retry(patience: Patience) -> Retry:
    return Retry(
        total=patience.retries,
        backoff_factor=patience.backoff_seconds,
        status_forcelist=NOT_NOW,
        allowed_methods=None,
        respect_retry_after_header=False,
        raise_on_status=False,
    )


def _said(answer: requests.Response) -> str:
    """Google's own words, if it has any."""
    try:
        content: Mapping[str, Any] = answer.json()
        return f": {content['error']['message']}"
    except (requests.JSONDecodeError, KeyError, TypeError):
        return ""


def _base64(md5: str) -> str:
    """A hash as Google writes it."""
    return base64.b64encode(bytes.fromhex(md5)).decode()
