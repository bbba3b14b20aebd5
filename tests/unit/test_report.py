"""The report of a model's repository: what it tells of params, metrics and plots, here and on the base."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from model_serving.hosts.site import Run
from model_serving.problems import InvalidInput
from model_serving.releases import project, report
from tests.hosts import serving

GOLDEN = Path(__file__).parent / "golden" / "report.md"
RUN = Run(name="job report of pipeline 7", url="https://gitlab.example.com/team/wines/-/jobs/7")
SERVING = {"repository": "https://gitlab.example.com/group/serving.git"}
SHOWN: dict[str, Any] = {
    "better": {"accuracy": "higher", "loss": "lower"},
    "plots": [
        {"file": "plots/history.csv", "title": "Loss", "x": "round"},
        {"file": "plots/predictions.csv", "kind": "confusion", "title": "Confusion matrix"},
        {"file": "plots/predictions.csv", "kind": "table", "rows": 2},
    ],
}
BASE = {
    "params.yaml": "train: {rounds: 3, rate: 0.1, seed: 26322}\nold: yes\n",
    "metrics.json": json.dumps({"accuracy": 0.5, "loss": 0.2, "recall": {"a": 1.0}, "leaves": 7}),
    "plots/history.csv": "round,train\n1,0.9\n2,0.5\n3,0.2\n",
    "plots/predictions.csv": "name,actual,predicted\nx,a,a\ny,b,a\nz,b,b\n",
}
HERE = {
    "params.yaml": "train: {rounds: 3, rate: 1e-05, seed: 26322, depth: null}\n",
    "metrics.json": json.dumps({"accuracy": 0.75, "loss": 0.3, "recall": {"a": 1.0, "b": 0.5}, "leaves": 9}),
    "plots/history.csv": "round,train\n1,0.8\n2,0.4\n3,0.3\n",
    "plots/predictions.csv": "name,actual,predicted\nx,a,a\ny,b,b\nz,b,b\n",
}


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.com", "-c", "commit.gpgsign=false")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def commit(folder: Path, files: Mapping[str, str]) -> None:
    write(folder, files)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "A change")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A model's repository that shows all kinds of plots; main has no results yet."""
    folder = tmp_path / "model"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "main")
    commit(folder, {"release.yaml": yaml.safe_dump({"name": "wines", "serving": SERVING, "report": SHOWN})})
    return folder


@pytest.fixture
def trained(checkout: Path) -> Path:
    """The same with results on main, and others on the branch, of which one is not committed."""
    commit(checkout, BASE)
    git(checkout, "switch", "--quiet", "--create", "faster")
    commit(checkout, HERE | {"metrics.json": BASE["metrics.json"]})
    write(checkout, HERE)
    return checkout


def rendered(folder: Path, base: str = "main", **options: Any) -> str:
    return report.render(report.compare(project.read(folder), folder, base=base), **options)


def problems(folder: Path) -> str:
    with pytest.raises(InvalidInput) as refused:
        report.compare(project.read(folder), folder, base="main")
    return str(refused.value)


def show(folder: Path, **shown: Any) -> None:
    write(folder, {"release.yaml": yaml.safe_dump({"name": "wines", "serving": SERVING, "report": SHOWN | shown})})


def test_a_report_reads_as_the_golden_file_does(trained: Path) -> None:
    text = rendered(trained, run=RUN).replace(git(trained, "rev-parse", "--short=12", "main"), "3f1c9d2a7b60")
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text(), "run with UPDATE_GOLDEN=1, and read what has changed"


def test_what_is_better_is_told_where_it_is_known_and_guessed_nowhere(trained: Path) -> None:
    lines = {line.split("`")[1]: line for line in rendered(trained).splitlines() if line.startswith("| `")}
    assert "+0.25 ▲ better" in lines["accuracy"]
    assert "+0.1 ▼ worse" in lines["loss"]
    assert lines["leaves"].endswith("| +2 |")


def test_results_that_are_not_committed_are_named(trained: Path) -> None:
    assert "**The results of training are not committed** in `metrics.json`." in rendered(trained)
    commit(trained, {})
    assert "are not committed" not in rendered(trained)


def test_the_first_report_says_that_there_is_nothing_to_compare_with(checkout: Path) -> None:
    write(checkout, HERE)
    text = rendered(checkout)
    assert "> `main` has none of these files yet: there is nothing to compare with." in text
    assert "| `accuracy` | `0.75` |" in text


def test_a_base_that_is_not_here_is_told(trained: Path) -> None:
    assert "> There is no commit `origin/main` here: nothing is compared." in rendered(trained, base="origin/main")


def test_a_base_that_looks_like_an_option_is_none(trained: Path) -> None:
    assert "There is no commit `--all` here" in rendered(trained, base="--all")


def test_a_file_of_the_base_that_nobody_can_read_stops_no_report(checkout: Path) -> None:
    commit(checkout, BASE | {"metrics.json": "{", "plots/history.csv": "round,train\n1\n"})
    write(checkout, HERE)
    text = rendered(checkout)
    assert "> `metrics.json` is neither YAML nor JSON" in text
    assert "> `plots/history.csv` has 1 values in row 2, and 2 columns on `main`: nothing is compared with it." in text
    assert "`main` has no such line" in text


def test_every_file_that_cannot_be_shown_is_refused_at_once(checkout: Path) -> None:
    write(checkout, HERE | {"params.yaml": "- a list\n", "plots/predictions.csv": "name,actual\nx,a\n"})
    (checkout / "metrics.json").unlink()
    told = problems(checkout)
    assert "params.yaml: holds no keys" in told
    assert "metrics.json: is missing\n" in told
    assert "plots/predictions.csv: has no column predicted; there are name, actual" in told
    assert "make train" in told


def test_a_better_that_names_no_metric_is_refused_with_those_there_are(trained: Path) -> None:
    show(trained, better={"acuracy": "higher"})
    told = problems(trained)
    assert "report.better.acuracy names no metric" in told
    assert "There are: accuracy, leaves, loss, recall.a, recall.b." in told


def test_names_and_values_stay_text(checkout: Path) -> None:
    hostile = "a|b](https://evil.example.com) @all <img src=x> `x`\n/close"
    write(checkout, HERE | {"params.yaml": yaml.safe_dump({hostile: hostile})})
    (checkout / "plots/predictions.csv").write_text('name,actual,predicted\n"a|b` @all\n```\n/close",a,a\n')
    text = rendered(checkout)
    outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", text)
    assert not any(each in outside for each in ("evil", "@all", "<img"))
    assert not any(line.startswith("/close") for line in text.splitlines())


def test_a_label_cannot_end_a_chart(checkout: Path) -> None:
    write(checkout, HERE | {"plots/history.csv": 'round,"x"" ```\n%% [1]"\n1,2\n2,3\n'})
    chart = rendered(checkout).split("```mermaid\n")[1].split("\n```\n")[0]
    assert re.fullmatch(r'  y-axis "[\w .,%→/#;-]*" [\d.]+ --> [\d.]+', chart.splitlines()[3])


def test_a_long_history_is_drawn_with_few_points_from_its_first_to_its_last(checkout: Path) -> None:
    rows = "".join(f"{step},{step / 1000}\n" for step in range(5001))
    write(checkout, HERE | {"plots/history.csv": f"round,train\n{rows}"})
    found = re.search(r"  line \[(.*)\]", rendered(checkout))
    assert found
    points = [float(point) for point in found[1].split(", ")]
    assert (len(points), points[0], points[-1]) == (60, 0.0, 5.0)


def test_numbers_that_are_none_are_left_out_of_a_line(checkout: Path) -> None:
    write(checkout, HERE | {"plots/history.csv": "round,train\n1,1e-7\n2,nan\n3,\n4,inf\n5,2e-7\n"})
    text = rendered(checkout)
    assert "nan" not in text
    assert re.search(r"line \[0\.0000001, [\d., ]+\]", text)


def test_lines_over_different_ranges_are_drawn_apart(trained: Path) -> None:
    write(trained, {"plots/history.csv": "round,train\n1,0.8\n2,0.4\n"})
    text = rendered(trained)
    assert text.count("```mermaid") == 2
    assert "drawn apart, because their ranges of `round` differ" in text


def test_a_report_fits_however_small_the_sites_limit_is(trained: Path) -> None:
    rows = "".join(f"{name},a,b\n" for name in range(50))
    write(trained, {"plots/predictions.csv": f"name,actual,predicted\n{rows}"})
    show(trained, plots=[{"file": "plots/predictions.csv", "kind": "table", "rows": 100}])
    whole = rendered(trained)
    text = rendered(trained, limit=len(whole) + 1000)
    assert len(text) <= len(whole) + 1000
    assert "rows of plots/predictions.csv" in text
    # What matters most gives way last.
    assert "▲ better" in text


def command(folder: Path, *words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    parser = argparse.ArgumentParser()
    report.add_arguments(parser)
    monkeypatch.chdir(folder)
    return report.run(parser.parse_args(["--base", "main", *words]))


def on_a_laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI_API_V4_URL", "GITHUB_API_URL"):
        monkeypatch.delenv(name, raising=False)


def test_a_laptop_gets_the_report_in_a_file_and_posts_nothing(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_a_laptop(monkeypatch)
    assert command(trained, "--out", "out/report.md", "--post", monkeypatch=monkeypatch) == 0
    assert (trained / "out" / "report.md").read_text() == rendered(trained)
    assert "nothing was posted" in capsys.readouterr().out


def test_there_is_one_note_of_each_model_and_it_is_brought_up_to_date(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_a_laptop(monkeypatch)
    with serving() as server:
        for name, value in server.gitlab.environ().items():
            monkeypatch.setenv(name, value)
        assert command(trained, "--post", monkeypatch=monkeypatch) == 0
        write(trained, {"metrics.json": BASE["metrics.json"]})
        assert command(trained, "--post", monkeypatch=monkeypatch) == 0
        (note,) = server.gitlab.texts()
    assert note.startswith("<!-- model-serving: report wines -->")
    assert "▲ better" not in note
    assert capsys.readouterr().out.splitlines() == [
        "GitLab: created the note.",
        "GitLab: updated the note.",
    ]
