"""Access to the API of a site, and its errors; imports no client library."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from model_serving.problems import Failure

REDIRECTS: Final = (301, 302, 303, 307, 308)


class SiteError(Failure):
    """A site refused a request or did not answer."""

    def __init__(self, *, what: str, consequence: str, remedy: str) -> None:
        super().__init__(f"{what}\n  {consequence}\n  {remedy}")
        self.what = what


class Missing(SiteError):
    """404: it does not exist, or the token may not see it."""


class Unauthorized(SiteError):
    """401: the token is wrong, expired or revoked."""


class TooLong(SiteError):
    """The text is too long for the site, or for a proxy in front of it."""


class Unanswered(SiteError):
    """The request may have been carried out: look before repeating it."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to try; one request takes two minutes at worst.

    Attributes:
        backoff_seconds: the pauses before the second, third and fourth repetition are 2, 4 and 8 times as long.
        longest_pause_seconds: if a site asks for a longer one by Retry-After, the request fails at once.
        timeout_seconds: of the connection, and of each part of the answer; PyGithub only takes an integer.
    """

    retries: int = 3
    backoff_seconds: float = 1
    longest_pause_seconds: int = 60
    timeout_seconds: int = 20


@dataclass(frozen=True, kw_only=True)
class Access:
    """Access to the API of one site.

    Attributes:
        site: its name for people.
        token: only goes to that address, and into no message.
        loss: consequence of a failure, one sentence.
        remedy: status -> one sentence; 0 stands for no answer.
        authorities: file of trusted certificate authorities, instead of the machine's own.
    """

    site: str
    api: str
    token: str = field(repr=False)
    loss: str
    remedy: Callable[[int], str]
    patience: Patience
    authorities: str | None = None

    def error(self, what: str, status: int = 0, kind: type[SiteError] = SiteError) -> SiteError:
        """The error to raise."""
        return kind(what=f"{self.site} {what}", consequence=self.loss, remedy=self.remedy(status))
