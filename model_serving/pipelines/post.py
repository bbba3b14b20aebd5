"""The command ``post``: writes the note into the merge or pull request; on GitHub also into the job summary."""

import argparse
import os
from pathlib import Path
from typing import Final

from model_serving.hosts import PREVIEW, here
from model_serving.hosts.blocks import cut
from model_serving.hosts.posting import post
from model_serving.hosts.site import WARNING
from model_serving.pipelines import note
from model_serving.problems import Failure

HELP: Final = "write the note into the merge or pull request; if the site refuses, the job ends with a warning"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"""\
example:
  python -m model_serving post previews

Exit code: 0, or on GitLab {WARNING} if the note could not be posted.
"""
    note.add_expected(parser)
    parser.add_argument(
        "path",
        type=Path,
        metavar="DIR|FILE",
        help="folder of previews, rendered as a note within the site's limit; or a note, posted unchanged "
        "or, if it is too long for the site or a proxy, cut off",
    )


def run(options: argparse.Namespace) -> int:
    path, site = options.path, here(os.environ)
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(
            f"{path} cannot be read: {error}\n"
            "  Nothing was posted.\n"
            "  Write the note with `python -m model_serving note DIR --out FILE`, or name the folder of previews."
        ) from None
    previews = note.read(path, options.expect, site) if text is None else []
    if site is None:
        print(
            "Not a job of GitLab or GitHub: nothing was posted.\n"
            "  There is no merge request to write into.\n"
            "  Read the note with `python -m model_serving note DIR`."
        )
        return 0
    job = site.this_run()

    def render(limit: int) -> str:
        if text is not None:
            return cut(text, limit, rest=note.REST)
        return note.render(previews, run=job, limit=limit)

    return post(site, PREVIEW, render)
