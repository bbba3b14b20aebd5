"""Opens a merge request on GitLab, or a pull request on GitHub, in a repository that is not the job's own.

https://docs.gitlab.com/api/merge_requests/ and https://docs.github.com/en/rest/pulls/pulls have what is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal, Protocol
from urllib.parse import quote, urlsplit

from pydantic import BaseModel

from model_serving.hosts import github, gitlab
from model_serving.hosts.rest import Client, Patience, SiteError, Token, session

LONGEST: Final = 60_000
"""Characters of a description; GitHub takes 65,536, GitLab more."""
Kind = Literal["gitlab", "github"]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A request.

    Attributes:
        source: branch with the change.
        target: branch that it is to be merged into.
        title: one line.
        description: Markdown.
    """

    source: str
    target: str
    title: str
    description: str


class Requests(Protocol):
    """Those of one repository."""

    def open(self, wanted: Wanted) -> str:
        """Opens a request unless the branch has one that is open; returns its address.

        Raises:
            SiteError: if there is none afterwards.
        """


class _MergeRequest(BaseModel):
    web_url: str


class _PullRequest(BaseModel):
    html_url: str


@dataclass(frozen=True, kw_only=True)
class GitLabRequests:
    """Merge requests; GitLab removes the branch when one is merged."""

    client: Client

    def open(self, wanted: Wanted) -> str:
        """As in `Requests`."""
        return _opened(lambda: self._found(wanted), lambda: self._made(wanted))

    def _found(self, wanted: Wanted) -> Iterator[str]:
        query = {"state": "opened", "source_branch": wanted.source, "target_branch": wanted.target}
        for request in self.client.pages("/merge_requests", _MergeRequest, query):
            yield request.web_url

    def _made(self, wanted: Wanted) -> str:
        content = {
            "source_branch": wanted.source,
            "target_branch": wanted.target,
            "title": wanted.title,
            "description": wanted.description[:LONGEST],
            "remove_source_branch": True,
        }
        return self.client.send("POST", "/merge_requests", content, _MergeRequest).web_url


@dataclass(frozen=True, kw_only=True)
class GitHubRequests:
    """Pull requests; whether the branch goes when one is merged is a setting of the repository.

    Attributes:
        owner: of the repository.
    """

    client: Client
    owner: str

    def open(self, wanted: Wanted) -> str:
        """As in `Requests`."""
        return _opened(lambda: self._found(wanted), lambda: self._made(wanted))

    def _found(self, wanted: Wanted) -> Iterator[str]:
        query = {"state": "open", "head": f"{self.owner}:{wanted.source}", "base": wanted.target}
        for request in self.client.pages("/pulls", _PullRequest, query):
            yield request.html_url

    def _made(self, wanted: Wanted) -> str:
        content = {
            "head": wanted.source,
            "base": wanted.target,
            "title": wanted.title,
            "body": wanted.description[:LONGEST],
        }
        return self.client.send("POST", "/pulls", content, _PullRequest).html_url


def requests_of(
    kind: Kind,
    repository: str,
    *,
    token: str,
    loss: str,
    api: str | None = None,
    project: str | None = None,
    authorities: str | None = None,
    patience: Patience | None = None,
) -> Requests:
    """Those of a repository; asks nothing yet.

    Args:
        kind: of site.
        repository: its address for git.
        token: of a user that may open requests there.
        loss: what a failure would mean, one sentence.
        api: address of the site's API; by default the usual one on that host.
        project: the repository's name in the API; by default the path of its address.
        authorities: file with those that are trusted beside the machine's own.
        patience: how long to try.
    """
    base = api or usual_api(kind, repository)
    name = project or _project(repository, base)
    trying = patience or Patience()
    if kind == "gitlab":
        secret = Token("PRIVATE-TOKEN", token)
        headers = {"Accept": "application/json"}
        path = f"/projects/{quote(name, safe='')}"
    else:
        secret = Token("Authorization", token, "Bearer")
        headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": github.API_VERSION}
        path = f"/repos/{name}"
    made = session(secret, headers, patience=trying)
    made.verify = authorities or True
    client = Client(
        site=_NAMES[kind],
        base=f"{base.rstrip('/')}{path}",
        session=made,
        token=secret,
        loss=loss,
        remedy=lambda status: _remedy(kind, status),
        patience=trying,
    )
    return (
        GitLabRequests(client=client)
        if kind == "gitlab"
        else GitHubRequests(client=client, owner=name.partition("/")[0])
    )


def usual_api(kind: Kind, repository: str) -> str:
    """Where the API of a host is, unless somebody moved it."""
    parts = urlsplit(repository)
    if kind == "gitlab":
        return f"{parts.scheme}://{parts.netloc}/api/v4"
    return "https://api.github.com" if parts.hostname == "github.com" else f"{parts.scheme}://{parts.netloc}/api/v3"


def _project(repository: str, api: str) -> str:
    """The path of the address; where GitLab itself is below a path of its host, without that."""
    path = urlsplit(repository).path.removesuffix("/").removesuffix(".git")
    below = urlsplit(api).path.partition("/api/")[0]
    return path.removeprefix(below).strip("/")


def _opened(found: Callable[[], Iterator[str]], made: Callable[[], str]) -> str:
    for address in found():
        return address
    try:
        return made()
    except SiteError:
        # Another run was faster, or the answer to ours was lost.
        for address in found():
            return address
        raise


_NAMES: Final[Mapping[str, str]] = {"gitlab": gitlab.GitLab.name, "github": github.GitHub.name}
_AGAIN: Final = "The same job again goes on from there."
_TOKENS: Final[Mapping[str, str]] = {
    "gitlab": "It takes a project access token of the serving repository with the scopes api and write_repository and "
    "the role Developer, in MODEL_SERVING_TOKEN.",
    "github": "It takes a fine-grained token or a GitHub App with contents: write and pull requests: write on the "
    "serving repository, in MODEL_SERVING_TOKEN.",
}


def _remedy(kind: Kind, status: int) -> str:
    if status in (401, 403, 404):
        address = " Or serving.api and serving.project are wrong." if status == HTTPStatus.NOT_FOUND else ""
        return f"{_TOKENS[kind]}{address} {_AGAIN}"
    return f"Run it again when {_NAMES[kind]} is well. {_AGAIN}"
