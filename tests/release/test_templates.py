"""The template of a model's repository, and its examples: rendered, trained, tested, reported on, as people do it."""

from __future__ import annotations

import filecmp
import functools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.tools.node import provide as gitlab_ci_local
from local.tools.recipe import cache_folder
from tests.hosts import serving
from tests.release.repositories import PROJECT, git, serving_repository
from tests.release.templates import EXAMPLES, TEMPLATE, TOOLS, Example, copier, lint, rendered, serving_tools

CHANGED: dict[str, tuple[str, str, str]] = {
    "classificador-produtos": ("longest_part: 5", "longest_part: 3", "| `longest_part` | `5` | `3` | -2 |"),
    "iris-decision-tree": ("max_depth: null", "max_depth: 1", "| `max_depth` | `null` | `1` | changed |"),
    "wine-cultivars": ("rounds: 60", "rounds: 20", "| `train.rounds` | `60` | `20` | -40 |"),
}
"""Of each example: a parameter, what it becomes, and the report's line about it."""
RELEASED = {
    "classificador-produtos": "classificador-produtos/1.0/classificador-produtos.joblib",
    "iris-decision-tree": "iris-dtc/1.0/iris-decision-tree.joblib",
    "wine-cultivars": "wine-lgbm/1.0/wine-lgbm.txt",
}
"""Of each example: the released model that it trains."""
NOTEBOOK = {"train.py", "{name}.ipynb"}
DVC = {".dvc", "dvc.yaml", "dvc.lock", "data", "steps"}
EVERYWHERE = {
    *(".github", ".gitignore", ".gitlab-ci.yml", "Makefile", "README.md", "metrics.json", "model-settings.json"),
    *("params.yaml", "plots", "quality.yaml", "release.yaml", "requirements-bootstrap.txt", "requirements-tools.in"),
    *("requirements-overrides.txt", "requirements-tools.txt", "requirements.in", "requirements.lock", "tests"),
}


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return serving_tools(tmp_path_factory.mktemp("tools"))


@pytest.fixture(scope="module")
def training(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Example]:
    """Trains an example and commits it on main, each once, in whatever order the tests ask for them."""

    @functools.cache
    def once(name: str) -> Example:
        scratch = tmp_path_factory.mktemp("example")
        url = serving_repository(scratch).url
        folder = rendered(scratch / "model", name, serving_repository=url)
        example = Example(name=name, folder=folder, tools=tools)
        example.git("init", "--quiet", "--initial-branch", "main")
        example.provide_environment()
        example.must("train")
        example.commit()
        return example

    return once


def only(*names: str, instead: str) -> list[Any]:
    """The examples as parameters: `make test` has those of these names, something else stands for the others there."""
    return [name if name in names else pytest.param(name, marks=pytest.mark.thorough(instead)) for name in EXAMPLES]


ONE_OF_EACH_KIND = only("iris-decision-tree", "wine-cultivars", instead="the other notebook with the same library")


@pytest.fixture(params=ONE_OF_EACH_KIND)
def trained(request: pytest.FixtureRequest, training: Callable[[str], Example]) -> Example:
    """An example as it was trained; nothing changes it."""
    return training(request.param)


@pytest.fixture
def example(trained: Example, tmp_path: Path) -> Example:
    """A checkout of it."""
    return trained.copy(tmp_path / "model")


@pytest.mark.thorough("the two pipelines, whose jobs test it with the same command")
def test_an_example_passes_its_own_tests(trained: Example) -> None:
    assert " passed" in trained.must("test")


def test_what_is_committed_is_what_its_kind_has_and_nothing_else(trained: Example) -> None:
    kind = DVC if trained.name == "wine-cultivars" else {name.format(name=trained.name) for name in NOTEBOOK}
    data = {"data"} if trained.name == "classificador-produtos" else set()
    there = {path.split("/")[0] for path in trained.git("ls-files").splitlines()}
    assert there == EVERYWHERE | kind | data
    assert trained.git("status", "--porcelain") == ""


@pytest.mark.parametrize(
    "trained", only("wine-cultivars", instead="boosted trees, whose training has more steps"), indirect=True
)
def test_training_again_gives_the_same_bytes(example: Example) -> None:
    before = example.results()
    assert {"build/request.json", "build/response.json", "metrics.json", "plots/predictions.csv"} < before.keys()
    example.forget()
    assert not example.results()
    example.must("train")
    assert example.results() == before
    assert example.git("status", "--porcelain") == ""


def test_a_parameter_that_nothing_reads_ends_the_training(example: Example) -> None:
    line = CHANGED[example.name][0]
    example.replace("params.yaml", line, line.replace(":", "s:"))
    done = example.make("train")
    assert done.code != 0
    assert f"{line.split(':')[0]}s" in done.said
    # And which it could have been.
    assert "seed, " in done.said
    assert "Traceback" not in done.said


def test_parameters_that_nobody_can_read_end_the_training(example: Example) -> None:
    (example.folder / "params.yaml").write_text("train: [\n")
    done = example.make("train")
    assert done.code != 0
    assert "params.yaml" in done.said
    assert "Traceback" not in done.said


@pytest.mark.parametrize("trained", only("iris-decision-tree", instead="another example's tests"), indirect=True)
def test_a_model_that_is_not_good_enough_or_answers_otherwise_fails_its_tests(example: Example) -> None:
    (example.folder / "quality.yaml").write_text("accuracy: 1.01\n")
    response = example.folder / "build" / "response.json"
    content = json.loads(response.read_text())
    content["outputs"][0]["data"].reverse()
    response.write_text(json.dumps(content))
    said = example.make("test").said
    assert "2 failed, 3 passed" in said
    assert "test_a_metric_reaches_what_it_has_to[accuracy]" in said
    assert "test_the_artefact_gives_the_answers_of_the_contract" in said


@pytest.mark.parametrize(
    "trained",
    only("iris-decision-tree", instead="another notebook's report, and that of a pipeline with DVC"),
    indirect=True,
)
def test_the_report_compares_a_changed_parameter_and_what_came_of_it(example: Example) -> None:
    old, new, told = CHANGED[example.name]
    example.git("switch", "--quiet", "--create", "try")
    example.replace("params.yaml", old, new)
    example.must("train")
    assert "report.md: compared with main" in example.must("report", "BASE=main")
    report = (example.folder / "report.md").read_text()
    assert told in report
    assert "**The results of training are not committed**" in report
    assert "### Confusion matrix" in report
    assert ("xychart-beta" in report) == (example.name == "wine-cultivars")


@pytest.mark.parametrize("name", ["x`touch ran`", "x$(touch ran)", "x$(shell touch ran)", 'x";touch ran;"'])
@pytest.mark.parametrize("trained", ["wine-cultivars"], indirect=True)
def test_a_name_is_never_run_as_a_command(example: Example, name: str) -> None:
    example.git("branch", "base")
    (example.folder / ".git" / "refs" / "heads" / name).write_text(example.git("rev-parse", "base"))
    done = example.make("report", BASE=f"refs/heads/{name}")
    assert "report.md: compared with refs/heads/x" in done.said or "is no commit" in done.said, done.said
    assert example.make("rehearse", TAG=name).code != 0
    assert not (example.folder / "ran").exists()


@pytest.mark.parametrize(
    "trained",
    only("wine-cultivars", instead="a protected tag's pipeline, which delivers the other kind"),
    indirect=True,
)
def test_an_example_can_be_released(example: Example) -> None:
    said = example.must("rehearse", "TAG=v1.0.0", "OPTIONS=--out released")
    assert f"{example.name} v1.0.0 can be released" in said
    folder = example.folder / "released" / example.name / "v1.0.0"
    assert json.loads((folder / "model-settings.json").read_text())["parameters"]["version"] == "v1.0.0"
    assert filecmp.cmp(folder / "requirements.lock", example.folder / "requirements.lock", shallow=False)


# The other example in a notebook has the same files.
@pytest.mark.parametrize("name", ["iris-decision-tree", "wine-cultivars"])
def test_its_python_is_as_clean_as_this_projects(name: str, tmp_path: Path) -> None:
    done = lint(rendered(tmp_path / "model", name))
    assert done.code == 0, done.said


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
@pytest.mark.parametrize(
    "delivery",
    ["push", pytest.param("merge-request", marks=pytest.mark.thorough("push: the way is in release.yaml alone"))],
)
def test_its_pipelines_are_what_the_sites_take(name: str, delivery: str, tmp_path: Path) -> None:
    folder = rendered(tmp_path / "model", name, delivery=delivery)
    check = [str(TOOLS / "check-jsonschema"), "--builtin-schema"]
    workflow = ".github/workflows/model.yml"
    for command in (
        [*check, "vendor.gitlab-ci", "--data-transform", "gitlab-ci", ".gitlab-ci.yml"],
        [*check, "vendor.github-workflows", workflow],
        [str(PROJECT / ".state" / "bin" / "actionlint"), "-shellcheck=", "-pyflakes=", workflow],
        [str(TOOLS / "zizmor"), "--quiet", "--offline", ".github/workflows"],
    ):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("site", "missing"), [("gitlab", ".github"), ("github", ".gitlab-ci.yml")])
def test_there_is_no_pipeline_for_the_other_site(site: str, missing: str, tmp_path: Path) -> None:
    folder = rendered(tmp_path / "model", "iris-decision-tree", site=site)
    assert {path.name for path in folder.iterdir()} & {".github", ".gitlab-ci.yml"} == (
        {".github", ".gitlab-ci.yml"} - {missing}
    )


def test_a_model_may_be_called_otherwise_than_its_example(tmp_path: Path) -> None:
    folder = rendered(tmp_path / "model", "iris-decision-tree", name="petals")
    assert json.loads((folder / "model-settings.json").read_text())["name"] == "petals"
    assert yaml.safe_load((folder / "release.yaml").read_text())["name"] == "petals"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("name=my model", "Write letters, digits, ., _ and -, 63 at most"),
        ("serving_repository=https://oauth2:secret@gitlab.example.com/serving.git", "would be in every log"),
    ],
)
def test_an_answer_that_would_not_work_makes_nothing(answer: str, told: str, tmp_path: Path) -> None:
    done = copier(tmp_path / "model", "iris-decision-tree", "--data", answer)
    assert done.code != 0
    assert told in done.said
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("trained", only("wine-cultivars", instead="boosted trees, which vary most"), indirect=True)
def test_an_example_trains_the_released_model_byte_for_byte(trained: Example) -> None:
    artefact = PROJECT / "models" / RELEASED[trained.name]
    assert (trained.folder / "build" / f"{trained.name}{artefact.suffix}").read_bytes() == artefact.read_bytes()


@pytest.mark.parametrize(("library", "released"), [("scikit-learn", "iris-dtc"), ("lightgbm", "wine-lgbm")])
def test_an_example_shares_the_runtime_image_of_a_released_model(library: str, released: str) -> None:
    lock = TEMPLATE / "locks" / f"{library}.lock"
    assert lock.read_bytes() == (PROJECT / "models" / released / "1.0" / "requirements.lock").read_bytes()


@pytest.mark.parametrize("trained", ["wine-cultivars"], indirect=True)
def test_a_merge_requests_pipeline_trains_tests_and_writes_its_note(example: Example, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch", "main", "model.git")
    example.git("remote", "add", "origin", str(tmp_path / "model.git"))
    example.git("push", "--quiet", "origin", "main")
    example.git("switch", "--quiet", "--create", "try")
    old, new, told = CHANGED[example.name]
    example.replace("params.yaml", old, new)
    example.commit()
    example.git("push", "--quiet", "--set-upstream", "origin", "try")
    with serving() as server:
        given = server.gitlab.environ() | {"CI_PIPELINE_SOURCE": "merge_request_event", "CI_COMMIT_BRANCH": ""}
        given |= {"CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main"}
        log = pipeline(example, given, "train", "test", "report")
        (note,) = server.gitlab.texts()
    assert note.startswith("<!-- model-serving: report wine-cultivars -->"), log
    assert told in note
    assert "**The results of training are not committed**" in note
    assert "### Confusion matrix" in note
    # GitLab takes pictures, which the job's packages can draw.
    assert len(server.gitlab.uploads) > 1
    assert note.count("](/uploads/") == len(server.gitlab.uploads)


@pytest.mark.parametrize("trained", ["iris-decision-tree"], indirect=True)
def test_a_protected_tags_pipeline_trains_tests_and_releases(example: Example) -> None:
    example.replace("release.yaml", "delivery: merge-request\n  site: gitlab", "delivery: push")
    example.commit()
    example.git("tag", "v1.0.1")
    with serving() as server:
        given = server.gitlab.environ() | {"CI_PIPELINE_SOURCE": "push", "CI_COMMIT_BRANCH": ""}
        given |= {"CI_COMMIT_TAG": "v1.0.1", "CI_COMMIT_SHA": example.git("rev-parse", "HEAD")}
        given |= {"CI_COMMIT_REF_PROTECTED": "true", "CI_PIPELINE_URL": f"{server.url}/group/model/-/pipelines/7"}
        log = pipeline(example, given, "train", "test", "release")
    assert "iris-decision-tree v1.0.1 is delivered" in log
    url = yaml.safe_load((example.folder / "release.yaml").read_text())["serving"]["repository"]
    released = git(
        Path(url.removeprefix("file://")), "ls-tree", "-r", "--name-only", "main", "models/iris-decision-tree"
    )
    place = "models/iris-decision-tree/v1.0.1"
    assert f"{place}/iris-decision-tree.joblib" in released.splitlines()
    assert "executed" not in released


@pytest.mark.parametrize("trained", ["wine-cultivars"], indirect=True)
def test_a_pipeline_of_a_tag_that_is_no_release_fails_and_says_why(example: Example) -> None:
    given = {"CI_COMMIT_TAG": "1.0.0", "CI_COMMIT_BRANCH": "", "CI_PIPELINE_SOURCE": "push"}
    log = pipeline(example, given, "tag", is_fine=False)
    assert "The tag 1.0.0 does not begin with v" in log
    assert "tag the commit like v1.0.1" in log


def pipeline(example: Example, given: dict[str, str], *jobs: str, is_fine: bool = True) -> str:
    """Runs jobs of .gitlab-ci.yml by gitlab-ci-local, with its shell executor; returns the log."""
    options = [option for name, value in given.items() for option in ("--variable", f"{name}={value}")]
    options += [f"--ignore-predefined-vars={','.join(given)}", "--force-shell-executor", "--no-color"]
    done = subprocess.run(
        [str(gitlab_ci_local(cache_folder())), *jobs, *options, "--no-json-schema-validation"],
        cwd=example.folder,
        env=example.environ(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
        check=False,
    )
    assert (done.returncode == 0) == is_fine, done.stdout
    return done.stdout
