"""Posts a note into the merge or pull request of the job.

A note that cannot be posted does not fail the job, and the log does not contain the note.
"""

import sys
from collections.abc import Callable
from typing import Final

from model_serving.hosts import Outcome, Site, SiteError, TooLong

SHRINKING: Final = (1, 4, 16)
"""Divisors of a site's limit: a proxy in front of the site may have a lower one."""
SAID: Final[dict[Outcome, str]] = {
    "created": "created the note.",
    "updated": "updated the note.",
    "unchanged": "the note is up to date.",
    "outdated": "a newer pipeline has written the note; it stays unchanged.",
}

Renderer = Callable[[int], str]
"""Renders the note within a number of characters."""


def post(site: Site, marker: str, render: Renderer) -> None:
    """Posts the note with this marker, or prints why not."""
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
