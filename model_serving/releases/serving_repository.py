"""The serving repository, as git has it: what is released in it, and how one release more gets into it.

Nothing is ever checked out: a release becomes one commit on the newest one of a branch, which the repository takes as a
whole or not at all. No push is forced. Large files of other releases are not fetched where the server can leave them.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from model_serving import catalog
from model_serving.catalog import pointers
from model_serving.catalog.training_versions import PROVENANCE
from model_serving.git import TOKEN, Done, Git, GitError, login
from model_serving.problems import InvalidInput, Problem
from model_serving.releases.project import FILE, Serving

LARGEST_READ: Final = "1m"
"""Files up to this size come along with a clone; what the catalog reads is smaller."""
READ: Final = (catalog.SETTINGS, catalog.LOCK, catalog.REQUEST, catalog.RESPONSE, PROVENANCE)
"""Files of releases whose content the catalog reads, beside pointers; of others it asks whether they exist."""
ACCOUNTS: Final[Mapping[str, str]] = {"gitlab": "oauth2", "github": "x-access-token"}
"""What each site takes as the name beside a token."""
_MOVED: Final = re.compile(
    r"\[rejected\]|\[remote rejected\].*(failed to update ref|cannot lock ref|incorrect old value|reference already)"
)
_PROTECTED: Final = re.compile(r"protected branch|GH006|GH013", re.IGNORECASE)


class Moved(Exception):
    """Somebody else has pushed to the branch; nothing of ours is there."""


class Unclear(Exception):
    """The connection broke: the push may have arrived. Look before it is tried again. The message has git's words."""


@dataclass(frozen=True, kw_only=True)
class File:
    """A file in a commit."""

    path: str
    id: str


@dataclass(frozen=True, kw_only=True)
class ServingRepository:
    """A bare clone of a branch.

    Attributes:
        serving: where it is.
        folder: of the clone; its parent is there, itself it is not yet.
        environ: with the token.
    """

    serving: Serving
    folder: Path
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    def open(self) -> None:
        """Clones the newest commit of the branch.

        Raises:
            InvalidInput: if that cannot be had.
        """
        done = self._remote(self.folder.parent).run(
            *("clone", "--bare", "--quiet", "--depth=1", "--single-branch", "--no-tags"),
            *(f"--branch={self.serving.branch}", f"--filter=blob:limit={LARGEST_READ}"),
            *("--", self.serving.repository, str(self.folder)),
        )
        if done.code:
            raise InvalidInput([self._unreadable(done)])

    def fetch(self, branch: str) -> str | None:
        """The newest commit of a branch, which is there then; None if there is no such branch.

        Raises:
            InvalidInput: if the repository cannot be read.
        """
        done = self._git.run("ls-remote", "origin", f"refs/heads/{branch}")
        if done.code:
            raise InvalidInput([self._unreadable(done)])
        commit = done.text.partition("\t")[0]
        if not commit:
            return None
        done = self._git.run("fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head", "origin", commit)
        if done.code:
            raise InvalidInput([self._unreadable(done)])
        return commit

    def tip(self) -> str:
        """The newest commit of the branch when it was cloned."""
        return self._git.must("rev-parse", "--verify", f"refs/heads/{self.serving.branch}").text

    def versions(self, commit: str, name: str) -> Sequence[str]:
        """What is released of a model."""
        listed = self._git.must("ls-tree", "-d", "-z", "--name-only", commit, f"{self._model(name)}/")
        return [PurePosixPath(path).name for path in _split(listed)]

    def files(self, commit: str, name: str, version: str) -> Mapping[str, str]:
        """Files of a release and the id of each one's content; empty if there is no such release."""
        place = self.place(name, version)
        return {file.path.removeprefix(f"{place}/"): file.id for file in self._listed(commit, f"{place}/")}

    def content(self, commit: str, name: str, version: str, file: str) -> bytes:
        """Of a file of a release."""
        return self._git.must("cat-file", "blob", f"{commit}:{self.place(name, version)}/{file}").bytes

    def place(self, name: str, version: str) -> str:
        """Folder of a release in the repository."""
        return f"{self._model(name)}/{version}"

    def ids(self, folder: Path) -> Mapping[str, str]:
        """Files of a folder of this machine and the id that each one's content has, or would have, in git."""
        names = [*_names(folder)]
        paths = "\n".join(str(folder / name) for name in names)
        # Without filters, as everywhere here: what is released are the bytes, whatever .gitattributes says.
        hashed = self._git.must("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=paths.encode())
        return dict(zip(names, hashed.text.split(), strict=True))

    def lay_out(self, commit: str, target: Path) -> Path:
        """Writes the releases of a commit as files, as far as the catalog reads them; returns their folder.

        Files that it does not read are empty ones: it asks whether they are there.
        """
        folder = target / self.serving.folder
        folder.mkdir(parents=True)
        files = self._listed(commit, f"{self.serving.folder}/")
        for file in files:
            path = target / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        read = [file for file in files if PurePosixPath(file.path).name in READ or file.path.endswith(pointers.SUFFIX)]
        for file, content in zip(read, self._contents([file.id for file in read]), strict=True):
            (target / file.path).write_bytes(content)
        return folder

    def commit(self, parent: str, folder: Path, name: str, version: str, message: str) -> str:
        """Makes a commit that adds a release to another one; nobody sees it yet."""
        index = {"GIT_INDEX_FILE": str(self.folder / "release-index")}
        self._git.must("read-tree", parent, environ=index)
        place = self.place(name, version)
        entries = "".join(f"100644 {each}\t{place}/{file}\0" for file, each in self.ids(folder).items())
        self._git.must("update-index", "-z", "--index-info", stdin=entries.encode(), environ=index)
        # What is missing are large files of others, which the server has.
        tree = self._git.must("write-tree", "--missing-ok", environ=index).text
        return self._git.must(
            *("commit-tree", tree, "-p", parent, "-F", "-"), stdin=message.encode(), environ=self._identity
        ).text

    def push(self, commit: str, branch: str) -> None:
        """Makes a commit the newest one of a branch.

        Raises:
            Moved: if the branch has another newest one than the commit's parent, or is there although it is new.
            Unclear: if it is not known whether it arrived.
            InvalidInput: if the repository refuses it.
        """
        done = self._git.run(
            "push", "--porcelain", "--no-verify", "--no-follow-tags", "origin", f"{commit}:refs/heads/{branch}"
        )
        if not done.code:
            return
        told = f"{done.text}\n{done.said}"
        if _MOVED.search(told) and not _PROTECTED.search(told):
            raise Moved
        refused = self._refusal(done, branch)
        if refused is None:
            raise Unclear(done.last_words)
        raise InvalidInput([refused])

    @cached_property
    def host(self) -> str:
        """Name of its host; empty if it is a folder."""
        return urlsplit(self.serving.repository).hostname or ""

    @property
    def authorities(self) -> str | None:
        """File with those that are trusted: a GitLab of one's own may have a certificate of its own."""
        if not self.host or self.host != self.environ.get("CI_SERVER_HOST"):
            return None
        return self.environ.get("CI_SERVER_TLS_CA_FILE")

    @property
    def _git(self) -> Git:
        return self._remote(self.folder)

    def _remote(self, folder: Path) -> Git:
        settings = login(self.serving.repository, ACCOUNTS[self.serving.known_site or "gitlab"])
        if self.authorities:
            settings += ((f"http.https://{self.host}/.sslCAInfo", self.authorities),)
        return Git(folder=folder, environ=self.environ, settings=settings)

    @property
    def _identity(self) -> dict[str, str]:
        """Who commits, unless git's own variables say it."""
        values = {"NAME": "model release", "EMAIL": f"noreply@{self.host or 'localhost'}"}
        return {
            f"GIT_{role}_{key}": self.environ.get(f"GIT_{role}_{key}") or value
            for role in ("AUTHOR", "COMMITTER")
            for key, value in values.items()
        }

    def _model(self, name: str) -> str:
        return f"{self.serving.folder}/{name}"

    def _listed(self, commit: str, place: str) -> Sequence[File]:
        files = []
        for entry in _split(self._git.must("ls-tree", "-r", "-z", "--full-tree", commit, place)):
            about, _, path = entry.partition("\t")
            files.append(File(path=path, id=about.split()[2]))
        return files

    def _contents(self, ids: Sequence[str]) -> Iterator[bytes]:
        answer = self._git.must("cat-file", "--batch", stdin="".join(f"{each}\n" for each in ids).encode()).bytes
        for _ in ids:
            head, _, answer = answer.partition(b"\n")
            if head.endswith(b" missing"):
                raise GitError(f"{head.decode()}, which the clone should have")
            size = int(head.split()[2])
            yield answer[:size]
            answer = answer[size + 1 :]

    def _unreadable(self, done: Done) -> Problem:
        said = done.said
        if f"Remote branch {self.serving.branch} not found" in said:
            return self._problem(
                f"has no branch {self.serving.branch}",
                "There is nothing that a release could be added to.",
                "Push a first commit to it, or correct serving.branch.",
            )
        if "not found" in said or "does not exist" in said or "does not appear to be a git repository" in said:
            return self._problem(
                f"is not there, or {TOKEN} may not see it: {done.last_words}",
                "Nothing was released.",
                f"Correct serving.repository, or {self._how_to_get_a_token}",
            )
        return self._denied(done) or self._unreachable(done)

    def _refusal(self, done: Done, branch: str) -> Problem | None:
        """Why a push was refused; None if it may have arrived."""
        told = f"{done.text}\n{done.said}"
        if _PROTECTED.search(told):
            return self._problem(
                f"does not let {TOKEN} push to {branch}, which is protected",
                "Nothing was released.",
                "Write `delivery: merge-request` under serving, or let the token's user push there: on GitLab its role "
                "has to be among those allowed to push, on GitHub it has to be allowed to bypass the rule.",
            )
        if denied := self._denied(done):
            return denied
        if "[remote rejected]" in told:
            return self._problem(
                f"refuses the push to {branch}: {self._remote_words(done)}",
                "Nothing was released.",
                "Do what it says; a hook or a rule of the repository has refused the commit.",
            )
        return None

    def _denied(self, done: Done) -> Problem | None:
        if re.search(r"Authentication failed|could not read Username|returned error: 401", done.said):
            return self._problem(
                f"does not know {TOKEN} (401)",
                "Nothing was released.",
                f"The token is wrong, expired or revoked: {self._how_to_get_a_token}",
            )
        if "returned error: 403" in done.said:
            return self._problem(
                f"does not allow it to {TOKEN} (403)",
                "Nothing was released.",
                f"The token's scope or role is too small: {self._how_to_get_a_token}",
            )
        return None

    def _unreachable(self, done: Done) -> Problem:
        return self._problem(
            f"cannot be reached: {done.last_words}",
            "Nothing was released.",
            "Run the job again when it can be reached from here; nothing has to be cleaned up before.",
        )

    @property
    def _how_to_get_a_token(self) -> str:
        if self.serving.known_site == "github":
            return (
                "give a fine-grained token or a GitHub App the permissions contents: write and pull requests: write on "
                f"it, and put the token into the environment's secret {TOKEN}."
            )
        return (
            "make a project access token there (Settings > Access tokens; scopes api and write_repository, role "
            f"Developer, or Maintainer to push to a protected branch), and put it into {TOKEN}, protected and masked."
        )

    def _problem(self, what: str, consequence: str, remedy: str) -> Problem:
        return Problem(
            file=FILE,
            what=f"serving.repository {self.serving.repository} {what}",
            consequence=consequence,
            remedy=remedy,
        )

    @staticmethod
    def _remote_words(done: Done) -> str:
        lines = [line.removeprefix("remote:").strip() for line in done.said.splitlines() if line.startswith("remote:")]
        return " / ".join(line for line in lines if line) or done.last_words


def token_problem(serving: Serving, environ: Mapping[str, str]) -> Problem | None:
    """Whether the token is missing that a repository on a site needs."""
    if not serving.repository.startswith(("http://", "https://")) and serving.delivery == "push":
        return None
    if environ.get(TOKEN):
        return None
    return Problem(
        file="environment of the job",
        what=f"{TOKEN} is not set",
        consequence=f"Nothing could be delivered to {serving.repository}.",
        remedy="Put the serving repository's token into it: on GitLab a protected and masked variable, on GitHub a "
        "secret of the environment that the job names. A protected variable is given to protected tags only.",
    )


def link(source: str, target: str) -> None:
    """Gives a file a second name, or copies it where it cannot have one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _names(folder: Path) -> Iterator[str]:
    yield from sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _split(done: Done) -> list[str]:
    return [entry for entry in done.text.split("\0") if entry]
