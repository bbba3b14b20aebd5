"""Shared by the clients of both APIs: which requests are repeated, and how failures are reported.

python-gitlab and PyGithub both use requests and take a `Retry` of urllib3. The token is only in a header of the
request: in no address, message or exception.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import requests
from urllib3 import exceptions
from urllib3.connectionpool import ConnectionPool
from urllib3.response import BaseHTTPResponse
from urllib3.util.retry import Retry

from model_serving.hosts.access import Access, Missing, SiteError, TooLong, Unanswered, Unauthorized

USER_AGENT: Final = "model-serving"
PER_PAGE: Final = 100
"""Maximum of both sites."""
LONGEST_QUOTE: Final = 200
"""Characters of a site's message in ours."""
REPEATABLE: Final = frozenset({"GET", "PUT", "PATCH", "DELETE"})
"""Methods that have the same effect if they are called twice; a POST would make two notes."""
ANSWERS: Final = frozenset({200, 201, 204})
"""No redirect, which the token could follow to another host; no 202, after which PyGithub never stops asking."""
NOT_NOW: Final = frozenset({429, 503})
"""The site did nothing and asks to try later: safe to repeat, whatever the method."""
PERHAPS_DONE: Final = frozenset({500, 502, 504})
"""The site may have carried out the request before it failed."""


class RetryPolicy(Retry):
    """urllib3's Retry with this project's rules about what may be repeated, and for how long.

    It raises a `SiteError` before a library sees the answer: python-gitlab would repeat a 429 ten times, and PyGithub
    would take a redirect for an answer.
    """

    def __init__(self, *, access: Access, **options: Any) -> None:
        """Of one request; the options are urllib3's."""
        patience = access.patience
        ours = {
            "total": patience.retries,
            "allowed_methods": REPEATABLE,
            "backoff_factor": patience.backoff_seconds,
        }
        super().__init__(**{**ours, **options})
        self.access = access

    def new(self, **options: Any) -> Self:
        """The same policy with other options."""
        return super().new(access=self.access, **options)

    def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
        """Whether `increment` gets the response; it decides."""
        return status_code not in ANSWERS

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        """The policy for the next attempt; raises the `SiteError` if there is none."""
        if response is None or self._is_worth_it(method or "", response):
            with suppress(exceptions.HTTPError):
                return super().increment(method, url, response, error, _pool, _stacktrace)
        asked = f"{method} {urlsplit(url or '').path}"
        if response is not None:
            raise self._refusal(asked, response)
        kind = Unanswered if method == "POST" else SiteError
        # "from None": the errors of a connection contain the address.
        raise self.access.error(f"did not answer {asked}: {reason(error)}", kind=kind) from None

    def _is_worth_it(self, method: str, response: BaseHTTPResponse) -> bool:
        try:
            pause = self.get_retry_after(response)  # seconds or a date
        except exceptions.InvalidHeader:
            return False
        if pause is not None and pause > self.access.patience.longest_pause_seconds:
            return False
        # GitHub's secondary limit is a 403 that says when to try again.
        if response.status in NOT_NOW or (response.status == HTTPStatus.FORBIDDEN and pause is not None):
            return True
        return response.status in {*PERHAPS_DONE, HTTPStatus.CONFLICT} and method in (self.allowed_methods or ())

    def _refusal(self, asked: str, response: BaseHTTPResponse) -> SiteError:
        text = ""
        with suppress(exceptions.HTTPError, OSError):
            text = response.read(decode_content=True).decode(errors="replace").replace(self.access.token, "[token]")
        status = response.status
        kind = SiteError
        if status == HTTPStatus.NOT_FOUND:
            kind = Missing
        elif status == HTTPStatus.UNAUTHORIZED:
            kind = Unauthorized
        # To a text over their limits, GitLab answers 400, GitHub 422 and a proxy 413.
        elif status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE or (status in (400, 422) and "too long" in text):
            kind = TooLong
        elif status in PERHAPS_DONE and asked.startswith("POST "):
            kind = Unanswered
        said = _said(text)
        is_limit = status == HTTPStatus.FORBIDDEN and ("Retry-After" in response.headers or "rate limit" in text)
        meant = HTTPStatus.TOO_MANY_REQUESTS if is_limit else status
        return self.access.error(f"answered {status} to {asked}{': ' if said else ''}{said}", meant, kind)


@contextmanager
def answers(access: Access, library: type[Exception]) -> Iterator[None]:
    """A block in which a library sends requests; errors that `RetryPolicy` does not see become a `SiteError` here.

    ``library`` is the library's own error, about an answer that it does not understand.
    """
    try:
        yield
    # The errors of requests are OSErrors as well; a missing file of certificates is a plain one.
    except OSError as error:
        # "from None": requests' errors hold the request with its headers.
        raise access.error(f"did not answer a request: {reason(error)}") from None
    except (library, AssertionError, AttributeError, LookupError, TypeError, ValueError):
        raise SiteError(
            what=f"{access.site} answered something that its API does not document",
            consequence=access.loss,
            remedy="Check whether a proxy or a login page answers at the address of the API.",
        ) from None


def reason(error: Exception | None) -> str:
    """Why there was no answer, without the address, which the message already has."""
    if not isinstance(error, (requests.RequestException, exceptions.HTTPError)):
        return str(error)
    if isinstance(error, (requests.exceptions.SSLError, exceptions.SSLError)):
        return "its certificate is not trusted"
    if isinstance(error, (requests.exceptions.ProxyError, exceptions.ProxyError)):
        return "the proxy does not let the request through"
    text = str(error)
    return "timed out" if "timed out" in text else "refused" if "refused" in text else type(error).__name__


def _said(text: str) -> str:
    """The site's message in one short line; empty if there is none, as in a page of HTML."""
    try:
        content = json.loads(text)
    except ValueError:
        return ""
    if not isinstance(content, dict):
        return ""
    said = content.get("message") or content.get("error") or ""
    return " ".join((said if isinstance(said, str) else json.dumps(said)).split())[:LONGEST_QUOTE]
