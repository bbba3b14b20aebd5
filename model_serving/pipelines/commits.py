"""The commit to deploy: exactly the job's own, and not older than what is live."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from model_serving.git import SHORT, Git
from model_serving.problems import Failure, first_few

FETCH_SECONDS: Final = 120
_JOB_COMMIT: Final = ("CI_COMMIT_SHA", "GITHUB_SHA")

Relation = Literal["same", "older", "newer", "diverged", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """The git checkout to deploy."""

    folder: Path = field(default_factory=Path.cwd)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    def head(self) -> str:
        """The checked-out commit."""
        done = self._git.run("rev-parse", "--verify", "HEAD")
        if done.code:
            raise Failure(
                f"{self.folder} is not a git checkout with a commit: {done.said}\n"
                "  No one could tell later what was deployed.\n"
                "  Run this in a clone of the repository."
            )
        return done.text

    def refuse_other_than_head(self, head: str, *, previewed: str | None, apart_from: Sequence[Path] = ()) -> None:
        """Checks that HEAD is the job's commit and the previewed one, without changes apart from the paths named."""
        for name in _JOB_COMMIT:
            if self.environ.get(name, head) != head:
                raise Failure(
                    f"HEAD is {head[:SHORT]}, but {name} is {self.environ[name][:SHORT]}.\n"
                    "  A commit other than the job's would be deployed.\n"
                    "  Check out the job's commit, or run this outside a job."
                )
        if previewed is not None and previewed != head:
            raise Failure(
                f"the preview is of commit {previewed[:SHORT]}, but HEAD is {head[:SHORT]}.\n"
                "  A commit other than the reviewed one would be deployed.\n"
                "  Preview HEAD, then deploy."
            )
        if changed := self._changed(apart_from):
            raise Failure(
                f"the checkout has changes that are in no commit: {first_few(changed)}.\n"
                "  They would be deployed without a preview.\n"
                "  Commit or remove them; `make up` deploys uncommitted changes."
            )

    def relation(self, commit: str, head: str) -> Relation:
        """Relation of a commit to HEAD. Fetches it if a shallow clone or an old job's clone does not have it."""
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
        return not self._git.run("merge-base", "--is-ancestor", ancestor, commit).code

    def _fetch(self, commit: str) -> bool:
        """Fetches a commit with its history if it is missing; returns whether it is there."""
        shallow = self._git.run("rev-parse", "--is-shallow-repository").text == "true"
        if not shallow and not self._git.run("cat-file", "-e", f"{commit}^{{commit}}").code:
            return True
        options = ("--unshallow",) if shallow else ()
        return not self._git.run("fetch", "--quiet", "--no-tags", *options, "origin", commit).code

    def _changed(self, apart_from: Sequence[Path]) -> list[str]:
        left_out = [(self.folder / each).resolve() for each in apart_from]
        top = Path(self._git.run("rev-parse", "--show-toplevel").text)
        changed = [(name, (top / name).resolve()) for name in self._git.changed()]
        return [name for name, path in changed if not any(path.is_relative_to(each) for each in left_out)]

    @property
    def _git(self) -> Git:
        return Git(folder=self.folder, environ=self.environ, longest_seconds=FETCH_SECONDS)
