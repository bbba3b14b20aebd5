"""Notes, issues and runs on GitLab and GitHub: what both do alike."""

from __future__ import annotations

import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from model_serving.hosts import Run, here
from model_serving.hosts.access import Patience, SiteError, TooLong
from model_serving.hosts.github import GitHub
from model_serving.hosts.gitlab import GitLab
from model_serving.hosts.marked import PREVIEW, label_of, stamped
from model_serving.hosts.rest import LONGEST_QUOTE
from tests.hosts import AT_ONCE, Server, serving
from tests.hosts.places import KINDS, Place, dead_addresses, place_of
from tests.hosts.server import Fault

DRIFT = "<!-- model-serving: drift dev -->"
IMPATIENT = Patience(backoff_seconds=0, timeout_seconds=1)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> Place:
    return place_of(request.param, server, tmp_path)


def bodies(place: Place) -> list[str]:
    """What people read of the notes that have the marker."""
    return [text.split("\n", 2)[2] for text in place.texts() if text.startswith(PREVIEW)]


def test_the_first_result_makes_a_note_and_the_second_changes_it(place: Place) -> None:
    assert place.make(100).upsert_note(PREVIEW, "first") == "created"
    assert bodies(place) == ["first"]
    assert place.make(101).upsert_note(PREVIEW, "second") == "updated"
    assert bodies(place) == ["second"]
    assert len(place.server.calls("POST", place.notes)) == 1


def test_the_same_result_is_not_written_again(place: Place) -> None:
    site = place.make()
    site.upsert_note(PREVIEW, "same")
    assert site.upsert_note(PREVIEW, "same") == "unchanged"
    assert not place.server.calls(place.change)


def test_a_marker_that_the_text_brings_along_is_not_doubled(place: Place) -> None:
    place.make().upsert_note(PREVIEW, f"{PREVIEW}\ntext")
    assert [text.count(PREVIEW) for text in place.texts()] == [1]
    assert bodies(place) == ["text"]


def test_a_note_is_found_behind_a_hundred_others_and_more(place: Place) -> None:
    for number in range(150):
        place.write(f"talk {number}", author=place.somebody)
    place.make(99).upsert_note(PREVIEW, "old")
    for number in range(150):
        place.write(f"more talk {number}", author=place.somebody)
    assert place.make(100).upsert_note(PREVIEW, "new") == "updated"
    assert bodies(place) == ["new"]
    assert {call.query.get("page", "1") for call in place.server.calls("GET", place.notes)} == {"1", "2", "3", "4"}


def test_other_peoples_notes_with_the_marker_are_left_alone(place: Place) -> None:
    forged = stamped(PREVIEW, "all is well", run=10**9, commit="")
    place.write(forged, author=place.somebody)
    assert place.make().upsert_note(PREVIEW, "result") == "created"
    assert place.texts()[0] == forged
    found = place.make().read_note(PREVIEW)
    assert found is not None
    assert found.body == "result"


def test_a_quoted_marker_is_no_marker(place: Place) -> None:
    place.write(f"> {PREVIEW}\n\nwhat is this?")
    assert place.make().read_note(PREVIEW) is None


def test_a_slow_run_does_not_write_over_a_newer_one(place: Place) -> None:
    place.make(101, "b" * 40).upsert_note(PREVIEW, "of b")
    assert place.make(100, "a" * 40).upsert_note(PREVIEW, "of a") == "outdated"
    assert bodies(place) == ["of b"]


def test_a_note_that_was_changed_by_hand_is_written_anew(place: Place) -> None:
    place.write(f"{PREVIEW}\nsomebody was here")
    assert place.make().upsert_note(PREVIEW, "result") == "updated"
    assert bodies(place) == ["result"]


@pytest.mark.parametrize("second", [99, 101])
def test_two_runs_that_write_at_once_leave_one_note_with_the_newer_result(place: Place, second: int) -> None:
    """The second one does everything between the first one's look and its writing."""
    other = place.make(second)
    intrude = Fault(method="POST", path=place.notes, first=lambda: other.upsert_note(PREVIEW, f"of {second}"))
    place.server.add(intrude)
    place.make(100).upsert_note(PREVIEW, "of 100")
    assert bodies(place) == [f"of {max(100, second)}"]


def test_two_runs_that_both_make_a_note_end_with_one(place: Place) -> None:
    """Neither POST is carried out before both were sent: each run has seen that there is no note."""
    both_sent = threading.Barrier(2)
    for _ in range(2):
        place.server.add(Fault(method="POST", path=place.notes, first=lambda: both_sent.wait(timeout=5)))
    sites = [place.make(run, str(run)) for run in (100, 101)]
    with ThreadPoolExecutor() as pool:
        outcomes = list(pool.map(lambda site: site.upsert_note(PREVIEW, f"of {site.commit}"), sites))
    assert bodies(place) == ["of 101"]
    assert outcomes[1] == "created"


def test_an_older_run_that_writes_between_look_and_change_is_corrected(place: Place) -> None:
    place.make(98).upsert_note(PREVIEW, "of 98")
    older = place.make(99)
    place.server.add(Fault(method=place.change, path="", first=lambda: older.upsert_note(PREVIEW, "of 99")))
    place.make(100).upsert_note(PREVIEW, "of 100")
    assert bodies(place) == ["of 100"]


def test_several_notes_become_one_in_the_place_of_the_oldest(place: Place) -> None:
    for run in (3, 5, 4):
        place.write(stamped(PREVIEW, f"of {run}", run=run, commit="c"))
    place.write("talk", author=place.somebody)
    assert place.make(4).upsert_note(PREVIEW, "of 4") == "outdated"
    assert bodies(place) == ["of 5"]
    assert place.texts()[0].startswith(PREVIEW)


def test_a_note_that_vanishes_before_it_is_changed_is_made_again(place: Place) -> None:
    place.make(99).upsert_note(PREVIEW, "old")
    place.server.fail(place.change, "", 404)
    assert place.make(100).upsert_note(PREVIEW, "new") == "updated"
    assert bodies(place) == ["new"]


@pytest.mark.parametrize("how", ["drops", "hangs"])
@pytest.mark.parametrize("is_carried_out", [True, False])
def test_an_unanswered_note_is_looked_for_before_it_is_made_again(place: Place, how: Any, is_carried_out: bool) -> None:
    place.server.add(Fault(method="POST", path=place.notes, how=how, is_carried_out=is_carried_out))
    patience = IMPATIENT if how == "hangs" else AT_ONCE
    assert place.make(patience=patience).upsert_note(PREVIEW, "result") == "created"
    assert bodies(place) == ["result"]
    assert len(place.server.calls("POST", place.notes)) == (1 if is_carried_out else 2)


def test_a_note_whose_answer_breaks_off_is_looked_for_before_it_is_made_again(place: Place) -> None:
    place.server.add(Fault(method="POST", path=place.notes, how="breaks off"))
    assert place.make().upsert_note(PREVIEW, "result") == "created"
    assert bodies(place) == ["result"]
    assert len(place.server.calls("POST", place.notes)) == 1


def test_a_list_that_breaks_off_is_no_answer(place: Place) -> None:
    place.server.add(Fault(method="GET", path=place.notes, how="breaks off"))
    with pytest.raises(SiteError, match=r"did not answer (.|\n)*request does not show this result"):
        place.make().upsert_note(PREVIEW, "result")


@pytest.mark.parametrize("status", [500, 502, 504])
@pytest.mark.parametrize("is_carried_out", [True, False])
def test_a_failed_note_is_looked_for_before_it_is_made_again(place: Place, status: int, is_carried_out: bool) -> None:
    fault = Fault(method="POST", path=place.notes, status=status, is_carried_out=is_carried_out)
    place.server.add(fault)
    assert place.make().upsert_note(PREVIEW, "result") == "created"
    assert bodies(place) == ["result"]
    assert len(place.server.calls("POST", place.notes)) == (1 if is_carried_out else 2)


def test_a_list_that_does_not_have_the_new_note_yet_makes_no_second_one(place: Place) -> None:
    """As from a replica of the site's database."""
    for _ in range(2):
        place.server.add(Fault(method="GET", path=place.notes, status=200, content=[]))
    assert place.make().upsert_note(PREVIEW, "result") == "created"
    assert bodies(place) == ["result"]
    assert len(place.server.calls("POST", place.notes)) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_site_that_is_busy_is_asked_again(place: Place, status: int) -> None:
    place.server.fail("POST", place.notes, status, status)
    place.server.fail("GET", place.notes, status)
    assert place.make().upsert_note(PREVIEW, "result") == "created"
    assert bodies(place) == ["result"]


@pytest.mark.parametrize("status", [409, 500, 502, 504])
def test_a_change_that_failed_is_repeated(place: Place, status: int) -> None:
    place.make(99).upsert_note(PREVIEW, "old")
    place.server.fail(place.change, "", status)
    assert place.make(100).upsert_note(PREVIEW, "new") == "updated"
    assert bodies(place) == ["new"]


@pytest.mark.parametrize("how", ["drops", "hangs"])
def test_a_change_without_an_answer_is_repeated(place: Place, how: Any) -> None:
    place.make(99).upsert_note(PREVIEW, "old")
    place.server.add(Fault(method=place.change, path="", how=how))
    patience = IMPATIENT if how == "hangs" else AT_ONCE
    assert place.make(100, patience=patience).upsert_note(PREVIEW, "new") == "updated"
    assert bodies(place) == ["new"]


def test_the_site_says_how_long_to_wait(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", pauses.append)
    place.server.fail("POST", place.notes, 429, Retry_After="7")
    place.make().upsert_note(PREVIEW, "result")
    assert pauses == [7]
    assert bodies(place) == ["result"]


@pytest.mark.parametrize("pause", ["3600", "Fri, 31 Dec 2100 23:59:59 GMT", "soon"])
def test_a_site_that_asks_for_too_long_a_pause_is_given_up(
    place: Place, pause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", pauses.append)
    place.server.fail("POST", place.notes, 429, Retry_After=pause)
    with pytest.raises(SiteError, match=r"answered 429(.|\n)*Run the job again in a few minutes\."):
        place.make().upsert_note(PREVIEW, "result")
    assert not pauses
    assert len(place.server.calls("POST", place.notes)) == 1


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (301, r"renamed or moved|Correct external_url"),
        (401, r"token"),
        (403, r"scope api, role Planner|pull-requests: write"),
        (404, r"may not see"),
        (409, r"Run the job again"),
        (413, r"The whole text is in"),
        (500, r"Run the job again"),
        (502, r"Run the job again"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_refusal_says_what_it_means_and_what_to_do(place: Place, method: str, status: int, remedy: str) -> None:
    place.server.fail(method, place.notes, *[status] * 20)
    with pytest.raises(SiteError) as caught:
        place.make().upsert_note(PREVIEW, "words of the body")
    what, consequence, advice = str(caught.value).splitlines()
    assert f"answered {status} to {method} " in what
    assert "request does not show this result" in consequence
    assert caught.match(remedy)
    assert advice.startswith("  ")
    assert place.token not in str(caught.value)
    assert "words of the body" not in str(caught.value)


@pytest.mark.parametrize("status", [500, 502])
def test_a_site_that_stays_broken_is_asked_a_few_times_only(place: Place, status: int) -> None:
    place.server.fail("GET", place.notes, *[status] * 100)
    with pytest.raises(SiteError, match=f"answered {status}"):
        place.make().upsert_note(PREVIEW, "result")
    assert len(place.server.calls("GET", place.notes)) == 1 + AT_ONCE.retries


def test_a_wrong_token_is_named_by_its_variable(place: Place) -> None:
    wrong = {"MODEL_SERVING_GITLAB_TOKEN": "glpat-wrong-one", "GITHUB_TOKEN": "ghs_wrong-one"}
    with pytest.raises(SiteError, match=r"answered 401(.|\n)*(MODEL_SERVING_GITLAB|GITHUB)_TOKEN") as caught:
        place.make(**wrong).upsert_note(PREVIEW, "result")
    assert "wrong-one" not in str(caught.value)


def test_a_missing_token_is_said_before_anything_is_asked(place: Place) -> None:
    with pytest.raises(SiteError, match=r"_TOKEN is not set"):
        place.make(MODEL_SERVING_GITLAB_TOKEN="", GITHUB_TOKEN="").upsert_note(PREVIEW, "result")
    assert not place.server.received


def test_a_token_that_the_site_repeats_is_not_passed_on(place: Place) -> None:
    place.server.add(Fault(method="GET", path=place.notes, status=403, said=f"no such token: {place.token}"))
    with pytest.raises(SiteError, match=r"no such token: \S*\[token\]") as caught:
        place.make().upsert_note(PREVIEW, "result")
    assert place.token not in str(caught.value)


def test_a_token_at_the_end_of_a_long_quotation_is_not_passed_on_in_part(place: Place) -> None:
    said = f"{'x' * (LONGEST_QUOTE - 12)} {place.token}"
    place.server.add(Fault(method="GET", path=place.notes, status=403, said=said))
    with pytest.raises(SiteError) as caught:
        place.make().upsert_note(PREVIEW, "result")
    assert place.token[:4] not in str(caught.value)


def test_a_traceback_shows_no_token(place: Place) -> None:
    with pytest.raises(SiteError) as caught:
        place.make(**dead_addresses()).upsert_note(PREVIEW, "result")
    printed = "".join(traceback.format_exception(caught.value))
    assert "did not answer" in printed
    assert "ConnectionError" not in printed
    assert place.token not in printed


def test_a_site_that_is_not_there_is_said_so(place: Place) -> None:
    with pytest.raises(SiteError, match=r"did not answer .*: refused(.|\n)*reachable from the runner"):
        place.make(**dead_addresses()).upsert_note(PREVIEW, "result")


def test_a_site_that_never_answers_is_given_up(place: Place) -> None:
    for _ in range(10):
        place.server.add(Fault(method="GET", path=place.notes, how="hangs"))
    patience = Patience(retries=1, backoff_seconds=0, timeout_seconds=1)
    with pytest.raises(SiteError, match="timed out"):
        place.make(patience=patience).upsert_note(PREVIEW, "result")


@pytest.mark.parametrize("status", [301, 302, 307])
@pytest.mark.parametrize("method", ["GET", "POST", "change", "DELETE"])
def test_a_redirect_does_not_take_the_token_along(place: Place, method: str, status: int) -> None:
    """Neither to another host nor, by the library, as an answer."""
    if method in ("change", "DELETE"):
        for run in (98, 99):
            place.write(stamped(PREVIEW, f"of {run}", run=run, commit="c"))
    verb = place.change if method == "change" else method
    with serving() as stranger:
        elsewhere = f"{stranger.url.replace('127.0.0.1', 'localhost')}/api/v4/elsewhere"
        place.server.fail(verb, "/(notes|comments)", status, Location=elsewhere)
        with pytest.raises(SiteError, match=f"answered {status} to {verb} "):
            place.make().upsert_note(PREVIEW, "result")
        assert not stranger.received


@pytest.mark.parametrize("path", ["/elsewhere?page=2", "/api/v4/projects/7/merge_requests/3/notes?page=2"])
def test_the_next_page_is_asked_for_nowhere_else(place: Place, path: str) -> None:
    with serving() as stranger:
        link = f'<{stranger.url}{path}>; rel="next"'
        place.server.add(Fault(method="GET", path=place.notes, status=200, content=[], headers={"Link": link}))
        # Another host is left out or refused, as the library has it.
        with suppress(SiteError):
            place.make().read_note(PREVIEW)
        assert not stranger.received


def test_an_answer_that_is_not_ready_is_none(place: Place) -> None:
    place.server.fail("GET", place.notes, 202)
    with pytest.raises(SiteError, match="answered 202 to GET "):
        place.make().upsert_note(PREVIEW, "result")
    assert len(place.server.calls("GET", place.notes)) == 1


def test_a_login_page_instead_of_an_answer_is_said_so(place: Place) -> None:
    place.server.add(Fault(method="GET", path=place.notes, status=200))
    with pytest.raises(SiteError, match=r"something that its API does not document(.|\n)*login page"):
        place.make().upsert_note(PREVIEW, "result")


def test_a_note_up_to_the_limit_is_taken_and_a_longer_one_named(place: Place) -> None:
    site = place.make()
    assert site.upsert_note(PREVIEW, "é" * site.note_limit) == "created"
    with pytest.raises(TooLong, match=r"answered 4(00|22)"):
        site.upsert_note(PREVIEW, "e" * (place.limit + 1))


def test_a_request_that_the_proxy_finds_too_large_is_too_long_as_well(place: Place) -> None:
    place.server.largest_request = 2000
    with pytest.raises(TooLong, match="answered 413"):
        place.make().upsert_note(PREVIEW, "e" * 2000)


def test_an_issue_is_opened_brought_up_to_date_closed_and_opened_again(place: Place) -> None:
    site = place.make()
    site.upsert_issue(DRIFT, "dev drifted", "one difference")
    [issue] = place.issues
    assert "drift::dev" in issue["labels"]
    site.upsert_issue(DRIFT, "dev drifted a lot", "two differences")
    assert issue["title"] == "dev drifted a lot"
    assert site.close_issue(DRIFT, "gone")
    assert issue["state"] == "closed"
    assert issue["comments"] == ["gone"]
    site.upsert_issue(DRIFT, "dev drifted", "again")
    assert issue["state"] in ("open", "opened")
    assert len(place.issues) == 1


def test_an_unchanged_issue_is_not_written_again(place: Place) -> None:
    site = place.make()
    site.upsert_issue(DRIFT, "dev drifted", "one difference")
    site.upsert_issue(DRIFT, "dev drifted", "one difference")
    assert not place.server.calls(place.change)


def test_nothing_is_closed_where_nothing_is_open(place: Place) -> None:
    site = place.make()
    assert not site.close_issue(DRIFT, "gone")
    site.upsert_issue(DRIFT, "dev drifted", "one difference")
    site.close_issue(DRIFT, "gone")
    assert not site.close_issue(DRIFT, "gone")
    assert place.issues[0]["comments"] == ["gone"]


def test_each_stack_has_an_issue_of_its_own(place: Place) -> None:
    site = place.make()
    site.upsert_issue(DRIFT, "dev drifted", "one difference")
    site.upsert_issue("<!-- model-serving: drift staging -->", "staging drifted", "one difference")
    site.close_issue(DRIFT, "gone")
    assert [issue["state"] in ("open", "opened") for issue in place.issues] == [False, True]


@pytest.mark.parametrize("status", [0, 500])
def test_an_unanswered_issue_is_looked_for_before_it_is_opened_again(place: Place, status: int) -> None:
    how: Any = "answers" if status else "drops"
    place.server.add(Fault(method="POST", path="/issues$", how=how, status=status, is_carried_out=True))
    place.make().upsert_issue(DRIFT, "dev drifted", "one difference")
    assert len(place.issues) == 1


def test_an_issue_closes_even_if_its_comment_got_no_answer(place: Place) -> None:
    site = place.make()
    site.upsert_issue(DRIFT, "dev drifted", "one difference")
    place.server.fail("POST", "/(notes|comments)$", 502)
    assert site.close_issue(DRIFT, "gone")
    assert place.issues[0]["state"] == "closed"


def test_a_label_fits_what_the_sites_allow() -> None:
    assert label_of(DRIFT) == "drift::dev"
    assert len(label_of(f"<!-- model-serving: drift {'x' * 80} -->")) == 50


def test_a_run_survives_its_file(place: Place) -> None:
    run = place.make().this_run()
    assert Run.model_validate_json(run.model_dump_json()) == run
    assert run.url.startswith(place.server.url)
    assert "note" in run.name


def test_a_laptop_is_no_site() -> None:
    assert here({"HOME": "/home/somebody"}) is None


def test_a_laptop_waits_for_no_client() -> None:
    script = (
        "import sys; from model_serving.hosts import here, merge_requests, posting; here({}); "
        "print({'gitlab', 'github', 'requests', 'urllib3'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_environment_tells_the_site(place: Place, tmp_path: Path) -> None:
    assert isinstance(here(place.server.gitlab.environ()), GitLab)
    assert isinstance(here(place.server.github.environ(tmp_path)), GitHub)
