"""The command ``note``: combines the previews of all stacks into one Markdown note for a merge request.

It reads the files of the preview jobs, and the stack files to know which previews to expect; `post` writes the note
into the merge request.
"""

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from model_serving import hosts
from model_serving.hosts.blocks import LIMIT, Block, Fixed, fit_note
from model_serving.hosts.markdown import cell, code, link
from model_serving.hosts.site import Run, Site
from model_serving.pipelines import stacks, unfinished
from model_serving.pipelines.changes import COLUMNS, Outcome, Preview
from model_serving.pipelines.stack_note import parts_of, signed
from model_serving.problems import Failure

HELP: Final = "combine the previews of all stacks into one Markdown note"
REPORT: Final = ".terraform.json"
COMMIT_CHARACTERS: Final = 12
REST: Final = "See the log and the files of the job."

_INSTEAD_OF_FIGURES: Final[Mapping[Outcome, str]] = {
    "failed": "**preview failed**",
    "no-identity": "not previewed",
    "removed": "no longer deployed",
}
_STALE: Final = re.compile(r"\A<!-- outdated -->\s.*?\s<!-- /outdated -->\s+", re.DOTALL)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="folder that `preview --out` wrote")
    add_expected(parser)
    parser.add_argument("--out", type=Path, help="file to write (default: standard output)")
    parser.add_argument("--limit", type=int, help="maximum number of characters (default: the limit of the site)")
    parser.epilog = "Example: python -m model_serving note .state/ci/preview --out .state/ci/note.md"


def add_expected(parser: argparse.ArgumentParser) -> None:
    """Adds the option for the stacks that the note must be about."""
    parser.add_argument(
        "--expect",
        action="append",
        default=[],
        metavar="STACK",
        help="a stack that the note is about; repeatable (default in a merge request: each with a ci section)",
    )


def run(options: argparse.Namespace) -> int:
    site = hosts.here(os.environ)
    limit = options.limit or (site.note_limit if site else LIMIT)
    body = render(read(options.folder, options.expect, site), run=site.this_run() if site else None, limit=limit)
    if options.out is None:
        print(body)
        return 0
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(body, encoding="utf-8")
    print(f"{options.out}: {len(body):,} characters")
    return 0


def read(folder: Path, expected: Sequence[str] = (), site: Site | None = None) -> list[Preview]:
    """The previews in a folder, in the order of deployment, and what became of those that are not there.

    Args:
        folder: that of `preview --out`.
        expected: the stacks to expect; in a job of ``site``, by default those that its pipelines deploy, if it is
            about a merge request.
        site: the site in whose job this runs.
    """
    paths = [path for path in sorted(folder.glob("*.json")) if not path.name.endswith(REPORT)]
    previews = [_read(path) for path in paths]
    commit = previews[0].commit if previews else site.commit if site else ""
    # On main, a deployment's note is about its own stack alone.
    missing = expected or (stacks.in_pipelines() if site and site.target else [])
    previews += [unfinished.of(stack, commit) for stack in missing if stack not in {each.stack for each in previews}]
    previews += unfinished.removed(site.start, commit) if site else []
    if not previews:
        raise Failure(
            f"{folder} contains no previews.\n"
            "  There is nothing to write a note about.\n"
            f"  Run `python -m model_serving preview --stack STACK --out {folder}` first."
        )
    return sorted(previews, key=lambda preview: (preview.order, preview.stack))


def _read(path: Path) -> Preview:
    try:
        return Preview.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        errors = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        why = "Its result cannot be read. Run the job again."
        return Preview(stack=path.stem, commit="", outcome="failed", why=why, errors=(f"{path.name}: {errors}",))


def render(previews: Sequence[Preview], *, run: Run | None = None, limit: int = LIMIT) -> str:
    """The note about previews in reading order; ``run`` is the job with their logs, ``limit`` includes a banner."""
    parts: list[Block | Fixed] = [Fixed(text=_head(previews, run))]
    for preview in previews:
        parts += parts_of(preview)
    return fit_note(parts, limit, rest=REST)


def stale(body: str, commit: str, run: Run | None = None) -> str:
    """A note under a banner that says a newer commit is being previewed."""
    where = f", {link(run.name, run.url)}" if run else ""
    return (
        "<!-- outdated -->\n"
        f"> **Out of date.** {code(commit[:COMMIT_CHARACTERS])} is being previewed{where}. "
        "The results below are for an earlier commit.\n"
        f"<!-- /outdated -->\n\n{fresh(body)}"
    )


def fresh(body: str) -> str:
    """A note without the banner."""
    return _STALE.sub("", body, count=1)


def _head(previews: Sequence[Preview], run: Run | None) -> str:
    commits = dict.fromkeys(preview.commit[:COMMIT_CHARACTERS] for preview in previews if preview.commit)
    told = f"Commit {' and '.join(code(commit) for commit in commits)}" if commits else "Commit not known"
    rows = [
        "| stack | models | create | update | replace | delete | USD per month |",
        "|---|---|--:|--:|--:|--:|--:|",
        *(_overview(preview) for preview in previews),
    ]
    where = f" · {link(run.name, run.url)}" if run else ""
    failed = all(preview.outcome == "failed" and not preview.changes for preview in previews)
    nothing = ["", "**No preview has succeeded**, so what this would change is not known.", ""] if failed else [""]
    return "\n".join(["## What this would change", "", f"{told}{where}", *nothing, *rows, ""])


def _overview(preview: Preview) -> str:
    if preview.outcome != "ok":
        what = _INSTEAD_OF_FIGURES[preview.outcome]
        return f"| {cell(preview.stack)} | {what} | | | | | |"
    counts = [preview.count(*column) for column in COLUMNS]
    cells = [f"**{count}**" if count else "0" for count in counts]
    monthly = [signed(preview.monthly)] if preview.costs or not preview.without_figure else []
    cells.append(" + ".join([*monthly, *(["?"] if preview.without_figure else [])]))
    return f"| {cell(preview.stack)} | {len(preview.models) or 'none'} | {' | '.join(cells)} |"
