"""A note about an older commit says so while a newer one is being previewed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_serving.hosts import Site, SiteError
from model_serving.hosts.gitlab import GitLab
from model_serving.hosts.marked import PREVIEW
from model_serving.hosts.site import WARNING
from model_serving.pipelines import pending
from tests.hosts import Server, serving
from tests.hosts.places import KINDS, Place, dead_addresses, place_of

OLD, NEW, NEWEST = "a" * 40, "b" * 40, "c" * 40
RESULT = "## What an update would do\n\nresult of the older commit"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> Place:
    place = place_of(request.param, server, tmp_path)
    place.make(100, OLD).upsert_note(PREVIEW, RESULT)
    return place


def text(place: Place) -> str:
    """The only note's."""
    [found] = place.texts()
    return found


def test_a_newer_commit_makes_the_note_stale(place: Place) -> None:
    said = pending.mark(place.make(101, NEW))
    assert NEW[:8] in said
    assert NEW[:7] in text(place)
    assert text(place).startswith(PREVIEW)
    assert text(place).index(NEW[:7]) < text(place).index("result of the older commit")


def test_a_third_commit_takes_the_place_of_the_second_in_the_banner(place: Place) -> None:
    pending.mark(place.make(101, NEW))
    pending.mark(place.make(102, NEWEST))
    assert NEWEST[:7] in text(place)
    assert NEW[:7] not in text(place)
    assert text(place).count("result of the older commit") == 1


def test_the_newer_commit_previewed_again_is_shown_with_its_new_job(place: Place) -> None:
    pending.mark(place.make(101, NEW))
    again = place.make(102, NEW, CI_JOB_URL="https://example.com/jobs/2")
    assert NEW[:8] in pending.mark(again)
    assert again.this_run().url in text(place)


def test_the_result_takes_the_banner_away(place: Place) -> None:
    pending.mark(place.make(101, NEW))
    place.make(101, NEW).upsert_note(PREVIEW, "result of the newer commit")
    assert "older" not in text(place)
    assert text(place).endswith("\nresult of the newer commit")


def test_a_late_result_of_the_older_commit_does_not_take_the_banner_away(place: Place) -> None:
    pending.mark(place.make(102, NEWEST))
    assert place.make(101, NEW).upsert_note(PREVIEW, "late") == "outdated"
    assert NEWEST[:7] in text(place)


def test_an_older_pipeline_marks_nothing(place: Place) -> None:
    assert "newer pipeline" in pending.mark(place.make(99, NEW))
    assert NEW[:7] not in text(place).split("\n", 2)[2]


def test_the_same_commit_again_marks_nothing(place: Place) -> None:
    assert "already about this commit" in pending.mark(place.make(101, OLD))
    assert not place.server.calls(place.change)


def test_without_a_note_there_is_nothing_to_mark(server: Server, tmp_path: Path) -> None:
    for kind in KINDS:
        place = place_of(kind, server, tmp_path)
        assert "no note yet" in pending.mark(place.make(101, NEW))
        assert not place.texts()


def test_other_peoples_notes_are_not_marked(server: Server, tmp_path: Path) -> None:
    for kind in KINDS:
        place = place_of(kind, server, tmp_path)
        place.write(f"{PREVIEW}\nforged", author=place.somebody)
        pending.mark(place.make(101, NEW))
        assert text(place) == f"{PREVIEW}\nforged"


@pytest.mark.parametrize("status", [401, 403, 404, 409, 413, 429, 500, 502])
def test_a_refusal_is_an_error_in_three_parts_for_the_caller(place: Place, status: int) -> None:
    place.server.fail(place.change, "", *[status] * 20)
    with pytest.raises(SiteError) as caught:
        pending.mark(place.make(101, NEW))
    assert len(str(caught.value).splitlines()) == 3


def test_a_failure_of_a_site_ends_the_job_with_a_warning(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def here(_: object) -> Site:
        return place.make(101, NEW, **dead_addresses())

    monkeypatch.setattr(pending, "here", here)
    code = pending.run(argparse.Namespace())
    said = capsys.readouterr()
    assert "did not answer" in said.err
    mark, expected = ("WARNING: ", WARNING) if isinstance(place.make(), GitLab) else ("::warning::", 0)
    assert code == expected
    assert said.out.splitlines()[-1].startswith(f"{mark}the note was not marked as out of date: ")
    assert place.token not in said.err + said.out
    assert "result of the older commit" not in said.err + said.out


def test_a_laptop_has_no_note(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("CI_API_V4_URL", "GITHUB_API_URL"):
        monkeypatch.delenv(name, raising=False)
    assert pending.run(argparse.Namespace()) == 0
    assert "Not a job of GitLab or GitHub" in capsys.readouterr().out
