"""The command ``deploy``: applies the commit that was previewed, and nothing else, and says what is live afterwards.

What can come between is dealt with here. A newer commit that was deployed already: an old job that is run again is
refused. Another run's lock: waited for, or cancelled if that run is dead. What a killed run left: made true again
first, see interrupted.py. A failure, or a signal: Pulumi ends in order, the state stays usable, and the log ends
with what is live and what to type.

On a laptop it does the same as in a job.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from model_serving.hosts import Site, here
from model_serving.hosts.runs import Run
from model_serving.pipelines import interrupted, locks, lost_images, redact, served
from model_serving.pipelines.attempts import Attempts, Outcome, quietly
from model_serving.pipelines.backend import Backend, BackendError
from model_serving.pipelines.changes import Preview
from model_serving.pipelines.commits import SHORT, Checkout, WrongCommit
from model_serving.pipelines.holders import Holder, Register
from model_serving.pipelines.interrupted import Interrupted
from model_serving.pipelines.locks import Gate
from model_serving.pipelines.lost_images import LostImage
from model_serving.pipelines.phases import Phases
from model_serving.pipelines.redact import Redactor
from model_serving.problems import Failure

NAME: Final = "deploy"
HELP: Final = "apply this commit to a stack, and say what is live"
EXAMPLE: Final = f"""\
example:
  python -m model_serving deploy --stack dev --previewed previews

A job that is older than what is live is refused. To go back, revert on the branch: that is a newer commit. To go back
without one, use --force-older, or set DEPLOY_FORCE_OLDER=true where a job is started by hand.

A run that was killed is recovered by the next one. Locks of living runs are waited for, {locks.WAIT_SECONDS // 60} minutes by default.
Exit code: 0 if all of it is done, else 1; 128 and the number of a signal that came while Pulumi was not running.
"""  # noqa: E501 - the number is shorter than its name
FORCE_OLDER: Final = "DEPLOY_FORCE_OLDER"
SIGNALLED: Final = 128
"""Exit code of what a signal ended: this and the signal's number, as shells have it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument("--stack", required=True, help="what to update")
    parser.add_argument(
        "--previewed", type=Path, metavar="DIR", help="folder of `preview --out`: only the commit in there is deployed"
    )
    parser.add_argument("--force-older", action="store_true", help=f"go back to this commit, or set {FORCE_OLDER}=true")
    parser.add_argument("--refresh", action="store_true", help="look first at what is really there, and undo drift")
    parser.add_argument(
        "--lock-wait",
        type=float,
        default=locks.WAIT_SECONDS,
        metavar="SECONDS",
        help="how long to wait for other updates of the stack (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    environ = os.environ
    try:
        with _terminable():
            return Deployment(
                stack=options.stack,
                environ=environ,
                previewed=options.previewed,
                is_older_allowed=options.force_older or environ.get(FORCE_OLDER, "").lower() == "true",
                lock_wait_seconds=options.lock_wait,
                undoes_drift=options.refresh,
            ).run()
    except Failure as refusal:
        # What these say has been redacted where it was said.
        print(f"\nstack {options.stack} was not deployed: {refusal}", file=sys.stderr)
        return 1
    except _Terminated:  # a second one, while it was being told what is live
        return SIGNALLED + signal.SIGTERM


class _Terminated(BaseException):
    """SIGTERM came while Pulumi was not running; passes what catches errors."""


class Deployment:
    """One deployment of one stack.

    Args:
        stack: what to update.
        environ: of the job.
        previewed: folder of the previews that were looked at.
        is_older_allowed: whether to go back behind what is live.
        lock_wait_seconds: for how long to wait for other updates.
        undoes_drift: whether to look first at what is really there, which takes longer.
    """

    def __init__(
        self,
        *,
        stack: str,
        environ: Mapping[str, str],
        previewed: Path | None = None,
        is_older_allowed: bool = False,
        lock_wait_seconds: float = locks.WAIT_SECONDS,
        undoes_drift: bool = False,
    ) -> None:
        self._stack, self._environ, self._previewed = stack, environ, previewed
        self._is_older_allowed, self._lock_wait_seconds = is_older_allowed, lock_wait_seconds
        self._options = ("--refresh",) if undoes_drift else ()
        self._phases = Phases()
        self._backend = Backend(stack=stack, environ=environ)
        self._register = Register(self._backend)
        self._checkout = Checkout(environ=environ)
        self._site: Site | None = here(environ)
        self._redactor = Redactor([])
        self._told: set[str] = set()
        self._lost: list[LostImage] = []

    def run(self) -> int:
        """Deploys, and tells.

        Returns:
            0 if everything is as the program says, else 1 or that of a signal.

        Raises:
            WrongCommit, Locked, BackendError, SecretsUnreadable, EngineMissing: if nothing was changed.
        """
        head = self._checkout.head()
        preview = self._read_preview()
        self._checkout.refuse_other_than_head(
            head, previewed=preview.commit if preview else None, apart_from=[self._previewed] if self._previewed else []
        )
        self._run = _this_run(self._site)
        holder = Holder.this(head, self._run)
        print(f"deploying {head[:SHORT]} to {self._stack}: {holder}", flush=True)
        try:
            left = self._prepare(head, holder)
            code = self._apply(head, holder, left, expected=len(preview.changes) if preview else None)
        except _Terminated:
            code = -signal.SIGTERM
        except KeyboardInterrupt:
            code = -signal.SIGINT
        except BaseException:
            quietly(self._register.remove)
            raise
        return self._tell(code, head)

    def _read_preview(self) -> Preview | None:
        if self._previewed is None:
            return None
        path = self._previewed / f"{self._stack}.json"
        try:
            preview = Preview.model_validate_json(path.read_text())
        except (OSError, ValueError) as error:
            raise WrongCommit(
                f"{path} is no preview: {str(error).partition(chr(10))[0]}\n"
                "  What would be deployed was not looked at by anybody.\n"
                f"  Run `python -m model_serving preview --stack {self._stack} --out {self._previewed}`, "
                "or leave --previewed out."
            ) from None
        if preview.outcome != "ok":
            raise WrongCommit(
                f"the preview in {path} did not succeed: {preview.why}\n"
                "  What would be deployed is not known.\n"
                "  Cure what it says, and preview again."
            )
        return preview

    def _prepare(self, head: str, holder: Holder) -> list[Interrupted]:
        """Everything that has to be known first, asked at once: each answer takes half a second."""
        with ThreadPoolExecutor() as pool:
            redactor = pool.submit(redact.for_stack, self._stack, self._environ)
            state = pool.submit(self._backend.state)
            record = pool.submit(self._register.write, holder)
            older = pool.submit(self._refuse_older, head)
            self._redactor = redactor.result()
            record.result()
            older.result()
            return self._left_in(state.result())

    def _left_in(self, state: Mapping[str, Any]) -> list[Interrupted]:
        """What has to be looked at before the update: what was interrupted, and the images that are lost."""
        self._lost = lost_images.find(state)
        return interrupted.pending(state)

    def _refuse_older(self, head: str) -> None:
        deployed = {}
        if update := self._backend.last_update():
            deployed[update.commit] = f"was deployed at {update.started:%Y-%m-%d %H:%M} UTC ({update.result})"
        for other in self._register.others().values():
            if other.process is not None:
                deployed[other.commit] = f"is or was being deployed by {other}"
        for commit, how in deployed.items():
            self._refuse_older_than(commit, how, head)

    def _refuse_older_than(self, commit: str, how: str, head: str) -> None:
        relation = self._checkout.relation(commit, head)
        if relation in ("same", "older"):
            return
        if relation == "diverged":
            self._say_once(f"note: {commit[:SHORT]}, which {how}, is not on the way to {head[:SHORT]}")
            return
        if self._is_older_allowed:
            self._say_once(f"going back from {commit[:SHORT]} to {head[:SHORT]}, as was asked for")
            return
        what = {"newer": f"is newer than {head[:SHORT]}", "unknown": "is not to be had from the repository"}[relation]
        raise WrongCommit(
            f"{commit[:SHORT]} {what}, and {how}.\n"
            "  This job could take back what others have released since, without anybody having decided that.\n"
            f"  Run the newest job. To go back, revert on the branch; or use --force-older or {FORCE_OLDER}=true."
        )

    def _say_once(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            print(line, flush=True)

    def _apply(self, head: str, holder: Holder, left: list[Interrupted], *, expected: int | None) -> int:
        """Refreshes what was left, updates, and does so again until nobody is in the way."""
        attempts = Attempts(
            stack=self._stack,
            environ=self._environ,
            redactor=self._redactor,
            register=self._register,
            holder=holder,
            phases=self._phases,
        )
        gate = Gate(
            self._backend,
            self._register,
            site=self._site,
            wait_seconds=self._lock_wait_seconds,
            say=lambda line: print(line, flush=True),
        )
        while (outcome := self._attempt(attempts, left, expected)).held:
            with self._phases.during("waiting"):
                gate.meet(outcome.held)
                self._refuse_older(head)
                left = self._left_in(self._backend.state())
        if outcome.code == 0 and any(each.is_creation for each in left):
            # Their resources have been made now, and nothing else drops the records.
            state = self._backend.state()
            for line in interrupted.orphans(left, state):
                print(line, flush=True)
            attempts.run(["refresh", "--clear-pending-creates", f"--target={served.stack_urn(state)}"])
        return outcome.code

    def _attempt(self, attempts: Attempts, left: list[Interrupted], expected: int | None) -> Outcome:
        def explain() -> None:
            # Not before: as long as the lock is another's, its operations are under way.
            for line in interrupted.explain(left):
                self._say_once(f"an update before this one did not tell how this ended: {line}")
            for image in self._lost:
                self._say_once(str(image))

        targets = [f"--target={urn}" for urn in interrupted.to_refresh(left)]
        if targets:
            refreshed = attempts.run(["refresh", *targets], on_begin=explain)
            if refreshed.code:
                return refreshed
        replaced = [f"--replace={image.urn}" for image in self._lost]
        return attempts.run(["up", *self._options, *replaced], expected=expected, on_begin=explain)

    def _tell(self, code: int, head: str) -> int:
        """What is live, and what to type if not all is done."""
        try:
            with ThreadPoolExecutor() as pool:
                pool.submit(quietly, self._register.remove)
                state = pool.submit(self._backend.state).result()
        except BackendError as error:
            print(f"\nwhat is live on {self._stack} is not known: {error}\n", file=sys.stderr)
            state = {}
        else:
            print(f"\nlive on {self._stack} now:\n{self._redactor.text(served.report(state))}\n")
        if code:
            print(self._advice(code, head, interrupted.pending(state)))
        print(f"{self._phases}", flush=True)
        return _exit_code(code)

    def _advice(self, code: int, head: str, left: list[Interrupted]) -> str:
        ended = f"signal {-code}" if code < 0 else f"code {code}"
        again = f"run this job again{f': {self._run.url}' if self._run and self._run.url else ''}"
        lines = [
            f"the deployment of {head[:SHORT]} to {self._stack} is not complete: it ended with {ended}.",
            "  The state is usable, and what was done is in it; the table says who gets the traffic.",
            f"  Cure what the log says, then {again}; or on a laptop, in a checkout of {head}:",
            f"    python -m model_serving deploy --stack {self._stack}",
        ]
        lines += [f"  {each}" for each in interrupted.left_behind(left, self._stack)]
        return self._redactor.text("\n".join(lines))


def _exit_code(code: int) -> int:
    """What a shell says of Pulumi's end: 128 and the number of a signal, or 1 for each failure."""
    return SIGNALLED - code if code < 0 else min(code, 1)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM while Pulumi is not running ends this in order; while it runs, the engine passes it on."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _this_run(site: Site | None) -> Run | None:
    return site.this_run() if site else None
