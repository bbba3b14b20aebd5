"""Comments, issues and runs of GitHub, as a job's environment describes where it runs.

https://docs.github.com/en/actions/reference/workflows-and-actions/variables has the variables,
https://docs.github.com/en/rest/issues what is asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from model_serving.hosts import marked
from model_serving.hosts.rest import Client, Missing, SiteError, Token, session
from model_serving.hosts.runs import Run, RunState
from model_serving.hosts.site import Site

TOKEN: Final = "GITHUB_TOKEN"  # noqa: S105 - a variable's name
JOB_ID: Final = "MODEL_SERVING_GITHUB_JOB"
"""Optional, ``${{ job.check_run_id }}``: then a lock names the job and not the whole run with all its other jobs."""
NOTE_LIMIT: Final = 65_536
"""Characters of a comment and of an issue; GitHub answers 422 to a longer one."""
SUMMARY_BYTES: Final = 1024 * 1024
"""Of all summaries of one step, https://docs.github.com/en/actions/reference/limits."""
API_VERSION: Final = "2022-11-28"
REMEDIES: Final = {
    0: "Run the job again when GitHub is reachable from the runner.",
    401: f"Hand the job's token over: `env: {TOKEN}: ${{{{ github.token }}}}`.",
    403: "Give the job what it needs: `permissions:` with `pull-requests: write` for notes, `issues: write` for "
    "issues and `actions: read` for runs.",
    404: "GitHub also answers 404 to a token that may not see it: give the job `permissions:` with `contents: read` "
    "and `pull-requests: write`, for issues `issues: write`.",
    409: "Somebody else is changing the same thing. Run the job again.",
    410: "Issues are switched off. Switch them on: Settings > General > Features.",
    413: "Read all of it in the job's summary.",
    422: "Read all of it in the job's summary.",
    429: "GitHub's limit of requests is reached. Run the job again in a few minutes.",
}
REMEDY_FOR_A_FORK: Final = "That is right for a fork, whose token may only read. Read the result in the job's summary."


class _User(BaseModel):
    login: str


class _Comment(BaseModel):
    id: int
    body: str | None
    user: _User | None


class _Issue(BaseModel):
    number: int
    title: str
    body: str | None
    state: str
    user: _User | None
    pull_request: object = None


class _Run(BaseModel):
    status: str


class _Data(BaseModel):
    viewer: _User


class _Answer(BaseModel):
    data: _Data


class GitHub(Site):
    """GitHub, seen from a job."""

    name = "GitHub"
    note_limit = NOTE_LIMIT - marked.overhead(marked.PREVIEW)

    @property
    def commit(self) -> str:
        """The commit that the run is about; GITHUB_SHA of a pull request is a merge that nobody has pushed."""
        head = self._pull_request.get("head") or {}
        return str(head.get("sha") or self._environ.get("GITHUB_SHA", ""))

    @property
    def is_fork(self) -> bool:
        """Whether the pull request comes from a fork, whose code gets no identity."""
        if not self._pull_request:
            return False
        # Null once the fork was deleted.
        source = (self._pull_request.get("head") or {}).get("repo") or {}
        return bool(source.get("full_name") != self._environ.get("GITHUB_REPOSITORY"))

    def this_run(self) -> Run:
        """The job itself, if the workflow says which it is, or else the run."""
        number = self._environ.get("GITHUB_RUN_ID", "")
        attempt = self._environ.get("GITHUB_RUN_ATTEMPT", "1")
        job = self._environ.get(JOB_ID)
        url = f"{self._environ.get('GITHUB_SERVER_URL')}/{self._environ.get('GITHUB_REPOSITORY')}/actions/runs/{number}"
        return Run(
            name=f"job {self._environ.get('GITHUB_JOB', 'unknown')} of run {number}, attempt {attempt}",
            url=f"{url}/job/{job}" if job else f"{url}/attempts/{attempt}",
            # With its attempt: a run that is started again keeps its number.
            id=f"jobs/{job}" if job else f"runs/{number}/attempts/{attempt}",
        )

    def run_state(self, run: Run) -> RunState:
        """Whether a job, or a run, still runs.

        Raises:
            SiteError: if GitHub cannot be asked.
        """
        # An id of GitLab's, or of a lock that somebody wrote by hand.
        if not re.fullmatch(r"jobs/\d+|runs/\d+/attempts/\d+", run.id):
            return "unknown"
        try:
            found = self._client(f"Whether {run.name} still runs is not known.").get(f"/actions/{run.id}", _Run)
        except Missing:
            return "unknown"
        return "finished" if found.status == "completed" else "running"

    def summary(self, body: str) -> None:
        """Appends to what GitHub shows of the job; a text that has no room is only mentioned."""
        if not (name := self._environ.get("GITHUB_STEP_SUMMARY")):
            return
        path = Path(name)
        taken = path.stat().st_size if path.exists() else 0
        if taken + len(body.encode()) + 1 > SUMMARY_BYTES:
            body = "*This summary is longer than GitHub shows. The artefacts of this run have all of it.*"
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{body}\n")

    @property
    def _pipeline(self) -> int:
        return int(self._environ.get("GITHUB_RUN_ID") or 0)

    def _thread(self) -> _Thread:
        number = self._pull_request.get("number")
        if number is None:
            raise SiteError(
                what=f"this run was not started by a pull request, but by {self._environ.get('GITHUB_EVENT_NAME')}",
                consequence="There is no pull request to write into.",
                remedy="Run this in a workflow with `on: pull_request`.",
            )
        return _Thread(
            client=self._client("The pull request does not show this result."), number=number, author=self._author
        )

    def _tracker(self) -> _Tracker:
        return _Tracker(client=self._client("The issue does not show this result."), author=self._author)

    @cached_property
    def _pull_request(self) -> dict[str, Any]:
        """What the event says of the pull request; nothing, if there is none."""
        path = Path(self._environ.get("GITHUB_EVENT_PATH", ""))
        found = json.loads(path.read_text(encoding="utf-8")).get("pull_request") if path.is_file() else None
        return dict(found or {})

    @cached_property
    def _author(self) -> str:
        """Login of the token's user. GraphQL tells it to every kind of token, GET /user not to a job's."""
        client = self._client("Nothing was written, because our own notes cannot be told from other people's.")
        query = {"query": "query { viewer { login } }"}
        return replace(client, base="").send("POST", self._graphql, query, _Answer).data.viewer.login

    @property
    def _graphql(self) -> str:
        return f"{self._environ['GITHUB_API_URL'].removesuffix('/v3')}/graphql"

    def _client(self, loss: str) -> Client:
        value = self._environ.get(TOKEN)
        if not value:
            raise SiteError(what=f"{TOKEN} is not set", consequence=loss, remedy=self._remedy(401))
        token = Token("Authorization", value, "Bearer")
        headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": API_VERSION}
        return Client(
            site=self.name,
            base=f"{self._environ['GITHUB_API_URL']}/repos/{self._environ.get('GITHUB_REPOSITORY')}",
            session=session(token, headers, patience=self._patience, questions=self._graphql),
            token=token,
            loss=loss,
            remedy=self._remedy,
            patience=self._patience,
        )

    def _remedy(self, status: int) -> str:
        if self.is_fork and status in (401, 403, 404):
            return REMEDY_FOR_A_FORK
        return REMEDIES.get(status, "Run the job again when GitHub is well, see https://www.githubstatus.com.")


@dataclass(frozen=True, kw_only=True)
class _Thread:
    client: Client
    number: int
    author: str

    def notes(self) -> Iterator[marked.Posted]:
        for comment in self.client.pages(f"/issues/{self.number}/comments", _Comment, {}):
            # Null once the user was deleted.
            if comment.user and comment.user.login == self.author:
                yield marked.Posted(id=comment.id, text=comment.body or "")

    def create(self, text: str) -> marked.Posted:
        made = self.client.send("POST", f"/issues/{self.number}/comments", {"body": text}, _Comment)
        return marked.Posted(id=made.id, text=text)

    def change(self, note: int, text: str) -> None:
        self.client.send("PATCH", f"/issues/comments/{note}", {"body": text}, _Comment)

    def remove(self, note: int) -> None:
        self.client.delete(f"/issues/comments/{note}")


@dataclass(frozen=True, kw_only=True)
class _Tracker:
    client: Client
    author: str

    def issues(self, label: str) -> Iterator[marked.Issue]:
        for issue in self.client.pages("/issues", _Issue, {"labels": label, "state": "all"}):
            # A pull request is an issue to this list.
            if issue.user and issue.user.login == self.author and issue.pull_request is None:
                is_open = issue.state == "open"
                yield marked.Issue(number=issue.number, title=issue.title, text=issue.body or "", is_open=is_open)

    def create(self, title: str, text: str, label: str) -> None:
        self._send("POST", "/issues", {"title": title, "body": text, "labels": [label]})

    def change(self, issue: int, title: str, text: str) -> None:
        self._send("PATCH", f"/issues/{issue}", {"title": title, "body": text, "state": "open"})

    def comment(self, issue: int, text: str) -> None:
        self.client.send("POST", f"/issues/{issue}/comments", {"body": text}, _Comment)

    def close(self, issue: int) -> None:
        self._send("PATCH", f"/issues/{issue}", {"state": "closed"})

    def _send(self, method: str, path: str, content: Mapping[str, Any]) -> None:
        self.client.send(method, path, content, _Issue)
