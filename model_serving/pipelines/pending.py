"""Marks the note of a merge or pull request as stale while a newer commit is being previewed.

A note about the same commit is left as it is, and so is one that a newer pipeline wrote. A site that refuses fails no
job.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Final

from model_serving.hosts import PREVIEW, Site, SiteError, here
from model_serving.pipelines import note

NAME: Final = "pending"
HELP: Final = "say in the note that a newer commit is being previewed; a site that refuses it fails no job"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Example: python -m model_serving pending"


def run(_: argparse.Namespace) -> int:
    site = here(os.environ)
    if site is None:
        print("This is no job of GitLab or GitHub: there is no note to mark.")
        return 0
    try:
        print(f"{site.name}: {mark(site)}")
    except SiteError as error:
        print(error, file=sys.stderr)
    return 0


def mark(site: Site) -> str:
    """Marks the note.

    Returns:
        What became of it, for people.

    Raises:
        SiteError: if the site does not let it.
    """
    found = site.read_note(PREVIEW)
    if found is None:
        return "there is no note yet."
    if found.stamp.commit == site.commit:
        return "the note is about this very commit."
    body = note.stale(found.body, site.commit, site.this_run())
    # The commit that it shows is still the old one: the same job run again must find it stale again.
    if site.upsert_note(PREVIEW, body, shows=found.stamp.commit) == "outdated":
        return "a newer pipeline has written the note, and it stays as it is."
    return f"the note says that {site.commit[:8]} is being previewed."
