"""The note of a merge request: what an update of every stack would do, as one Markdown text.

It reads the previews that the jobs left and asks nobody anything. `ci post` puts it where people see it.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from model_serving import hosts
from model_serving.hosts.blocks import Block, Fixed, fit
from model_serving.hosts.markdown import cell, code, link
from model_serving.hosts.runs import Run
from model_serving.pipelines.changes import Preview
from model_serving.pipelines.stack_note import parts_of, signed
from model_serving.problems import Failure

NAME: Final = "note"
HELP: Final = "write one Markdown note from the previews of all stacks"
LIMIT: Final = 1_000_000
"""Characters, where no site says another limit: GitLab's."""
REPORT: Final = ".terraform.json"
COMMIT_CHARACTERS: Final = 12
FEW: Final = 6
"""Of what was left out."""

_STALE: Final = re.compile(r"\A<!-- outdated -->\s.*?\s<!-- /outdated -->\s+", re.DOTALL)


class Unreadable(Failure):
    """A folder with no preview in it, or with one of another version of this project."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="where `preview --out` wrote")
    parser.add_argument("--out", type=Path, help="file to write; standard output by default")
    parser.add_argument("--limit", type=int, help="characters, instead of what GitLab or GitHub take")
    parser.epilog = "Example: python -m model_serving note .state/ci/preview --out .state/ci/note.md"


def run(options: argparse.Namespace) -> int:
    site = hosts.here(os.environ)
    limit = options.limit or (site.note_limit if site else LIMIT)
    body = render(read(options.folder), run=site.this_run() if site else None, limit=limit)
    if options.out is None:
        print(body)
        return 0
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(body, encoding="utf-8")
    print(f"{options.out}: {len(body):,} characters")
    return 0


def read(folder: Path) -> list[Preview]:
    """The previews in a folder, in the order in which the stacks are deployed.

    Raises:
        Unreadable: if there is none, or one is no preview.
    """
    previews = []
    for path in sorted(folder.glob("*.json")):
        if path.name.endswith(REPORT):
            continue
        try:
            previews.append(Preview.model_validate_json(path.read_text(encoding="utf-8")))
        except ValidationError as error:
            raise Unreadable(
                f"{path} is no preview: {error.error_count()} mistakes, e.g. {error.errors()[0]['msg']}.\n"
                "  A note without it would say that the stack does not change.\n"
                "  Remove it, and run `python -m model_serving preview` of this commit again."
            ) from None
    if not previews:
        raise Unreadable(
            f"{folder} has no preview in it.\n"
            "  There is nothing to tell.\n"
            f"  Run `python -m model_serving preview --stack STACK --out {folder}` first."
        )
    return sorted(previews, key=lambda preview: (preview.order, preview.stack))


def render(previews: Sequence[Preview], *, run: Run | None = None, limit: int = LIMIT) -> str:
    """The note.

    Args:
        previews: in the order in which they are to be read.
        run: where their logs are.
        limit: characters that it may have; some are left for a banner.
    """
    parts: list[Block | Fixed] = [Fixed(text=_head(previews, run))]
    for preview in previews:
        parts += parts_of(preview)
    text, left_out = fit(parts, limit)
    if left_out:
        rest = "; ".join(left_out[:FEW]) + ("; …" if len(left_out) > FEW else "")
        text += f"\nLeft out, because a note may have {limit:,} characters: {rest}. The job's log and files have it.\n"
    return text


def stale(body: str, commit: str, run: Run | None = None) -> str:
    """A note with a banner that a newer commit is being looked at."""
    where = f", {link(run.name, run.url)}" if run else ""
    return (
        "<!-- outdated -->\n"
        f"> **Out of date.** {code(commit[:COMMIT_CHARACTERS])} is being previewed{where}. "
        "What follows is about an earlier commit.\n"
        f"<!-- /outdated -->\n\n{fresh(body)}"
    )


def fresh(body: str) -> str:
    """A note without that banner."""
    return _STALE.sub("", body, count=1)


def _head(previews: Sequence[Preview], run: Run | None) -> str:
    commits = dict.fromkeys(preview.commit[:COMMIT_CHARACTERS] for preview in previews)
    told = [f"Commit {' and '.join(code(commit) for commit in commits)}"]
    if run:
        told.append(link(run.name, run.url))
    rows = [
        "| stack | models | create | update | replace | delete | USD a month |",
        "|---|---|--:|--:|--:|--:|--:|",
        *(_overview(preview) for preview in previews),
    ]
    return "\n".join(["## What this would change", "", " · ".join(told), "", *rows, ""])


def _overview(preview: Preview) -> str:
    if preview.outcome != "ok":
        what = {"failed": "**preview failed**", "no-identity": "not previewed"}[preview.outcome]
        return f"| {cell(preview.stack)} | {what} | | | | | |"
    counts = [preview.count("create") + preview.count("import"), preview.count("update"), preview.count("replace")]
    counts.append(preview.count("delete") + preview.count("forget"))
    cells = [f"**{count}**" if count else "0" for count in counts]
    return f"| {cell(preview.stack)} | {len(preview.models) or 'none'} | {' | '.join(cells)} | {_monthly(preview)} |"


def _monthly(preview: Preview) -> str:
    told = [signed(preview.monthly)] if preview.costs or not preview.without_figure else []
    return " + ".join([*told, *(["?"] if preview.without_figure else [])])
