"""The command ``deploy``: applies the previewed commit to a stack, and reports what is live afterwards.

It also handles what may come between:

- A newer commit is already deployed: rerunning an old job is refused.
- The update would no longer do what was approved: it is refused, see approved.py.
- Another run holds the lock: it is waited for, or its lock is removed if that run is dead, see locks.py.
- An earlier run was killed: its unfinished operations are corrected first, see interrupted.py.
- The update fails or receives a signal: Pulumi finishes in order, the state stays usable, and the log ends with what is
  live and what to do next.

It works on a laptop as in a job.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

from model_serving.git import SHORT
from model_serving.hosts import here
from model_serving.pipelines import approved, engine, interrupted, locks, lost_images, served
from model_serving.pipelines.backend import Backend, Update
from model_serving.pipelines.changes import Preview
from model_serving.pipelines.commits import Checkout
from model_serving.pipelines.interrupted import Interrupted
from model_serving.pipelines.locks import Gate, Job
from model_serving.pipelines.lost_images import LostImage
from model_serving.pipelines.phases import Phases
from model_serving.pipelines.redact import Redactor
from model_serving.problems import Failure

HELP: Final = "apply this commit to a stack, and report what is live"
EXAMPLE: Final = f"""\
example:
  python -m model_serving deploy --stack dev --previewed previews

With --previewed, it previews again and refuses to do anything that was not approved.

A job that is older than what is live is refused. To go back, revert on the branch, which makes a newer commit. To go
back without a revert, use --force-older, or set DEPLOY_FORCE_OLDER=true.

The next run recovers from a killed one: on the same machine, or in a job with --only-job. It waits for the locks of
running updates, by default {locks.WAIT_SECONDS // 60} minutes.
Exit code: 0 on success, 1 on failure, 128 plus the signal's number after a signal.
"""
FORCE_OLDER: Final = "DEPLOY_FORCE_OLDER"
SIGNALLED: Final = 128
"""Exit code after a signal, minus the signal's number; as in shells."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument("--stack", required=True, help="stack to update")
    parser.add_argument(
        "--previewed", type=Path, metavar="DIR", help="folder of `preview --out`: only do what it shows"
    )
    parser.add_argument(
        "--only-job",
        action="store_true",
        help="no other job deploys the stack meanwhile (resource_group, concurrency): remove the lock of a killed job",
    )
    parser.add_argument(
        "--force-older", action="store_true", help=f"go back to this older commit, like {FORCE_OLDER}=true"
    )
    parser.add_argument("--refresh", action="store_true", help="read the actual resources first, and undo drift")
    parser.add_argument(
        "--lock-wait",
        type=float,
        default=locks.WAIT_SECONDS,
        metavar="SECONDS",
        help="maximum wait for other updates of the stack (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    # While Pulumi is running, the engine passes the signal on instead.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(SIGNALLED + signal.SIGTERM))
    try:
        return Deployment(options, os.environ).run()
    except Failure as failure:
        raise Failure(f"stack {options.stack} was not deployed: {failure}") from None


class Deployment:
    """One deployment of one stack, with the command's options."""

    def __init__(self, options: argparse.Namespace, environ: Mapping[str, str]) -> None:
        self._options, self._environ, self._stack = options, environ, str(options.stack)
        self._phases = Phases()
        self._backend = Backend(stack=self._stack, environ=environ)
        self._checkout = Checkout(environ=environ)
        self._head = self._checkout.head()
        site = here(environ)
        self._site_name = site.name if site else ""
        self._run = site.this_run() if site else None
        self._gate = Gate(
            backend=self._backend,
            wait_seconds=options.lock_wait,
            is_only_job=options.only_job,
            is_in_job=site is not None,
            say=_say,
        )
        self._redactor = Redactor([])
        self._approved: Preview | None = None
        self._last: Update | None = None
        self._earlier: Job | None = None
        self._has_mark = False
        self._told: set[str] = set()
        self._left: list[Interrupted] = []
        self._lost: list[LostImage] = []

    def run(self) -> int:
        """Deploys, and reports the result; returns the command's exit code.

        Raises:
            Failure: if nothing was changed.
        """
        folder = self._options.previewed
        self._approved = approved.read(folder, self._stack) if folder else None
        self._checkout.refuse_other_than_head(
            self._head,
            previewed=self._approved.commit if self._approved else None,
            apart_from=[folder] if folder else [],
        )
        _say(f"deploying {self._head[:SHORT]} to {self._stack}{f': {self._run.name}' if self._run else ''}")
        try:
            self._prepare()
            code = self._apply()
        except SystemExit:
            code = -signal.SIGTERM
        except KeyboardInterrupt:
            code = -signal.SIGINT
        self._report(code)
        return SIGNALLED - code if code < 0 else min(code, 1)

    def _prepare(self) -> None:
        """Collects everything the update needs, in parallel: each answer takes half a second."""
        with ThreadPoolExecutor() as pool:
            redactor = pool.submit(self._backend.redactor)
            state = pool.submit(self._backend.state)
            older = pool.submit(self._refuse_older)
            self._redactor = redactor.result()
            older.result()
            self._look_for_damage(state.result())

    def _look_for_damage(self, state: Mapping[str, Any]) -> None:
        self._left, self._lost = interrupted.pending(state), lost_images.find(state)

    def _refuse_older(self) -> None:
        with ThreadPoolExecutor() as pool:
            tags = pool.submit(self._backend.tags)
            self._last = self._backend.last_update()
            if not self._has_mark:
                self._earlier = Job.read(tags.result())
        if last := self._last:
            how = f"was deployed at {last.started:%Y-%m-%d %H:%M} UTC by {last.where} ({last.result})"
            self._refuse_if_newer(last.commit, how)
        if earlier := self._earlier:
            self._refuse_if_newer(earlier.commit, f"is or was being deployed by {earlier.name}")

    @property
    def _is_continued(self) -> bool:
        """Whether the last update was to this commit and is not complete."""
        last, earlier = self._last, self._earlier
        if earlier and not (last and last.started >= earlier.began):
            return earlier.commit == self._head
        return bool(last and last.result != "succeeded" and last.commit == self._head)

    def _refuse_if_newer(self, commit: str, how: str) -> None:
        relation, this, head = self._checkout.relation(commit, self._head), commit[:SHORT], self._head[:SHORT]
        if relation in ("same", "older"):
            return
        if relation == "diverged":
            self._say_once(f"note: {this}, which {how}, is not an ancestor of {head}")
        elif self._options.force_older or self._environ.get(FORCE_OLDER, "").lower() == "true":
            self._say_once(f"going back from {this} to {head}, as requested")
        else:
            what = f"is newer than {head}" if relation == "newer" else "cannot be fetched from the repository"
            push = "" if relation == "newer" else "Push that commit to a branch, and run this again. "
            raise Failure(
                f"{this} {what}, and {how}.\n"
                "  Deploying this job's commit could undo newer releases, so nothing was changed.\n"
                f"  {push}Run the newest job. To go back, revert on the branch. {self._how_to_force()}"
            )

    def _how_to_force(self) -> str:
        way = {
            "GitLab": f"start a pipeline for main (Build > Pipelines > New pipeline) with {FORCE_OLDER}=true",
            "GitHub": f"run the workflow mlops-deploy by hand for {self._stack}, with the input force_older",
        }.get(self._site_name, f"use --force-older or {FORCE_OLDER}=true")
        return f"To deploy this commit nevertheless, {way}."

    def _how_to_approve(self) -> str:
        preview = f"python -m model_serving preview --stack {self._stack} --out {self._options.previewed}"
        way = {
            "GitLab": f"run the job `preview {self._stack}` of this pipeline again, read it, and start this job again",
            "GitHub": "run the job `preview` of this deployment again, read its summary, and approve the deployment",
        }.get(self._site_name, f"run `{preview}`, read it, and run this again")
        return f"To approve it, {way}."

    def _apply(self) -> int:
        """Updates the stack, again after each lock; returns Pulumi's exit code."""
        code, is_locked = self._attempt()
        while is_locked:
            self._pass_gate()
            code, is_locked = self._attempt()
        if code == 0 and any(each.needs_person for each in self._left):
            # Their resources have been created now, and nothing else drops these records.
            state = self._backend.state()
            self._pulumi("refresh", "--clear-pending-creates", f"--target={served.stack_urn(state)}")
        return code

    def _pass_gate(self) -> None:
        with self._phases.during("waiting"):
            self._gate.get_past(self._earlier)
            self._refuse_older()
            self._look_for_damage(self._backend.state())

    def _attempt(self) -> tuple[int, bool]:
        """Corrects the state and updates the stack; see `_pulumi` for what is returned."""
        if self._left or (self._earlier and not self._has_mark):
            # These operations may be those of an update that is running. And the lock of a killed job is only known by
            # its mark, which this job's will replace.
            self._pass_gate()
        for each in self._left:
            self._say_once(f"left by an earlier run: {each}: {each.cure}")
        if urns := interrupted.repair(self._backend) if self._left else []:
            code, is_locked = self._pulumi("refresh", *(f"--target={urn}" for urn in urns))
            if code:
                return code, is_locked
        options = ["--refresh"] if self._options.refresh else []
        if self._approved:
            self._refuse_unapproved(self._approved, *options)
        for image in self._lost:
            self._say_once(str(image))
            options.append(f"--replace={image.urn}")
        return self._pulumi("up", *options, expected=len(self._approved.changes) if self._approved else None)

    def _refuse_unapproved(self, preview: Preview, *options: str) -> None:
        with self._phases.during("preview"):
            now = approved.look(
                self._stack, *options, commit=self._head, redactor=self._redactor, environ=self._environ
            )
        if found := approved.differing(preview, now, is_continued=self._is_continued):
            raise approved.refuse(preview, found, self._how_to_approve())
        _say(f"the update is the approved one: {len(now.changes)} of {len(preview.changes)} changes are left to do")

    def _pulumi(self, *command: str, expected: int | None = None) -> tuple[int, bool]:
        """Runs a command that changes the stack; returns its exit code, and whether locks kept it from starting."""
        refusals: list[str] = []

        def on_text(line: str) -> bool:
            """Keeps errors about locks out of the log, which reports them in other words."""
            if line.startswith(locks.REFUSAL) or refusals:
                refusals.append(line)
            return bool(refusals)

        with self._phases.during("start"):
            code = engine.run(
                [*command, "--yes", "--skip-preview", "--stack", self._stack],
                redactor=self._redactor,
                on_event=self._phases.event,
                on_text=on_text,
                on_start=self._mark if self._options.only_job else None,
                expected=expected,
                environ=self._environ,
            )
        return code, bool(code and refusals)

    def _mark(self, process: int) -> None:
        """Says which process is this job's, before it takes the lock: that makes the lock of a killed job known."""
        name = f"{self._run.name} {self._run.url}".rstrip() if self._run else "another job"
        job = Job(name=name, commit=self._head, process=process)
        self._has_mark = True
        _quietly(partial(self._backend.set_tag, locks.TAG, job.model_dump_json()))

    def _remove_mark(self, code: int) -> None:
        # A Pulumi that was killed, e.g. for want of memory, has left its lock.
        if self._has_mark and code >= 0:
            _quietly(partial(self._backend.remove_tag, locks.TAG))

    def _say_once(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            _say(line)

    def _report(self, code: int) -> None:
        """Prints what is live, and what to do if the update is incomplete."""
        state: dict[str, Any] = {}
        try:
            with ThreadPoolExecutor() as pool:
                pool.submit(self._remove_mark, code)
                state = pool.submit(self._backend.state).result()
        except Failure as error:
            print(f"\nwhat is live on {self._stack} is not known: {error}\n", file=sys.stderr)
        else:
            print(f"\nlive on {self._stack} now:\n{self._redactor.text(served.report(state))}\n")
        if code:
            print(self._redactor.text(self._advice(code, interrupted.pending(state))))
        _say(str(self._phases))

    def _advice(self, code: int, left: list[Interrupted]) -> str:
        ended = f"signal {-code}" if code < 0 else f"code {code}"
        job = f": {self._run.url}" if self._run and self._run.url else ""
        lines = [
            f"the deployment of {self._head[:SHORT]} to {self._stack} is incomplete: it ended with {ended}.",
            "The state is usable and contains what was done; the table shows which versions get the traffic.",
            f"Fix what the log reports, then run this job again{job}. Or check out {self._head} on a laptop, and run:",
            f"  python -m model_serving deploy --stack {self._stack}",
            *interrupted.left_behind(left, self._stack),
        ]
        return "\n  ".join(lines)


def _say(line: str) -> None:
    print(line, flush=True)


def _quietly(action: Callable[[], None]) -> None:
    """Without its mark, a deployment does not fail; only its lock is not removed if it is killed."""
    try:
        action()
    except Failure as error:
        print(f"note: {error}", file=sys.stderr, flush=True)
