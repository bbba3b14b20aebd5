"""Brings a release to the serving repository: by a commit on its branch, or by a merge request.

Both look first and can be repeated: what is there already with the same content is a success, with another content it
is refused, and what somebody else has pushed meanwhile is looked at anew.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from model_serving import catalog
from model_serving.catalog import order
from model_serving.catalog.training_versions import PROVENANCE
from model_serving.hosts.markdown import cell
from model_serving.hosts.merge_requests import Requests, Wanted
from model_serving.problems import InvalidInput, Problem
from model_serving.releases.project import FILE, Project
from model_serving.releases.release import VARIES, Built, in_this_repository
from model_serving.releases.serving_repository import Moved, ServingRepository, Unclear, link

PUSH_SECONDS: Final = 120.0
"""Twenty repositories that release at the same moment on two cores needed 14 to 27 s, 2026-11-25."""
LONGEST_PAUSE_SECONDS: Final = 4.0
SHORTEST_PAUSE_SECONDS: Final = 0.2
BREAKS: Final = 3
"""Broken connections in a row after which the repository counts as unreachable."""
TRAILER: Final = "Model-Release"
_SHOWN_FILES: Final = 5

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """Where a release is.

    Attributes:
        where: for people, a commit of a branch or the address of a request.
        is_new: whether this run has brought it there.
    """

    where: str
    is_new: bool


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One release on its way.

    Attributes:
        repository: where it goes, cloned.
        project: the model's repository.
        built: the release, as it is delivered: with pointers in the place of large files.
        say: tells what is waited for.
        was_asked: whether it has kept a contract, see trial.py.
    """

    repository: ServingRepository
    project: Project
    built: Built
    say: Say
    was_asked: bool = False

    @property
    def _branch(self) -> str:
        return self.project.serving.branch

    def push(self, seconds: float = PUSH_SECONDS) -> Delivered:
        """Adds a commit to the branch.

        Args:
            seconds: for which it is tried again when others push at the same time.

        Raises:
            InvalidInput: if it is refused, or the branch never stood still.
        """
        deadline = time.monotonic() + seconds
        for pause in _pauses():
            tip = self._tip()
            if self.is_there(tip):
                return Delivered(where=self.place(tip), is_new=False)
            self.check(tip)
            commit = self._commit(tip)
            if self._pushed(commit, self._branch):
                return Delivered(where=self.place(commit), is_new=True)
            if time.monotonic() + pause > deadline:
                raise InvalidInput([self._busy(seconds)])
            self.say(f"{self._branch} has moved on, trying again in {pause:.1f} s")
            time.sleep(pause)
        raise AssertionError("there is always one more pause")

    def request(self, requests: Requests) -> Delivered:
        """Opens a merge request from a branch of the release's own.

        Raises:
            InvalidInput: if it is refused.
            SiteError: if the branch is there and no request.
        """
        tip = self._tip()
        if self.is_there(tip):
            return Delivered(where=self.place(tip), is_new=False)
        self.check(tip)
        source = f"release/{self.built.name}/{self.built.version}"
        self._put_on(source, tip)
        wanted = Wanted(source=source, target=self._branch, title=self._title, description=self._description())
        return Delivered(where=requests.open(wanted), is_new=True)

    def is_there(self, commit: str) -> bool:
        """Whether a commit has this release.

        Raises:
            InvalidInput: if it has another content there.
        """
        name, version = self.built.name, self.built.version
        theirs = dict(self.repository.files(commit, name, version))
        if not theirs:
            return False
        ours = dict(self.repository.ids(self.built.folder))
        if theirs.get(PROVENANCE) != ours[PROVENANCE] and PROVENANCE in theirs:
            content = self.repository.content(commit, name, version, PROVENANCE)
            if _essence(content) == _essence((self.built.folder / PROVENANCE).read_bytes()):
                theirs[PROVENANCE] = ours[PROVENANCE]
        if differing := sorted(file for file in {*ours, *theirs} if ours.get(file) != theirs.get(file)):
            raise InvalidInput([self._different(differing)])
        return True

    def check(self, commit: str) -> int:
        """Holds the release against all others of a commit, as the serving side will after it.

        Returns:
            How many problems there are that are none of this release's.

        Raises:
            InvalidInput: with those that are.
        """
        if backwards := problem_of_order(self.repository, commit, self.built.name, self.built.version):
            raise InvalidInput([backwards])
        with tempfile.TemporaryDirectory(dir=self.repository.folder.parent) as scratch:
            root = Path(scratch)
            folder = self.repository.lay_out(commit, root)
            target = folder / self.built.name / self.built.version
            shutil.copytree(self.built.folder, target, copy_function=link)
            found = _problems(folder, root)
            if not found:
                return 0
            # What is also there without it is not its doing.
            shutil.rmtree(target)
            before = _problems(folder, root)
        place = self.repository.place(self.built.name, self.built.version)
        if ours := [in_this_repository(each, self.project, place) for each in found if each not in before]:
            raise InvalidInput(ours)
        return len(found)

    def _tip(self) -> str:
        tip = self.repository.fetch(self._branch)
        if tip is None:
            raise InvalidInput(
                [
                    Problem(
                        file=FILE,
                        what=f"serving.branch is {self._branch}, which is no longer there",
                        consequence="There is nothing that the release could be added to.",
                        remedy="Correct it, or push the branch again.",
                    )
                ]
            )
        return tip

    def _put_on(self, source: str, tip: str) -> None:
        """Makes sure that the release's own branch is there, and has the release."""
        for _ in range(BREAKS):
            if there := self.repository.fetch(source):
                if not self.is_there(there):
                    raise InvalidInput([self._foreign(source)])
                return
            if self._pushed(self._commit(tip), source):
                return
        raise InvalidInput([self._foreign(source)])

    def _pushed(self, commit: str, branch: str) -> bool:
        """Whether a commit is the newest of a branch now; False if somebody else has moved it."""
        for _ in range(BREAKS):
            try:
                self.repository.push(commit, branch)
            except Moved:
                return False
            except Unclear as error:
                words = str(error)
                try:
                    if self.repository.fetch(branch) == commit:
                        return True
                except InvalidInput:
                    continue
            else:
                return True
        raise InvalidInput(
            [
                Problem(
                    file=FILE,
                    what=f"serving.repository {self.project.serving.repository} broke off the push: {words}",
                    consequence="Whether the release is there is not known from here.",
                    remedy="Run the job again: it looks first, and goes on if need be.",
                )
            ]
        )

    def _commit(self, parent: str) -> str:
        built = self.built
        return self.repository.commit(parent, built.folder, built.name, built.version, self._message())

    @property
    def _title(self) -> str:
        return f"Release {self.built.title}"

    def _message(self) -> str:
        origin = self.built.provenance
        told = [f"{key.capitalize()}: {origin[key]}" for key in ("repository", "commit", "pipeline") if origin[key]]
        return "\n".join([self._title, "", *told, "", f"{TRAILER}: {self.built.name}/{self.built.version}", ""])

    def _description(self) -> str:
        origin = self.built.provenance
        rows = [f"| {key} | {cell(str(origin[key]))} |" for key in origin if key != "packages" and origin[key]]
        answered = ", and it has answered as its contract says" if self.was_asked else ""
        packages = ", ".join(f"{name} {version}" for name, version in _telling(origin["packages"]))
        return "\n".join(
            [
                f"MLServer has loaded it{answered}. Merging this releases {self.built.title}.",
                "",
                "| | |",
                "|---|---|",
                *rows,
                *([f"| packages | {cell(packages)} |"] if packages else []),
            ]
        )

    def place(self, commit: str) -> str:
        """Of a commit of the branch, for people."""
        return f"commit {commit[:10]} on {self._branch} of {self.project.serving.repository}"

    def _different(self, files: list[str]) -> Problem:
        more = f" and {len(files) - _SHOWN_FILES} more" if len(files) > _SHOWN_FILES else ""
        place = self.repository.place(self.built.name, self.built.version)
        return Problem(
            file=place,
            what=f"is in the serving repository with other content: {', '.join(files[:_SHOWN_FILES])}{more}",
            consequence="A released version never changes: what serves under it could not be told any more.",
            remedy="Tag the commit with the next version. If training is not repeatable, let it set its seeds.",
        )

    def _foreign(self, branch: str) -> Problem:
        return Problem(
            file=FILE,
            what=f"the branch {branch} of the serving repository is there without the release in it",
            consequence="The release would overwrite what somebody else has put there.",
            remedy="Look at it, and remove the branch if nobody needs it.",
        )

    def _busy(self, seconds: float) -> Problem:
        return Problem(
            file=FILE,
            what=f"serving.branch {self._branch} did not stand still for {seconds:g} s",
            consequence="Nothing was released.",
            remedy="Run the job again, or give it longer: --delivery-seconds 600.",
        )


def problem_of_order(repository: ServingRepository, commit: str, name: str, version: str) -> Problem | None:
    """Whether a version would go backwards; one that is there already does not."""
    there = repository.versions(commit, name)
    placed = [(place, each) for each in there if (place := order(each)) is not None]
    own = order(version)
    if version in there or own is None or not placed:
        return None
    newest = max(placed)
    if own > newest[0]:
        return None
    return Problem(
        file=repository.place(name, version),
        what=f"the version goes backwards: {newest[1]} is released already",
        consequence="A stack that follows the newest release would never serve it.",
        remedy=f"Tag a version that is newer than {newest[1]}.",
    )


def _problems(folder: Path, root: Path) -> tuple[Problem, ...]:
    try:
        catalog.read(folder, root=root)
    except InvalidInput as error:
        return error.problems
    return ()


def _essence(provenance: bytes) -> dict[str, Any] | None:
    """What has to be the same in two runs of one release; None if it is no provenance."""
    try:
        content = json.loads(provenance)
    except ValueError:
        return None
    return {key: value for key, value in content.items() if key != VARIES} if isinstance(content, dict) else None


def _telling(packages: Mapping[str, str]) -> list[tuple[str, str]]:
    """What the model is served by and with, of all that is locked."""
    names = ("mlserver", "scikit-learn", "lightgbm", "xgboost", "catboost", "mlflow", "numpy")
    return [(name, packages[name]) for name in names if name in packages]


def _pauses() -> Iterator[float]:
    """How long to wait before each attempt but the first: at random, so that not all come back at once."""
    chance = random.SystemRandom()
    longest = SHORTEST_PAUSE_SECONDS
    while True:
        yield chance.uniform(0.05, longest)
        longest = min(LONGEST_PAUSE_SECONDS, longest * 2)
