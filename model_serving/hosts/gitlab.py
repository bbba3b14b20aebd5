"""Notes, issues and jobs of GitLab, as a job's environment describes where it runs.

Needs a token of its own: a job's CI_JOB_TOKEN may read notes and write none.
https://docs.gitlab.com/ci/variables/predefined_variables/ has the variables, https://docs.gitlab.com/api/notes/ and
https://docs.gitlab.com/api/issues/ what is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

from pydantic import BaseModel

from model_serving.hosts import marked
from model_serving.hosts.rest import Client, Missing, SiteError, Token, session
from model_serving.hosts.runs import Run, RunState
from model_serving.hosts.site import Site

TOKEN: Final = "MODEL_SERVING_GITLAB_TOKEN"  # noqa: S105 - a variable's name
NOTE_LIMIT: Final = 1_000_000
"""Characters of a note, https://docs.gitlab.com/administration/instance_limits/."""
OVER: Final = frozenset({"success", "failed", "canceled", "skipped"})
"""States in which a job's script runs no more. `canceling` is not one: the script gets time to end."""
HOW_TO_GET_A_TOKEN: Final = (
    "Make a project access token (Settings > Access tokens; scope api, role Planner) and put it into the masked "
    f"variable {TOKEN} (Settings > CI/CD > Variables)."
)
REMEDIES: Final = {
    0: "Run the job again when GitLab is reachable from the runner.",
    401: f"The token is wrong, expired or revoked. {HOW_TO_GET_A_TOKEN}",
    403: f"The token's scope or role is too small. {HOW_TO_GET_A_TOKEN} "
    "To read jobs it takes the role Reporter where only members see pipelines.",
    404: f"GitLab also answers 404 to a token that may not see the project or the merge request. {HOW_TO_GET_A_TOKEN}",
    409: "Somebody else is changing the same thing. Run the job again.",
    413: "Raise the limit of the proxy in front of GitLab, or read all of it among the artefacts of this pipeline.",
    429: "GitLab's limit of requests is reached. Run the job again in a few minutes.",
}


class _User(BaseModel):
    id: int


class _Note(BaseModel):
    id: int
    body: str | None
    author: _User | None
    system: bool = False


class _Issue(BaseModel):
    iid: int
    title: str
    description: str | None
    state: str
    author: _User | None


class _Job(BaseModel):
    status: str


class GitLab(Site):
    """GitLab, seen from a job."""

    name = "GitLab"
    note_limit = NOTE_LIMIT - marked.overhead(marked.PREVIEW)

    @property
    def commit(self) -> str:
        """The commit that the pipeline is about: the source branch's, not the one of a merged result."""
        return self._environ.get("CI_MERGE_REQUEST_SOURCE_BRANCH_SHA") or self._environ.get("CI_COMMIT_SHA", "")

    @property
    def is_fork(self) -> bool:
        """Whether the merge request comes from a fork, whose code gets no identity."""
        source = self._environ.get("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "")
        return bool(source) and source != self._environ.get("CI_MERGE_REQUEST_PROJECT_ID", source)

    def this_run(self) -> Run:
        """The job itself."""
        job = self._environ.get("CI_JOB_NAME", "unknown")
        pipeline = self._environ.get("CI_PIPELINE_ID", "unknown")
        return Run(
            name=f"job {job} of pipeline {pipeline}",
            url=self._environ.get("CI_JOB_URL", ""),
            id=self._environ.get("CI_JOB_ID", ""),
        )

    def run_state(self, run: Run) -> RunState:
        """Whether a job's script still runs.

        Raises:
            SiteError: if GitLab cannot be asked.
        """
        # An id of GitHub's, or of a lock that somebody wrote by hand.
        if not re.fullmatch(r"\d+", run.id):
            return "unknown"
        try:
            job = self._client(f"Whether {run.name} still runs is not known.").get(f"/jobs/{run.id}", _Job)
        except Missing:
            return "unknown"
        return "finished" if job.status in OVER else "running"

    def summary(self, body: str) -> None:
        """Nothing: GitLab's jobs have no summary."""

    @property
    def _pipeline(self) -> int:
        return int(self._environ.get("CI_PIPELINE_ID") or 0)

    def _thread(self) -> _Thread:
        number = self._environ.get("CI_MERGE_REQUEST_IID")
        client = self._client("The merge request does not show this result.")
        if not number:
            raise SiteError(
                what="CI_MERGE_REQUEST_IID is not set: this is not a merge request's pipeline",
                consequence="There is no merge request to write into.",
                remedy="Run this in a job with `rules: - if: $CI_PIPELINE_SOURCE == 'merge_request_event'`.",
            )
        return _Thread(client=client, path=f"/merge_requests/{int(number)}/notes", author=self._author)

    def _tracker(self) -> _Tracker:
        return _Tracker(client=self._client("The issue does not show this result."), author=self._author)

    @cached_property
    def _author(self) -> int:
        """Id of the token's user; each project access token has one of its own."""
        client = self._client("Nothing was written, because our own notes cannot be told from other people's.")
        return replace(client, base=self._environ["CI_API_V4_URL"]).get("/user", _User).id

    def _client(self, loss: str) -> Client:
        token = Token("PRIVATE-TOKEN", self._token(loss))
        # In a fork's pipeline, CI_PROJECT_ID is the fork.
        project = self._environ.get("CI_MERGE_REQUEST_PROJECT_ID") or self._environ.get("CI_PROJECT_ID", "")
        made = session(token, {"Accept": "application/json"}, patience=self._patience)
        # A GitLab of one's own may have a certificate of its own; the runner hands over what it trusts.
        made.verify = self._environ.get("CI_SERVER_TLS_CA_FILE") or True
        return Client(
            site=self.name,
            base=f"{self._environ['CI_API_V4_URL']}/projects/{project}",
            session=made,
            token=token,
            loss=loss,
            remedy=lambda status: REMEDIES.get(status, "Run the job again when GitLab is well."),
            patience=self._patience,
        )

    def _token(self, loss: str) -> str:
        if token := self._environ.get(TOKEN):
            return token
        remedy = HOW_TO_GET_A_TOKEN
        if self.is_fork:
            remedy = "That is right for a fork. Read the result among the artefacts of this pipeline."
        elif self._environ.get("CI_COMMIT_REF_PROTECTED") == "false":
            remedy += " Not as a protected one: merge requests' pipelines do not get those."
        raise SiteError(what=f"{TOKEN} is not set", consequence=loss, remedy=remedy)


@dataclass(frozen=True, kw_only=True)
class _Thread:
    client: Client
    path: str
    author: int

    def notes(self) -> Iterator[marked.Posted]:
        for note in self.client.pages(self.path, _Note, {"sort": "asc", "order_by": "created_at"}):
            if note.author and note.author.id == self.author and not note.system:
                yield marked.Posted(id=note.id, text=note.body or "")

    def create(self, text: str) -> marked.Posted:
        return marked.Posted(id=self.client.send("POST", self.path, {"body": _harmless(text)}, _Note).id, text=text)

    def change(self, note: int, text: str) -> None:
        self.client.send("PUT", f"{self.path}/{note}", {"body": _harmless(text)}, _Note)

    def remove(self, note: int) -> None:
        self.client.delete(f"{self.path}/{note}")


@dataclass(frozen=True, kw_only=True)
class _Tracker:
    client: Client
    author: int

    def issues(self, label: str) -> Iterator[marked.Issue]:
        query = {"labels": label, "author_id": str(self.author), "scope": "all", "state": "all"}
        for issue in self.client.pages("/issues", _Issue, query):
            if issue.author and issue.author.id == self.author:
                is_open = issue.state == "opened"
                text = issue.description or ""
                yield marked.Issue(number=issue.iid, title=issue.title, text=text, is_open=is_open)

    def create(self, title: str, text: str, label: str) -> None:
        self._send("POST", "/issues", {"title": title, "description": _harmless(text), "labels": label})

    def change(self, issue: int, title: str, text: str) -> None:
        # Reopening what is open is no mistake to GitLab.
        self._send("PUT", f"/issues/{issue}", {"title": title, "description": _harmless(text), "state_event": "reopen"})

    def comment(self, issue: int, text: str) -> None:
        self.client.send("POST", f"/issues/{issue}/notes", {"body": _harmless(text)}, _Note)

    def close(self, issue: int) -> None:
        self._send("PUT", f"/issues/{issue}", {"state_event": "close"})

    def _send(self, method: str, path: str, content: Mapping[str, Any]) -> None:
        self.client.send(method, path, content, _Issue)


def _harmless(text: str) -> str:
    """A text without orders: GitLab would carry out a line such as /merge in the token's name."""
    return re.sub(r"(?m)^([ \t>]*)/(?=[a-z])", r"\1\\/", text)
