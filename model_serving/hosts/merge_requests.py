"""Opens a merge request on GitLab, or a pull request on GitHub, in a repository that is not the job's own.

APIs: https://docs.gitlab.com/api/merge_requests/ and https://docs.github.com/en/rest/pulls/pulls.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal, TypeVar
from urllib.parse import urlsplit

from model_serving.hosts import github, gitlab
from model_serving.hosts.access import Access, Patience, SiteError

LONGEST: Final = 60_000
"""Characters of a description; GitHub takes 65,536, GitLab more."""
Kind = Literal["gitlab", "github"]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A request to merge one branch into another; the description is Markdown."""

    source: str
    target: str
    title: str
    description: str


@dataclass(frozen=True, kw_only=True)
class Requests:
    """The requests of one repository, which has this name in the API."""

    kind: Kind
    access: Access
    name: str

    def open(self, wanted: Wanted) -> str:
        """Opens a request unless the branch has an open one; returns its address.

        Raises:
            SiteError: if there is none afterwards.
        """
        return self._on_gitlab(wanted) if self.kind == "gitlab" else self._on_github(wanted)

    def _on_gitlab(self, wanted: Wanted) -> str:
        branches = {"source_branch": wanted.source, "target_branch": wanted.target}
        # Removes the branch once it is merged; on GitHub, that is a setting of the repository.
        content = {"title": wanted.title, "description": wanted.description[:LONGEST], "remove_source_branch": True}
        with gitlab.connected(self.access, self.name) as project:
            manager = project.mergerequests
            request = _opened(
                lambda: iter(manager.list(iterator=True, state="opened", **branches)),
                lambda: manager.create({**branches, **content}),
            )
            return str(request.web_url)

    def _on_github(self, wanted: Wanted) -> str:
        query = {"state": "open", "head": f"{self.name.partition('/')[0]}:{wanted.source}", "base": wanted.target}
        text = wanted.description[:LONGEST]
        with github.connected(self.access, self.name) as repository:
            request = _opened(
                lambda: github.pages(repository, "/pulls", **query),
                lambda: repository.create_pull(wanted.target, wanted.source, title=wanted.title, body=text).raw_data,
            )
            return str(request["html_url"])


def _opened(found: Callable[[], Iterator[T]], made: Callable[[], T]) -> T:
    for request in found():
        return request
    try:
        return made()
    except (SiteError, OSError):
        # Another run was faster, or the answer to ours was lost.
        for request in found():
            return request
        raise


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
    """The requests of a repository; sends nothing yet.

    ``repository`` is its address for git. By default, the API is at the host's usual address, and the project's name
    there is the path of the repository's address. `Access` describes the others.
    """
    base = (api or usual_api(kind, repository)).rstrip("/")
    access = Access(
        site=_NAMES[kind],
        api=base,
        token=token,
        loss=loss,
        remedy=lambda status: _remedy(kind, status),
        patience=patience or Patience(),
        authorities=authorities,
    )
    return Requests(kind=kind, access=access, name=project or project_name(repository, base))


def usual_api(kind: Kind, repository: str) -> str:
    """The usual address of a host's API."""
    parts = urlsplit(repository)
    if kind == "gitlab":
        return f"{parts.scheme}://{parts.netloc}/api/v4"
    return "https://api.github.com" if parts.hostname == "github.com" else f"{parts.scheme}://{parts.netloc}/api/v3"


def project_name(repository: str, api: str) -> str:
    """A repository's name in the API: its path, without the path below which GitLab itself may be."""
    path = urlsplit(repository).path.removesuffix("/").removesuffix(".git")
    below = urlsplit(api).path.partition("/api/")[0]
    return path.removeprefix(below).strip("/")


_NAMES: Final = {"gitlab": gitlab.GitLab.name, "github": github.GitHub.name}
_AGAIN: Final = "Run the same job again: it continues from there."
_TOKENS: Final = {
    "gitlab": "MODEL_SERVING_TOKEN must be a project access token of the serving repository with the scopes api and "
    "write_repository and the role Developer.",
    "github": "MODEL_SERVING_TOKEN must be a fine-grained token or that of a GitHub App, with contents: write and pull "
    "requests: write on the serving repository.",
}


def _remedy(kind: Kind, status: int) -> str:
    if status in (401, 403, 404):
        address = " Or correct serving.api and serving.project." if status == HTTPStatus.NOT_FOUND else ""
        return f"{_TOKENS[kind]}{address} {_AGAIN}"
    return f"Wait until {_NAMES[kind]} works again. {_AGAIN}"
