"""The command ``drift``: detects differences between a stack and its deployed commit, and keeps one issue per stack.

The exit code is 0 without drift, 2 with drift and 1 if the check failed. Drift fails the scheduled job so that the
pipeline's owner is notified; the issue is for the person who fixes it. To ignore drift but not failures, allow this one
exit code (GitLab: ``allow_failure: {exit_codes: 2}``). If the site refuses to update the issue, the log says so and the
exit code stays the same.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Final

from model_serving.git import SHORT
from model_serving.hosts import Site, SiteError, here
from model_serving.hosts.blocks import Fixed, fit_note
from model_serving.hosts.markdown import code, link
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
        _tell(site, found, deployed, has_drifted=has_drifted)
    return DRIFTED if has_drifted else 0


def look(stack: str, environ: Mapping[str, str]) -> tuple[Preview, bool, str]:
    """The changes that would undo the drift, whether there is any, and the commit of the last deployment."""
    commit = Checkout(environ=environ).head()
    update = Backend(stack=stack, environ=environ).last_update()
    found, ended = recorded(stack, "--refresh", "--expect-no-changes", commit=commit, environ=environ)
    return found, ended == NO_CHANGES_EXPECTED, update.commit if update else commit


def render(found: Preview, deployed: str, site: Site) -> str:
    """The issue's text: the changes that would undo the drift, without secrets, within the site's length limit."""
    run = site.this_run()
    seen = link(run.name, run.url) if run.url else run.name
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
    parts = [Fixed(text="\n".join(lines) + "\n"), *parts_of(found)]
    return fit_note(parts, site.note_limit, rest="See the job's log.")


def _tell(site: Site, found: Preview, deployed: str, *, has_drifted: bool) -> None:
    marker = f"<!-- model-serving: drift {found.stack} -->"
    try:
        if has_drifted:
            site.upsert_issue(marker, f"{found.stack} has drifted", render(found, deployed, site))
            print(f"{site.name}: updated the issue about the drift")
        elif site.close_issue(marker, f"{site.this_run().name} found no drift."):
            print(f"{site.name}: closed the issue about the drift")
    except SiteError as error:
        print(error, file=sys.stderr)
