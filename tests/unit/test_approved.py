"""An update does what was approved, or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_serving.pipelines import approved
from model_serving.pipelines.changes import Change, Operation, Preview
from model_serving.pipelines.values import UNKNOWN, Difference
from model_serving.problems import Failure

REPLICAS = Difference(path="spec.replicas", old="2", new="4")


def change(name: str, operation: Operation = "update", *differences: Difference, omitted: int = 0) -> Change:
    return Change(
        operation=operation,
        kind="Deployment",
        token="kubernetes:apps/v1:Deployment",  # noqa: S106 - a type's token
        name=name,
        component="ModelServer",
        differences=differences,
        omitted=omitted,
    )


def preview(*changes: Change) -> Preview:
    return Preview(stack="production", commit="a" * 40, outcome="ok", changes=changes)


def differing(before: list[Change], now: list[Change], *, is_continued: bool = False) -> list[Change]:
    return approved.differing(preview(*before), preview(*now), is_continued=is_continued)


IMAGE = "spec.template.spec.containers[mlserver].image"


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ([change("iris", "update", REPLICAS)], [change("iris", "update", REPLICAS)]),
        ([change("iris", "create"), change("wine", "delete")], [change("wine", "delete")]),
        ([change("iris", "delete")], []),
        (
            [change("iris", "update", Difference(path=IMAGE, old="a", new=UNKNOWN))],
            [change("iris", "update", Difference(path=IMAGE, old="a", new="b"))],
        ),
        (
            [change("iris", "update", Difference(path="spec", old=None, new=UNKNOWN))],
            [change("iris", "update", REPLICAS)],
        ),
        ([change("iris", "update")], [change("iris", "update", REPLICAS)]),
        ([change("iris", "update", REPLICAS, omitted=3)], [change("iris", "update", REPLICAS, omitted=3)]),
    ],
    ids=["the same", "less", "nothing", "known now", "known now below", "all unknown", "long"],
)
def test_what_was_approved_is_done(before: list[Change], now: list[Change]) -> None:
    assert differing(before, now) == []


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ([], [change("iris", "delete")]),
        ([change("iris", "update", REPLICAS)], [change("wine", "update", REPLICAS)]),
        ([change("iris", "update", REPLICAS)], [change("iris", "replace", REPLICAS)]),
        ([change("iris", "create")], [change("iris", "delete")]),
        ([change("iris", "update", REPLICAS)], [change("iris", "update", REPLICAS.model_copy(update={"old": "8"}))]),
        ([change("iris", "update", REPLICAS)], [change("iris", "update", REPLICAS.model_copy(update={"new": "0"}))]),
        (
            [change("iris", "update", REPLICAS)],
            [change("iris", "update", REPLICAS.model_copy(update={"forces": True}))],
        ),
        ([change("iris", "update", REPLICAS)], [change("iris", "update", REPLICAS, omitted=1)]),
        (
            [change("iris", "update", REPLICAS)],
            [change("iris", "update", Difference(path="spec.replicasOf", old="2", new="4"))],
        ),
        ([change("iris", "delete")], [change("iris", "delete"), change("iris", "delete")]),
    ],
    ids=["more", "another", "worse", "opposite", "from elsewhere", "to elsewhere", "forced", "longer", "path", "twice"],
)
def test_anything_else_is_refused(before: list[Change], now: list[Change]) -> None:
    assert differing(before, now) == [now[-1]]


@pytest.mark.parametrize(
    ("before", "now", "is_covered"),
    [
        (change("iris", "update", REPLICAS), change("iris", "update", REPLICAS.model_copy(update={"old": "3"})), True),
        (change("iris", "create"), change("iris", "update"), True),
        (change("iris", "create"), change("iris", "replace"), True),
        (change("iris", "replace"), change("iris", "delete"), True),
        (change("iris", "update", REPLICAS), change("iris", "delete"), False),
        (change("iris", "update", REPLICAS), change("wine", "update", REPLICAS), False),
    ],
)
def test_the_rest_of_an_incomplete_update_may_change_the_same_resources(
    before: Change, now: Change, *, is_covered: bool
) -> None:
    assert (differing([before], [now], is_continued=True) == []) is is_covered


def test_a_refusal_shows_both_and_how_to_approve() -> None:
    before, now = change("iris", "update", REPLICAS), change("iris", "delete")
    text = str(approved.refuse(preview(before), [now], "To approve it, read it."))
    assert "no longer what was approved" in text
    assert "- delete Deployment iris (ModelServer)" in text
    assert "approved was: ! update Deployment iris" in text
    assert "spec.replicas: 4" in text
    assert text.endswith("To approve it, read it.")


@pytest.mark.parametrize(
    "text", ["", "{}", '{"stack": "production", "commit": "a", "outcome": "failed", "why": "no key"}']
)
def test_a_preview_that_failed_or_is_none_approves_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "production.json").write_text(text)
    with pytest.raises(Failure, match="nothing was changed"):
        approved.read(tmp_path, "production")
    with pytest.raises(Failure, match="omit --previewed"):
        approved.read(tmp_path / "absent", "production")
