"""The command ``pending``: marks the note of a merge or pull request as out of date while a new commit is previewed.

A note about the same commit, or one written by a newer pipeline, stays unchanged. If the site refuses, the job ends
with a warning.
"""

import argparse
import os
from typing import Final

from model_serving.hosts import PREVIEW, Site, SiteError, here
from model_serving.hosts.posting import not_written
from model_serving.pipelines import note

HELP: Final = "mark the note as out of date while a new commit is previewed; if the site refuses, warn"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Example: python -m model_serving pending"


def run(_: argparse.Namespace) -> int:
    site = here(os.environ)
    if site is None:
        print("Not a job of GitLab or GitHub: there is no note to mark.")
        return 0
    try:
        print(f"{site.name}: {mark(site)}")
    except SiteError as error:
        return not_written(site, error, "the note was not marked as out of date")
    return 0


def mark(site: Site) -> str:
    """Marks the note; returns the result for people.

    Raises:
        SiteError: if the site refuses.
    """
    found = site.read_note(PREVIEW)
    if found is None:
        return "there is no note yet."
    if found.stamp.commit == site.commit:
        return "the note is already about this commit."
    body = note.stale(found.body, site.commit, site.this_run())
    # The stamp keeps the old commit, so that the same job, run again, marks the note again.
    if site.upsert_note(PREVIEW, body, shows=found.stamp.commit) == "outdated":
        return "a newer pipeline has written the note; it stays unchanged."
    return f"the note says that {site.commit[:8]} is being previewed."
