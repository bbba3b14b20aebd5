"""The command ``preview``: previews one stack and keeps the result for the note."""

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
from model_serving.images.remotes import replacing
from model_serving.pipelines import engine, stacks
from model_serving.pipelines.backend import Backend
from model_serving.pipelines.changes import SIGNS, Preview, terraform_report
from model_serving.pipelines.events import Recorder
from model_serving.pipelines.note import REPORT
from model_serving.problems import Failure, InvalidInput

HELP: Final = "show what an update of a stack would change, and keep the result for the note"
FORK: Final = (
    "This merge request comes from a fork, whose code gets no cloud identity. Someone who may push to this repository "
    "can review the branch and push it here; then it is previewed."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stack", required=True, help="name of the stack")
    parser.add_argument("--out", type=Path, help="folder for STACK.json, read by `note`, and STACK.terraform.json")
    parser.add_argument("--refresh", action="store_true", help="read the actual state from the cloud first; slower")
    parser.add_argument(
        "--policy-pack", type=Path, action="append", default=[], help="folder of a policy pack; repeatable"
    )
    parser.add_argument("--commit", help="previewed commit (default: that of the pipeline or the checkout)")
    parser.epilog = "Example: python -m model_serving preview --stack dev --out .state/ci/preview"


def run(options: argparse.Namespace) -> int:
    site = hosts.here(os.environ)
    commit = options.commit or (site.commit if site else _head())
    if site and site.is_fork:
        found = Preview(stack=options.stack, commit=commit, order=order(options.stack), outcome="no-identity", why=FORK)
    else:
        found = preview(options.stack, commit=commit, refresh=options.refresh, policy_packs=options.policy_pack)
    print("\n".join(listing(found)))
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
    """Runs the engine and prints its progress; failures are part of the result, so that the note shows them."""
    place = order(stack)
    try:
        options = ["--refresh"] if refresh else []
        options += [part for pack in policy_packs for part in ("--policy-pack", str(pack))]
        return recorded(stack, *options, commit=commit, order=place, environ=environ)[0]
    except Failure as error:
        print(error, file=sys.stderr)
        why = "It could not start."
        return Preview(stack=stack, commit=commit, order=place, outcome="failed", why=why, errors=(str(error),))


def recorded(stack: str, *options: str, commit: str, environ: Mapping[str, str], order: int = 0) -> tuple[Preview, int]:
    """Runs the engine's preview with these options; returns the result, and the exit code."""
    redactor = Backend(stack=stack, environ=environ).redactor()
    recorder = Recorder(stack=stack, commit=commit, redactor=redactor, order=order)
    code = engine.run(
        ["preview", "--stack", stack, *options],
        redactor=redactor,
        on_event=recorder.event,
        on_text=recorder.text,
        environ=environ,
    )
    return recorder.preview(code), code


def listing(found: Preview) -> Iterator[str]:
    """The preview for a terminal; without new resources, which the engine's progress has named."""
    for change in found.sorted_changes:
        if change.operation != "create":
            yield ""
            yield visible(change.title)
            yield from (f"  {visible(line)}" for line in change.lines())
    for violation in found.violations:
        yield ""
        yield visible(f"policy {violation.policy} ({violation.level}) {violation.resource}: {violation.message}")
    told = [f"{count} to {name}" for name in SIGNS if (count := found.count(name))] or ["no changes"]
    yield ""
    yield f"{found.stack}: {', '.join(told)}, {found.unchanged} unchanged{f'. {found.why}' if found.why else ''}"


def write(found: Preview, folder: Path) -> None:
    """Writes the files for the note and for GitLab's merge request widget."""
    files = {
        f"{found.stack}.json": found.model_dump_json(indent=1),
        f"{found.stack}{REPORT}": json.dumps(terraform_report(found)),
    }
    for name, text in files.items():
        with replacing(folder / name, scratch=folder) as file:
            file.write(f"{text}\n".encode())


def order(stack: str) -> int:
    """Position of a stack in the order of deployments; 0 if pipelines do not deploy it, or its file is invalid."""
    try:
        section = stacks.read(stack).ci
    except InvalidInput:
        # The preview reports the error.
        return 0
    return section.order if section else 0


def _head() -> str:
    """The checked-out commit; "none" outside of a repository."""
    return Git(folder=Path.cwd()).run("rev-parse", "--verify", "--quiet", "HEAD").text or "none"
