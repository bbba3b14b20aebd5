"""What the clients of both APIs share: which requests are repeated, and how a failure is told.

python-gitlab and PyGithub both send through requests and take a `Retry` of urllib3. The token is in a header of the
request and nowhere else: in no address, no message, no exception.
"""

from __future__ import annotations

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

from model_serving.hosts.access import Access, Missing, SiteError, TooLong, Unanswered

USER_AGENT: Final = "model-serving"
PER_PAGE: Final = 100
"""The most that either site puts on a page."""
LONGEST_QUOTE: Final = 200
"""Characters of a site's own words in a message."""
REPEATABLE: Final = frozenset({"GET", "PUT", "PATCH", "DELETE"})
"""Methods that do the same when they are called twice; a POST makes two notes."""
ANSWERS: Final = frozenset({200, 201, 204})
"""No redirect, which a token could follow to another host, and no 202, after which PyGithub asks again without end."""
NOT_NOW: Final = frozenset({429, 503})
"""The site did nothing and asks to come back: safe to repeat, whatever the method."""
PERHAPS_DONE: Final = frozenset({500, 502, 504})
"""The site may have done what it was asked before it failed."""


class RetryPolicy(Retry):
    """urllib3's Retry with this project's opinion of what is safe, and of how long is too long.

    What it gives up is a `SiteError` before a library sees it: python-gitlab would repeat a 429 ten times, and PyGithub
    take a redirect for an answer.
    """

    def __init__(self, *, access: Access, **options: Any) -> None:
        """For one request.

        Args:
            access: says how long to try, and what a failure means.
            options: urllib3's own, such as allowed_methods: those that are repeated even if they were carried out.
        """
        patience = access.patience
        ours = {
            "total": patience.retries,
            "allowed_methods": REPEATABLE,
            "backoff_factor": patience.backoff_seconds,
            "retry_after_max": patience.longest_pause_seconds,
        }
        super().__init__(**{**ours, **options})
        self.access = access

    def new(self, **options: Any) -> Self:
        """The same policy with other options."""
        return super().new(access=self.access, **options)

    def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
        """Whether `increment` sees the response; it decides."""
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
        """The policy for the next attempt.

        Raises:
            SiteError: if there is to be none; Missing, if something is not there; TooLong, if a shorter text could be
                taken; Unanswered, if it is a POST that may have been carried out.
        """
        if response is None or self._is_worth_it(method or "", response):
            with suppress(exceptions.HTTPError):
                return super().increment(method, url, response, error, _pool, _stacktrace)
        asked = f"{method} {urlsplit(url or '').path}"
        if response is not None:
            raise self._refusal(asked, response)
        kind = Unanswered if method == "POST" else SiteError
        # "from None": the errors of a connection name the address again.
        raise self.access.error(f"did not answer {asked}: {reason(error)}", kind=kind) from None

    def _is_worth_it(self, method: str, response: BaseHTTPResponse) -> bool:
        pause = response.headers.get("Retry-After", "")
        # urllib3 would wait for the longest pause and ask too early, several times.
        if pause.isdecimal() and int(pause) > self.retry_after_max:
            return False
        # GitHub's second limit is a 403 that says when to come back.
        if response.status in NOT_NOW or (response.status == HTTPStatus.FORBIDDEN and pause):
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
        # GitLab answers 400 and GitHub 422 to a text over their limits, a proxy 413.
        elif status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE or (status in (400, 422) and "too long" in text):
            kind = TooLong
        elif status in PERHAPS_DONE and asked.startswith("POST "):
            kind = Unanswered
        said = _said(text)
        return self.access.error(f"answered {status} to {asked}{': ' if said else ''}{said}", status, kind)


@contextmanager
def answers(access: Access, library: type[Exception]) -> Iterator[None]:
    """A block in which a library asks the site; what `RetryPolicy` does not see becomes a `SiteError` here.

    Args:
        access: says what a failure means.
        library: the library's own error; it is about an answer that the library does not understand.

    Raises:
        SiteError: if an answer breaks off, is not what the documentation says, or nothing could be asked.
    """
    try:
        yield
    # requests' own errors are OSErrors as well; a missing file of certificates is a plain one.
    except OSError as error:
        # "from None": requests' errors hold the request with its headers.
        raise access.error(f"did not answer a request: {reason(error)}") from None
    except (library, AssertionError, AttributeError, LookupError, TypeError, ValueError):
        raise SiteError(
            what=f"{access.site} answered with something else than the API's documentation says",
            consequence=access.loss,
            remedy="See whether a proxy or a login page answers at the address of the API.",
        ) from None


def reason(error: Exception | None) -> str:
    """Why there was no answer, without the address: it would be there twice."""
    if not isinstance(error, (requests.RequestException, exceptions.HTTPError)):
        return str(error)
    if isinstance(error, (requests.exceptions.SSLError, exceptions.SSLError)):
        return "its certificate is not trusted"
    if isinstance(error, (requests.exceptions.ProxyError, exceptions.ProxyError)):
        return "the proxy does not let the request through"
    text = str(error)
    return "timed out" if "timed out" in text else "refused" if "refused" in text else type(error).__name__


def _said(text: str) -> str:
    """The site's own words, one short line; empty if it has none. Never a whole page of HTML."""
    try:
        content = json.loads(text)
    except ValueError:
        return ""
    if not isinstance(content, dict):
        return ""
    said = content.get("message") or content.get("error") or ""
    return " ".join((said if isinstance(said, str) else json.dumps(said)).split())[:LONGEST_QUOTE]
