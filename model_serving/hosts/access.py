"""How the API of a site is asked, and how it fails; no library is needed to know that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from model_serving.problems import Failure


class SiteError(Failure):
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
        timeout_seconds: for the connection, and for each part of the answer; PyGithub takes whole ones only.
    """

    retries: int = 3
    backoff_seconds: float = 1
    longest_pause_seconds: int = 60
    timeout_seconds: int = 20


@dataclass(frozen=True, kw_only=True)
class Access:
    """To the API of one site.

    Attributes:
        site: its name for people.
        api: its address.
        token: goes to that address only, and into no message.
        loss: consequence of a failure, one sentence.
        remedy: what to do about a status, one sentence; 0 stands for no answer at all.
        patience: how long to try.
        authorities: file with those whose certificates are trusted; the machine's own, if there is none.
    """

    site: str
    api: str
    token: str = field(repr=False)
    loss: str
    remedy: Callable[[int], str]
    patience: Patience
    authorities: str | None = None

    def error(self, what: str, status: int = 0, kind: type[SiteError] = SiteError) -> SiteError:
        """What to raise."""
        return kind(what=f"{self.site} {what}", consequence=self.loss, remedy=self.remedy(status))
