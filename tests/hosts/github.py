"""GitHub's part: pull request 5 of owner/models, issues, jobs and runs, the token's user, owner/serving's requests."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.hosts.api import Answer, Question, page

TOKEN: Final = "ghs_stand-in-of-a-token"  # noqa: S105 - opens nothing
REPOSITORY: Final = "owner/models"
REQUEST: Final = 5
SERVING: Final = "owner/serving"
BOT: Final = {"login": "github-actions[bot]"}
SOMEBODY: Final = {"login": "somebody"}
LIMIT: Final = 65_536


def ready() -> dict[str, Any]:
    """The answers of a repository whose setup is done, in the form of https://docs.github.com/en/rest."""
    policy = {"protected_branches": False, "custom_branch_policies": True}
    reviewers = {"type": "required_reviewers", "reviewers": [{"type": "User", "reviewer": {"login": "octocat"}}]}
    only_main = {"total_count": 1, "branch_policies": [{"id": 1, "name": "main"}]}
    return {
        "": {"id": 34, "full_name": REPOSITORY, "private": True, "owner": {"id": 56, "login": "owner"}},
        "/branches/main": {"name": "main", "protected": True},
        "/environments/dev": {"name": "dev", "protection_rules": [], "deployment_branch_policy": policy},
        "/environments/production": {
            "name": "production",
            "protection_rules": [{"type": "branch_policy"}, reviewers],
            "deployment_branch_policy": policy,
        },
        "/environments/dev/deployment-branch-policies": only_main,
        "/environments/production/deployment-branch-policies": only_main,
        "/actions/secrets": {"total_count": 1, "secrets": [{"name": "PULUMI_CONFIG_PASSPHRASE"}]},
        "/actions/workflows/mlops.yml": {"id": 1, "path": ".github/workflows/mlops.yml", "state": "active"},
        "/actions/permissions/fork-pr-workflows-private-repos": {
            "run_workflows_from_fork_pull_requests": False,
            "send_write_tokens_to_workflows": False,
            "send_secrets_and_variables": False,
            "require_approval_for_fork_pr_workflows": False,
        },
    }


@dataclass
class GitHub:
    """What GitHub knows.

    Attributes:
        requests: pull requests of owner/serving.
        has_branch: whether that repository has a branch.
        setup: what a question about the repository's settings is answered, by its path: content, or a status.
    """

    url: str
    comments: list[dict[str, Any]] = field(default_factory=list)
    issues: list[dict[str, Any]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    has_branch: Callable[[str], bool] = lambda _: True
    setup: dict[str, Any] = field(default_factory=dict)
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def environ(self, folder: Path, *, head: str = "a" * 40, source: str = REPOSITORY, **others: str) -> dict[str, str]:
        """Of a job of run 100 for pull request 5, whose event and summary are files in a folder."""
        event = folder / f"event-{head[:8]}.json"
        request = {"number": REQUEST, "head": {"sha": head, "repo": {"full_name": source}}}
        event.write_text(json.dumps({"pull_request": request}))
        return {
            "GITHUB_API_URL": f"{self.url}/api/v3",
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_SERVER_URL": self.url,
            "GITHUB_EVENT_NAME": "pull_request",
            "GITHUB_EVENT_PATH": str(event),
            "GITHUB_SHA": "f" * 40,
            "GITHUB_RUN_ID": "100",
            "GITHUB_RUN_ATTEMPT": "1",
            "GITHUB_JOB": "note",
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
            "GITHUB_TOKEN": TOKEN,
            **others,
        }

    def write(self, body: str, *, author: dict[str, Any] | None = None) -> dict[str, Any]:
        """Puts a comment below the pull request."""
        comment = {"id": next(self._ids), "body": body, "user": author or BOT}
        self.comments.append(comment)
        return comment

    def texts(self) -> list[str]:
        """Of the comments."""
        return [comment["body"] for comment in self.comments]

    def answer(self, question: Question) -> Answer:
        if refusal := self._refusal(question):
            return refusal
        if question.path == "/api/graphql":
            return self._viewer(question)
        if question.path == f"/api/v3/repos/{SERVING}/pulls":
            return self._request(question)
        return self._own(question)

    def _own(self, question: Question) -> Answer:
        own = f"/api/v3/repos/{REPOSITORY}"
        if (asked := question.path.removeprefix(own)) in self.setup and question.method == "GET":
            content = self.setup[asked]
            told = isinstance(content, int)
            return Answer(content, {"message": "as told"}) if told else Answer(200, content)
        if not question.path.startswith(f"{own}/"):
            return Answer(404, {"message": "Not Found"})
        for pattern, methods in self._routes().items():
            if found := re.fullmatch(pattern, question.path.removeprefix(own)):
                if question.method not in methods:
                    return Answer(404, {"message": "Not Found"})
                return methods[question.method](question, *found.groups())  # type: ignore[no-any-return]
        return Answer(404, {"message": "Not Found"})

    def _refusal(self, question: Question) -> Answer | None:
        if question.headers.get("authorization") not in (f"Bearer {TOKEN}", f"token {TOKEN}"):
            return Answer(401, {"message": "Bad credentials"})
        if not question.headers.get("user-agent"):
            return Answer(403, {"message": "Request forbidden by administrative rules."})
        if question.headers.get("accept") not in ("*/*", "application/json", "application/vnd.github+json"):
            return Answer(415, {"message": "Unsupported 'Accept' header"})
        if question.headers.get("x-github-api-version") != "2022-11-28":
            return Answer(400, {"message": "No version of the API was asked for"})
        return None

    def _routes(self) -> dict[str, dict[str, Any]]:
        return {
            r"/issues": {"GET": self._list_issues, "POST": self._create_issue},
            r"/issues/(\d+)": {"PATCH": self._change_issue},
            r"/issues/(\d+)/comments": {"GET": self._list_comments, "POST": self._create_comment},
            r"/issues/comments/(\d+)": {"PATCH": self._change_comment, "DELETE": self._remove_comment},
        }

    def _viewer(self, question: Question) -> Answer:
        if "viewer" not in question.json()["query"]:
            return Answer(200, {"errors": [{"message": "unknown query"}]})
        return Answer(200, {"data": {"viewer": BOT}})

    def _list_comments(self, question: Question, number: str) -> Answer:
        if int(number) != REQUEST:
            return Answer(404, {"message": "Not Found"})
        return page(question, self.comments, default=30)

    def _create_comment(self, question: Question, number: str) -> Answer:
        text = self._text(question)
        if int(number) == REQUEST:
            return Answer(201, self.write(text))
        self._issue(number)["comments"].append(text)
        return Answer(201, {"id": next(self._ids), "body": text, "user": BOT})

    def _change_comment(self, question: Question, number: str) -> Answer:
        comment = self._comment(number)
        comment["body"] = self._text(question)
        return Answer(200, comment)

    def _remove_comment(self, _: Question, number: str) -> Answer:
        self.comments.remove(self._comment(number))
        return Answer(204)

    def _comment(self, number: str) -> dict[str, Any]:
        for comment in self.comments:
            if comment["id"] == int(number):
                return comment
        raise Answer(404, {"message": "Not Found"})

    def _request(self, question: Question) -> Answer:
        if question.method == "GET":
            owner, _, head = question.query["head"].partition(":")
            wanted = {"head": head, "base": question.query["base"], "state": question.query.get("state", "open")}
            found = [each for each in self.requests if all(each[key] == value for key, value in wanted.items())]
            return page(question, found[::-1] if owner == SERVING.partition("/")[0] else [], default=30)
        if question.method != "POST":
            return Answer(404, {"message": "Not Found"})
        content = question.json()
        for key in ("head", "base", "title"):
            if not content.get(key) or (key != "title" and not self.has_branch(content[key])):
                error = {"resource": "PullRequest", "field": key, "code": "invalid"}
                return Answer(422, {"message": "Validation Failed", "errors": [error]})
        for each in self.requests:
            if each["state"] == "open" and (each["head"], each["base"]) == (content["head"], content["base"]):
                error = {"message": f"A pull request already exists for {SERVING.partition('/')[0]}:{content['head']}."}
                return Answer(422, {"message": "Validation Failed", "errors": [error]})
        self._text(question)
        number = len(self.requests) + 1
        url = f"{self.url}/{SERVING}/pull/{number}"
        self.requests.append({**content, "number": number, "state": "open", "html_url": url, "user": BOT})
        return Answer(201, self.requests[-1])

    def _list_issues(self, question: Question) -> Answer:
        state = question.query.get("state", "open")
        found = [
            issue
            for issue in reversed(self.issues)
            if question.query["labels"] in issue["labels"] and state in ("all", issue["state"])
        ]
        return page(question, found, default=30)

    def _create_issue(self, question: Question) -> Answer:
        content = question.json()
        if not content.get("title"):
            return Answer(422, {"message": "Validation Failed"})
        if any(len(label) > 50 for label in content.get("labels", [])):
            return Answer(422, {"message": "Validation Failed", "errors": [{"field": "name"}]})
        issue = {
            # Numbers are shared with pull requests.
            "number": REQUEST + len(self.issues) + 1,
            "title": content["title"],
            "body": self._text(question),
            "labels": content.get("labels", []),
            "state": "open",
            "user": BOT,
            "comments": [],
        }
        self.issues.append(issue)
        return Answer(201, issue)

    def _change_issue(self, question: Question, number: str) -> Answer:
        issue = self._issue(number)
        content = question.json()
        if "body" in content:
            self._text(question)
        issue.update({key: content[key] for key in ("title", "body", "state") if key in content})
        return Answer(200, issue)

    def _issue(self, number: str) -> dict[str, Any]:
        for issue in self.issues:
            if issue["number"] == int(number):
                return issue
        raise Answer(404, {"message": "Not Found"})

    def _text(self, question: Question) -> str:
        text: str = question.json().get("body") or ""
        if not text:
            raise Answer(422, {"message": "Validation Failed"})
        if len(text) > LIMIT:
            error = {"message": f"Body is too long (maximum is {LIMIT} characters)"}
            raise Answer(422, {"message": "Validation Failed", "errors": [error]})
        return text
