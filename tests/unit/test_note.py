"""The note of a merge request, made from previews that the real engine gave (tests/engine/test_preview.py)."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

import pytest

from model_serving.hosts.blocks import LIMIT
from model_serving.hosts.site import Run
from model_serving.pipelines import note
from model_serving.pipelines.changes import Change, ModelChange, Preview, Share, Violation
from model_serving.pipelines.preview import FORK
from model_serving.pipelines.values import Difference
from model_serving.problems import Failure

GOLDEN = Path(__file__).parent / "golden"
GITHUB = 65_536
BUCKET = "gcp:storage/bucket:Bucket"
COMMIT = "3f1c9d2a7b60e58412cd90ab37ef6651d08b24c7"
RUN = Run(name="job note of pipeline 7", url="https://gitlab.example.com/team/models/-/jobs/7")
FROM_A_FORK = Preview(stack="staging", commit=COMMIT, outcome="no-identity", why=FORK)
REFUSED = Preview(
    stack="staging",
    commit=COMMIT,
    outcome="failed",
    why="A mandatory policy is violated, so a deployment would fail.",
    changes=(Change(operation="delete", kind="Bucket", token=BUCKET, name="data", component="Storage"),),
    violations=(
        Violation(
            policy="no-public-buckets", pack="house", level="mandatory", message="@all it is\npublic", resource="x"
        ),
        Violation(policy="labels", pack="house", level="advisory", message="has no `owner`", resource="Bucket data"),
    ),
)
CASES: dict[str, tuple[list[str | Preview], int]] = {
    "empty": (["empty"], 10**6),
    "bump": (["bump"], 10**6),
    "canary": (["canary"], 10**6),
    "canary-withdrawn": (["canary-withdrawn"], 10**6),
    "rollback-and-more": (["rollback-and-more"], 10**6),
    "first-deployment": (["first-deployment"], GITHUB),
    "cluster-replaced": (["cluster-replaced"], 10**6),
    "secrets": (["secrets-new", "secrets-changed"], 10**6),
    "markdown": (["markdown"], 10**6),
    "policies": (["policies"], 10**6),
    "failed": (["failed", FROM_A_FORK, REFUSED], 10**6),
}
"""Golden file -> recorded previews, or written ones, and the limit in characters."""

MERMAID = re.compile(r'flowchart LR(\n    m\d+\("[^"`]*"\)|\n    m\d+ (-->|-\.->)\|"[^"`]*"\| m\d+v\d+\["[^"`]*"\])+')
"""What of Mermaid's flowcharts is used: nodes and arrows with labels in quotes."""


def recorded(name: str) -> Preview:
    return Preview.model_validate_json((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def rendered(case: str, limit: int | None = None) -> str:
    given, usual = CASES[case]
    previews = [each if isinstance(each, Preview) else recorded(each) for each in given]
    return note.render(previews, run=RUN, limit=limit or usual)


def prose(text: str) -> str:
    """What of a note is read as Markdown: neither in a block nor in a code span."""
    without_blocks = re.sub(r"^(`{3,})\w*\n.*?\n\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", "", without_blocks)


@pytest.mark.parametrize("case", CASES)
def test_the_note_is_the_one_that_was_looked_at(case: str) -> None:
    path = GOLDEN / f"{case}.md"
    text = rendered(case)
    if os.environ.get("REFRESH_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text, (
        f"{path.name} is another one. If that is right: "
        "REFRESH_GOLDEN=1 .venv/bin/pytest tests/unit/test_note.py, and read the difference."
    )


@pytest.mark.parametrize("case", CASES)
def test_what_others_named_is_never_read_as_markup(case: str) -> None:
    text = prose(rendered(case))
    own = re.sub(
        r"\]\(https://gitlab\.example\.com/[\w/-]*\)|^#+ .*$|^- |\*+|<!-- .*? -->", "", text, flags=re.MULTILINE
    )
    assert not re.search(r"[@#!~]\w|://|www\.|<(?!details>|summary>|/summary>|/details>)|^/\w", own, re.MULTILINE), own
    assert text.count("<details>") == text.count("</details>") == sum(bool(each) for each in [*_diffs(rendered(case))])


def _diffs(text: str) -> list[str]:
    return re.findall(r"^`{3,}diff$", text, re.MULTILINE)


@pytest.mark.parametrize("case", CASES)
def test_a_table_has_as_many_cells_in_each_row(case: str) -> None:
    text = re.sub(r"^(`{3,})\w*\n.*?\n\1$", "", rendered(case), flags=re.MULTILINE | re.DOTALL)
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({row.count("|") for row in table.splitlines()}) == 1, table


@pytest.mark.parametrize("case", CASES)
def test_a_picture_is_small_and_simple(case: str) -> None:
    for picture in re.findall(r"^```mermaid\n(.*?)\n```$", rendered(case), re.MULTILINE | re.DOTALL):
        assert MERMAID.fullmatch(picture), picture
        assert len(picture) <= 2000


@pytest.mark.parametrize("limit", [GITHUB, GITHUB // 4, GITHUB // 16])
def test_a_note_of_everything_stays_within_its_limit_and_says_what_it_left_out(limit: int) -> None:
    text = rendered("first-deployment", limit)
    assert len(note.stale(text, "b" * 40, RUN)) <= limit
    assert "Left out because notes are limited to" in text
    assert "full diff" in text.rpartition("Left out")[2]
    assert text.count("<details>") == text.count("</details>") == len(_diffs(text))
    assert text.count("```") % 2 == 0


def test_what_matters_most_is_left_out_last() -> None:
    previews = [recorded("first-deployment"), recorded("cluster-replaced")]
    rest: list[int] = []
    for limit in (500_000, GITHUB, 16_000, 6_000):
        text = note.render(previews, limit=limit)
        rest.append(len(text))
        assert "**replace** `Cluster` `cluster`, forced by" in text
    assert rest == sorted(rest, reverse=True)
    assert "| `iris-dtc` | first deployment |" in note.render(previews, limit=16_000)


def test_a_site_without_a_limit_in_reach_gets_all_of_it() -> None:
    text = rendered("first-deployment", LIMIT)
    assert "Left out" not in text
    assert "+   spec.replicas: 2" in text


def test_stacks_come_in_the_order_in_which_they_are_deployed(tmp_path: Path) -> None:
    for order, stack in enumerate(("dev", "staging", "production"), start=1):
        found = Preview(stack=stack, commit=COMMIT, order=order, outcome="ok")
        (tmp_path / f"{stack}.json").write_text(found.model_dump_json())
        (tmp_path / f"{stack}.terraform.json").write_text('{"create": 0, "update": 0, "delete": 0}')
    assert [each.stack for each in note.read(tmp_path)] == ["dev", "staging", "production"]


def test_a_stale_note_says_so_and_a_fresh_one_does_not() -> None:
    body = rendered("bump")
    marked = note.stale(body, "b" * 40, RUN)
    assert f"**Out of date.** `{'b' * 12}` is being previewed, [`{RUN.name}`]({RUN.url})." in marked
    assert marked.endswith(body)
    assert note.fresh(marked) == body == note.fresh(body)
    assert note.fresh(marked.replace("\n", "\r\n")).startswith("## What"), "as a browser sends it"
    assert note.stale(marked, "c" * 40) == note.stale(body, "c" * 40), "one banner is enough"


def test_a_folder_without_previews_is_refused_with_the_next_command(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"python -m model_serving preview --stack STACK"):
        note.read(tmp_path)
    (tmp_path / "dev.json").write_text('{"stack": "dev"}')
    with pytest.raises(Failure, match=r"Remove it, and run"):
        note.read(tmp_path)


def test_the_command_writes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI_API_V4_URL", "GITHUB_API_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "empty.json").write_text((GOLDEN / "empty.json").read_text())
    out = tmp_path / "notes" / "note.md"
    assert note.run(argparse.Namespace(folder=tmp_path, out=out, limit=None)) == 0
    assert "No changes" in out.read_text()


def happening(before: dict[str, float], after: dict[str, float]) -> str:
    shares = [tuple(Share(version=each, percent=part) for each, part in side.items()) for side in (before, after)]
    model = ModelChange(name="iris", before=shares[0], after=shares[1])
    text = note.render([Preview(stack="dev", commit=COMMIT, outcome="ok", models=(model,))])
    (told,) = re.findall(r"^\| `iris` \| (.*?) \|", text, re.MULTILINE)
    return str(told)


def test_what_happens_to_a_model_is_said_in_a_few_words() -> None:
    assert happening({}, {"1.0": 100}) == "first deployment"
    assert happening({"1.0": 100}, {}) == "**removed**: requests get 404"
    assert happening({"1.9": 100}, {"1.10": 100}) == "new version: `1.9` → `1.10`"
    assert happening({"1.10": 100}, {"1.9": 100}) == "rollback: `1.10` → `1.9`"
    assert happening({"1.0": 100}, {"1.0": 90, "1.1": 10}) == "canary: `1.1` added"
    assert happening({"1.0": 90, "1.1": 10}, {"1.0": 50, "1.1": 50}) == "traffic shifts"
    assert happening({"1.0": 50, "1.1": 50}, {"1.1": 100}) == "`1.0` removed"


def test_a_note_says_who_may_ask_the_models_where_that_changes() -> None:
    what = Difference(path="description", old=None, new="Who may ask the models: everyone on the internet")
    policy = "gcp:compute/securityPolicy:SecurityPolicy"
    change = Change(
        operation="create", kind="SecurityPolicy", token=policy, name="edge", component="Edge", differences=(what,)
    )
    text = note.render([Preview(stack="dev", commit=COMMIT, outcome="ok", changes=(change,))], run=RUN, limit=GITHUB)
    assert "**Access from the internet**\n\n- Who may ask the models: everyone on the internet.\n" in text
