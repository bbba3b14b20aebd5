"""Notes, issues and jobs of GitLab, from inside a job.

It needs a token of its own: a job's CI_JOB_TOKEN may read notes, but not write them.
Variables: https://docs.gitlab.com/ci/variables/predefined_variables/.
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from model_serving.hosts import marked
from model_serving.hosts.access import REDIRECTS, Access, Missing, SiteError
from model_serving.hosts.site import WARNING, Run, Site

if TYPE_CHECKING:
    from gitlab.v4.objects import Project, ProjectIssueManager, ProjectMergeRequestNoteManager

TOKEN: Final = "MODEL_SERVING_GITLAB_TOKEN"  # noqa: S105 - a variable's name
NOTE_LIMIT: Final = 1_000_000
"""Characters of a note, https://docs.gitlab.com/administration/instance_limits/."""
HOW_TO_GET_A_TOKEN: Final = (
    "Create a project access token (Settings > Access tokens; scope api, role Planner), and set it as the masked "
    f"variable {TOKEN} (Settings > CI/CD > Variables)."
)
REMEDIES: Final = {
    0: "Run the job again when GitLab is reachable from the runner.",
    **dict.fromkeys(
        REDIRECTS, "No redirect is followed, because the token would go along. Correct external_url of GitLab."
    ),
    401: f"The token is wrong, expired or revoked. {HOW_TO_GET_A_TOKEN}",
    403: f"The token's scope or role is insufficient. {HOW_TO_GET_A_TOKEN} "
    "If only members see pipelines, reading jobs needs the role Reporter.",
    404: f"GitLab also answers 404 to a token that may not see the project or the merge request. {HOW_TO_GET_A_TOKEN}",
    409: "Something else is changing it at the same time. Run the job again.",
    413: "The whole text is in the artefacts of this pipeline. Or raise the limit of the proxy in front of GitLab.",
    429: "GitLab's rate limit is reached. Run the job again in a few minutes.",
}


class GitLab(Site):
    """GitLab, from inside a job."""

    name = "GitLab"
    note_limit = NOTE_LIMIT - marked.overhead(marked.PREVIEW)
    takes_uploads = True

    @property
    def commit(self) -> str:
        """The commit that the pipeline is about: that of the source branch, not of a merged result."""
        return self._environ.get("CI_MERGE_REQUEST_SOURCE_BRANCH_SHA") or self._environ.get("CI_COMMIT_SHA", "")

    @property
    def is_fork(self) -> bool:
        source = self._environ.get("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "")
        return bool(source) and source != self._environ.get("CI_MERGE_REQUEST_PROJECT_ID", source)

    @property
    def request(self) -> int | None:
        return int(self._environ.get("CI_MERGE_REQUEST_IID") or 0) or None

    @property
    def target(self) -> str:
        return self._environ.get("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "")

    @property
    def start(self) -> str:
        return self._environ.get("CI_MERGE_REQUEST_DIFF_BASE_SHA", "")

    def this_run(self) -> Run:
        job = self._environ.get("CI_JOB_NAME", "unknown")
        pipeline = self._environ.get("CI_PIPELINE_ID", "unknown")
        return Run(
            name=f"job {job} of pipeline {pipeline}",
            url=self._environ.get("CI_JOB_URL", ""),
        )

    def summary(self, body: str) -> None:
        """Nothing: GitLab's jobs have no summary."""

    def warn(self, text: str) -> int:
        # The jobs have `allow_failure: exit_codes`: GitLab has no other way to show a warning.
        print(f"WARNING: {text}", flush=True)
        return WARNING

    def upload(self, name: str, content: bytes) -> str:
        with self._project("The note shows its plots as text.") as project:
            return str(project.upload(name, filedata=content)["markdown"])

    @property
    def _pipeline(self) -> int:
        return int(self._environ.get("CI_PIPELINE_ID") or 0)

    @contextmanager
    def _thread(self) -> Iterator["_Thread"]:
        number = self._environ.get("CI_MERGE_REQUEST_IID")
        with self._project("The merge request does not show this result.") as project:
            if not number:
                raise SiteError(
                    what="CI_MERGE_REQUEST_IID is not set: this is not a merge request pipeline",
                    consequence="There is no merge request to write to.",
                    remedy="Run this in a job with `rules: - if: $CI_PIPELINE_SOURCE == 'merge_request_event'`.",
                )
            yield _Thread(manager=project.mergerequests.get(int(number), lazy=True).notes, author=self._author)

    @contextmanager
    def _tracker(self) -> Iterator["_Tracker"]:
        with self._project("The issue does not show this result.") as project:
            yield _Tracker(manager=project.issues, author=self._author)

    @cached_property
    def _author(self) -> int:
        """ID of the token's user; each project access token has its own."""
        from gitlab.v4.objects import CurrentUserManager  # noqa: PLC0415

        loss = "Nothing was written, because this project's notes cannot be told from other people's."
        with self._project(loss) as project:
            return int(CurrentUserManager(project.manager.gitlab).get().id)

    def _project(self, loss: str) -> "AbstractContextManager[Project]":
        access = Access(
            site=self.name,
            api=self._environ["CI_API_V4_URL"],
            token=self._token(loss),
            loss=loss,
            remedy=lambda status: REMEDIES.get(status, "Run the job again when GitLab works again."),
            patience=self._patience,
            # A self-managed GitLab may have a private certificate authority, which the runner passes on.
            authorities=self._environ.get("CI_SERVER_TLS_CA_FILE"),
        )
        # In a fork's pipeline, CI_PROJECT_ID is the fork.
        name = self._environ.get("CI_MERGE_REQUEST_PROJECT_ID") or self._environ.get("CI_PROJECT_ID", "")
        return connected(access, name)

    def _token(self, loss: str) -> str:
        if token := self._environ.get(TOKEN):
            return token
        remedy = HOW_TO_GET_A_TOKEN
        if self.is_fork:
            remedy = "This is normal for a fork. The result is in the artefacts of this pipeline."
        elif self._environ.get("CI_COMMIT_REF_PROTECTED") == "false":
            remedy += " Do not protect it: merge request pipelines do not get protected variables."
        raise SiteError(what=f"{TOKEN} is not set", consequence=loss, remedy=remedy)


def answered(access: Access) -> "AbstractContextManager[None]":
    """A block that asks GitLab; an answer that is not understood becomes a `SiteError`."""
    import gitlab  # noqa: PLC0415

    from model_serving.hosts.rest import answers  # noqa: PLC0415

    return answers(access, gitlab.GitlabError)


@contextmanager
def connected(access: Access, name: str) -> "Iterator[Project]":
    """A block that sends requests about a project, by its path or number; failures in it become a `SiteError`."""
    # Imported here, so that commands on a laptop do not wait for them.
    import gitlab  # noqa: PLC0415
    import requests  # noqa: PLC0415

    from model_serving.hosts.rest import PER_PAGE, USER_AGENT, RetryPolicy  # noqa: PLC0415

    session = requests.Session()
    client = gitlab.Gitlab(
        access.api.rstrip("/").removesuffix("/api/v4"),
        private_token=access.token,
        ssl_verify=access.authorities or True,
        timeout=access.patience.timeout_seconds,
        per_page=PER_PAGE,
        user_agent=USER_AGENT,
        keep_base_url=True,
        session=session,
    )
    # No adapter for any other address: requests would also send GitLab's header wherever a redirect or a list's next
    # page leads.
    session.adapters.clear()
    session.mount(f"{client.api_url}/", requests.adapters.HTTPAdapter(max_retries=RetryPolicy(access=access)))
    with client, answered(access):
        yield client.projects.get(name, lazy=True)


@dataclass(frozen=True, kw_only=True)
class _Thread:
    manager: "ProjectMergeRequestNoteManager"
    author: int

    def notes(self) -> Iterator[marked.Posted]:
        for note in self.manager.list(iterator=True, sort="asc", order_by="created_at"):
            if note.author and note.author["id"] == self.author and not note.system:
                yield marked.Posted(id=note.id, text=note.body or "")

    def create(self, text: str) -> marked.Posted:
        return marked.Posted(id=self.manager.create({"body": _harmless(text)}).id, text=text)

    def change(self, note: int, text: str) -> None:
        self.manager.update(note, {"body": _harmless(text)})

    def remove(self, note: int) -> None:
        with suppress(Missing):
            self.manager.delete(note)


@dataclass(frozen=True, kw_only=True)
class _Tracker:
    manager: "ProjectIssueManager"
    author: int

    def issues(self, label: str) -> Iterator[marked.Issue]:
        query = {"labels": label, "author_id": self.author, "scope": "all", "state": "all"}
        for issue in self.manager.list(iterator=True, **query):
            if issue.author and issue.author["id"] == self.author:
                is_open = issue.state == "opened"
                text = issue.description or ""
                yield marked.Issue(number=issue.iid, title=issue.title, text=text, is_open=is_open)

    def create(self, title: str, text: str, label: str) -> None:
        self.manager.create({"title": title, "description": _harmless(text), "labels": label})

    def change(self, issue: int, title: str, text: str) -> None:
        # GitLab accepts reopening an open one.
        self.manager.update(issue, {"title": title, "description": _harmless(text), "state_event": "reopen"})

    def comment(self, issue: int, text: str) -> None:
        self.manager.get(issue, lazy=True).notes.create({"body": _harmless(text)})

    def close(self, issue: int) -> None:
        self.manager.update(issue, {"state_event": "close"})


def _harmless(text: str) -> str:
    """A text without quick actions: GitLab would carry out a line such as /merge or /Merge in the token's name."""
    return re.sub(r"(?mi)^([ \t>]*)/(?=[a-z])", r"\1\\/", text)
