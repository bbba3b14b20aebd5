"""Puts the note into the merge or pull request, and on GitHub into the job's summary as well."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Final

from model_serving.hosts import PREVIEW, Run, here
from model_serving.hosts.posting import Renderer, post
from model_serving.pipelines import note

NAME: Final = "post"
HELP: Final = "put the note into the merge or pull request; a site that refuses it fails no job"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Example: python -m model_serving post previews"
    parser.add_argument(
        "path",
        type=Path,
        metavar="DIR|FILE",
        help="folder with the previews, of which a note is made that fits the site; or a note that is posted as it is",
    )


def run(options: argparse.Namespace) -> int:
    site = here(os.environ)
    try:
        render = _renderer(options.path, site.this_run() if site else None)
    except note.Unreadable as error:
        print(error, file=sys.stderr)
        return 1
    if site is None:
        print(
            "This is no job of GitLab or GitHub: nothing was posted.\n"
            "  There is no merge request to write into.\n"
            "  Read the note by `python -m model_serving note DIR`."
        )
        return 0
    post(site, PREVIEW, render)
    return 0


def _renderer(path: Path, job: Run | None) -> Renderer:
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        return lambda _: text
    previews = note.read(path)
    return lambda limit: note.render(previews, run=job, limit=limit)
