"""Delivers a release to the serving repository: as a commit on its branch, or as a merge request.

Both are idempotent: a release that exists with the same content is a success, and with other content it is refused.
Concurrent pushes are retried on the new tip.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from model_serving import catalog
from model_serving.catalog import order
from model_serving.catalog.training_versions import PROVENANCE
from model_serving.hosts.markdown import cell
from model_serving.hosts.merge_requests import Requests, Wanted
from model_serving.problems import InvalidInput, Problem, first_few
from model_serving.releases.project import FILE, Project
from model_serving.releases.release import VARIES, Built, in_this_repository
from model_serving.releases.serving_repository import ServingRepository, link

PUSH_SECONDS: Final = 120.0
"""Twenty repositories that release at the same moment on two cores needed 14 to 27 s, 2026-11-25."""
LONGEST_PAUSE_SECONDS: Final = 4.0
SHORTEST_PAUSE_SECONDS: Final = 0.2
TRAILER: Final = "Model-Release"
TELLING: Final = ("mlserver", "scikit-learn", "lightgbm", "xgboost", "catboost", "mlflow", "numpy")
"""Packages of the lock that a merge request names."""


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One release on its way into a cloned serving repository; pointers have replaced its large files."""

    repository: ServingRepository
    project: Project
    built: Built
    say: Callable[[str], None]

    @property
    def _branch(self) -> str:
        return self.project.serving.branch

    def push(self, seconds: float = PUSH_SECONDS) -> str:
        """Adds a commit to the branch; returns the outcome for people.

        Raises:
            InvalidInput: if it is refused, or others kept pushing for so many seconds.
        """
        deadline = time.monotonic() + seconds
        for pause in _pauses():
            tip = self._tip()
            if self.is_there(tip):
                return self.released_already(tip)
            self.check(tip)
            commit = self._commit(tip)
            if self.repository.push(commit, self._branch):
                return f"is delivered: {self._place(commit)}"
            if time.monotonic() + pause > deadline:
                break
            self.say(f"{self._branch} has moved on, trying again in {pause:.1f} s")
            time.sleep(pause)
        raise InvalidInput.of(
            FILE,
            f"serving.branch {self._branch} kept moving for {seconds:g} s",
            "Nothing was released.",
            "Run the job again, or give it longer: --delivery-seconds 600.",
        )

    def request(self, requests: Requests, *, was_asked: bool) -> str:
        """Opens a merge request from a branch for this release; returns the outcome for people.

        Raises:
            InvalidInput: if it is refused.
            SiteError: if the branch exists, but not the request.
        """
        tip = self._tip()
        if self.is_there(tip):
            return self.released_already(tip)
        self.check(tip)
        source = f"release/{self.built.name}/{self.built.version}"
        self._put_on(source, tip)
        description = self._description(was_asked=was_asked)
        wanted = Wanted(source=source, target=self._branch, title=self._title, description=description)
        return f"is delivered: {requests.open(wanted)}"

    def released_already(self, commit: str) -> str:
        return f"was released already: {self._place(commit)}"

    def is_there(self, commit: str) -> bool:
        """Whether a commit contains this release.

        Raises:
            InvalidInput: if it contains the version with other content.
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
            raise InvalidInput.of(
                self.repository.place(name, version),
                f"is in the serving repository with other content: {first_few(differing)}",
                "A released version never changes; otherwise no one could tell what it serves.",
                "Tag the commit with the next version. If training is not repeatable, let it set its seeds.",
            )
        return True

    def check(self, commit: str) -> int:
        """Checks the release together with the releases of a commit, as the serving side will.

        Returns:
            The number of problems that have nothing to do with this release.

        Raises:
            InvalidInput: with those that do.
        """
        name, version = self.built.name, self.built.version
        if backwards := problem_of_order(self.repository, commit, name, version):
            raise InvalidInput([backwards])
        with tempfile.TemporaryDirectory(dir=self.repository.folder.parent) as scratch:
            root = Path(scratch)
            folder = self.repository.lay_out(commit, root)
            target = folder / name / version
            shutil.copytree(self.built.folder, target, copy_function=link)
            found = problems_of_releases(folder, root)
            if not found:
                return 0
            shutil.rmtree(target)
            before = problems_of_releases(folder, root)
        place = self.repository.place(name, version)
        if ours := [in_this_repository(each, self.project, place) for each in found if each not in before]:
            raise InvalidInput(ours)
        return len(found)

    def _tip(self) -> str:
        tip = self.repository.fetch(self._branch)
        if tip is None:
            raise InvalidInput.of(
                FILE,
                f"serving.branch is {self._branch}, which no longer exists",
                "There is nothing to add the release to.",
                "Correct it, or push the branch again.",
            )
        return tip

    def _put_on(self, source: str, tip: str) -> None:
        there = self.repository.fetch(source)
        if there is None and self.repository.push(self._commit(tip), source):
            return
        # Another run may have pushed it in the meantime.
        there = there or self.repository.fetch(source)
        if there is None or not self.is_there(there):
            raise InvalidInput.of(
                FILE,
                f"the branch {source} of the serving repository is there without the release in it",
                "The release would overwrite what somebody else has put there.",
                "Look at the branch, and delete it if no one needs it.",
            )

    def _place(self, commit: str) -> str:
        return f"commit {commit[:10]} on {self._branch} of {self.project.serving.repository}"

    def _commit(self, parent: str) -> str:
        built, origin = self.built, self.built.provenance
        told = [f"{key.capitalize()}: {origin[key]}" for key in ("repository", "commit", "pipeline") if origin[key]]
        message = "\n".join([self._title, "", *told, "", f"{TRAILER}: {built.name}/{built.version}", ""])
        return self.repository.commit(parent, built.folder, built.name, built.version, message)

    @property
    def _title(self) -> str:
        return f"Release {self.built.title}"

    def _description(self, *, was_asked: bool) -> str:
        locked = self.built.provenance["packages"]
        packages = ", ".join(f"{name} {locked[name]}" for name in TELLING if name in locked)
        shown = {**self.built.provenance, "packages": packages}
        rows = [f"| {key} | {cell(str(value))} |" for key, value in shown.items() if value]
        answered = ", and it has answered as its contract says" if was_asked else ""
        loaded = f"MLServer has loaded it{answered}. Merging this releases {self.built.title}."
        return "\n".join([loaded, "", "| | |", "|---|---|", *rows])


def problem_of_order(repository: ServingRepository, commit: str, name: str, version: str) -> Problem | None:
    """Whether a new version would be older than a released one. Pre-releases do not count: no stack follows them."""
    there = repository.versions(commit, name)
    placed = [(place, each) for each in there if (place := order(each)) and not place.prerelease]
    own = order(version)
    if version in there or own is None or not placed or own > max(placed)[0]:
        return None
    newest = max(placed)[1]
    return Problem(
        file=repository.place(name, version),
        what=f"the version goes backwards: {newest} is released already",
        consequence="A stack that follows the newest release would never serve it.",
        remedy=f"Tag a version that is newer than {newest}.",
    )


def problems_of_releases(folder: Path, root: Path) -> tuple[Problem, ...]:
    """What the serving side would refuse."""
    try:
        catalog.read(folder, root=root)
    except InvalidInput as error:
        return error.problems
    return ()


def _essence(provenance: bytes) -> dict[str, Any] | None:
    """The part that is the same in two runs of one release; None if it is not a provenance."""
    try:
        content = json.loads(provenance)
    except ValueError:
        return None
    return {key: value for key, value in content.items() if key != VARIES} if isinstance(content, dict) else None


def _pauses() -> Iterator[float]:
    """Seconds before each retry: random, so that repositories do not collide again."""
    chance = random.SystemRandom()
    longest = SHORTEST_PAUSE_SECONDS
    while True:
        yield chance.uniform(0.05, longest)
        longest = min(LONGEST_PAUSE_SECONDS, longest * 2)
