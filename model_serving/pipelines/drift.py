"""The command ``drift``: detects differences between a stack and its deployed commit, and keeps one issue per stack.

The issue also lists known vulnerabilities of locked packages. They are not drift and do not change the exit code. If
the advisories are not available, the log says so.

The exit code is 0 without drift, 2 with drift and 1 if the check failed. Drift fails the scheduled job so that the
pipeline's owner is notified; the issue is for the person who fixes it. To ignore drift but not failures, allow this one
exit code (GitLab: ``allow_failure: {exit_codes: 2}``). If the site refuses to update the issue, the log says so and the
exit code stays the same.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from model_serving.git import SHORT
from model_serving.hosts import Site, SiteError, here
from model_serving.hosts.blocks import Block, Fixed, fit_note
from model_serving.hosts.markdown import cell, code, link
from model_serving.pipelines import audit
from model_serving.pipelines.audit import Advisory
from model_serving.pipelines.backend import Backend
from model_serving.pipelines.changes import Preview
from model_serving.pipelines.commits import Checkout
from model_serving.pipelines.events import NO_CHANGES_EXPECTED
from model_serving.pipelines.preview import recorded
from model_serving.pipelines.stack_note import parts_of
from model_serving.problems import Failure

HELP: Final = "detect drift of a stack, and keep an issue about it"
EXAMPLE: Final = """\
example:
  python -m model_serving drift --stack production

Exit code: 0 without drift, 2 with drift, 1 if the check failed.
"""
DRIFTED: Final = 2
MOST_IMPORTANT: Final = 100
"""Loses no line before the blocks of the stack have lost theirs."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument("--stack", required=True, help="stack to check")


def run(options: argparse.Namespace) -> int:
    try:
        found, has_drifted, deployed = look(options.stack, os.environ)
    except Failure as failure:
        raise Failure(f"whether {options.stack} has drifted is not known: {failure}") from None
    if found.outcome != "ok":
        raise Failure(
            f"whether {options.stack} has drifted is not known: {found.why}\n"
            "  The issue about it stays as it is.\n"
            "  Fix what the log reports, then run this again."
        )
    print(f"{options.stack}: {'has drifted' if has_drifted else 'no drift'}", flush=True)
    if site := here(os.environ):
        _tell(site, found, deployed, _advisories(options.stack), has_drifted=has_drifted)
    return DRIFTED if has_drifted else 0


def look(stack: str, environ: Mapping[str, str]) -> tuple[Preview, bool, str]:
    """The changes that would undo the drift, whether there is any, and the commit of the last deployment."""
    commit = Checkout(environ=environ).head()
    update = Backend(stack=stack, environ=environ).last_update()
    found, ended = recorded(stack, "--refresh", "--expect-no-changes", commit=commit, environ=environ)
    return found, ended == NO_CHANGES_EXPECTED, update.commit if update else commit


def render(found: Preview, deployed: str, advisories: Sequence[Advisory], site: Site, *, has_drifted: bool) -> str:
    """The issue's text, within the site's length limit: the changes that would undo the drift, and the advisories."""
    run = site.this_run()
    seen = link(run.name, run.url) if run.url else run.name
    parts = [*(_drift(found, deployed, seen) if has_drifted else ()), _vulnerabilities(advisories, seen)]
    return fit_note(parts, site.note_limit, rest="See the job's log.")


def _drift(found: Preview, deployed: str, seen: str) -> Iterator[Block | Fixed]:
    lines = [
        f"The resources no longer match {code(found.commit[:SHORT])}. Detected by {seen}.",
        "",
        "They were changed outside this repository. The next update would make the changes below.",
        "",
        f"- If the change was a mistake, undo it: `python -m model_serving deploy --stack {found.stack} --refresh`.",
        "- If it was on purpose, add it to the program or the stack file; the issue then closes itself.",
    ]
    if deployed != found.commit:
        lines.append(
            f"- {code(deployed[:SHORT])} was deployed last: changes of later commits are listed too, and are not drift."
        )
    if not found.changes:
        lines += ["", "Only values reported by the cloud have changed: an update would only change the state."]
    yield Fixed(text="\n".join(lines) + "\n")
    yield from parts_of(found)


def _vulnerabilities(advisories: Sequence[Advisory], seen: str) -> Block:
    head = f"\n### Known vulnerabilities\n\nFound by {seen} in locked packages. {audit.REMEDY}\n\n"
    columns = "| package | version | advisory | fixed in | concerns |\n|---|---|---|---|---|\n"
    rows = [
        f"| {cell(each.package)} | {cell(each.version)} | {cell(each.name)} | {each.fixed_in} "
        f"| {', '.join(map(cell, each.concerns))} |\n"
        for each in advisories
    ]
    return Block(what="known vulnerabilities", importance=MOST_IMPORTANT, head=head + columns, items=rows)


def _advisories(stack: str) -> Sequence[Advisory]:
    """Those that concern the stack; none if they are not known, which is said."""
    try:
        return audit.advisories(audit.locks([stack]))
    except Failure as failure:
        print(failure, file=sys.stderr)
        return ()


def _tell(site: Site, found: Preview, deployed: str, advisories: Sequence[Advisory], *, has_drifted: bool) -> None:
    marker = f"<!-- model-serving: drift {found.stack} -->"
    title = f"{found.stack} has drifted" if has_drifted else f"{found.stack} has packages with known vulnerabilities"
    try:
        if has_drifted or advisories:
            site.upsert_issue(marker, title, render(found, deployed, advisories, site, has_drifted=has_drifted))
            print(f"{site.name}: updated the issue about {'the drift' if has_drifted else 'known vulnerabilities'}")
        elif site.close_issue(marker, f"{site.this_run().name} found no drift."):
            print(f"{site.name}: closed the issue about the drift")
    except SiteError as error:
        print(error, file=sys.stderr)
