"""What GitLab alone does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from model_serving.hosts.access import SiteError
from model_serving.hosts.gitlab import GitLab
from model_serving.hosts.marked import PREVIEW
from tests.hosts import AT_ONCE, Server, serving


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def make(server: Server, **others: str) -> GitLab:
    return GitLab(server.gitlab.environ(**others), AT_ONCE)


def test_system_notes_are_no_notes(server: Server) -> None:
    server.gitlab.write(f"{PREVIEW}\nadded 1 commit", system=True)
    assert make(server).upsert_note(PREVIEW, "result") == "created"


def test_a_note_of_nobody_is_no_obstacle(server: Server) -> None:
    server.gitlab.write("talk")["author"] = None
    assert make(server).upsert_note(PREVIEW, "result") == "created"


def test_a_line_of_a_note_gives_gitlab_no_orders(server: Server) -> None:
    site = make(server)
    site.upsert_note(PREVIEW, "text\n/merge\n/Approve\n  /close\n> /label ~x\nkept: a/b, /etc")
    site.upsert_issue("<!-- model-serving: drift dev -->", "title", "/assign @somebody")
    site.close_issue("<!-- model-serving: drift dev -->", "/reopen")
    assert not server.gitlab.orders
    assert "kept: a/b, /etc" in server.gitlab.texts()[0]


def test_the_commit_of_a_merged_result_is_the_branchs_own(server: Server) -> None:
    assert make(server, CI_MERGE_REQUEST_SOURCE_BRANCH_SHA="").commit == "a" * 40
    assert make(server, CI_MERGE_REQUEST_SOURCE_BRANCH_SHA="b" * 40).commit == "b" * 40


def test_a_fork_writes_into_the_project_that_it_wants_to_be_merged_into(server: Server) -> None:
    site = make(server, CI_PROJECT_ID="8", CI_MERGE_REQUEST_SOURCE_PROJECT_ID="8")
    assert site.is_fork
    site.upsert_note(PREVIEW, "result")
    assert server.gitlab.texts()


def test_a_fork_without_a_token_is_told_that_this_is_right(server: Server) -> None:
    site = make(server, CI_MERGE_REQUEST_SOURCE_PROJECT_ID="8", MODEL_SERVING_GITLAB_TOKEN="")
    with pytest.raises(SiteError, match=r"This is normal for a fork\. The result is in the artefacts"):
        site.upsert_note(PREVIEW, "result")


def test_a_protected_token_on_an_unprotected_branch_is_guessed(server: Server) -> None:
    site = make(server, CI_COMMIT_REF_PROTECTED="false", MODEL_SERVING_GITLAB_TOKEN="")
    assert not site.is_fork
    with pytest.raises(SiteError, match="Do not protect it"):
        site.upsert_note(PREVIEW, "result")


def test_a_branchs_pipeline_has_nothing_to_write_into(server: Server) -> None:
    with pytest.raises(SiteError, match=r"CI_MERGE_REQUEST_IID is not set(.|\n)*merge_request_event"):
        make(server, CI_MERGE_REQUEST_IID="").upsert_note(PREVIEW, "result")


def test_the_runners_authorities_are_trusted(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is missing shows that it is the one that is asked for."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    address = server.gitlab.environ()["CI_API_V4_URL"].replace("http:", "https:")
    site = make(server, CI_SERVER_TLS_CA_FILE=str(tmp_path / "none.pem"), CI_API_V4_URL=address)
    with pytest.raises(SiteError, match=r"did not answer .*none\.pem"):
        site.upsert_note(PREVIEW, "result")
