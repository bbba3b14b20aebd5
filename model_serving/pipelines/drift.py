"""The command ``drift``: tells when what is there is no longer what was deployed, by one issue for each stack.

The exit code is 0 without drift, 2 with drift and 1 if nobody could look. Drift fails the scheduled job, because that
is how the owner of a pipeline hears of it: the issue is for whoever mends it. A pipeline that should go on in spite of
it lets this one code pass (GitLab: ``allow_failure: {exit_codes: 2}``) and still fails when nobody could look. The
issue's closing or opening never decides: a site that refuses it is told in the log.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Final

from model_serving.hosts import Site, SiteError, here
from model_serving.hosts.blocks import Fixed, fit
from model_serving.hosts.markdown import code, link
from model_serving.pipelines import engine, redact
from model_serving.pipelines.backend import Backend
from model_serving.pipelines.changes import Preview
from model_serving.pipelines.commits import SHORT, Checkout
from model_serving.pipelines.events import NO_CHANGES_EXPECTED, Recorder
from model_serving.pipelines.stack_note import parts_of
from model_serving.problems import Failure

NAME: Final = "drift"
HELP: Final = "look whether a stack is still as it was deployed, and keep an issue about it"
EXAMPLE: Final = """\
example:
  python -m model_serving drift --stack production

Exit code: 0 without drift, 2 with drift, 1 if nobody could look.
"""
DRIFTED: Final = 2
FAILED: Final = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument("--stack", required=True, help="what to look at")


def run(options: argparse.Namespace) -> int:
    site = here(os.environ)
    try:
        found, has_drifted, deployed = look(options.stack, os.environ)
    except Failure as refusal:
        print(f"\nwhether {options.stack} has drifted is not known: {refusal}", file=sys.stderr)
        return FAILED
    if found.outcome != "ok":
        print(f"\nwhether {options.stack} has drifted is not known: {found.why}", file=sys.stderr)
        return FAILED
    print(f"{options.stack}: {'has drifted' if has_drifted else 'no drift'}", flush=True)
    if site:
        _tell(site, found, deployed, has_drifted=has_drifted)
    return DRIFTED if has_drifted else 0


def look(stack: str, environ: Mapping[str, str]) -> tuple[Preview, bool, str]:
    """Compares what is there with the program.

    Returns:
        The changes that would undo the drift, whether there is any, and the commit that was deployed last.

    Raises:
        BackendError, EngineMissing, SecretsUnreadable, WrongCommit: if nobody can look.
    """
    commit = Checkout(environ=environ).head()
    update = Backend(stack=stack, environ=environ).last_update()
    redactor = redact.for_stack(stack, environ)
    recorder = Recorder(stack=stack, commit=commit, redactor=redactor)
    ended = engine.run(
        ["preview", "--refresh", "--expect-no-changes", "--stack", stack],
        redactor=redactor,
        on_event=recorder.event,
        on_text=recorder.text,
        environ=environ,
    )
    return recorder.preview(ended), ended == NO_CHANGES_EXPECTED, update.commit if update else commit


def render(found: Preview, deployed: str, site: Site) -> str:
    """The issue's text.

    Args:
        found: what would undo the drift, without secrets.
        deployed: the commit that was deployed last.
        site: where the issue will be, which says how long it may be.
    """
    run = site.this_run()
    seen = link(run.name, run.url) if run.url else run.name
    lines = [
        f"What is there is no longer what {code(found.commit[:SHORT])} says. Seen by {seen}.",
        "",
        "Somebody or something changed it outside of this repository. Below is what an update would change back.",
        "",
        f"- If it was by mistake: `python -m model_serving deploy --stack {found.stack} --refresh` undoes it.",
        "- If it was on purpose: write it into the program or the stack file; the issue closes itself.",
    ]
    if deployed != found.commit:
        lines.append(
            f"- {code(deployed[:SHORT])} was deployed last: what later commits bring is below as well, and no drift."
        )
    if not found.changes:
        lines += ["", "Only what the cloud reports has changed: an update would change nothing but the state."]
    text, left_out = fit([Fixed(text="\n".join(lines) + "\n"), *parts_of(found)], site.note_limit)
    return f"{text}\nLeft out for its length: {'; '.join(left_out)}. The job's log has it.\n" if left_out else text


def _tell(site: Site, found: Preview, deployed: str, *, has_drifted: bool) -> None:
    marker = f"<!-- model-serving: drift {found.stack} -->"
    try:
        if has_drifted:
            site.upsert_issue(marker, f"{found.stack} has drifted", render(found, deployed, site))
            print(f"{site.name}: the issue about it is up to date")
        elif site.close_issue(marker, f"No drift any more, seen by {site.this_run().name}."):
            print(f"{site.name}: the issue about it is closed")
    except SiteError as error:
        print(error, file=sys.stderr)
