"""The command ``drift``: detects differences between a stack's resources and what was deployed.

The program is not run: what was merged and not yet deployed is no drift. It keeps one issue per stack.

The issue also lists known vulnerabilities of locked packages. They are not drift and do not change the exit code. If
the advisories are not available, the log says so.

The exit code is 0 without drift, 2 with drift and 1 if the check failed. Drift fails the scheduled job so that the
pipeline's owner is notified; the issue is for the person who fixes it. To ignore drift but not failures, allow this one
exit code (GitLab: ``allow_failure: {exit_codes: 2}``). If the site refuses to update the issue, the log says so and,
without drift, the job ends with a warning.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

from model_serving.git import SHORT
from model_serving.hosts import Site, SiteError, here
from model_serving.hosts.blocks import Block, Fixed, fit_note
from model_serving.hosts.markdown import cell, code, fence, link, logged, visible
from model_serving.hosts.posting import not_written
from model_serving.hosts.site import WARNING
from model_serving.pipelines import audit, engine
from model_serving.pipelines.audit import Advisory
from model_serving.pipelines.backend import Backend, Update
from model_serving.pipelines.changes import Change, Preview
from model_serving.pipelines.engine import Event
from model_serving.pipelines.events import Recorder
from model_serving.problems import Failure

HELP: Final = "detect drift of a stack, and keep an issue about it"
EXAMPLE: Final = f"""\
example:
  python -m model_serving drift --stack production

Exit code: 0 without drift, 2 with drift, 1 if the check failed; on GitLab, {WARNING} without drift if the issue could
not be updated.
"""
DRIFTED: Final = 2
_OWN: Final = "pulumi"
"""Start of the names under which Pulumi writes Kubernetes objects."""


class Drift(NamedTuple):
    """The result of a look.

    Attributes:
        found: the changes from what was deployed to what there is now.
        deployed: the last deployment of a commit; None before the first.
        traces: name of a changed resource -> who has written to it, or how to ask for that.
    """

    found: Preview
    deployed: Update | None
    traces: Mapping[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument("--stack", required=True, help="stack to check")


def run(options: argparse.Namespace) -> int:
    try:
        drift = look(options.stack, os.environ)
    except Failure as failure:
        raise Failure(f"whether {options.stack} has drifted is not known: {failure}") from None
    found = drift.found
    if found.outcome != "ok":
        raise Failure(
            f"whether {options.stack} has drifted is not known: {found.why}\n"
            "  The issue about it stays as it is.\n"
            "  Fix what the log reports, then run this again."
        )
    for line in _diff(found.changes):
        print(logged(line))
    print(f"{options.stack}: {'has drifted' if found.changes else 'no drift'}", flush=True)
    code = 0
    if site := here(os.environ):
        known = _advisories(options.stack)
        for each in known:
            told = f"{each.name} of {each.package} {each.version}, fixed in {each.fixed_in}"
            print(logged(f"known vulnerability: {told}"))
        code = _tell(site, drift, known)
    return DRIFTED if found.changes else code


def look(stack: str, environ: Mapping[str, str]) -> Drift:
    """Compares the state with the actual resources; changes neither."""
    backend = Backend(stack=stack, environ=environ)
    with ThreadPoolExecutor() as pool:
        redacting, updating = pool.submit(backend.redactor), pool.submit(backend.last_update)
        redactor, deployed = redacting.result(), updating.result()
    recorder = Recorder(stack=stack, commit=deployed.commit if deployed else "none", redactor=redactor)
    traces: dict[str, str] = {}

    def on_event(event: Event) -> None:
        recorder.event(event)
        # What a refresh has found is known after it.
        if metadata := event.get("resOutputsEvent", {}).get("metadata"):
            recorder.event({"resourcePreEvent": {"metadata": metadata}})
            if metadata["op"] in ("update", "delete"):
                name = metadata["urn"].rpartition("::")[2]
                traces[redactor.text(name)] = redactor.text(_trace(metadata, deployed))

    code = engine.run(
        ["refresh", "--preview-only", "--stack", stack],
        redactor=redactor,
        on_event=on_event,
        on_text=recorder.text,
        environ=environ,
    )
    return Drift(recorder.preview(code), deployed, traces)


def _trace(metadata: Mapping[str, Any], deployed: Update | None) -> str:
    """Who has written to a resource, or the command that asks for it."""
    state = metadata.get("new") or metadata.get("old") or {}
    package, _, rest = metadata["type"].partition(":")
    since = f"{deployed.started:%Y-%m-%dT%H:%M:%SZ}" if deployed else "2000-01-01T00:00:00Z"
    if package == "kubernetes":
        written = (state.get("outputs") or {}).get("metadata", {})
        others = [
            f"{each.get('manager')} at {each.get('time')}"
            for each in written.get("managedFields") or []
            if not str(each.get("manager")).startswith(_OWN)
        ]
        if metadata["op"] == "update" and others:
            return f"written by {', '.join(others)}"
        kind, name = rest.rpartition(":")[2], written.get("name", "")
        namespace = f" --namespace {written['namespace']}" if written.get("namespace") else ""
        return f"kubectl get {kind.lower()} {name}{namespace} --show-managed-fields --output yaml"
    if package == "gcp":
        name = (state.get("inputs") or {}).get("name") or metadata["urn"].rpartition("::")[2]
        return f"""gcloud logging read 'protoPayload.resourceName:"{name}" AND timestamp>="{since}"'"""
    return f"the audit log of {package}, since {since}"


def render(drift: Drift, advisories: Sequence[Advisory], site: Site) -> str:
    """The issue's text, within the site's length limit."""
    run = site.this_run()
    seen = link(run.name, run.url) if run.url else run.name
    parts = [*(_drift(drift, seen) if drift.found.changes else ()), _vulnerabilities(advisories, seen)]
    return fit_note(parts, site.note_limit, rest="See the job's log.")


def _drift(drift: Drift, seen: str) -> Iterator[Block | Fixed]:
    stack, deployed = drift.found.stack, drift.deployed
    lines = [f"The resources of {code(stack)} are no longer what was deployed. Detected by {seen}.", ""]
    if deployed:
        where = link("a pipeline", deployed.where) if "://" in deployed.where else deployed.where
        when = f"{deployed.started:%Y-%m-%d %H:%M} UTC"
        lines.append(f"Last deployment: {code(deployed.commit[:SHORT])} at {when} by {where} ({deployed.result}).")
    yield Fixed(text="\n".join(lines) + "\n")
    diff = [*_diff(drift.found.changes)]
    mark = fence(diff)
    head = f"\n### What changed\n\nFrom what was deployed (`-`) to what is there now (`+`).\n\n{mark}diff\n"
    items = [f"{line}\n" for line in diff]
    yield Block(what="lines of the changes", importance=0, head=head, items=items, foot=f"{mark}\n")
    traces = [f"- {code(name)}: {code(trace)}\n" for name, trace in drift.traces.items()]
    head = "\n### Who could have\n\nAnyone who may write to the resource without the pipeline. To find out who did:\n\n"
    yield Block(what="resources", importance=1, head=head, items=traces)
    yield Fixed(text=_remedy(stack, deployed))


def _remedy(stack: str, deployed: Update | None) -> str:
    lines = [
        "",
        "### What to do",
        "",
        "If it was a mistake, undo it. This deploys the live commit and nothing else:",
        "",
    ]
    checkout = f"git fetch origin {deployed.commit} && git checkout {deployed.commit}\n" if deployed else ""
    lines += ["```sh", f"{checkout}python -m model_serving deploy --stack {stack} --refresh", "```", ""]
    lines.append("If it was on purpose, add it to the program or the stack file. The issue closes itself then.")
    return "\n".join(lines) + "\n"


def _diff(changes: Iterable[Change]) -> Iterator[str]:
    for change in changes:
        if change.operation == "update":
            yield visible(f"! {change.kind} {change.name} was changed")
            yield from (visible(line) for line in change.lines())
        else:
            yield visible(f"- {change.kind} {change.name} was deleted")


def _vulnerabilities(advisories: Sequence[Advisory], seen: str) -> Block:
    head = f"\n### Known vulnerabilities\n\nFound by {seen} in locked packages. {audit.REMEDY}\n\n"
    columns = "| package | version | advisory | fixed in | concerns |\n|---|---|---|---|---|\n"
    rows = [
        f"| {cell(each.package)} | {cell(each.version)} | {cell(each.name)} | {each.fixed_in} "
        f"| {', '.join(map(cell, each.concerns))} |\n"
        for each in advisories
    ]
    return Block(what="known vulnerabilities", importance=2, head=head + columns, items=rows)


def _advisories(stack: str) -> Sequence[Advisory]:
    """Those that concern the stack; none if they are not known, which is said."""
    try:
        return audit.advisories(audit.locks([stack]))
    except Failure as failure:
        print(failure, file=sys.stderr)
        return ()


def _tell(site: Site, drift: Drift, advisories: Sequence[Advisory]) -> int:
    """Updates or closes the issue; returns the exit code for that."""
    stack, has_drifted = drift.found.stack, bool(drift.found.changes)
    marker = f"<!-- model-serving: drift {stack} -->"
    title = f"{stack} has drifted" if has_drifted else f"{stack} has packages with known vulnerabilities"
    try:
        if has_drifted or advisories:
            site.upsert_issue(marker, title, render(drift, advisories, site))
            print(f"{site.name}: updated the issue about {'the drift' if has_drifted else 'known vulnerabilities'}")
        elif site.close_issue(marker, f"{site.this_run().name} found no drift."):
            print(f"{site.name}: closed the issue about the drift")
    except SiteError as error:
        return not_written(site, error, "the issue was not updated")
    return 0
