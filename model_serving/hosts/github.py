"""Comments, issues and runs of GitHub, from inside a job.

Variables: https://docs.github.com/en/actions/reference/workflows-and-actions/variables.
"""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from model_serving.hosts import marked
from model_serving.hosts.access import REDIRECTS, Access, Missing, SiteError
from model_serving.hosts.site import Run, Site

if TYPE_CHECKING:
    from github.Issue import Issue
    from github.Repository import Repository

TOKEN: Final = "GITHUB_TOKEN"  # noqa: S105 - a variable's name
JOB_ID: Final = "MODEL_SERVING_GITHUB_JOB"
"""Optional, ``${{ job.check_run_id }}``: then the job is named instead of the whole run."""
NOTE_LIMIT: Final = 65_536
"""Characters of a comment or an issue; GitHub answers 422 to a longer one."""
SUMMARY_BYTES: Final = 1024 * 1024
"""Of all summaries of one step, https://docs.github.com/en/actions/reference/limits."""
API_VERSION: Final = "2022-11-28"
REMEDIES: Final = {
    0: "Run the job again when GitHub is reachable from the runner.",
    **dict.fromkeys(REDIRECTS, "The repository was renamed or moved. Start a new run, which has its new name."),
    401: f"Pass the job's token: `env: {TOKEN}: ${{{{ github.token }}}}`.",
    403: "Give the job `permissions:` with `pull-requests: write` for notes, `issues: write` for issues and "
    "`actions: read` for runs.",
    404: "GitHub also answers 404 to a token that may not see it: give the job `permissions:` with `contents: read` "
    "and `pull-requests: write`, for issues `issues: write`.",
    409: "Something else is changing it at the same time. Run the job again.",
    410: "Enable issues: Settings > General > Features.",
    413: "The whole text is in the job's summary.",
    422: "The whole text is in the job's summary.",
    429: "GitHub's rate limit is reached. Run the job again in a few minutes.",
}
REMEDY_FOR_A_FORK: Final = "This is normal for a fork, whose token may only read. The result is in the job's summary."


class GitHub(Site):
    """GitHub, from inside a job."""

    name = "GitHub"
    note_limit = NOTE_LIMIT - marked.overhead(marked.PREVIEW)

    @property
    def commit(self) -> str:
        """The commit that the run is about; GITHUB_SHA of a pull request is a merge that no one has pushed."""
        head = self._pull_request.get("head") or {}
        return str(head.get("sha") or self._environ.get("GITHUB_SHA", ""))

    @property
    def is_fork(self) -> bool:
        if not self._pull_request:
            return False
        # Null after the fork was deleted.
        source = (self._pull_request.get("head") or {}).get("repo") or {}
        return bool(source.get("full_name") != self._environ.get("GITHUB_REPOSITORY"))

    @property
    def request(self) -> int | None:
        return int(self._pull_request.get("number") or 0) or None

    @property
    def target(self) -> str:
        return self._environ.get("GITHUB_BASE_REF", "")

    @property
    def start(self) -> str:
        """The target's commit when the run was started, which GITHUB_SHA of a pull request is merged with."""
        return str((self._pull_request.get("base") or {}).get("sha") or "")

    def this_run(self) -> Run:
        """The job itself if the workflow says which it is, else the run."""
        number = self._environ.get("GITHUB_RUN_ID", "")
        attempt = self._environ.get("GITHUB_RUN_ATTEMPT", "1")
        job = self._environ.get(JOB_ID)
        url = f"{self._environ.get('GITHUB_SERVER_URL')}/{self._environ.get('GITHUB_REPOSITORY')}/actions/runs/{number}"
        return Run(
            name=f"job {self._environ.get('GITHUB_JOB', 'unknown')} of run {number}, attempt {attempt}",
            url=f"{url}/job/{job}" if job else f"{url}/attempts/{attempt}",
        )

    def summary(self, body: str) -> None:
        """Appends to the job's summary; a text that is too long for it is only mentioned."""
        if not (name := self._environ.get("GITHUB_STEP_SUMMARY")):
            return
        path = Path(name)
        taken = path.stat().st_size if path.exists() else 0
        if taken + len(body.encode()) + 1 > SUMMARY_BYTES:
            body = "*This summary is too long for GitHub. The whole text is in the artefacts of this run.*"
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{body}\n")

    def warn(self, text: str) -> int:
        # https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands#setting-a-warning-message
        escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
        print(f"::warning::{escaped}", flush=True)
        return 0

    @property
    def _pipeline(self) -> int:
        return int(self._environ.get("GITHUB_RUN_ID") or 0)

    @contextmanager
    def _thread(self) -> Iterator["_Thread"]:
        number = self._pull_request.get("number")
        if number is None:
            raise SiteError(
                what=f"this run was not started by a pull request, but by {self._environ.get('GITHUB_EVENT_NAME')}",
                consequence="There is no pull request to write to.",
                remedy="Run this in a workflow with `on: pull_request`.",
            )
        with self.repository("The pull request does not show this result.") as repository:
            yield _Thread(issue=repository.get_issue(number), author=self._author)

    @contextmanager
    def _tracker(self) -> Iterator["_Tracker"]:
        with self.repository("The issue does not show this result.") as repository:
            yield _Tracker(repository=repository, author=self._author)

    @cached_property
    def _pull_request(self) -> dict[str, Any]:
        """The pull request in the event; empty if there is none."""
        path = Path(self._environ.get("GITHUB_EVENT_PATH", ""))
        found = json.loads(path.read_text(encoding="utf-8")).get("pull_request") if path.is_file() else None
        return dict(found or {})

    @cached_property
    def _author(self) -> str:
        """Login of the token's user. GraphQL works with every kind of token, GET /user not with a job's."""
        loss = "Nothing was written, because this project's notes cannot be told from other people's."
        with self.repository(loss, is_question=True) as repository:
            _, found = repository.requester.graphql_query("query { viewer { login } }", {})
            return str(found["data"]["viewer"]["login"])

    def repository(self, loss: str, *, is_question: bool = False) -> "AbstractContextManager[Repository]":
        """A block that sends requests about the job's repository; ``loss`` is the consequence of a failure."""
        token = self._environ.get(TOKEN)
        if not token:
            raise SiteError(what=f"{TOKEN} is not set", consequence=loss, remedy=self._remedy(401))
        access = Access(
            site=self.name,
            api=self._environ["GITHUB_API_URL"],
            token=token,
            loss=loss,
            remedy=self._remedy,
            patience=self._patience,
        )
        return connected(access, self._environ.get("GITHUB_REPOSITORY", ""), is_question=is_question)

    def _remedy(self, status: int) -> str:
        if self.is_fork and status in (401, 403, 404):
            return REMEDY_FOR_A_FORK
        return REMEDIES.get(status, "Run the job again when GitHub works again, see https://www.githubstatus.com.")


def answered(access: Access) -> "AbstractContextManager[None]":
    """A block that asks GitHub; an answer that is not understood becomes a `SiteError`."""
    import github  # noqa: PLC0415

    from model_serving.hosts.rest import answers  # noqa: PLC0415

    return answers(access, github.GithubException)


@contextmanager
def connected(access: Access, name: str, *, is_question: bool = False) -> "Iterator[Repository]":
    """A block that sends requests about a repository; failures in it become a `SiteError`.

    Args:
        access: to the API.
        name: the repository's, with its owner.
        is_question: whether a POST changes nothing either, as with a query of GraphQL, and may be repeated.
    """
    # Imported here, so that commands on a laptop do not wait for them.
    import github  # noqa: PLC0415

    from model_serving.hosts.rest import PER_PAGE, REPEATABLE, USER_AGENT, RetryPolicy  # noqa: PLC0415

    client = github.Github(
        auth=github.Auth.Token(access.token),
        base_url=access.api,
        timeout=access.patience.timeout_seconds,
        user_agent=USER_AGENT,
        per_page=PER_PAGE,
        verify=access.authorities or True,
        retry=RetryPolicy(access=access, allowed_methods=REPEATABLE | ({"POST"} if is_question else set())),
        # GitHub itself reports too many requests.
        seconds_between_requests=None,
        seconds_between_writes=None,
        lazy=True,
        api_version=API_VERSION,
    )
    with client, answered(access):
        yield client.get_repo(name)


def pages(of: "Repository | Issue", path: str, **query: str) -> Iterator[dict[str, Any]]:
    """A whole list, page by page; not by the addresses in the Link header, so that no other host gets the token."""
    for number in count(1):
        query |= {"per_page": str(of.requester.per_page), "page": str(number)}
        headers, page = of.requester.requestJsonAndCheck("GET", f"{of.url}{path}", query)
        yield from page
        if 'rel="next"' not in headers.get("link", ""):
            return


@dataclass(frozen=True, kw_only=True)
class _Thread:
    issue: "Issue"
    author: str

    def notes(self) -> Iterator[marked.Posted]:
        for comment in pages(self.issue, "/comments"):
            # Null after the user was deleted.
            if comment["user"] and comment["user"]["login"] == self.author:
                yield marked.Posted(id=comment["id"], text=comment["body"] or "")

    def create(self, text: str) -> marked.Posted:
        return marked.Posted(id=self.issue.create_comment(text).raw_data["id"], text=text)

    def change(self, note: int, text: str) -> None:
        self.issue.get_comment(note).edit(text)

    def remove(self, note: int) -> None:
        with suppress(Missing):
            self.issue.get_comment(note).delete()


@dataclass(frozen=True, kw_only=True)
class _Tracker:
    repository: "Repository"
    author: str

    def issues(self, label: str) -> Iterator[marked.Issue]:
        for issue in pages(self.repository, "/issues", labels=label, state="all"):
            # This list also has the pull requests.
            if issue["user"] and issue["user"]["login"] == self.author and issue.get("pull_request") is None:
                is_open = issue["state"] == "open"
                text = issue["body"] or ""
                yield marked.Issue(number=issue["number"], title=issue["title"], text=text, is_open=is_open)

    def create(self, title: str, text: str, label: str) -> None:
        self.repository.create_issue(title, text, labels=[label])

    def change(self, issue: int, title: str, text: str) -> None:
        self.repository.get_issue(issue).edit(title=title, body=text, state="open")

    def comment(self, issue: int, text: str) -> None:
        self.repository.get_issue(issue).create_comment(text)

    def close(self, issue: int) -> None:
        self.repository.get_issue(issue).edit(state="closed")
