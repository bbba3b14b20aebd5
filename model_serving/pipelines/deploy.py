"""The command ``deploy``: applies the previewed commit to a stack, and reports what is live afterwards.

It also handles what may come between:

- A newer commit is already deployed: rerunning an old job is refused.
- Another run holds the lock: it is waited for, or cancelled if that run is dead.
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
from model_serving.pipelines import engine, interrupted, locks, lost_images, served
from model_serving.pipelines.backend import Backend
from model_serving.pipelines.changes import Preview
from model_serving.pipelines.commits import Checkout
from model_serving.pipelines.engine import Event
from model_serving.pipelines.holders import Holder, Register, process_start
from model_serving.pipelines.interrupted import Interrupted
from model_serving.pipelines.locks import Gate, Lock
from model_serving.pipelines.lost_images import LostImage
from model_serving.pipelines.phases import Phases
from model_serving.pipelines.redact import Redactor
from model_serving.problems import Failure

HELP: Final = "apply this commit to a stack, and report what is live"
EXAMPLE: Final = f"""\
example:
  python -m model_serving deploy --stack dev --previewed previews

A job that is older than what is live is refused. To go back, revert on the branch, which makes a newer commit. To go
back without a revert, use --force-older, or set DEPLOY_FORCE_OLDER=true when starting a job manually.

The next run recovers from a killed one. It waits for locks of running jobs, by default {locks.WAIT_SECONDS // 60} minutes.
Exit code: 0 on success, 1 on failure, 128 plus the signal's number after a signal.
"""  # noqa: E501 - the number is shorter than its name
FORCE_OLDER: Final = "DEPLOY_FORCE_OLDER"
SIGNALLED: Final = 128
"""Exit code after a signal, minus the signal's number; as in shells."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument("--stack", required=True, help="stack to update")
    parser.add_argument(
        "--previewed", type=Path, metavar="DIR", help="folder of `preview --out`: only deploy its commit"
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
        self._register = Register(self._backend)
        self._checkout = Checkout(environ=environ)
        self._head = self._checkout.head()
        self._site = here(environ)
        self._run = self._site.this_run() if self._site else None
        self._holder = Holder.this(self._head, self._run)
        self._redactor = Redactor([])
        self._told: set[str] = set()
        self._left: list[Interrupted] = []
        self._lost: list[LostImage] = []

    def run(self) -> int:
        """Deploys, and reports the result; returns the command's exit code.

        Raises:
            Failure: if nothing was changed.
        """
        preview = self._read_preview()
        self._checkout.refuse_other_than_head(
            self._head,
            previewed=preview.commit if preview else None,
            apart_from=[self._options.previewed] if preview else [],
        )
        _say(f"deploying {self._head[:SHORT]} to {self._stack}: {self._holder}")
        try:
            self._prepare()
            code = self._apply(expected=len(preview.changes) if preview else None)
        except SystemExit:
            code = -signal.SIGTERM
        except KeyboardInterrupt:
            code = -signal.SIGINT
        except BaseException:
            _quietly(self._register.remove)
            raise
        self._report(code)
        return SIGNALLED - code if code < 0 else min(code, 1)

    def _read_preview(self) -> Preview | None:
        folder = self._options.previewed
        if folder is None:
            return None
        path = folder / f"{self._stack}.json"
        try:
            preview = Preview.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Failure(
                f"{path} is not a preview: {str(error).partition(chr(10))[0]}\n"
                "  No one has reviewed what would be deployed, so nothing was changed.\n"
                f"  Run `python -m model_serving preview --stack {self._stack} --out {folder}`, or omit --previewed."
            ) from None
        if preview.outcome != "ok":
            raise Failure(
                f"the preview in {path} failed: {preview.why}\n"
                "  What would be deployed is not known, so nothing was changed.\n"
                "  Fix the cause, and preview again."
            )
        return preview

    def _prepare(self) -> None:
        """Collects everything the update needs, in parallel: each answer takes half a second."""
        with ThreadPoolExecutor() as pool:
            redactor = pool.submit(self._backend.redactor)
            state = pool.submit(self._backend.state)
            record = pool.submit(self._register.write, self._holder)
            older = pool.submit(self._refuse_older)
            self._redactor = redactor.result()
            record.result()
            older.result()
            self._look_for_damage(state.result())

    def _look_for_damage(self, state: Mapping[str, Any]) -> None:
        self._left, self._lost = interrupted.pending(state), lost_images.find(state)

    def _refuse_older(self) -> None:
        deployed = {}
        if update := self._backend.last_update():
            deployed[update.commit] = f"was deployed at {update.started:%Y-%m-%d %H:%M} UTC ({update.result})"
        for other in self._register.others().values():
            if other.process is not None:
                deployed[other.commit] = f"is or was being deployed by {other}"
        for commit, how in deployed.items():
            self._refuse_if_newer(commit, how)

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
            raise Failure(
                f"{this} {what}, and {how}.\n"
                "  Deploying this job's commit could undo newer releases, so nothing was changed.\n"
                f"  Run the newest job. To go back, revert on the branch, or use --force-older or {FORCE_OLDER}=true."
            )

    def _apply(self, expected: int | None) -> int:
        """Updates the stack, again after each lock; returns Pulumi's exit code."""
        gate = Gate(self._backend, self._register, site=self._site, wait_seconds=self._options.lock_wait, say=_say)
        code, held = self._attempt(expected)
        while held:
            with self._phases.during("waiting"):
                gate.meet(held)
                self._refuse_older()
                self._look_for_damage(self._backend.state())
            code, held = self._attempt(expected)
        if code == 0 and any(each.is_creation for each in self._left):
            # Their resources have been created now, and nothing else drops these records.
            state = self._backend.state()
            for line in interrupted.orphans(self._left, state):
                _say(line)
            self._pulumi("refresh", "--clear-pending-creates", f"--target={served.stack_urn(state)}")
        return code

    def _attempt(self, expected: int | None) -> tuple[int, list[Lock]]:
        """Corrects the state and updates the stack; see `_pulumi` for what is returned."""
        if urns := interrupted.to_refresh(self._left):
            code, held = self._pulumi("refresh", *(f"--target={urn}" for urn in urns))
            if code:
                return code, held
        options = [f"--replace={image.urn}" for image in self._lost]
        if self._options.refresh:
            options.append("--refresh")
        return self._pulumi("up", *options, expected=expected)

    def _pulumi(self, *command: str, expected: int | None = None) -> tuple[int, list[Lock]]:
        """Runs a command that changes the stack; returns its exit code, and the locks that kept it from starting."""
        held: list[Lock] = []

        def on_event(event: Event) -> None:
            self._explain()
            self._phases.event(event)

        def on_text(line: str) -> bool:
            """Keeps errors about locks out of the log, which reports them in other words."""
            found = locks.parse([line])
            held.extend(found)
            return bool(found) or line.startswith(locks.REFUSAL)

        # The record is only needed if something goes wrong, so Pulumi does not wait for it.
        with ThreadPoolExecutor() as pool, self._phases.during("start"):
            code = engine.run(
                [*command, "--yes", "--skip-preview", "--stack", self._stack],
                redactor=self._redactor,
                on_event=on_event,
                on_text=on_text,
                on_start=lambda process: pool.submit(_quietly, partial(self._record, process)),
                expected=expected,
                environ=self._environ,
            )
        return code, held if code else []

    def _record(self, process: int) -> None:
        started = process_start(process) or ""
        self._register.write(self._holder.model_copy(update={"process": process, "started": started}))

    def _explain(self) -> None:
        """Reports damage once Pulumi has the lock: before, the operations may be another run's, and under way."""
        for each in self._left:
            self._say_once(f"left by an earlier run: {each}: {each.cure}")
        for image in self._lost:
            self._say_once(str(image))

    def _say_once(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            _say(line)

    def _report(self, code: int) -> None:
        """Prints what is live, and what to do if the update is incomplete."""
        state: dict[str, Any] = {}
        try:
            with ThreadPoolExecutor() as pool:
                pool.submit(_quietly, self._register.remove)
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
    """Without its record, a deployment does not fail; the next run only waits longer."""
    try:
        action()
    except Failure as error:
        print(f"note: {error}", file=sys.stderr, flush=True)
