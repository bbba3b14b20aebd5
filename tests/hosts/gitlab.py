"""GitLab's part: notes of merge request 3 of project 7, issues, jobs, the token's user, group/serving's requests."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tests.hosts.api import Answer, Question, page

TOKEN: Final = "glpat-stand-in-of-a-token"  # noqa: S105 - opens nothing
PROJECT: Final = 7
REQUEST: Final = 3
SERVING: Final = "group/serving"
BOT: Final = {"id": 42, "username": "project_7_bot"}
SOMEBODY: Final = {"id": 1, "username": "somebody"}
NOTE_LIMIT: Final = 1_000_000
ISSUE_LIMIT: Final = 1_048_576


def ready() -> dict[str, Any]:
    """The answers of a project whose setup is done, in the form of https://docs.gitlab.com/api/rest/."""
    maintainers = {"access_level": 40, "access_level_description": "Maintainers", "user_id": None, "group_id": None}
    return {
        "": {
            "id": PROJECT,
            "path_with_namespace": "Group/models",
            "ci_allow_fork_pipelines_to_run_in_parent_project": False,
            "resource_group_default_process_mode": "oldest_first",
        },
        "/protected_branches": [{"id": 1, "name": "main", "allow_force_push": False}],
        "/protected_environments": [
            {"name": "production", "deploy_access_levels": [maintainers], "required_approval_count": 0}
        ],
        "/resource_groups": [{"id": 3, "key": "dev", "process_mode": "oldest_first"}],
        "/variables": [
            {"key": "MODEL_SERVING_GITLAB_TOKEN", "value": "glpat-notes", "protected": False, "masked": True},
            {"key": "PULUMI_CONFIG_PASSPHRASE", "value": "never shown", "protected": False, "masked": True},
        ],
        "/access_tokens": [{"id": 58, "name": "notes", "access_level": 15}],
        "/pipeline_schedules": [
            {"id": 13, "ref": "refs/heads/main", "cron": "0 4 * * *", "active": True, "owner": {"username": "root"}}
        ],
        "/runners": [{"id": 8, "status": "online", "paused": False}],
        "/registry/protection/repository/rules": [
            {"id": 1, "repository_path_pattern": "group/models/ci/main", "minimum_access_level_for_push": "maintainer"}
        ],
    }


NOTES: Final = {"id": 58, "name": "notes", "scopes": ["api"], "expires_at": "2027-05-01"}
"""What the token of the variable says of itself."""


@dataclass
class GitLab:
    """What GitLab knows.

    Attributes:
        orders: lines of notes that GitLab took for quick actions.
        requests: merge requests of group/serving.
        has_branch: whether that project has a branch.
        setup: what a question about the project's settings is answered, by its path: content, or a status.
        tokens: what each other token answers of itself.
        uploads: pictures by their name.
    """

    url: str
    notes: list[dict[str, Any]] = field(default_factory=list)
    issues: list[dict[str, Any]] = field(default_factory=list)
    orders: list[str] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    has_branch: Callable[[str], bool] = lambda _: True
    setup: dict[str, Any] = field(default_factory=dict)
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def environ(self, **others: str) -> dict[str, str]:
        """Of a job of pipeline 100 for merge request 3."""
        return {
            "CI_API_V4_URL": f"{self.url}/api/v4",
            "CI_PROJECT_ID": str(PROJECT),
            "CI_MERGE_REQUEST_PROJECT_ID": str(PROJECT),
            "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": str(PROJECT),
            "CI_MERGE_REQUEST_IID": str(REQUEST),
            "CI_COMMIT_SHA": "a" * 40,
            "CI_PIPELINE_ID": "100",
            "CI_JOB_ID": "1000",
            "CI_JOB_NAME": "note",
            "CI_JOB_URL": f"{self.url}/jobs/1000",
            "MODEL_SERVING_GITLAB_TOKEN": TOKEN,
            **others,
        }

    def write(self, body: str, *, author: dict[str, Any] | None = None, system: bool = False) -> dict[str, Any]:
        """Puts a note below the merge request."""
        note = {"id": next(self._ids), "body": body, "author": author or BOT, "system": system}
        self.notes.append(note)
        return note

    def texts(self) -> list[str]:
        """Of the notes that people see."""
        return [note["body"] for note in self.notes if not note["system"]]

    def answer(self, question: Question) -> Answer:
        path, token = question.path.removeprefix("/api/v4"), question.headers.get("private-token", "")
        if path == "/personal_access_tokens/self" and token in self.tokens:
            return Answer(200, self.tokens[token])
        if token != TOKEN:
            return Answer(401, {"message": "401 Unauthorized"})
        if path == "/user":
            return Answer(200, BOT)
        if path == f"/projects/{SERVING.replace('/', '%2F')}/merge_requests":
            return self._request(question)
        return self._own(question, path)

    def _own(self, question: Question, path: str) -> Answer:
        own = f"/projects/{PROJECT}"
        if (asked := path.removeprefix(own)) in self.setup and question.method == "GET":
            content = self.setup[asked]
            if isinstance(content, int):
                return Answer(content, {"message": f"{content} as told"})
            return page(question, content, default=20) if isinstance(content, list) else Answer(200, content)
        if not path.startswith(f"{own}/"):
            return Answer(404, {"message": "404 Project Not Found"})
        for pattern, methods in self._routes().items():
            if found := re.fullmatch(pattern, path.removeprefix(own)):
                if question.method not in methods:
                    return Answer(405, {"error": "405 Not Allowed"})
                return methods[question.method](question, *(int(part) for part in found.groups()))  # type: ignore[no-any-return]
        return Answer(404, {"error": "404 Not Found"})

    def _routes(self) -> dict[str, dict[str, Any]]:
        notes = f"/merge_requests/{REQUEST}/notes"
        return {
            notes: {"GET": self._list_notes, "POST": self._create_note},
            rf"{notes}/(\d+)": {"PUT": self._change_note, "DELETE": self._remove_note},
            "/issues": {"GET": self._list_issues, "POST": self._create_issue},
            r"/issues/(\d+)": {"PUT": self._change_issue},
            r"/issues/(\d+)/notes": {"POST": self._comment},
            "/uploads": {"POST": self._upload},
        }

    def _list_notes(self, question: Question) -> Answer:
        newest_first = question.query.get("sort", "desc") == "desc"
        return page(question, sorted(self.notes, key=lambda note: note["id"], reverse=newest_first), default=20)

    def _create_note(self, question: Question) -> Answer:
        return Answer(201, self.write(self._text(question, "body", NOTE_LIMIT)))

    def _change_note(self, question: Question, number: int) -> Answer:
        note = self._own_note(number)
        note["body"] = self._text(question, "body", NOTE_LIMIT)
        return Answer(200, note)

    def _remove_note(self, _: Question, number: int) -> Answer:
        self.notes.remove(self._own_note(number))
        return Answer(204)

    def _own_note(self, number: int) -> dict[str, Any]:
        for note in self.notes:
            if note["id"] == number:
                if note["author"] != BOT:
                    raise Answer(403, {"message": "403 Forbidden"})
                return note
        raise Answer(404, {"message": "404 Note Not Found"})

    def _request(self, question: Question) -> Answer:
        if question.method == "GET":
            keys = {"source_branch", "target_branch", "state"} & question.query.keys()
            found = [each for each in self.requests if all(each[key] == question.query[key] for key in keys)]
            return page(question, found[::-1], default=20)
        if question.method != "POST":
            return Answer(405, {"error": "405 Not Allowed"})
        content = question.json()
        for key in ("source_branch", "target_branch", "title"):
            if not content.get(key):
                return Answer(400, {"error": f"{key} is missing"})
        for key in ("source_branch", "target_branch"):
            if not self.has_branch(content[key]):
                return Answer(400, {"message": {key: ["does not exist"]}})
        for each in self.requests:
            if each["state"] == "opened" and each["source_branch"] == content["source_branch"]:
                said = f"Another open merge request already exists for this source branch: !{each['iid']}"
                return Answer(409, {"message": [said]})
        self._text(question, "description", ISSUE_LIMIT)
        iid = len(self.requests) + 1
        url = f"{self.url}/{SERVING}/-/merge_requests/{iid}"
        self.requests.append({**content, "iid": iid, "state": "opened", "web_url": url, "author": BOT})
        return Answer(201, self.requests[-1])

    def _list_issues(self, question: Question) -> Answer:
        state = question.query.get("state", "all")
        author = question.query.get("author_id")
        found = [
            issue
            for issue in reversed(self.issues)
            if question.query["labels"] in issue["labels"]
            and state in ("all", issue["state"])
            and author in (None, str(issue["author"]["id"]))
        ]
        return page(question, found, default=20)

    def _create_issue(self, question: Question) -> Answer:
        content = question.json()
        if not content.get("title"):
            return Answer(400, {"error": "title is missing"})
        issue = {
            "iid": len(self.issues) + 1,
            "title": content["title"],
            "description": self._text(question, "description", ISSUE_LIMIT),
            "labels": content.get("labels", "").split(","),
            "state": "opened",
            "author": BOT,
            "comments": [],
        }
        self.issues.append(issue)
        return Answer(201, issue)

    def _change_issue(self, question: Question, number: int) -> Answer:
        issue = self._issue(number)
        content = question.json()
        if not content.keys() & {"title", "description", "state_event"}:
            return Answer(400, {"error": "title, description, state_event are missing, at least one is required"})
        if "description" in content:
            issue["description"] = self._text(question, "description", ISSUE_LIMIT)
        issue["title"] = content.get("title", issue["title"])
        states = {"close": "closed", "reopen": "opened"}
        issue["state"] = states[content["state_event"]] if "state_event" in content else issue["state"]
        return Answer(200, issue)

    def _comment(self, question: Question, number: int) -> Answer:
        text = self._text(question, "body", NOTE_LIMIT)
        self._issue(number)["comments"].append(text)
        return Answer(201, {"id": next(self._ids), "body": text, "author": BOT})

    def _issue(self, number: int) -> dict[str, Any]:
        if not 0 < number <= len(self.issues):
            raise Answer(404, {"message": "404 Issue Not Found"})
        return self.issues[number - 1]

    def _upload(self, question: Question) -> Answer:
        found = re.search(rb'filename="([^"]+)"(?:\r\n[^\r]+)*\r\n\r\n(\x89PNG.*?)\r\n--', question.content, re.DOTALL)
        if not found:
            return Answer(400, {"error": "file is invalid"})
        name = found[1].decode()
        self.uploads[name] = found[2]
        url = f"/uploads/{len(self.uploads):032x}/{name}"
        return Answer(201, {"alt": name, "url": url, "markdown": f"![{name}]({url})"})

    def _text(self, question: Question, key: str, limit: int) -> str:
        text: str = question.json().get(key) or ""
        if not text:
            raise Answer(400, {"error": f"{key} is missing"})
        if len(text) > limit:
            said = f'400 Bad request - Note {{:note=>["is too long (maximum is {limit} characters)"]}}'
            raise Answer(400, {"message": said})
        self.orders += re.findall(r"(?mi)^\s*/[a-z]\w*", text)
        return text
