"""What GitHub alone does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from model_serving.hosts.access import SiteError
from model_serving.hosts.github import SUMMARY_BYTES, GitHub
from model_serving.hosts.marked import PREVIEW
from tests.hosts import AT_ONCE, Server, serving
from tests.hosts.server import Fault


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def make(server: Server, folder: Path, *, source: str = "owner/models", **others: str) -> GitHub:
    return GitHub(server.github.environ(folder, source=source, **others), AT_ONCE)


def test_the_commit_is_the_branchs_own_and_not_the_merge(server: Server, tmp_path: Path) -> None:
    assert make(server, tmp_path).commit == "a" * 40
    assert make(server, tmp_path, GITHUB_EVENT_PATH="").commit == "f" * 40


def test_a_push_has_nothing_to_write_into(server: Server, tmp_path: Path) -> None:
    site = make(server, tmp_path, GITHUB_EVENT_PATH="", GITHUB_EVENT_NAME="push")
    assert not site.is_fork
    with pytest.raises(SiteError, match=r"but by push(.|\n)*on: pull_request"):
        site.upsert_note(PREVIEW, "result")


def test_a_fork_that_may_only_read_is_told_that_this_is_right(server: Server, tmp_path: Path) -> None:
    site = make(server, tmp_path, source="somebody/models")
    assert site.is_fork
    server.fail("POST", "/comments$", 403)
    with pytest.raises(SiteError, match=r"This is normal for a fork(.|\n)*job's summary"):
        site.upsert_note(PREVIEW, "result")


def test_the_second_limit_is_a_403_that_says_when_to_come_back(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", pauses.append)
    server.fail("POST", "/comments$", 403, Retry_After="5")
    assert make(server, tmp_path).upsert_note(PREVIEW, "result") == "created"
    assert pauses == [5]


@pytest.mark.parametrize(
    ("headers", "content"), [({"Retry-After": "3600"}, {}), ({}, {"message": "API rate limit exceeded for 1234."})]
)
def test_a_403_about_too_many_requests_is_not_blamed_on_permissions(
    server: Server, tmp_path: Path, headers: dict[str, str], content: dict[str, str]
) -> None:
    server.add(Fault(method="POST", path="/comments$", status=403, content=content, headers=headers))
    with pytest.raises(SiteError, match=r"answered 403(.|\n)*rate limit is reached") as caught:
        make(server, tmp_path).upsert_note(PREVIEW, "result")
    assert "permissions" not in str(caught.value)


def test_who_we_are_is_asked_again_if_github_stumbles(server: Server, tmp_path: Path) -> None:
    server.fail("POST", "/graphql$", 502)
    assert make(server, tmp_path).upsert_note(PREVIEW, "result") == "created"


def test_a_pull_request_is_no_issue(server: Server, tmp_path: Path) -> None:
    marker = "<!-- model-serving: drift dev -->"
    site = make(server, tmp_path)
    site.upsert_issue(marker, "title", "body")
    server.github.issues[0]["pull_request"] = {}
    site.upsert_issue(marker, "title", "body")
    assert len(server.github.issues) == 2


def test_another_attempt_of_a_run_is_another_run(server: Server, tmp_path: Path) -> None:
    first, second = (make(server, tmp_path, GITHUB_RUN_ATTEMPT=attempt).this_run() for attempt in ("1", "2"))
    assert first.url != second.url


def test_summaries_are_appended(server: Server, tmp_path: Path) -> None:
    site = make(server, tmp_path)
    site.summary("one")
    site.summary("two")
    assert (tmp_path / "summary.md").read_text() == "one\ntwo\n"


def test_a_summary_without_room_is_mentioned_and_the_earlier_one_kept(server: Server, tmp_path: Path) -> None:
    site = make(server, tmp_path)
    site.summary("one")
    site.summary("é" * (SUMMARY_BYTES // 2))
    written = (tmp_path / "summary.md").read_text()
    assert written.startswith("one\n")
    assert "too long for GitHub" in written
    assert len(written) < 1000


def test_a_machine_without_summaries_gets_none(server: Server, tmp_path: Path) -> None:
    make(server, tmp_path, GITHUB_STEP_SUMMARY="").summary("one")
    assert not (tmp_path / "summary.md").exists()


def test_a_netrc_of_the_machine_does_not_speak_for_the_job(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert make(server, tmp_path).upsert_note(PREVIEW, "result") == "created"
