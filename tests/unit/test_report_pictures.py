"""The report's plots as pictures on GitLab, uploaded once; tests/release draws them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from model_serving.hosts import Site
from model_serving.hosts.github import GitHub
from model_serving.hosts.gitlab import GitLab
from model_serving.releases import report, report_pictures, report_plots
from model_serving.releases.project import Plot
from model_serving.releases.report_files import Pair, table
from tests.hosts import AT_ONCE, Server, serving

HISTORY = Plot(file="plots/history.csv", title="Loss", x="round")
MATRIX = Plot(file="plots/predictions.csv", kind="confusion")
ROWS = Plot(file="plots/predictions.csv", kind="table", rows=2)
MARKER = report.marker("wine")
PNG = b"\x89PNG\r\n\x1a\nof a plot"


def pair(here: str, base: str | None = None) -> Pair[Any]:
    return Pair(path="x.csv", here=table(here.encode()), base=None if base is None else table(base.encode()))


LOSS = pair("round,train,validation\n1,0.9,1\n2,0.5,0.8\n", "round,train,validation\n1,0.8,1\n2,0.4,0.7\n")
CLASSES = pair("name,actual,predicted\nx,a,a\ny,b,a\n", "name,actual,predicted\nx,a,a\ny,b,b\n")
PLOTS = [(HISTORY, LOSS), (MATRIX, CLASSES), (ROWS, CLASSES)]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def site(server: Server, monkeypatch: pytest.MonkeyPatch) -> Site:
    # The package that draws is in the locks of models' repositories.
    monkeypatch.setattr(report_pictures, "_drawer", lambda: lambda _: PNG)
    return GitLab(server.gitlab.environ(), AT_ONCE)


def test_history_matrix_and_predictions_are_drawn_with_the_base_beside_them() -> None:
    lines, matrix, bars = (report_pictures.spec(plot, tables, "main") for plot, tables in PLOTS)
    assert lines
    assert matrix
    assert bars
    drawn = lines["data"]["values"]
    assert {(value["line"], value["side"]) for value in drawn} == {
        (name, side) for name in ("train", "validation") for side in ("this branch", "main")
    }
    assert {"actual": "b", "predicted": "a", "count": 1, "side": "this branch"} in matrix["data"]["values"]
    assert {"class": "a", "rows": 2, "of": "predicted", "side": "this branch"} in bars["data"]["values"]


def test_predictions_of_numbers_are_points() -> None:
    rows = "".join(f"{number},{number + 0.5}\n" for number in range(30))
    drawn = report_pictures.spec(ROWS, pair(f"actual,predicted\n{rows}"), "main")
    assert drawn
    assert drawn["mark"]["type"] == "point"
    assert len(drawn["data"]["values"]) == 30


def test_what_cannot_be_drawn_stays_text() -> None:
    assert report_pictures.spec(ROWS, pair("name,price\nx,1\n"), "main") is None
    assert report_pictures.spec(HISTORY, pair("round,train\n1,none\n"), "main") is None
    many = "".join(f"c{number},c{number}\n" for number in range(21))
    assert report_pictures.spec(MATRIX, pair(f"actual,predicted\n{many}"), "main") is None


def test_pictures_are_uploaded_once_and_shown_again_as_long_as_they_are_the_same(server: Server, site: Site) -> None:
    first = report_pictures.uploaded(PLOTS, "main", site, MARKER)
    assert sorted(first) == [0, 1, 2]
    assert set(server.gitlab.uploads.values()) == {PNG}
    site.upsert_note(MARKER, "\n".join(first.values()))
    assert report_pictures.uploaded(PLOTS, "main", site, MARKER) == first
    changed = [(HISTORY, pair("round,train\n1,0.9\n2,0.1\n")), *PLOTS[1:]]
    second = report_pictures.uploaded(changed, "main", site, MARKER)
    assert second[0] != first[0]
    assert [second[1], second[2]] == [first[1], first[2]]
    assert len(server.gitlab.uploads) == 4


@pytest.mark.parametrize(("plot", "tables"), PLOTS, ids=["line", "confusion", "table"])
def test_a_picture_replaces_charts_and_matrix_and_stands_above_the_rows(plot: Plot, tables: Pair[Any]) -> None:
    text = str(report_plots.block(plot, tables, "main", "![plot.png](/uploads/1/plot.png)"))
    assert "![plot.png](/uploads/1/plot.png)" in text
    assert "mermaid" not in text
    assert "↓" not in text
    assert ("| `x` | `a` | `a` |" in text) == (plot.kind == "table")
    assert ("1 of 2 right" in text) == (plot.kind == "confusion")


def test_github_takes_no_pictures(server: Server, site: Site, tmp_path: Any) -> None:
    github = GitHub(server.github.environ(tmp_path), AT_ONCE)
    assert report_pictures.uploaded(PLOTS, "main", github, MARKER) == {}
    assert not server.received
