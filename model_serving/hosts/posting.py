"""Posts a note into the merge or pull request of the job.

A note that cannot be posted ends the job with a warning, and the log does not contain the note.
"""

import sys
from collections.abc import Callable
from typing import Final

from model_serving.hosts import Outcome, Site, SiteError, TooLong

SHRINKING: Final = (1, 4, 16)
"""Divisors of the first length: a proxy in front of the site may have a lower limit."""
SAID: Final[dict[Outcome, str]] = {
    "created": "created the note.",
    "updated": "updated the note.",
    "unchanged": "the note is up to date.",
    "outdated": "a newer pipeline has written the note; it stays unchanged.",
}

Renderer = Callable[[int], str]
"""Renders the note within a number of characters."""


def post(site: Site, marker: str, render: Renderer) -> int:
    """Posts the note with this marker, or prints why not; returns the exit code of the job's command."""
    site.summary(render(site.note_limit))
    try:
        print(f"{site.name}: {SAID[_written(site, marker, render)]}")
    except SiteError as error:
        return not_written(site, error, "the note was not posted")
    return 0


def not_written(site: Site, error: SiteError, what: str) -> int:
    """Prints an error, and in the last line of the log what was not written; returns the exit code for that.

    A fork's job cannot write, so that is no reason for a warning.
    """
    print(error, file=sys.stderr, flush=True)
    said = f"{what}: {error.what}."
    if site.is_fork:
        print(said)
        return 0
    return site.warn(said)


def _written(site: Site, marker: str, render: Renderer) -> Outcome:
    longest = min(site.note_limit, len(render(site.note_limit)))
    refused: tuple[str, TooLong] | None = None
    for divisor in SHRINKING:
        text = render(site.note_limit if divisor == 1 else longest // divisor)
        if refused is not None and len(text) >= len(refused[0]):
            continue
        try:
            return site.upsert_note(marker, text)
        except TooLong as error:
            refused = text, error
    assert refused is not None  # noqa: S101 - the first round returns or refuses
    raise refused[1]
