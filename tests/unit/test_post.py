"""The note comes to the merge request, and if it does not, the job ends with a warning."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_serving import __main__ as command_line
from model_serving.hosts import PREVIEW, Site
from model_serving.hosts.access import Patience
from model_serving.hosts.blocks import cut
from model_serving.hosts.gitlab import GitLab
from model_serving.hosts.posting import post
from model_serving.hosts.site import WARNING
from model_serving.pipelines import post as command
from model_serving.pipelines.changes import Preview
from tests.hosts import Server, serving
from tests.hosts.places import KINDS, Place, dead_addresses, place_of
from tests.hosts.server import Fault

BODY = "## What an update would do\n\na confidential body"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> Place:
    return place_of(request.param, server, tmp_path)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], place: Place) -> Iterator[list[str]]:
    """What was printed until the test's end; neither the token nor the note may be in it."""
    lines: list[str] = []
    yield lines
    caught = capsys.readouterr()
    printed = caught.out + caught.err
    assert place.token not in printed
    assert "confidential" not in printed
    assert lines
    for line in lines:
        assert line in printed


def test_a_note_is_posted_and_changed_in_place(place: Place, said: list[str]) -> None:
    post(place.make(100), PREVIEW, lambda _: BODY)
    post(place.make(101), PREVIEW, lambda _: f"{BODY}, anew")
    [text] = place.texts()
    assert text.endswith(f"{BODY}, anew")
    said += ["created the note", "updated the note"]


def test_a_newer_note_stays(place: Place, said: list[str]) -> None:
    post(place.make(101), PREVIEW, lambda _: "newer")
    post(place.make(100), PREVIEW, lambda _: BODY)
    assert place.texts()[0].endswith("newer")
    said += ["a newer pipeline has written the note"]


def is_warning(code: int, place: Place, capsys: pytest.CaptureFixture[str], what: str) -> bool:
    """Whether a command ended as a warning and said so in the last line of the log, which is printed again."""
    caught = capsys.readouterr()
    print(caught.out, caught.err)
    mark, expected = ("WARNING: ", WARNING) if isinstance(place.make(), GitLab) else ("::warning::", 0)
    return code == expected and caught.out.splitlines()[-1].startswith(f"{mark}{what}: ")


@pytest.mark.parametrize("method", ["GET", "POST", "change"])
@pytest.mark.parametrize("status", [401, 403, 404, 409, 413, 422, 429, 500, 502, 503])
def test_a_status_of_a_site_ends_the_job_with_a_warning(
    place: Place, said: list[str], method: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    if method == "change":
        assert post(place.make(99), PREVIEW, lambda _: "older") == 0
    place.server.fail(place.change if method == "change" else method, "(notes|comments)", *[status] * 40)
    code = post(place.make(), PREVIEW, lambda _: BODY)
    assert is_warning(code, place, capsys, "the note was not posted")
    said += [f"answered {status} to ", "request does not show this result"]


def test_a_site_that_is_not_there_is_a_warning(
    place: Place, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = post(place.make(**dead_addresses()), PREVIEW, lambda _: BODY)
    assert is_warning(code, place, capsys, "the note was not posted")
    said += ["did not answer", "refused"]


def test_a_site_that_hangs_is_a_warning(place: Place, said: list[str]) -> None:
    for _ in range(10):
        place.server.add(Fault(method="GET", path=place.notes, how="hangs"))
    post(place.make(patience=Patience(retries=1, backoff_seconds=0, timeout_seconds=1)), PREVIEW, lambda _: BODY)
    said += ["did not answer", "timed out"]


def test_a_missing_token_is_a_warning(place: Place, said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code = post(place.make(MODEL_SERVING_GITLAB_TOKEN="", GITHUB_TOKEN=""), PREVIEW, lambda _: BODY)
    assert is_warning(code, place, capsys, "the note was not posted")
    said += ["_TOKEN is not set"]


def test_a_fork_cannot_post_which_is_no_warning(server: Server, tmp_path: Path, said: list[str]) -> None:
    place = place_of("gitlab", server, tmp_path)
    fork = place.make(MODEL_SERVING_GITLAB_TOKEN="", CI_MERGE_REQUEST_SOURCE_PROJECT_ID="8")
    assert post(fork, PREVIEW, lambda _: BODY) == 0
    said += ["the note was not posted: MODEL_SERVING_GITLAB_TOKEN is not set."]


def test_a_busy_site_gets_the_note_in_the_end(place: Place, said: list[str]) -> None:
    place.server.fail("POST", place.notes, 429, 503, Retry_After="0")
    post(place.make(), PREVIEW, lambda _: BODY)
    assert len(place.texts()) == 1
    said += ["created the note"]


def test_a_note_that_a_proxy_finds_too_large_is_rendered_smaller(place: Place, said: list[str]) -> None:
    place.server.largest_request = place.limit // 3
    post(place.make(), PREVIEW, "x".__mul__)
    assert place.texts()[0].endswith("x" * (place.make().note_limit // 4))
    said += ["created the note"]


def test_a_note_that_never_fits_is_said_so(place: Place, said: list[str]) -> None:
    place.server.largest_request = 500
    post(place.make(), PREVIEW, "x".__mul__)
    assert not place.texts()
    assert len(place.server.calls("POST", place.notes)) == 3
    said += ["answered 413"]


def test_what_is_far_below_the_sites_limit_becomes_smaller_too(place: Place, said: list[str]) -> None:
    place.server.largest_request = 12_000
    assert post(place.make(), PREVIEW, lambda limit: "x" * min(limit, 30_000)) == 0
    assert place.texts()[0].endswith("x" * 7_500)
    said += ["created the note"]


def test_a_note_that_cannot_become_smaller_is_not_sent_again(place: Place, said: list[str]) -> None:
    place.server.largest_request = 500
    post(place.make(), PREVIEW, lambda _: BODY * 20)
    assert len(place.server.calls("POST", place.notes)) == 1
    said += ["answered 413"]


def test_github_shows_it_in_the_summary_even_if_the_note_is_refused(server: Server, tmp_path: Path) -> None:
    place = place_of("github", server, tmp_path)
    server.fail("POST", place.notes, 403)
    post(place.make(), PREVIEW, lambda _: BODY)
    assert (tmp_path / "summary.md").read_text() == f"{BODY}\n"


def run_command(path: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> int:
    def here(_: object) -> Site:
        return place.make()

    monkeypatch.setattr(command, "here", here)
    return command.run(argparse.Namespace(path=path, expect=[]))


def test_a_file_is_posted_as_it_is(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = tmp_path / "note.md"
    note.write_text(BODY)
    assert run_command(note, place, monkeypatch) == 0
    assert place.texts()[0].endswith(BODY)


# How long an example takes depends on the machine.
@settings(deadline=None)
@given(st.lists(st.sampled_from(["text", "```", "````py", "<details>", "</details>", "x" * 90]), max_size=40))
def test_a_text_that_is_cut_off_stays_within_its_limit(lines: list[str]) -> None:
    text = "\n".join([*lines, "x\n" * 5000])
    assert len(cut(text, 4096, rest="See the file.")) <= 4096
    assert cut(text, len(text), rest="See the file.") == text


@pytest.mark.parametrize("length", [300_000, 50_000])
def test_a_file_that_a_proxy_finds_too_large_is_cut_off(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    diff = "<details><summary>Full diff</summary>\n\n````diff\n" + "+ a line\n```\n" * (length // 13)
    note = tmp_path / "note.md"
    note.write_text(f"{BODY}\n{diff}````\n\n</details>\n")
    place.server.largest_request = length // 3
    assert run_command(note, place, monkeypatch) == 0
    [text] = place.texts()
    assert "Cut off here because notes are limited to" in text
    assert text.count("````") == 2, "the code block is closed"
    assert text.count("<details>") == text.count("</details>") == 1
    assert len(text) > length // 8


def test_a_folder_becomes_a_note_that_fits(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "previews"
    folder.mkdir()
    for stack in ("dev", "staging"):
        preview = Preview(stack=stack, commit="a" * 40, outcome="ok", unchanged=7)
        (folder / f"{stack}.json").write_text(preview.model_dump_json())
        (folder / f"{stack}.terraform.json").write_text('{"create": 0, "update": 0, "delete": 0}')
    assert run_command(folder, place, monkeypatch) == 0
    assert "dev" in place.texts()[0]
    assert "staging" in place.texts()[0]


def test_a_path_that_leads_nowhere_is_the_callers_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["post", str(tmp_path / "missing")]) == 1
    assert "preview --stack STACK --out" in capsys.readouterr().err


def test_a_file_that_is_no_text_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "note.md").write_bytes(b"\xff\xfe")
    assert command_line.main(["post", str(tmp_path / "note.md")]) == 1
    assert "note.md cannot be read: 'utf-8' codec" in capsys.readouterr().err


def test_a_laptop_posts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("CI_API_V4_URL", "GITHUB_API_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "note.md").write_text(BODY)
    assert command.run(argparse.Namespace(path=tmp_path / "note.md", expect=[])) == 0
    assert "nothing was posted" in capsys.readouterr().out
