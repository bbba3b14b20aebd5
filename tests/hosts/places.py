"""Where the two sites differ, so that one test serves for both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from model_serving.hosts import Site
from model_serving.hosts.access import Patience
from model_serving.hosts.github import GitHub
from model_serving.hosts.gitlab import GitLab
from tests.hosts import AT_ONCE, Server, github, gitlab

KINDS: Final = ("gitlab", "github")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A site's client and its stand-in.

    Attributes:
        make: a client, of a job with the given pipeline's number, commit, patience and environment.
        notes: expression for the address of the notes.
        change: method by which notes and issues are changed.
        texts: all that is written below the merge request.
        write: puts a note there.
        somebody: an author who is not the token's.
        limit: characters of a note.
    """

    server: Server
    make: Callable[..., Site]
    notes: str
    change: str
    token: str
    texts: Callable[[], list[str]]
    write: Callable[..., dict[str, Any]]
    somebody: dict[str, Any]
    issues: list[dict[str, Any]]
    limit: int


def _gitlab(server: Server) -> Place:
    def make(run: int = 100, commit: str = "a" * 40, patience: Patience = AT_ONCE, **others: str) -> Site:
        environ = server.gitlab.environ(CI_PIPELINE_ID=str(run), CI_COMMIT_SHA=commit, **others)
        return GitLab(environ, patience)

    return Place(
        server=server,
        make=make,
        notes="/merge_requests/3/notes$",
        change="PUT",
        token=gitlab.TOKEN,
        texts=server.gitlab.texts,
        write=server.gitlab.write,
        somebody=gitlab.SOMEBODY,
        issues=server.gitlab.issues,
        limit=gitlab.NOTE_LIMIT,
    )


def _github(server: Server, folder: Path) -> Place:
    def make(run: int = 100, commit: str = "a" * 40, patience: Patience = AT_ONCE, **others: str) -> Site:
        return GitHub(server.github.environ(folder, head=commit, GITHUB_RUN_ID=str(run), **others), patience)

    return Place(
        server=server,
        make=make,
        notes="/issues/5/comments$",
        change="PATCH",
        token=github.TOKEN,
        texts=server.github.texts,
        write=server.github.write,
        somebody=github.SOMEBODY,
        issues=server.github.issues,
        limit=github.LIMIT,
    )


def place_of(kind: str, server: Server, folder: Path) -> Place:
    """A site by its kind; the folder is for files that jobs of GitHub have."""
    return _gitlab(server) if kind == "gitlab" else _github(server, folder)


def dead_addresses() -> dict[str, str]:
    """Variables of both sites; nothing listens on port 1."""
    return {"CI_API_V4_URL": "http://127.0.0.1:1/api/v4", "GITHUB_API_URL": "http://127.0.0.1:1/api/v3"}
