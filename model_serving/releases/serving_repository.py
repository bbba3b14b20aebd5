"""The serving repository, read and written through a bare clone.

Nothing is checked out. A release becomes one commit on the tip of a branch, pushed without force. Large files of other
releases are not fetched if the server supports partial clones.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from model_serving import catalog, yaml_text
from model_serving.catalog import pointers
from model_serving.catalog.training_versions import PROVENANCE
from model_serving.git import TOKEN, Done, Git, GitError, login
from model_serving.problems import InvalidInput, Problem
from model_serving.releases.project import FILE, Serving
from model_serving.stack.models import ANSWER_SECONDS, ModelSettings
from model_serving.stack.settings import NAMESPACE

LARGEST_READ: Final = "1m"
"""Files up to this size are cloned; those that the catalog reads are smaller."""
READ: Final = (catalog.SETTINGS, catalog.LOCK, catalog.REQUEST, catalog.RESPONSE, PROVENANCE)
"""Files whose content the catalog reads, besides pointers; of others it only checks that they exist."""
ACCOUNTS: Final[Mapping[str, str]] = {"gitlab": "oauth2", "github": "x-access-token"}
"""User name that goes with a token."""
BREAKS: Final = 3
"""Broken connections in a row after which the repository counts as unreachable."""
_MOVED: Final = re.compile(
    r"\[rejected\]|\[remote rejected\].*(failed to update ref|cannot lock ref|incorrect old value|reference already)"
)
_PROTECTED: Final = re.compile(r"protected branch|GH006|GH013", re.IGNORECASE)
_REASONS: Final[Sequence[tuple[re.Pattern[str], str, str]]] = (
    (
        _PROTECTED,
        f"does not let {TOKEN} push to {{branch}}, which is protected",
        "Write `delivery: merge-request` under serving, or allow the token's user to push: on GitLab add its role to "
        "those allowed to push, on GitHub let it bypass the rule.",
    ),
    (
        re.compile(r"Remote branch .* not found"),
        "has no branch {branch}",
        "Push a first commit to it, or correct serving.branch.",
    ),
    (
        re.compile(r"Authentication failed|could not read Username|returned error: 401"),
        f"rejects {TOKEN} (401)",
        "The token is wrong, expired or revoked: {token}",
    ),
    (
        re.compile(r"returned error: 403"),
        f"denies {TOKEN} access (403)",
        "The token's scope or role is too small: {token}",
    ),
    (
        re.compile(r"\[remote rejected\]"),
        "refuses the push to {branch}: {remote}",
        "A hook or a rule of the repository refused the commit: do what it says.",
    ),
    (
        re.compile(r"not found|does not exist|does not appear to be a git repository"),
        f"does not exist, or {TOKEN} cannot see it: {{words}}",
        "Correct serving.repository, or {token}",
    ),
)
"""Pattern in git's output -> what is wrong, and the remedy. The first match counts."""
_NEW_TOKEN: Final[Mapping[str, str]] = {
    "github": "give a fine-grained token or a GitHub App the permissions contents: write and pull requests: write on "
    f"the repository, and put the token into the environment's secret {TOKEN}.",
    "gitlab": "create a project access token there (Settings > Access tokens; scopes api and write_repository, role "
    f"Developer, or Maintainer to push to a protected branch), and put it into {TOKEN}, protected and masked.",
}


@dataclass(frozen=True, kw_only=True)
class ServingRepository:
    """A bare clone of a branch in a folder, which `open` creates; the environment has the token."""

    serving: Serving
    folder: Path
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    def open(self) -> None:
        """Clones the newest commit of the branch.

        Raises:
            InvalidInput: if it cannot be read.
        """
        self._read(
            self._git(self.folder.parent),
            *("clone", "--bare", "--quiet", "--depth=1", "--single-branch", "--no-tags"),
            *(f"--branch={self.serving.branch}", f"--filter=blob:limit={LARGEST_READ}"),
            *("--", self.serving.repository, str(self.folder)),
        )

    def fetch(self, branch: str) -> str | None:
        """Fetches the newest commit of a branch and returns it; None if there is no such branch.

        Raises:
            InvalidInput: if the repository cannot be read.
        """
        git = self._git()
        commit = self._read(git, "ls-remote", "origin", f"refs/heads/{branch}").partition("\t")[0]
        if commit:
            self._read(git, "fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head", "origin", commit)
        return commit or None

    def tip(self) -> str:
        """The newest commit of the branch when it was cloned."""
        return self._git().must("rev-parse", "--verify", f"refs/heads/{self.serving.branch}").text

    def versions(self, commit: str, name: str) -> Sequence[str]:
        """The released versions of a model."""
        place = f"{self.serving.folder}/{name}/"
        listed = self._git().must("ls-tree", "-d", "-z", "--name-only", commit, place).text
        return [PurePosixPath(path).name for path in listed.split("\0") if path]

    def files(self, commit: str, name: str, version: str) -> Mapping[str, str]:
        """Blob of each file of a release; empty if there is no such release."""
        place = f"{self.place(name, version)}/"
        return {path.removeprefix(place): blob for path, blob in self._listed(commit, place).items()}

    def content(self, commit: str, name: str, version: str, file: str) -> bytes:
        """Content of a file of a release."""
        return self._git().must("cat-file", "blob", f"{commit}:{self.place(name, version)}/{file}").bytes

    def answer_seconds(self, commit: str, name: str) -> int:
        """The longest answer time that a stack file allows a model; the default if none serves it."""
        files = self._listed(commit, "stacks/")
        stacks = [blob for path, blob in files.items() if PurePosixPath(path).match("stacks/Pulumi.*.yaml")]
        chosen = []
        for content in self._contents(stacks):
            # A file that is not in order is refused where it is deployed.
            with suppress(KeyError, TypeError, ValueError):
                models = yaml_text.parse(content)["config"][f"{NAMESPACE}:models"]
                chosen.append(ModelSettings.model_validate(models[name]).answer_seconds)
        return max(chosen, default=ANSWER_SECONDS)

    def place(self, name: str, version: str) -> str:
        """Folder of a release in the repository."""
        return f"{self.serving.folder}/{name}/{version}"

    def ids(self, folder: Path) -> Mapping[str, str]:
        """Adds the files of a local folder as blobs, and returns them like `files`."""
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        paths = "\n".join(str(folder / name) for name in names)
        # Without filters: the bytes are released as they are, whatever .gitattributes says.
        hashed = self._git().must("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=paths.encode())
        return dict(zip(names, hashed.text.split(), strict=True))

    def lay_out(self, commit: str, target: Path) -> Path:
        """Writes the releases of a commit to disk and returns their folder; files that the catalog skips are empty."""
        folder = target / self.serving.folder
        folder.mkdir(parents=True)
        files = self._listed(commit, f"{self.serving.folder}/")
        read = [path for path in files if PurePosixPath(path).name in READ or path.endswith(pointers.SUFFIX)]
        contents = dict(zip(read, self._contents([files[path] for path in read]), strict=True))
        for path in files:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_bytes(contents.get(path, b""))
        return folder

    def commit(self, parent: str, folder: Path, name: str, version: str, message: str) -> str:
        """Creates a local commit that adds a release to its parent."""
        git = self._git()
        index = {"GIT_INDEX_FILE": str(self.folder / "release-index")}
        git.must("read-tree", parent, environ=index)
        place = self.place(name, version)
        entries = "".join(f"100644 {blob}\t{place}/{file}\0" for file, blob in self.ids(folder).items())
        git.must("update-index", "-z", "--index-info", stdin=entries.encode(), environ=index)
        # Large files of others are missing here; the server has them.
        tree = git.must("write-tree", "--missing-ok", environ=index).text
        identity = {"NAME": "model release", "EMAIL": f"noreply@{self._host or 'localhost'}"}
        variables = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in identity.items()}
        # The variables of the job count more.
        variables = {key: self.environ.get(key) or value for key, value in variables.items()}
        return git.must("commit-tree", tree, "-p", parent, "-F", "-", stdin=message.encode(), environ=variables).text

    def push(self, commit: str, branch: str) -> bool:
        """Pushes a commit to a branch.

        Returns:
            False if the branch has moved on, or exists although it is new.

        Raises:
            InvalidInput: if the repository refuses it, or the connection keeps breaking.
        """
        words = ""
        for _ in range(BREAKS):
            done = self._git().run(
                "push", "--porcelain", "--no-verify", "--no-follow-tags", "origin", f"{commit}:refs/heads/{branch}"
            )
            told = f"{done.text}\n{done.said}"
            if not done.code or (_MOVED.search(told) and not _PROTECTED.search(told)):
                return not done.code
            if refused := self._refusal(done, branch):
                raise InvalidInput([refused])
            # The connection broke, and the push may have arrived.
            words = done.last_words
            try:
                if self.fetch(branch) == commit:
                    return True
            except InvalidInput:
                continue
        raise InvalidInput(
            [
                self._problem(
                    f"broke off the push: {words}",
                    "Run the job again: it looks first, and continues if necessary.",
                    consequence="Whether the release arrived is unknown.",
                )
            ]
        )

    @property
    def authorities(self) -> str | None:
        """File with trusted certificate authorities, for a self-managed GitLab with its own."""
        if not self._host or self._host != self.environ.get("CI_SERVER_HOST"):
            return None
        return self.environ.get("CI_SERVER_TLS_CA_FILE")

    @property
    def _host(self) -> str:
        return urlsplit(self.serving.repository).hostname or ""

    def _git(self, folder: Path | None = None) -> Git:
        settings = login(self.serving.repository, ACCOUNTS[self.serving.known_site or "gitlab"])
        if self.authorities:
            settings += ((f"http.https://{self._host}/.sslCAInfo", self.authorities),)
        return Git(folder=folder or self.folder, environ=self.environ, settings=settings)

    def _read(self, git: Git, *arguments: str) -> str:
        done = git.run(*arguments)
        if done.code:
            unreachable = self._problem(
                f"cannot be reached: {done.last_words}",
                "Run the job again when it is reachable; nothing has to be cleaned up before.",
            )
            raise InvalidInput([self._refusal(done, self.serving.branch) or unreachable])
        return done.text

    def _listed(self, commit: str, place: str) -> dict[str, str]:
        """Path -> blob."""
        listed = self._git().must("ls-tree", "-r", "-z", "--full-tree", commit, place).text
        entries = [entry.partition("\t") for entry in listed.split("\0") if entry]
        return {path: about.split()[2] for about, _, path in entries}

    def _contents(self, blobs: Sequence[str]) -> Iterator[bytes]:
        answer = self._git().must("cat-file", "--batch", stdin="".join(f"{blob}\n" for blob in blobs).encode()).bytes
        for _ in blobs:
            head, _, answer = answer.partition(b"\n")
            if head.endswith(b" missing"):
                raise GitError(f"{head.decode()}, although the clone should have it")
            size = int(head.split()[2])
            yield answer[:size]
            answer = answer[size + 1 :]

    def _refusal(self, done: Done, branch: str) -> Problem | None:
        """The reason for a failure, if git tells one."""
        remote = [line.removeprefix("remote:").strip() for line in done.said.splitlines() if line.startswith("remote:")]
        values = {
            "branch": branch,
            "words": done.last_words,
            "remote": " / ".join(line for line in remote if line) or done.last_words,
            "token": _NEW_TOKEN[self.serving.known_site or "gitlab"],
        }
        for pattern, what, remedy in _REASONS:
            if pattern.search(f"{done.text}\n{done.said}"):
                return self._problem(what.format(**values), remedy.format(**values))
        return None

    def _problem(self, what: str, remedy: str, consequence: str = "Nothing was released.") -> Problem:
        what = f"serving.repository {self.serving.repository} {what}"
        return Problem(file=FILE, what=what, consequence=consequence, remedy=remedy)


def token_problem(serving: Serving, environ: Mapping[str, str]) -> Problem | None:
    """Whether the token is missing; a push to a local folder needs none."""
    is_local = not serving.repository.startswith(("http://", "https://")) and serving.delivery == "push"
    if is_local or environ.get(TOKEN):
        return None
    return Problem(
        file="environment of the job",
        what=f"{TOKEN} is not set",
        consequence=f"Nothing could be delivered to {serving.repository}.",
        remedy="Put the serving repository's token into it: on GitLab a protected and masked variable, on GitHub a "
        "secret of the environment that the job names. GitLab passes protected variables to protected tags only.",
    )


def link(source: str, target: str) -> None:
    """Hard-links a file, or copies it if that is not possible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
