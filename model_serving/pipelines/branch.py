"""The checkout to preview, and how it relates to what is live.

A branch lacks what its target has released since. Previewed by itself, it would seem to undo that, although merging it
does not. So a branch is previewed as it would be merged: with the live commits, in a worktree of its own. If that is
not possible, the preview says how many commits the branch is behind, and which models only change for that reason.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from model_serving.git import Git
from model_serving.pipelines.backend import Update
from model_serving.pipelines.base import Base
from model_serving.pipelines.commits import Checkout
from model_serving.problems import first_few
from model_serving.stack.settings import NAMESPACE, file_of

_LINKED: Final = (".venv", ".state")
"""What a checkout needs and no commit has."""
_INSTALLED: Final = "requirements.txt"
_DEFAULT_BRANCHES: Final = ("refs/remotes/origin/HEAD", "refs/heads/main", "refs/heads/master")
_NAME: Final = re.compile(r"refs/(?:remotes/origin|heads)/(.+)")
_SETTINGS: Final = (("user.name", "preview"), ("user.email", "preview@localhost"), ("core.hooksPath", os.devnull))


@dataclass(frozen=True, kw_only=True)
class Branch:
    """The checkout to preview.

    Attributes:
        target: name of the branch that it will be merged into; empty if it is deployed as it is.
        start: commit of the target where the branch begins, if a site names it.
        is_of_site: whether a site has checked it out, so that it has no changes of a person.
    """

    target: str = ""
    start: str = ""
    is_of_site: bool = False
    folder: Path = field(default_factory=Path.cwd)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    @classmethod
    def of_laptop(cls) -> "Branch":
        """The branch that is checked out; it will be merged into the default branch."""
        git = Git(folder=Path.cwd())
        for name in _DEFAULT_BRANCHES:
            found = git.run("rev-parse", "--verify", "--quiet", "--symbolic-full-name", name)
            # On the default branch itself, or on an older commit of it, there is nothing to merge into.
            if not found.code and (branch := _NAME.fullmatch(found.text)):
                is_on_it = not git.run("merge-base", "--is-ancestor", "HEAD", found.text).code
                return cls(target="" if is_on_it else branch[1])
        return cls()

    def head(self) -> str:
        """The checked-out commit; empty outside of a repository."""
        return self._git.run("rev-parse", "--verify", "--quiet", "HEAD").text

    def base(self, stack: str, update: Update) -> Base:
        """The relation of the checked-out commit to the deployed one, which is fetched if it is missing."""
        head = self.head()
        found = Base(
            commit=update.commit,
            deployed=f"{update.started:%Y-%m-%d %H:%M} UTC{'' if update.result == 'succeeded' else ' (failed)'}",
            target=self.target,
        )
        relation = Checkout(folder=self.folder, environ=self.environ).relation(update.commit, head)
        if relation == "unknown":
            return found.model_copy(update={"behind": None})
        waiting = self._waiting(update.commit, head)
        if relation in ("same", "older"):
            return found.model_copy(update={"waiting": waiting})
        return found.model_copy(
            update={
                "behind": self._count(head, update.commit),
                "why": self._obstacle(update.commit),
                "undone": self._undone(stack, head, update.commit),
                "waiting": waiting,
            }
        )

    @contextmanager
    def merged(self, base: Base) -> Iterator[Base]:
        """A block in which the working directory is a worktree of the branch merged with what is live.

        Hands out the base as it was merged. If it cannot be merged, the working directory stays as it is.
        """
        if not base.behind or base.why or not self.target:
            yield base
            return
        scratch = Path(tempfile.mkdtemp(prefix="preview-"))
        try:
            why = self._merge(base.commit, scratch)
            if why:
                yield base.model_copy(update={"why": why})
                return
            with chdir(scratch / self._git.run("rev-parse", "--show-prefix").text):
                for name in _LINKED:
                    if (self.folder / name).exists() and not Path(name).exists():
                        Path(name).symlink_to((self.folder / name).resolve())
                yield base.model_copy(update={"is_merged": True, "undone": ()})
        finally:
            self._git.run("worktree", "remove", "--force", str(scratch))
            shutil.rmtree(scratch, ignore_errors=True)

    def _merge(self, live: str, scratch: Path) -> str:
        """Merges into a worktree; returns why that is not possible."""
        # What a killed job has left.
        self._git.run("worktree", "prune")
        added = self._git.run("worktree", "add", "--quiet", "--detach", str(scratch), "HEAD")
        if added.code:
            return f"git could not make a worktree ({added.last_words})"
        git = Git(folder=scratch, environ=self.environ, settings=_SETTINGS)
        done = git.run("merge", "--quiet", "--no-commit", "--no-ff", live)
        if conflicts := git.run("diff", "--name-only", "--diff-filter=U").text.splitlines():
            return f"merging conflicts in {first_few(conflicts)}"
        if done.code:
            return f"git could not merge it ({done.last_words})"
        if git.run("diff", "--cached", "--quiet", "HEAD", "--", f":/**/{_INSTALLED}", f":/{_INSTALLED}").code:
            return f"merging changes {_INSTALLED}, which is not installed here"
        return ""

    def _obstacle(self, live: str) -> str:
        """Why the live commit must not be merged; empty if it may."""
        if not self.target:
            return ""
        if self.is_of_site:
            place = f"+refs/heads/{self.target}:refs/remotes/origin/{self.target}"
            self._git.run("fetch", "--quiet", "--no-tags", "origin", place)
        if self._git.run("merge-base", "--is-ancestor", live, self._target()).code:
            return f"what is live is not on {self.target}"
        if not self.is_of_site and (changed := self._git.changed()):
            return f"changes in this checkout are in no commit ({first_few(changed)})"
        return ""

    def _target(self) -> str:
        """The target's newest commit that is here; empty if there is none."""
        places = (f"refs/remotes/origin/{self.target}", f"refs/heads/{self.target}")
        found = (self._git.run("rev-parse", "--verify", "--quiet", place) for place in places)
        return next((each.text for each in found if not each.code), "")

    def _waiting(self, live: str, head: str) -> int:
        """Number of the target's commits in the previewed one that are not live."""
        if not self.target:
            return 0
        start = self.start or self._git.run("merge-base", head, self._target() or head).text
        return self._count(live, start)

    def _count(self, since: str, until: str) -> int:
        listed = self._git.run("rev-list", "--count", f"{since}..{until}")
        return int(listed.text) if not listed.code else 0

    def _undone(self, stack: str, head: str, live: str) -> tuple[str, ...]:
        """Models that have changed in what is live and not in the branch."""
        parted = self._git.run("merge-base", head, live).text
        if not parted:
            return ()
        return tuple(sorted(self._changed(stack, parted, live) - self._changed(stack, parted, head)))

    def _changed(self, stack: str, old: str, new: str) -> set[str]:
        """Models that differ between two commits, in their releases or in the stack's settings."""
        listed = self._git.run("diff", "--name-only", "-z", "--relative", old, new, "--", "models").text
        settings = [self._models(stack, commit) for commit in (old, new)]
        released = {path.split("/")[1] for path in listed.split("\0") if path.count("/") > 1}
        return released | {
            name for name in settings[0].keys() | settings[1].keys() if settings[0].get(name) != settings[1].get(name)
        }

    def _models(self, stack: str, commit: str) -> Mapping[str, Any]:
        """The stack's models in a commit; none if its file cannot be read."""
        try:
            content = yaml.safe_load(self._git.run("show", f"{commit}:./{file_of(stack)}").bytes)
            models = content["config"][f"{NAMESPACE}:models"]
        except (yaml.YAMLError, ValueError, LookupError, TypeError):
            return {}
        return models if isinstance(models, Mapping) else {}

    @property
    def _git(self) -> Git:
        return Git(folder=self.folder, environ=self.environ)
