"""The command ``preview``: previews one stack and keeps the result for the note."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from model_serving import hosts
from model_serving.hosts.markdown import logged, visible
from model_serving.images.remotes import replacing
from model_serving.pipelines import engine, stacks
from model_serving.pipelines.backend import URL, Backend
from model_serving.pipelines.base import Base
from model_serving.pipelines.branch import Branch
from model_serving.pipelines.changes import SIGNS, Preview, terraform_report
from model_serving.pipelines.events import Recorder
from model_serving.pipelines.note import REPORT
from model_serving.pipelines.redact import Redactor
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
    branch = Branch(target=site.target, start=site.start, is_of_site=True) if site else Branch.of_laptop()
    commit = options.commit or (site.commit if site else branch.head() or "none")
    if site and site.is_fork:
        found = Preview(stack=options.stack, commit=commit, order=order(options.stack), outcome="no-identity", why=FORK)
    else:
        found = preview(
            options.stack, commit=commit, branch=branch, refresh=options.refresh, policy_packs=options.policy_pack
        )
    print("\n".join(map(logged, listing(found))))
    if options.out:
        write(found, options.out)
    return 1 if found.outcome == "failed" else 0


def preview(
    stack: str,
    *,
    commit: str,
    branch: Branch | None = None,
    refresh: bool = False,
    policy_packs: Sequence[Path] = (),
    environ: Mapping[str, str] = os.environ,
) -> Preview:
    """Runs the engine and prints its progress; failures are part of the result, so that the note shows them.

    A branch that lacks live commits is previewed merged with them, if that is possible.
    """
    place, environ = order(stack), _absolute(environ)
    options = ["--refresh"] if refresh else []
    options += [part for pack in policy_packs for part in ("--policy-pack", str(pack.resolve()))]
    try:
        with _compared(stack, branch or Branch(environ=environ), environ) as (base, redactor):
            found, _ = recorded(stack, *options, commit=commit, order=place, environ=environ, redactor=redactor)
        return found.model_copy(update={"base": base})
    except Failure as error:
        print(error, file=sys.stderr)
        why = "It could not start."
        return Preview(stack=stack, commit=commit, order=place, outcome="failed", why=why, errors=(str(error),))


@contextmanager
def _compared(stack: str, branch: Branch, environ: Mapping[str, str]) -> Iterator[tuple[Base | None, Redactor | None]]:
    """A block in the folder to preview; hands out what it is compared with, and the redactor if it is known."""
    backend = Backend(stack=stack, environ=environ)
    # In parallel: each takes half a second.
    with ThreadPoolExecutor() as pool:
        redactor = pool.submit(backend.redactor)
        update = pool.submit(backend.last_update) if branch.head() else None
        try:
            live = update.result() if update else None
        except Failure:
            # Without the backend, the preview fails as well, and says so.
            live = None
    if live is None:
        yield None, redactor.result()
        return
    with branch.merged(branch.base(stack, live)) as base:
        # What is merged may have other secrets.
        yield base, None if base.is_merged else redactor.result()


def recorded(
    stack: str,
    *options: str,
    commit: str,
    environ: Mapping[str, str],
    order: int = 0,
    redactor: Redactor | None = None,
) -> tuple[Preview, int]:
    """Runs the engine's preview with these options; returns the result, and the exit code."""
    redactor = redactor or Backend(stack=stack, environ=environ).redactor()
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
    if found.base:
        yield ""
        yield from found.base.sentences(visible)
    for change in found.sorted_changes:
        if change.operation != "create":
            yield ""
            yield visible(change.title)
            yield from (f"  {visible(line)}" for line in change.lines())
    for violation in found.violations:
        yield ""
        yield visible(f"policy {violation.policy} ({violation.level}) {violation.resource}: {violation.message}")
    yield ""
    if found.outcome == "ok":
        told = [f"{count} to {name}" for name in SIGNS if (count := found.count(name))] or ["no changes"]
        yield f"{found.stack}: {', '.join(told)}, {found.unchanged} unchanged"
    else:
        yield f"{found.stack}: {'the preview failed' if found.outcome == 'failed' else 'not previewed'}. {found.why}"


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


def _absolute(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment for another working directory: the address of a folder with states may be a relative one."""
    url = environ.get(URL, "")
    if not url.startswith("file://."):
        return environ
    return {**environ, URL: f"file://{Path.cwd()}/{url.removeprefix('file://')}"}
