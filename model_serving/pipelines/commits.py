"""Which commit is deployed: exactly the one that this job is about, and none that is older than what is live."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from model_serving.git import Done, Git
from model_serving.problems import Failure

FETCH_SECONDS: Final = 120
_SHOWN_FILES: Final = 5
_JOB_COMMIT: Final = ("CI_COMMIT_SHA", "GITHUB_SHA")
SHORT: Final = 10
"""Digits of a commit for people."""

Relation = Literal["same", "older", "newer", "diverged", "unknown"]


class WrongCommit(Failure):
    """This checkout must not be deployed; nothing was changed. The message has three parts."""


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """The folder that is deployed, as git knows it."""

    folder: Path = field(default_factory=Path.cwd)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    def head(self) -> str:
        """The commit that is checked out.

        Raises:
            WrongCommit: if this is no checkout of a commit.
        """
        done = self._git("rev-parse", "--verify", "HEAD")
        if done.code:
            raise WrongCommit(
                f"{self.folder} is no git checkout with a commit: {done.said}\n"
                "  Nobody could say later what was deployed.\n"
                "  Run this in a clone of the repository."
            )
        return done.text

    def refuse_other_than_head(self, head: str, *, previewed: str | None, apart_from: Sequence[Path] = ()) -> None:
        """Checks that what would be deployed is the job's commit, unchanged, and the one that was previewed.

        Args:
            head: the commit that is checked out.
            previewed: the commit of the preview that was approved, if there is one.
            apart_from: folders and files that a job brings along, such as those of the preview.

        Raises:
            WrongCommit: if it is not.
        """
        for name in _JOB_COMMIT:
            if self.environ.get(name, head) != head:
                raise WrongCommit(
                    f"HEAD is {head[:SHORT]}, and {name} says {self.environ[name][:SHORT]}.\n"
                    "  What would be deployed is not what this job is about.\n"
                    "  Check out the job's commit, or run this outside of a job."
                )
        if previewed is not None and previewed != head:
            raise WrongCommit(
                f"the preview is of commit {previewed[:SHORT]}, and HEAD is {head[:SHORT]}.\n"
                "  What was looked at is not what would be deployed.\n"
                "  Preview HEAD, then deploy."
            )
        if changed := self._changed(apart_from):
            more = f" and {len(changed) - _SHOWN_FILES} more" if len(changed) > _SHOWN_FILES else ""
            raise WrongCommit(
                f"the checkout has changes that are in no commit: {', '.join(changed[:_SHOWN_FILES])}{more}.\n"
                "  They would be deployed, and nobody has previewed them.\n"
                "  Commit or remove them; `make up` deploys what is not committed."
            )

    def relation(self, commit: str, head: str) -> Relation:
        """What a commit is to another. Fetches what a shallow clone, or that of an old job, does not have."""
        if commit == head:
            return "same"
        if self._leads_to(commit, head):
            return "older"
        if not self._fetch(commit):
            return "unknown"
        if self._leads_to(commit, head):
            return "older"
        return "newer" if self._leads_to(head, commit) else "diverged"

    def _leads_to(self, ancestor: str, commit: str) -> bool:
        return not self._git("merge-base", "--is-ancestor", ancestor, commit).code

    def _fetch(self, commit: str) -> bool:
        """Whether a commit and all before it are there, after fetching them if they were not."""
        shallow = self._git("rev-parse", "--is-shallow-repository").text == "true"
        if not shallow and not self._git("cat-file", "-e", f"{commit}^{{commit}}").code:
            return True
        options = ("--unshallow",) if shallow else ()
        return not self._git("fetch", "--quiet", "--no-tags", *options, "origin", commit).code

    def _changed(self, apart_from: Sequence[Path]) -> list[str]:
        left_out = [(self.folder / each).resolve() for each in apart_from]
        listed = self._git("status", "--porcelain", "-z", "--untracked-files=all", "--no-renames").text
        names = [entry[3:] for entry in listed.split("\0") if entry]
        top = Path(self._git("rev-parse", "--show-toplevel").text)
        return [name for name in names if not any((top / name).resolve().is_relative_to(each) for each in left_out)]

    def _git(self, *arguments: str) -> Done:
        return Git(folder=self.folder, environ=self.environ, longest_seconds=FETCH_SECONDS).run(*arguments)
