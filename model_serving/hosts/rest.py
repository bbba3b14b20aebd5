"""Asks the API of GitLab or GitHub: repeats what is worth repeating, and says clearly what did not work.

The token is in a header of the request and nowhere else: in no address, no message, no exception.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast

import requests
from pydantic import TypeAdapter, ValidationError
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import MaxRetryError, ResponseError
from urllib3.response import BaseHTTPResponse
from urllib3.util.retry import Retry

PER_PAGE: Final = 100
"""The most that either site puts on a page."""
LONGEST_QUOTE: Final = 200
"""Characters of a site's own words in a message."""
REPEATABLE: Final = frozenset({"GET", "PUT", "PATCH", "DELETE"})
"""Methods that do the same when they are called twice; a POST makes two notes."""
NOT_NOW: Final = frozenset({429, 503})
"""The site did nothing and asks to come back: safe to repeat, whatever the method."""
PERHAPS_DONE: Final = frozenset({500, 502, 504})
"""The site may have done what it was asked before it failed."""

T = TypeVar("T")


class SiteError(Exception):
    """A site did not do what it was asked, in three parts: what, consequence, remedy."""

    def __init__(self, *, what: str, consequence: str, remedy: str) -> None:
        super().__init__(f"{what}\n  {consequence}\n  {remedy}")
        self.what = what


class Missing(SiteError):
    """404: it is not there, or the token may not see it."""


class TooLong(SiteError):
    """The site, or a proxy in front of it, takes no text as long as this one."""


class Unanswered(SiteError):
    """What was to be made may have been made: look before it is asked for again."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to try; the worst case of one question is about two minutes.

    Attributes:
        retries: how often a question is repeated.
        backoff_seconds: times 2, 4, 8 is the pause before the second, third and fourth repetition.
        longest_pause_seconds: a site that asks for a longer one by Retry-After is given up at once.
        timeout_seconds: for the connection, and for each part of the answer.
    """

    retries: int = 3
    backoff_seconds: float = 1
    longest_pause_seconds: int = 60
    timeout_seconds: float = 20


class Token(AuthBase):
    """Puts the token into its header.

    As requests' own authentication, so that a .netrc of the machine does not take its place.
    """

    def __init__(self, header: str, value: str, scheme: str = "") -> None:
        self._header = header
        self._value = value
        self._scheme = scheme

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers[self._header] = f"{self._scheme} {self._value}".lstrip()
        return request

    def hidden(self, text: str) -> str:
        """A text of the site's without the token, should the site repeat it."""
        return text.replace(self._value, "[token]")


@dataclass(frozen=True, kw_only=True)
class Client:
    """The API of one site.

    Attributes:
        site: its name for people.
        base: address that every path is appended to.
        session: see `session`.
        token: the session's.
        loss: consequence of a failure, one sentence; `dataclasses.replace` gives another one.
        remedy: what to do about a status, one sentence; 0 stands for no answer at all.
        patience: how long to try.
    """

    site: str
    base: str
    session: requests.Session
    token: Token
    loss: str
    remedy: Callable[[int], str]
    patience: Patience

    def get(self, path: str, kind: type[T]) -> T:
        """Reads something.

        Raises:
            SiteError: if it cannot be read; Missing, if it is not there.
        """
        return self._parsed("GET", path, self._ask("GET", path), kind)

    def pages(self, path: str, kind: type[T], query: Mapping[str, str]) -> Iterator[T]:
        """Reads a list to its end.

        Raises:
            SiteError: if it cannot be read.
        """
        # By number, not by the address in the Link header: the token goes to the address that we were given only.
        for number in itertools.count(1):
            page = {**query, "per_page": str(PER_PAGE), "page": str(number)}
            answer = self._ask("GET", path, query=page)
            yield from self._parsed("GET", path, answer, list[kind])  # type: ignore[valid-type]  # a type at run time
            if "next" not in answer.links:
                return

    def send(self, method: str, path: str, content: Mapping[str, Any], kind: type[T]) -> T:
        """Makes or changes something.

        Raises:
            SiteError: if the site refuses it; Unanswered, if it is a POST that may have been carried out.
        """
        return self._parsed(method, path, self._ask(method, path, content), kind)

    def delete(self, path: str) -> None:
        """Removes something; it is fine if it is gone already.

        Raises:
            SiteError: if the site refuses it.
        """
        try:
            self._ask("DELETE", path)
        except Missing:
            return

    def _ask(
        self,
        method: str,
        path: str,
        content: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> requests.Response:
        try:
            answer = self.session.request(
                method,
                f"{self.base}{path}",
                params=query,
                json=content,
                timeout=self.patience.timeout_seconds,
                # requests would take GitLab's header along to whatever host a redirect names.
                allow_redirects=False,
            )
        # requests' own errors are OSErrors as well; a missing file of certificates is a plain one.
        except OSError as error:
            kind = Unanswered if method == "POST" else SiteError
            # "from None": the exception holds the request with its headers.
            raise kind(
                what=f"{self.site} did not answer {method} {path}: {reason(error)}",
                consequence=self.loss,
                remedy=self.remedy(0),
            ) from None
        if not answer.ok or answer.is_redirect:
            raise self._refusal(method, path, answer)
        return answer

    def _refusal(self, method: str, path: str, answer: requests.Response) -> SiteError:
        status = answer.status_code
        kind = SiteError
        if status == requests.codes.not_found:
            kind = Missing
        # GitLab answers 400 and GitHub 422 to a text over their limits, a proxy 413.
        elif status == requests.codes.request_entity_too_large or (status in (400, 422) and "too long" in answer.text):
            kind = TooLong
        elif method == "POST" and status in PERHAPS_DONE:
            kind = Unanswered
        said = self.token.hidden(_said(answer))
        return kind(
            what=f"{self.site} answered {status} to {method} {path}{': ' if said else ''}{said}",
            consequence=self.loss,
            remedy=self.remedy(status),
        )

    def _parsed(self, method: str, path: str, answer: requests.Response, kind: type[T]) -> T:
        try:
            return TypeAdapter(kind).validate_json(answer.content)
        except ValidationError:
            raise SiteError(
                what=f"{self.site} answered {method} {path} with something else than the API's documentation says",
                consequence=self.loss,
                remedy="See whether a proxy or a login page answers at the address of the API.",
            ) from None


def session(token: Token, headers: Mapping[str, str], *, patience: Patience, questions: str = "") -> requests.Session:
    """A session that repeats what is safe to repeat.

    Args:
        token: who asks.
        headers: for every request.
        patience: how long to try.
        questions: an address at which POST only asks, so that it may be repeated; none if empty.
    """
    made = requests.Session()
    made.auth = token
    made.headers.update({"User-Agent": "model-serving", **headers})
    for prefix in ("https://", "http://"):
        made.mount(prefix, HTTPAdapter(max_retries=_retry(patience, REPEATABLE)))
    if questions:
        made.mount(questions, HTTPAdapter(max_retries=_retry(patience, frozenset({"POST"}))))
    return made


class _Bounded(Retry):
    """urllib3's Retry with this project's opinion of what is safe, and of how long is too long."""

    def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
        # GitHub's second limit is a 403 that says when to come back.
        if status_code in NOT_NOW or (status_code == requests.codes.forbidden and has_retry_after):
            return True
        return (status_code in PERHAPS_DONE or status_code == requests.codes.conflict) and self._is_method_retryable(
            method
        )

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        pause = response.headers.get("Retry-After", "") if response is not None else ""
        # urllib3 would wait for the longest pause and ask too early, several times.
        if pause.isdigit() and int(pause) > self.retry_after_max:
            raise MaxRetryError(cast(ConnectionPool, _pool), url, ResponseError(f"asked to wait {pause} s"))
        return super().increment(method, url, response, error, _pool, _stacktrace)


def _retry(patience: Patience, methods: frozenset[str]) -> Retry:
    return _Bounded(
        total=patience.retries,
        allowed_methods=methods,
        backoff_factor=patience.backoff_seconds,
        retry_after_max=patience.longest_pause_seconds,
        raise_on_status=False,
    )


def reason(error: OSError) -> str:
    """Why there was no answer, without the address: it would be there twice."""
    if not isinstance(error, requests.RequestException):
        return str(error)
    if isinstance(error, requests.Timeout):
        return "timed out"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy does not let the request through"
    text = str(error)
    return "timed out" if "timed out" in text else "refused" if "refused" in text else type(error).__name__


def _said(answer: requests.Response) -> str:
    """The site's own words, one short line; empty if it has none. Never a whole page of HTML."""
    try:
        content = answer.json()
    except requests.JSONDecodeError:
        return ""
    if not hasattr(content, "get"):
        return ""
    said = content.get("message") or content.get("error") or ""
    return " ".join((said if isinstance(said, str) else json.dumps(said)).split())[:LONGEST_QUOTE]
