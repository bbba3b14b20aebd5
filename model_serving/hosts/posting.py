"""Posts a note into the merge or pull request of the job.

A note that cannot be posted fails no job: what it tells of is right without it. Nothing of the note is printed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from model_serving.hosts import Outcome, Site, SiteError, TooLong

SHRINKING: Final = (1, 4, 16)
"""Divisors of a site's limit: a proxy before the site may take less than the site itself."""
SAID: Final[dict[Outcome, str]] = {
    "created": "the note is there.",
    "updated": "the note was brought up to date.",
    "unchanged": "the note is up to date already.",
    "outdated": "a newer pipeline has written the note; it stays unchanged.",
}

Renderer = Callable[[int], str]
"""Makes the note with at most so many characters."""


def post(site: Site, marker: str, render: Renderer) -> None:
    """Posts the note that a marker belongs to, or prints why not."""
    site.summary(render(site.note_limit))
    try:
        print(f"{site.name}: {SAID[_written(site, marker, render)]}")
    except SiteError as error:
        print(error, file=sys.stderr)


def _written(site: Site, marker: str, render: Renderer) -> Outcome:
    refused: tuple[str, TooLong] | None = None
    for divisor in SHRINKING:
        text = render(site.note_limit // divisor)
        if refused is not None and len(text) >= len(refused[0]):
            break
        try:
            return site.upsert_note(marker, text)
        except TooLong as error:
            refused = text, error
    assert refused is not None  # noqa: S101 - the first round returns or refuses
    raise refused[1]
