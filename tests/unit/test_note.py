"""The note of a merge request, made from previews that the real engine gave (tests/engine/test_preview.py)."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
from pathlib import Path

import pytest

from model_serving.hosts.blocks import LIMIT
from model_serving.hosts.gitlab import GitLab
from model_serving.hosts.site import Run
from model_serving.pipelines import note, stacks
from model_serving.pipelines.base import Base
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


@pytest.mark.parametrize("limit", [GITHUB, GITHUB // 16])
def test_an_error_in_one_long_line_is_there_with_its_beginning(limit: int) -> None:
    failed = Preview(stack="dev", commit=COMMIT, outcome="failed", errors=(f"quota exceeded: {'x' * 300_000}",))
    text = note.render([failed], limit=limit)
    assert len(text) <= limit
    assert "quota exceeded: xxx" in text
    assert "x…\n" in text


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


def test_a_preview_that_cannot_be_read_is_one_that_failed(tmp_path: Path) -> None:
    (tmp_path / "dev.json").write_text('{"stack": "dev"}')
    (tmp_path / "staging.json").write_bytes(b"\xff")
    dev, staging = note.read(tmp_path)
    assert (dev.stack, dev.outcome, dev.errors) == ("dev", "failed", ("dev.json: Field required",))
    assert (staging.stack, staging.outcome) == ("staging", "failed")


IN_A_JOB = {
    "CI_API_V4_URL": "https://gitlab.example.com/api/v4",
    "CI_COMMIT_SHA": COMMIT,
    "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
}
OWN_CLUSTER = "  model-serving:registry: r\n  model-serving:gateway: {className: contour}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with three stacks in its pipelines, of which dev has a preview, and one that is no part of them."""
    monkeypatch.setattr(stacks, "FOLDER", tmp_path / "stacks")
    monkeypatch.setattr(stacks, "PROJECT", tmp_path)
    for order, stack in enumerate(("dev", "staging", "production", "local")):
        section = f"  model-serving:ci: {{order: {order + 1}, backend: 'gs://states'}}\n" if stack != "local" else ""
        (tmp_path / "stacks").mkdir(exist_ok=True)
        (tmp_path / "stacks" / f"Pulumi.{stack}.yaml").write_text(f"config:\n{OWN_CLUSTER}{section}")
    (tmp_path / "previews").mkdir()
    found = Preview(stack="dev", commit=COMMIT, order=1, outcome="ok", unchanged=7)
    (tmp_path / "previews" / "dev.json").write_text(found.model_dump_json())
    return tmp_path


def in_a_job(folder: Path, **environ: str) -> str:
    """The note of a job of a merge request."""
    site = GitLab(IN_A_JOB | environ)
    return note.render(note.read(folder / "previews", site=site), run=RUN)


def test_a_preview_that_is_not_there_has_failed_with_what_its_stack_file_says(folder: Path) -> None:
    file = folder / "stacks" / "Pulumi.staging.yaml"
    file.write_text(f"{file.read_text()}  model-serving:models: {{iris: {{replicaz: 2}}}}\n")
    text = in_a_job(folder)
    assert re.findall(r"^\| `(\w+)` \| ([\w* ]+?) \|", text, re.MULTILINE) == [
        ("staging", "**preview failed**"),
        ("dev", "none"),
        ("production", "**preview failed**"),
    ]
    assert "model-serving:models.iris.replicaz" in text
    assert "Did you mean replicas?" in text
    assert "Its job ended before it wrote a result" in text.partition("### `production`")[2]
    assert "local" not in text


@pytest.mark.parametrize("content", ["config: [\n  model-serving:ci: {}\n", "config: {model-serving:ci: {order: 0}}\n"])
def test_a_stack_file_with_mistakes_does_not_leave_the_note(folder: Path, content: str) -> None:
    (folder / "stacks" / "Pulumi.production.yaml").write_text(content)
    text = in_a_job(folder)
    assert "| `production` | **preview failed** |" in text
    assert "stacks/Pulumi.production.yaml: " in text.partition("### `production`")[2]


def test_if_no_preview_has_ended_there_is_a_note_that_says_so(folder: Path) -> None:
    (folder / "previews" / "dev.json").unlink()
    text = in_a_job(folder)
    assert "**No preview has succeeded**, so what this would change is not known." in text
    assert text.count("**preview failed**") == 3
    assert f"`{COMMIT[:12]}`" in text


def test_outside_of_a_merge_request_the_stacks_to_expect_are_named(folder: Path) -> None:
    assert "production" not in in_a_job(folder, CI_MERGE_REQUEST_TARGET_BRANCH_NAME=""), "a deployment's own preview"
    assert [each.stack for each in note.read(folder / "previews")] == ["dev"]
    assert [each.stack for each in note.read(folder / "previews", ["dev", "staging"])] == ["dev", "staging"]


def test_an_environment_that_the_commit_takes_away_is_told_to_stay_behind(folder: Path) -> None:
    git = ("git", "-C", str(folder), "-c", "user.name=Somebody", "-c", "user.email=somebody@example.com")
    for words in (["init", "--quiet"], ["add", "stacks"], ["commit", "--quiet", "--message", "a start"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    (folder / "stacks" / "Pulumi.staging.yaml").unlink()
    production = folder / "stacks" / "Pulumi.production.yaml"
    production.write_text("config: {}\n")
    (folder / "stacks" / "Pulumi.local.yaml").unlink()
    text = in_a_job(folder, CI_MERGE_REQUEST_DIFF_BASE_SHA=head)
    assert "| `staging` | no longer deployed |" in text
    assert "Its stack file is deleted. What is deployed stays" in text
    assert "Its stack file has no section ci any more." in text.partition("### `production`")[2]
    assert "local" not in text
    assert "no longer" not in in_a_job(folder, CI_MERGE_REQUEST_DIFF_BASE_SHA="0" * 40)


def behind(**base: object) -> str:
    model = ModelChange(
        name="iris", before=(Share(version="1.1", percent=100),), after=(Share(version="1.0", percent=100),)
    )
    known = {"commit": "b" * 40, "deployed": "2026-11-28 10:00 UTC", "target": "main", **base}
    found = Preview(stack="dev", commit=COMMIT, outcome="ok", models=(model,), base=Base.model_validate(known))
    return note.render([found])


def test_what_a_branch_lacks_is_not_told_as_its_own_change() -> None:
    text = behind(behind=3, why="merging conflicts in stacks/Pulumi.dev.yaml", undone=("iris",))
    assert "> **Attention:** Compared with `bbbbbbbbbbbb`, deployed at 2026-11-28 10:00 UTC." in text
    assert "This branch is 3 commits behind what is live, and merging conflicts in stacks/Pulumi.dev.yaml" in text
    assert "| `iris` | rollback: `1.1` → `1.0`, not by this branch |" in text
    assert "Merge `main` into the branch" in text
    merged = behind(behind=1, is_merged=True)
    assert "This branch is 1 commit behind what is live. It was previewed merged with what is live." in merged
    assert "Attention" not in merged
    assert "not by this branch" not in merged
    assert "2 commits of `main` are not live yet" in behind(waiting=2)
    assert "cannot be fetched" in behind(behind=None)
    assert "This commit is 2 commits behind" in behind(behind=2, target="")


def test_the_command_writes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI_API_V4_URL", "GITHUB_API_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "empty.json").write_text((GOLDEN / "empty.json").read_text())
    out = tmp_path / "notes" / "note.md"
    assert note.run(argparse.Namespace(folder=tmp_path, out=out, limit=None, expect=[])) == 0
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
