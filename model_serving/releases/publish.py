"""The command ``publish``: releases the model of this repository to the serving repository, from a protected tag's job.

It refuses everything that it can refuse before it changes anything, and tells it all at once. Large files are stored
before the release is delivered, and that is one commit: a run that is killed leaves nothing that the next one would
stumble over.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from model_serving import catalog
from model_serving.catalog import contents, order
from model_serving.catalog.pointers import MEBIBYTE
from model_serving.git import TOKEN, Git, GitError
from model_serving.hosts.access import SiteError
from model_serving.hosts.merge_requests import requests_of
from model_serving.images import large_files
from model_serving.problems import InvalidInput, Problem
from model_serving.releases import deliver, jobs, project, release, trial
from model_serving.releases.deliver import Delivered, Delivery
from model_serving.releases.jobs import Subject
from model_serving.releases.project import Project
from model_serving.releases.release import Built
from model_serving.releases.serving_repository import ServingRepository, token_problem
from model_serving.releases.steps import Steps

NAME: Final = "publish"
HELP: Final = "release the model of this repository: check it, try it, deliver it to the serving repository"
EXAMPLE: Final = """\
examples:
  python -m model_serving publish                           in the job of a protected tag v*
  python -m model_serving publish --dry-run --tag v1.0.1    on a laptop: builds, checks, tries; delivers nothing

release.yaml says where releases go. The serving repository's token is in the variable MODEL_SERVING_TOKEN.
"""
STEPS: Final = 6

T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument("--dry-run", action="store_true", help="deliver nothing, store nothing; needs no job")
    parser.add_argument("--tag", help="with --dry-run: the version to be; by default the tag of HEAD")
    parser.add_argument("--out", type=Path, metavar="DIR", help="with --dry-run: leave the release in this folder")
    parser.add_argument(
        "--python",
        default=sys.executable,
        help="interpreter of the environment that the model's lock is installed in; by default the one that runs this",
    )
    parser.add_argument(
        "--ready-seconds",
        type=float,
        default=trial.READY_SECONDS,
        metavar="SECONDS",
        help="how long MLServer may take to load the model (%(default)g)",
    )
    parser.add_argument(
        "--delivery-seconds",
        type=float,
        default=deliver.PUSH_SECONDS,
        metavar="SECONDS",
        help="how long to try again while others push to the same branch (%(default)g)",
    )


def run(options: argparse.Namespace) -> int:
    if problems := _misused(options):
        raise InvalidInput(problems)
    # A cancelled job gets SIGTERM: it ends like Ctrl-C, with the model server stopped and the temporary folder removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    root = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="release-", ignore_cleanup_errors=True) as scratch:
        publication = Publication(project.read(root), root=root, scratch=Path(scratch), options=options)
        try:
            publication.rehearse() if options.dry_run else publication.publish()
        except (SiteError, GitError) as error:
            print(error, file=sys.stderr)
            return 1
    return 0


class Publication:
    """One release."""

    def __init__(self, chosen: Project, *, root: Path, scratch: Path, options: argparse.Namespace) -> None:
        """Does nothing yet.

        Args:
            chosen: what the model's repository says of itself.
            root: of that repository.
            scratch: folder that goes when this is over.
            options: of the command line.
        """
        self._project = chosen
        self._root = root
        self._scratch = scratch
        self._options = options
        self._git = Git(folder=root)
        self._repository = ServingRepository(serving=chosen.serving, folder=scratch / "serving")
        self._largest = chosen.artefacts.largest_mebibytes * MEBIBYTE
        self._steps = Steps(STEPS)

    def publish(self) -> None:
        """Releases the job's tag.

        Raises:
            InvalidInput: if it must not be released.
            SiteError: if no merge request could be opened; the release's branch is there then.
        """
        subject = self._checked()
        built = self._built(subject)
        large = self._large_files(built)
        # What has pointers can only be compared once they are there.
        delivery, tip = self._delivery(built), self._repository.tip()
        if not large and delivery.is_there(tip):
            self._end(built, Delivered(where=delivery.place(tip), is_new=False))
            return
        was_asked = self._tried(built)
        with self._steps.step("store", f"storing {len(large)} large files"):
            self._replace_large(built, large)
        with self._steps.step("deliver", f"delivering by {self._project.serving.delivery}"):
            delivered = self._delivered(self._delivery(built, was_asked=was_asked))
        self._end(built, delivered)

    def rehearse(self) -> None:
        """Does all that can be done without a tag and without changing anything elsewhere.

        Raises:
            InvalidInput: if it would be refused whatever the tag.
        """
        with self._steps.step("check", "checking the repository and the environment"):
            refusals = _Refusals()
            told = refusals.of(
                lambda: jobs.rehearsal(self._project, self._git, jobs.here(os.environ), self._options.tag)
            )
            refusals.add(self._problems_here())
            refusals.raise_any()
        subject, notes = _certain(told)
        for note in notes:
            self._steps.say(note)
        with self._steps.step("read", "reading the serving repository"):
            reason = self._opened_or_why_not(subject.tag)
        if reason:
            self._steps.say(f"not read, so that the release is held against no other: {reason}")
        built = self._built(subject, is_alone=reason is not None)
        large = self._large_files(built)
        self._tried(built)
        with self._steps.step("store", "storing nothing"):
            for path in large:
                self._steps.say(f"would go to the remote: {path.relative_to(built.folder)}")
        with self._steps.step("deliver", "delivering nothing"):
            where = _left(built, self._options.out) if self._options.out else None
        print(self._steps.summary())
        print(f"{built.title} can be released{f': {where}' if where else ''}")

    def _checked(self) -> Subject:
        """Refuses for every reason that can be known without building."""
        job = jobs.here(os.environ)
        refusals = _Refusals()
        with self._steps.step("check", "checking the tag, the checkout and the environment"):
            subject = refusals.of(lambda: jobs.subject(self._project, self._git, job))
            refusals.add(self._problems_here())
            missing = token_problem(self._project.serving, os.environ)
            refusals.add([missing] if missing else [])
        with self._steps.step("read", "reading the serving repository"):
            if missing is None and job is not None:
                refusals.of(lambda: self._opened(job.tag))
            refusals.raise_any()
        return _certain(subject)

    def _problems_here(self) -> Sequence[Problem]:
        found = [*release.problems(self._root, self._project)]
        lock = self._root / self._project.lock
        if lock.is_file():
            found += trial.problems(self._options.python, lock)
        return found

    def _opened(self, tag: str | None) -> None:
        self._repository.open()
        if tag is None or order(tag) is None:
            return
        tip = self._repository.tip()
        if backwards := deliver.problem_of_order(self._repository, tip, self._project.name, tag):
            raise InvalidInput([backwards])

    def _opened_or_why_not(self, tag: str) -> str | None:
        """Clones the serving repository; a laptop may have no way to it."""
        try:
            self._repository.open()
        except InvalidInput as error:
            return error.problems[0].what
        if backwards := deliver.problem_of_order(self._repository, self._repository.tip(), self._project.name, tag):
            raise InvalidInput([backwards])
        return None

    def _built(self, subject: Subject, *, is_alone: bool = False) -> Built:
        with self._steps.step("build", "building the release, holding it against the others"):
            built = release.build(self._root, self._project, subject, self._scratch / "built")
            if self._project.artefacts.remote is None:
                # Refused now rather than after the trial.
                self._replace_large(built, self._large_files(built))
            if is_alone:
                self._check_alone(built)
                return built
            tip = self._repository.tip()
            if subject.tag not in self._repository.versions(tip, built.name):
                others = self._delivery(built).check(tip)
                if others:
                    self._steps.say(f"the serving repository has {others} problems that are none of this release's")
        return built

    def _check_alone(self, built: Built) -> None:
        folder = built.folder.parent.parent
        try:
            catalog.read(folder, root=folder.parent)
        except InvalidInput as error:
            place = built.folder.relative_to(folder.parent).as_posix()
            raise InvalidInput(
                [release.in_this_repository(problem, self._project, place) for problem in error.problems]
            ) from None

    def _tried(self, built: Built) -> bool:
        """Whether MLServer, which has loaded it, was also asked something."""
        with self._steps.step("try", "trying it in MLServer"):
            done = trial.run(
                built.folder,
                name=built.name,
                version=built.version,
                python=self._options.python,
                ready_seconds=self._options.ready_seconds,
            )
        if not done.was_asked:
            self._steps.say("it has neither request.json nor inputs in its settings: it was loaded and asked nothing")
        return done.was_asked

    def _large_files(self, built: Built) -> Sequence[Path]:
        return [path for path in contents.files(built.folder) if path.stat().st_size > self._largest]

    def _replace_large(self, built: Built, large: Sequence[Path]) -> None:
        if not large:
            return
        large_files.replace_large(
            built.folder, largest=self._largest, remote=self._project.artefacts.remote, say=self._steps.say
        )

    def _delivery(self, built: Built, *, was_asked: bool = False) -> Delivery:
        return Delivery(
            repository=self._repository,
            project=self._project,
            built=built,
            say=self._steps.say,
            was_asked=was_asked,
        )

    def _delivered(self, delivery: Delivery) -> Delivered:
        serving = self._project.serving
        if serving.delivery == "push":
            return delivery.push(self._options.delivery_seconds)
        assert serving.known_site is not None  # noqa: S101 - project.py refuses a merge request without a site
        return delivery.request(
            requests_of(
                serving.known_site,
                serving.repository,
                token=os.environ[TOKEN],
                loss="The release's branch is there, and no merge request of it.",
                api=serving.api,
                project=serving.project,
                authorities=self._repository.authorities,
            )
        )

    def _end(self, built: Built, delivered: Delivered) -> None:
        print(self._steps.summary())
        print(f"{built.title} {'is delivered' if delivered.is_new else 'was released already'}: {delivered.where}")


class _Refusals:
    """Collects reasons, so that a person sees all of them."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []

    def add(self, problems: Iterable[Problem]) -> None:
        self._problems += problems

    def of(self, check: Callable[[], T]) -> T | None:
        """What a check gives, or None if it has refused."""
        try:
            return check()
        except InvalidInput as error:
            self.add(error.problems)
            return None

    def raise_any(self) -> None:
        if self._problems:
            raise InvalidInput(dict.fromkeys(self._problems))


def _certain(value: T | None) -> T:
    """A value that is there unless something was refused."""
    assert value is not None  # noqa: S101 - raise_any came before
    return value


def _misused(options: argparse.Namespace) -> Sequence[Problem]:
    """Options that would not do what they seem to do."""
    found = [
        Problem(
            file="command line",
            what=f"{option} goes with --dry-run only",
            consequence="A release has the tag of its job, and goes to the serving repository.",
            remedy=f"Add --dry-run, or leave {option} out.",
        )
        for option, value in (("--tag", options.tag), ("--out", options.out))
        if value and not options.dry_run
    ]
    if options.out and options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        found.append(
            Problem(
                file="command line",
                what=f"--out {options.out} is there already, and not empty",
                consequence="What is in it would be mixed with the release.",
                remedy="Name a folder that does not exist.",
            )
        )
    return found


def _left(built: Built, out: Path) -> Path:
    """Puts the release into a folder that people look at; whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".release-", dir=out) as beside:
        copied = Path(shutil.copytree(built.folder.parent, Path(beside) / built.name))
        copied.rename(out / built.name)
    return out / built.name / built.version
