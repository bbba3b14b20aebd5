"""The benchmark's arithmetic and its page; that it runs is shown by running it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model_serving import catalog
from model_serving.stack.models import LONGEST_ROUTE
from tests.bench import versions
from tests.bench.__main__ import PARTS
from tests.bench.bare import server
from tests.bench.checkout import Checkout, Failed, copy_release
from tests.bench.figures import Row, Section, document
from tests.bench.server import DEFAULT_BY_MLSERVER, _with_defaults
from tests.bench.watch import IN_A_ROW, Answer, has_all_traffic

MODELS = Path(__file__).resolve().parents[2] / "models"
ROW = Row(what="preview", unit="s", values=[2.0, 9.0, 4.0], baseline="empty program", base=[1.0, 3.0, 1.0], bar=3.0)
DEPLOYMENT: dict[str, Any] = {
    "spec": {
        "selector": {"matchLabels": {"app.kubernetes.io/version": "1.0"}},
        "template": {
            "metadata": {"labels": {"app.kubernetes.io/version": "1.0"}},
            "spec": {
                "containers": [
                    {
                        "image": "old",
                        "env": [{"name": name} for name in ("MLSERVER_HTTP_PORT", *DEFAULT_BY_MLSERVER)],
                        "startupProbe": {"httpGet": {"path": "/v2/models/a/versions/1.0/ready"}},
                        "readinessProbe": {"httpGet": {"path": "/v2/models/a/versions/1.0/ready"}},
                    }
                ]
            },
        },
    }
}


def section(title: str, text: str = "How.") -> Section:
    return Section(title=title, text=text, rows=[ROW], conditions="2026-11-24")


def test_a_ratio_is_that_of_each_run_to_the_one_beside_it() -> None:
    assert ROW.ratios == [2.0, 3.0, 4.0], "and not that of the medians, 4"


def test_a_bar_is_met_by_the_median_ratio() -> None:
    assert not ROW.missed
    assert Row(what="", unit="s", values=[4.0], baseline="b", base=[1.0], bar=3.0).missed


def test_what_is_compared_with_nothing_has_no_ratio() -> None:
    assert Row(what="up", unit="s", values=[1234.5]).cells == ("up", "1,234 s", "", "", "")


def test_a_row_shows_median_extremes_and_bar() -> None:
    assert ROW.cells == (
        "preview",
        "4.00 (2.00 to 9.00) s",
        "empty program: 1.00 (1.00 to 3.00) s",
        "3.00 (2.00 to 4.00)",
        "met: at most 3",
    )


def test_the_page_keeps_what_was_not_measured_now() -> None:
    old = document("", head="# Old\n", order=["A", "B"], measured=[section("B", "Old B."), section("A", "Old A.")])
    new = document(old, head="# New\n", order=["A", "B"], measured=[section("B", "New B.")])
    assert new.startswith("# New\n\n## A\n\nOld A.")
    assert "## B\n\nNew B." in new
    assert "Old B." not in new
    assert document(new, head="# New\n", order=["A", "B"], measured=[]) == new


def test_a_section_that_is_no_longer_measured_leaves_the_page() -> None:
    old = document("", head="# Head\n", order=["Gone"], measured=[section("Gone")])
    assert document(old, head="# Head\n", order=["A"], measured=[]) == "# Head\n"


def test_the_titles_of_the_parts_differ() -> None:
    titles = [title for title, _ in PARTS.values()]
    assert len({*titles}) == len(titles), "or one section would take the place of another"


@pytest.mark.parametrize(
    ("versions", "since"),
    [
        (["a"] * 9 + ["b"] * IN_A_ROW, 9.0),
        (["b"] * 5 + ["a"] + ["b"] * IN_A_ROW, 6.0),
        (["b"] * 5 + [""] + ["b"] * IN_A_ROW, 6.0),
        (["b"] * IN_A_ROW, 0.0),
        (["b"] * IN_A_ROW + ["a"], None),
        (["a"] + ["b"] * (IN_A_ROW - 1), None),
        ([], None),
    ],
)
def test_all_traffic_is_on_a_version_from_when_on_nobody_else_answers(versions: list[str], since: float | None) -> None:
    assert has_all_traffic([Answer(float(n), version) for n, version in enumerate(versions)], "b") == since


@pytest.mark.parametrize("count", versions.COUNTS)
def test_so_many_versions_are_live_with_all_of_the_traffic(count: int) -> None:
    models = versions.models_of(count)
    weights = [model["versions"] for model in models.values()]
    assert sum(map(len, weights)) == count
    assert all(sum(shares.values()) == 100 for shares in weights)
    assert all(len(shares) <= LONGEST_ROUTE for shares in weights)


def test_more_versions_include_those_of_before() -> None:
    before, after = versions.models_of(10), versions.models_of(50)
    assert before["bench-0"] == after["bench-0"]


def test_a_copy_of_a_release_is_a_release(tmp_path: Path) -> None:
    copy_release(MODELS / "iris-dtc" / "1.0", tmp_path / "models" / "other" / "2.0")
    found = catalog.read(tmp_path / "models").get("other", "2.0")
    assert found.content_hash != catalog.read(MODELS).get("iris-dtc", "1.0").content_hash


def test_the_bare_way_starts_the_same_pod_under_its_own_name() -> None:
    bare = server(DEPLOYMENT, "bare", image="new", version="1.1")
    (container,) = bare["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "new"
    assert container["readinessProbe"]["httpGet"]["path"] == "/v2/models/a/versions/1.1/ready"
    assert bare["spec"]["selector"]["matchLabels"] == bare["spec"]["template"]["metadata"]["labels"] == {"app": "bare"}
    assert "old" in json.dumps(DEPLOYMENT), "and leaves the program's own alone"


def test_mlservers_defaults_are_what_nobody_sets() -> None:
    (container,) = _with_defaults(server(DEPLOYMENT, "x"))["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [{"name": "MLSERVER_HTTP_PORT"}]


def test_what_a_part_of_the_benchmark_serves_is_gone_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "stacks" / "Pulumi.local.yaml"
    file.parent.mkdir()
    file.write_text(before := "config: {model-serving:models: {iris-dtc: {}}}  # as it is\n")
    updates: list[str] = []
    monkeypatch.setattr(Checkout, "up", lambda _: updates.append(file.read_text()))
    checkout = Checkout(tmp_path)

    def serve_and_fail() -> None:
        with checkout.restored():
            checkout.serve({"other": {}})
            raise Failed("pulumi up ended with 1")

    with pytest.raises(Failed):
        serve_and_fail()
    assert file.read_text() == before
    with checkout.restored():
        assert file.read_text() == before
    assert updates == [before], "a part that left all as it was needs none"
