"""Previews one stack and keeps what it finds: the job of a merge request, and `make preview`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from model_serving import hosts
from model_serving.git import Git
from model_serving.hosts.markdown import visible
from model_serving.pipelines import diff, engine, redact, stacks
from model_serving.pipelines.changes import Preview, terraform_report
from model_serving.pipelines.engine import EngineMissing
from model_serving.pipelines.events import Recorder
from model_serving.pipelines.note import REPORT
from model_serving.pipelines.redact import SecretsUnreadable
from model_serving.problems import InvalidInput

NAME: Final = "preview"
HELP: Final = "show what an update of a stack would do, and keep it for the note"
FORK: Final = (
    "This merge request comes from a fork, whose code gets no identity in the cloud. Somebody who may push to this "
    "repository can push the branch here after reading it; then it is previewed."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stack", required=True, help="the stack's name")
    parser.add_argument(
        "--out", type=Path, help="folder for STACK.json, which `ci note` reads, and STACK.terraform.json"
    )
    parser.add_argument("--refresh", action="store_true", help="look first at what is really there, which takes longer")
    parser.add_argument(
        "--policy-pack", type=Path, action="append", default=[], help="folder of a policy pack; may be given again"
    )
    parser.add_argument("--commit", help="what is looked at, instead of what the checkout or the pipeline says")
    parser.epilog = "Example: python -m model_serving preview --stack dev --out .state/ci/preview"


def run(options: argparse.Namespace) -> int:
    site = hosts.here(os.environ)
    commit = options.commit or (site.commit if site else head())
    if site and site.is_fork:
        found = Preview(stack=options.stack, commit=commit, order=order(options.stack), outcome="no-identity", why=FORK)
    else:
        found = preview(options.stack, commit=commit, refresh=options.refresh, policy_packs=options.policy_pack)
    for line in listing(found):
        print(line)
    if options.out:
        write(found, options.out)
    return 1 if found.outcome == "failed" else 0


def preview(
    stack: str,
    *,
    commit: str,
    refresh: bool = False,
    policy_packs: Sequence[Path] = (),
    environ: Mapping[str, str] = os.environ,
) -> Preview:
    """Asks the engine, and prints how it gets on.

    What goes wrong is in what is returned: a note that says so is worth more than none.

    Args:
        stack: its name.
        commit: what is looked at.
        refresh: whether to look first at what is really there.
        policy_packs: folders of policy packs.
        environ: instead of this process's own environment.
    """
    try:
        redactor = redact.for_stack(stack, environ)
        recorder = Recorder(stack=stack, commit=commit, redactor=redactor, order=order(stack))
        arguments = ["preview", "--stack", stack, *(["--refresh"] if refresh else [])]
        arguments += [part for pack in policy_packs for part in ("--policy-pack", str(pack))]
        code = engine.run(arguments, redactor=redactor, on_event=recorder.event, on_text=recorder.text, environ=environ)
    except (EngineMissing, SecretsUnreadable) as error:
        print(error, file=sys.stderr)
        why = "It could not begin."
        return Preview(stack=stack, commit=commit, order=order(stack), outcome="failed", why=why, errors=(str(error),))
    return recorder.preview(code)


def listing(found: Preview) -> Iterator[str]:
    """The preview as a terminal shows it, behind the engine's progress, which has named what is new already."""
    for change in diff.in_order(found.changes):
        if change.operation != "create":
            yield ""
            yield visible(diff.title(change))
            yield from (f"  {visible(line)}" for line in diff.properties(change))
    for violation in found.violations:
        yield ""
        yield visible(f"policy {violation.policy} ({violation.level}) {violation.resource}: {violation.message}")
    counts = {name: found.count(name) for name in diff.ORDER}
    told = [f"{count} to {name}" for name, count in counts.items() if count] or ["no changes"]
    yield ""
    yield f"{found.stack}: {', '.join(told)}, {found.unchanged} unchanged{f'. {found.why}' if found.why else ''}"


def write(found: Preview, folder: Path) -> None:
    """The files that the note and GitLab's widget are made of."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{found.stack}.json").write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (folder / f"{found.stack}{REPORT}").write_text(json.dumps(terraform_report(found)) + "\n", encoding="utf-8")


def order(stack: str) -> int:
    """Place of a stack among those that pipelines deploy; 0 if none does, or if its file has mistakes."""
    try:
        section = stacks.read(stack).ci
    except InvalidInput:
        # The preview itself will say which.
        return 0
    return section.order if section else 0


def head() -> str:
    """The commit of the checkout; "none" outside of a repository."""
    done = Git(folder=Path.cwd()).run("rev-parse", "--verify", "--quiet", "HEAD")
    return done.text or "none"
