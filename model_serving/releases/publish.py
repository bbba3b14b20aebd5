"""The command ``publish``: releases the model of this repository to the serving repository, from a protected tag's job.

It checks everything it can before it changes anything, and reports all refusals at once. Large files are stored before
the release is delivered as one commit, so the same job can finish what a killed one began.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from model_serving.catalog import contents
from model_serving.catalog.pointers import MEBIBYTE
from model_serving.git import TOKEN, Git
from model_serving.hosts.merge_requests import requests_of
from model_serving.images import large_files
from model_serving.problems import InvalidInput, Problem
from model_serving.releases import deliver, jobs, project, release, trial
from model_serving.releases.deliver import Delivery
from model_serving.releases.jobs import Subject
from model_serving.releases.project import Project
from model_serving.releases.release import Built
from model_serving.releases.serving_repository import ServingRepository, token_problem
from model_serving.releases.steps import Steps
from model_serving.stack.models import ANSWER_SECONDS

HELP: Final = "release the model of this repository: check it, try it, deliver it to the serving repository"
EXAMPLE: Final = """\
examples:
  python -m model_serving publish                           in the job of a protected tag v*
  python -m model_serving publish --dry-run --tag v1.0.1    on a laptop: builds, checks and tries, delivers nothing

release.yaml says where releases go. The serving repository's token is in the variable MODEL_SERVING_TOKEN.
"""
STEPS: Final = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument("--dry-run", action="store_true", help="deliver and store nothing; works outside of a job")
    parser.add_argument("--tag", help="with --dry-run: the version; by default the tag of HEAD")
    parser.add_argument("--out", type=Path, metavar="DIR", help="with --dry-run: leave the release in this folder")
    parser.add_argument(
        "--python",
        default=sys.executable,
        help="interpreter of the environment with the model's locked packages; by default the one that runs this",
    )
    parser.add_argument(
        "--ready-seconds",
        type=float,
        default=trial.READY_SECONDS,
        metavar="SECONDS",
        help="how long MLServer may take to load the model (%(default)g)",
    )
    parser.add_argument(
        "--answer-seconds",
        type=float,
        metavar="SECONDS",
        help="how long the model may take for an answer; by default answerSeconds of the stacks that serve it, or "
        f"{ANSWER_SECONDS}",
    )
    parser.add_argument(
        "--delivery-seconds",
        type=float,
        default=deliver.PUSH_SECONDS,
        metavar="SECONDS",
        help="how long to retry while others push to the same branch (%(default)g)",
    )


def run(options: argparse.Namespace) -> int:
    if problems := [*_misused(options)]:
        raise InvalidInput(problems)
    # A cancelled job gets SIGTERM: it ends like Ctrl-C, with the model server stopped and the temporary folder removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    root = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="release-", ignore_cleanup_errors=True) as scratch:
        publication = Publication(project.read(root), root=root, scratch=Path(scratch), options=options)
        publication.rehearse() if options.dry_run else publication.publish()
    return 0


class Publication:
    """One release of the model in a root folder, built in a temporary folder."""

    def __init__(self, chosen: Project, *, root: Path, scratch: Path, options: argparse.Namespace) -> None:
        self._project = chosen
        self._root = root
        self._scratch = scratch
        self._options = options
        self._git = Git(folder=root)
        self._repository = ServingRepository(serving=chosen.serving, folder=scratch / "serving")
        self._largest = chosen.artefacts.largest_mebibytes * MEBIBYTE
        self._answer_seconds: float = options.answer_seconds or ANSWER_SECONDS
        self._steps = Steps(STEPS)

    def publish(self) -> None:
        """Releases the job's tag.

        Raises:
            InvalidInput: if it must not be released.
            SiteError: if no merge request could be opened; the release's branch exists then.
        """
        built = self._built(self._checked())
        large = self._large_files(built)
        delivery, tip = self._delivery(built), self._repository.tip()
        # A release with large files can only be compared once they are pointers.
        if not large and delivery.is_there(tip):
            return self._end(built, delivery.released_already(tip))
        was_asked = self._tried(built)
        with self._steps.step("store", f"storing {len(large)} large files"):
            self._replace_large(built)
        with self._steps.step("deliver", f"delivering by {self._project.serving.delivery}"):
            outcome = self._delivered(delivery, was_asked=was_asked)
        return self._end(built, outcome)

    def rehearse(self) -> None:
        """Does everything that needs no tag and changes nothing elsewhere.

        Raises:
            InvalidInput: if it would be refused whatever the tag.
        """
        refusals = _Refusals()
        with self._steps.step("check", "checking the repository and the environment"):
            with refusals.collected():
                job = jobs.here(os.environ)
                subject, notes = jobs.rehearsal(self._project, self._git, job, self._options.tag)
            refusals += self._problems_here()
            refusals.raise_any()
        for note in notes:
            self._steps.say(note)
        with self._steps.step("read", "reading the serving repository"):
            unread = self._open_or_why_not()
            if not unread:
                self._check_order(subject.tag)
        if unread:
            self._steps.say(f"not read, so the release is not checked against the others: {unread}")
        built = self._built(subject, is_alone=bool(unread))
        large = self._large_files(built)
        self._tried(built)
        with self._steps.step("store", "storing nothing"):
            for path in large:
                self._steps.say(f"would go to the remote: {path.relative_to(built.folder)}")
        out = self._options.out and self._options.out / built.name / built.version
        with self._steps.step("deliver", "delivering nothing"):
            if out:
                release.put(built.folder, out)
        self._end(built, f"can be released{f': {out}' if out else ''}")

    def _checked(self) -> Subject:
        """Refuses for every reason that can be known without building."""
        job = jobs.here(os.environ)
        refusals = _Refusals()
        with self._steps.step("check", "checking the tag, the checkout and the environment"):
            with refusals.collected():
                subject = jobs.subject(self._project, self._git, job)
            refusals += self._problems_here()
            missing = token_problem(self._project.serving, os.environ)
            refusals += [missing] if missing else []
        with self._steps.step("read", "reading the serving repository"):
            if job and not missing:
                with refusals.collected():
                    self._repository.open()
                    self._check_order(job.tag or "")
            refusals.raise_any()
        return subject

    def _problems_here(self) -> Sequence[Problem]:
        found = [*release.problems(self._root, self._project)]
        lock = self._root / self._project.lock
        if lock.is_file():
            found += trial.problems(self._options.python, lock)
        return found

    def _open_or_why_not(self) -> str | None:
        """Clones the serving repository, which a laptop may be unable to reach."""
        try:
            self._repository.open()
        except InvalidInput as error:
            return error.problems[0].what
        return None

    def _check_order(self, tag: str) -> None:
        tip = self._repository.tip()
        if backwards := deliver.problem_of_order(self._repository, tip, self._project.name, tag):
            raise InvalidInput([backwards])

    def _built(self, subject: Subject, *, is_alone: bool = False) -> Built:
        with self._steps.step("build", "building the release, checking it against the others"):
            built = release.build(self._root, self._project, subject, self._scratch / "built")
            if self._project.artefacts.remote is None:
                # Refused now rather than after the trial.
                self._replace_large(built)
            if is_alone:
                self._check_alone(built)
                return built
            tip = self._repository.tip()
            if self._options.answer_seconds is None:
                self._answer_seconds = self._repository.answer_seconds(tip, built.name)
            if subject.tag not in self._repository.versions(tip, built.name):
                others = self._delivery(built).check(tip)
                if others:
                    self._steps.say(f"the serving repository has {others} problems that are none of this release's")
        return built

    def _check_alone(self, built: Built) -> None:
        folder = built.folder.parents[1]
        place = built.folder.relative_to(folder.parent).as_posix()
        if found := deliver.problems_of_releases(folder, folder.parent):
            raise InvalidInput(release.in_this_repository(each, self._project, place) for each in found)

    def _tried(self, built: Built) -> bool:
        """Whether MLServer, which has loaded the model, was also asked something."""
        with self._steps.step("try", "trying it in MLServer"), self._told_here(built):
            was_asked = trial.run(
                built.folder,
                name=built.name,
                version=built.version,
                python=self._options.python,
                ready_seconds=self._options.ready_seconds,
                answer_seconds=self._answer_seconds,
            )
        if not was_asked:
            self._steps.say("it was loaded but asked nothing: it has no request.json, and no inputs in its settings")
        return was_asked

    @contextmanager
    def _told_here(self, built: Built) -> Iterator[None]:
        """Tells problems of a release's files with the files of this repository."""
        try:
            yield
        except InvalidInput as error:
            place = f"{built.name}/{built.version}"
            found = [replace(each, file=f"{place}/{each.file}") for each in error.problems]
            raise InvalidInput(release.in_this_repository(each, self._project, place) for each in found) from None

    def _large_files(self, built: Built) -> Sequence[Path]:
        return [path for path in contents.files(built.folder) if path.stat().st_size > self._largest]

    def _replace_large(self, built: Built) -> None:
        remote = self._project.artefacts.remote
        large_files.replace_large(built.folder, largest=self._largest, remote=remote, say=self._steps.say)

    def _delivery(self, built: Built) -> Delivery:
        return Delivery(repository=self._repository, project=self._project, built=built, say=self._steps.say)

    def _delivered(self, delivery: Delivery, *, was_asked: bool) -> str:
        serving = self._project.serving
        if serving.delivery == "push":
            return delivery.push(self._options.delivery_seconds)
        assert serving.known_site is not None  # noqa: S101 - project.py refuses a merge request without a site
        requests = requests_of(
            serving.known_site,
            serving.repository,
            token=os.environ[TOKEN],
            loss="The release's branch is there, and no merge request of it.",
            api=serving.api,
            project=serving.project,
            authorities=self._repository.authorities,
        )
        return delivery.request(requests, was_asked=was_asked)

    def _end(self, built: Built, outcome: str) -> None:
        print(self._steps.summary())
        print(f"{built.title} {outcome}")


class _Refusals(list[Problem]):
    """Collects problems, so that all of them are reported at once."""

    @contextmanager
    def collected(self) -> Iterator[None]:
        try:
            yield
        except InvalidInput as error:
            self.extend(error.problems)

    def raise_any(self) -> None:
        if self:
            raise InvalidInput(dict.fromkeys(self))


def _misused(options: argparse.Namespace) -> Iterator[Problem]:
    """Options that would not do what they seem to do."""
    for option, value in (("--tag", options.tag), ("--out", options.out)):
        if value and not options.dry_run:
            yield Problem(
                file="command line",
                what=f"{option} goes with --dry-run only",
                consequence="A release has the tag of its job, and goes to the serving repository.",
                remedy=f"Add --dry-run, or leave {option} out.",
            )
    if options.out and options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        yield Problem(
            file="command line",
            what=f"--out {options.out} is not empty",
            consequence="Its content would be mixed with the release.",
            remedy="Name a folder that does not exist.",
        )
