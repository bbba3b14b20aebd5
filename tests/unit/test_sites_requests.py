"""Merge requests and pull requests in the serving repository: one per branch, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from model_serving.hosts.access import SiteError
from model_serving.hosts.merge_requests import Requests, Wanted, requests_of, usual_api
from tests.hosts import AT_ONCE, Server, github, gitlab, serving
from tests.hosts.server import Fault

WANTED = Wanted(source="release/iris/v1.0.1", target="main", title="Release iris v1.0.1", description="| a | b |")
KINDS = pytest.mark.parametrize("kind", ["gitlab", "github"])


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def make(server: Server, kind: Any, token: str | None = None) -> Requests:
    project, own = (gitlab.SERVING, gitlab.TOKEN) if kind == "gitlab" else (github.SERVING, github.TOKEN)
    return requests_of(
        kind,
        f"{server.url}/{project}.git",
        token=own if token is None else token,
        loss="The branch is there, and no request.",
        patience=AT_ONCE,
    )


def made(server: Server, kind: str) -> list[dict[str, Any]]:
    return server.gitlab.requests if kind == "gitlab" else server.github.requests


@KINDS
def test_a_request_is_opened_once_and_found_then(server: Server, kind: str) -> None:
    first = make(server, kind).open(WANTED)
    assert first.startswith(f"{server.url}/")
    assert make(server, kind).open(WANTED) == first
    [request] = made(server, kind)
    assert request["title"] == WANTED.title


def test_gitlab_is_told_to_remove_the_branch(server: Server) -> None:
    make(server, "gitlab").open(WANTED)
    assert server.gitlab.requests[0]["remove_source_branch"] is True


@KINDS
def test_a_request_that_was_closed_is_followed_by_another_one(server: Server, kind: str) -> None:
    first = make(server, kind).open(WANTED)
    made(server, kind)[0]["state"] = "closed"
    assert make(server, kind).open(WANTED) != first


@KINDS
def test_another_run_may_be_faster(server: Server, kind: str) -> None:
    """It opens the request between our look and our question."""
    path = "merge_requests$" if kind == "gitlab" else "pulls$"
    server.add(Fault(method="POST", path=path, first=lambda: make(server, kind).open(WANTED)))
    assert make(server, kind).open(WANTED).endswith("/1")
    assert len(made(server, kind)) == 1


@KINDS
@pytest.mark.parametrize("how", ["drops", "answers", "breaks off"])
def test_an_answer_that_is_lost_is_looked_for(server: Server, kind: str, how: Any) -> None:
    path = "merge_requests$" if kind == "gitlab" else "pulls$"
    server.add(Fault(method="POST", path=path, how=how, status=502, is_carried_out=True))
    assert make(server, kind).open(WANTED).endswith("/1")
    assert len(made(server, kind)) == 1


@KINDS
@pytest.mark.parametrize(("status", "remedy"), [(401, "must be a"), (403, "must be a"), (404, "serving.api")])
def test_a_refusal_says_what_the_token_needs_and_shows_it_not(
    server: Server, kind: str, status: int, remedy: str
) -> None:
    path = "merge_requests$" if kind == "gitlab" else "pulls$"
    server.fail("GET", path, status)
    with pytest.raises(SiteError) as refused:
        make(server, kind, token="secret-of-the-test").open(WANTED)  # noqa: S106 - opens nothing
    assert remedy in str(refused.value)
    assert "Run the same job again: it continues from there." in str(refused.value)
    assert "secret-of-the-test" not in str(refused.value)


@KINDS
def test_a_branch_that_is_not_there_is_refused(server: Server, kind: str) -> None:
    server.gitlab.has_branch = server.github.has_branch = lambda name: name == "main"
    with pytest.raises(SiteError, match="answered 4"):
        make(server, kind).open(WANTED)


@pytest.mark.parametrize(
    ("kind", "repository", "api"),
    [
        ("gitlab", "https://gitlab.com/group/serving.git", "https://gitlab.com/api/v4"),
        ("gitlab", "https://git.example.com:8443/group/serving", "https://git.example.com:8443/api/v4"),
        ("github", "https://github.com/owner/serving.git", "https://api.github.com"),
        ("github", "https://github.example.com/owner/serving.git", "https://github.example.com/api/v3"),
    ],
)
def test_the_usual_api_of_a_host_is_known(kind: Any, repository: str, api: str) -> None:
    assert usual_api(kind, repository) == api


def test_a_gitlab_below_a_path_keeps_its_path_out_of_the_projects_name(server: Server) -> None:
    requests = requests_of(
        "gitlab",
        f"{server.url}/{gitlab.SERVING}.git",
        token=gitlab.TOKEN,
        loss="",
        api=f"{server.url}/api/v4",
        patience=AT_ONCE,
    )
    requests.open(WANTED)
    assert server.calls("POST")[0].path == "/api/v4/projects/group%2Fserving/merge_requests"
    below = requests_of(
        "gitlab",
        f"{server.url}/gitlab/{gitlab.SERVING}.git",
        token=gitlab.TOKEN,
        loss="",
        api=f"{server.url}/gitlab/api/v4",
        patience=AT_ONCE,
    )
    with pytest.raises(SiteError):
        below.open(WANTED)
    assert server.received[-1].path == "/gitlab/api/v4/projects/group%2Fserving/merge_requests"


def test_a_client_that_is_printed_shows_no_token(server: Server) -> None:
    assert gitlab.TOKEN not in repr(make(server, "gitlab"))
    assert github.TOKEN not in repr(make(server, "github"))
