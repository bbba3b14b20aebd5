"""The release job of a model's repository, against real git repositories and a real MLServer."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from local.tools.environments import UV
from model_serving.releases import serving_repository as product
from model_serving.releases.project import Serving
from tests.conftest import Figure
from tests.hosts import github, gitlab
from tests.hosts import serving as sites
from tests.release.git_server import GitServer, git_server
from tests.release.repositories import (
    PROJECT,
    RESPONSE,
    ModelRepository,
    Published,
    ServingRepository,
    model_repository,
    serving_repository,
)
from tests.release.templates import serving_tools

TOKEN = "glpat-secret-of-the-serving-repository"  # noqa: S105 - opens nothing
RELEASED = {
    "model-settings.json",
    "own.py",
    "provenance.json",
    "request.json",
    "requirements.lock",
    "response.json",
}
"""Every file of a release of the doubler."""


@dataclass(frozen=True, kw_only=True)
class Released:
    """A release that was delivered, for tests that look at it and for jobs that find it there.

    Attributes:
        before: the commit that it was added to.
        done: what its job did.
    """

    model: ModelRepository
    serving: ServingRepository
    before: str
    done: Published


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    folder = tmp_path_factory.mktemp("released")
    serving = serving_repository(folder)
    model = model_repository(folder / "model", serving.url)
    before = serving.tip
    done = model.publish("v1.0.1")
    assert done.code == 0, done.errors
    return Released(model=model, serving=serving, before=before, done=done)


def test_a_tag_becomes_one_commit_with_the_whole_release(released: Released) -> None:
    model, serving = released.model, released.serving
    assert serving.git("rev-parse", "main^") == released.before
    place = "models/doubler/v1.0.1"
    assert {path.removeprefix(f"{place}/") for path in serving.files(place=f"{place}/")} == RELEASED
    assert json.loads(serving.content(f"{place}/model-settings.json"))["parameters"]["version"] == "v1.0.1"
    provenance = json.loads(serving.content(f"{place}/provenance.json"))
    assert provenance["commit"] == model.git("rev-parse", "HEAD")
    assert provenance["packages"]["mlserver"] == "1.7.1"
    assert serving.git("log", "-1", "--format=%s", "main") == "Release doubler v1.0.1"
    assert serving.git("log", "-1", "--format=%(trailers:key=Model-Release,valueonly)", "main") == "doubler/v1.0.1"


def test_the_last_lines_say_what_each_step_took_and_where_the_release_is(released: Released) -> None:
    *_, took, where = released.done.output.splitlines()
    steps = re.findall(r"(\w+) [\d.]+ s", took.partition(": ")[2])
    assert steps == ["check", "read", "build", "try", "store", "deliver"]
    serving = released.serving
    assert where == f"doubler v1.0.1 is delivered: commit {serving.tip[:10]} on main of {serving.url}"


def test_the_same_release_again_is_a_success_and_no_commit(released: Released) -> None:
    tip = released.serving.tip
    other_job = "https://gitlab.example.com/group/model/-/pipelines/8"
    again = released.model.publish("v1.0.1", CI_PIPELINE_URL=other_job)
    assert again.code == 0, again.errors
    assert "doubler v1.0.1 was released already" in again.last_line
    assert released.serving.tip == tip


def test_other_content_under_a_released_version_is_refused_with_the_files(tmp_path: Path, released: Released) -> None:
    model, tip = released.model.copy(tmp_path / "model"), released.serving.tip
    model.write({"build/own.py": f"{(model.folder / 'build' / 'own.py').read_text()}# changed\n"})
    done = model.publish("v1.0.1")
    assert done.code == 1
    assert "is in the serving repository with other content: own.py\n" in done.errors
    assert "Tag the commit with the next version." in done.errors
    assert released.serving.tip == tip


def test_a_trial_allows_the_answer_time_of_the_most_patient_stack(tmp_path: Path, serving: ServingRepository) -> None:
    def stack(**model: int) -> str:
        return json.dumps({"config": {"model-serving:models": {"doubler": model}}})

    stacks = {"dev": stack(answerSeconds=60), "staging": stack(), "broken": "config: [", "other": "config: {}"}
    serving.add(tmp_path / "other", {f"stacks/Pulumi.{name}.yaml": text for name, text in stacks.items()})
    chosen = Serving.model_validate({"repository": serving.url, "delivery": "push"})
    clone = product.ServingRepository(serving=chosen, folder=tmp_path / "clone")
    clone.open()
    assert clone.answer_seconds(clone.tip(), "doubler") == 60
    assert clone.answer_seconds(clone.tip(), "unknown") == 30


def test_every_reason_is_told_at_once_and_nothing_is_changed(
    tmp_path: Path, model: ModelRepository, serving: ServingRepository
) -> None:
    serving.add(tmp_path / "other", {"models/doubler/v2.0.0/README.md": ""})
    tip = serving.tip
    model.write({"model-settings.json": "{}"})
    done = model.publish("1.0.1", CI_COMMIT_REF_PROTECTED="false", CI_COMMIT_SHA="f" * 40)
    assert done.code == 1
    for reason in (
        "the tag 1.0.1 does not begin with v",
        "the tag 1.0.1 is not protected",
        "and the job is about ffffffffff",
        "there are changes that are in no commit: model-settings.json",
        "model-settings.json: $VERSION is nowhere in it",
        "the version goes backwards: v2.0.0 is released already",
    ):
        assert reason in done.errors
    assert "Traceback" not in done.errors
    assert serving.tip == tip


def test_what_the_serving_side_would_refuse_is_refused_here_under_this_repositorys_names(
    model: ModelRepository, serving: ServingRepository
) -> None:
    tip = serving.tip
    settings = json.loads((model.folder / "model-settings.json").read_text())
    settings["parameters"]["uri"] = "./lost.bin"
    model.write(
        {
            "build/request.json": json.dumps({"inputs": []}),
            "build/response.json": "{",
            "build/other/model-settings.json": "{}",
            "model-settings.json": json.dumps(settings),
        }
    )
    model.commit()
    model.git("tag", "--force", "v1.0.1")
    done = model.publish("v1.0.1")
    assert done.code == 1
    assert "build/request.json: inputs is not a list of tensors" in done.errors
    assert "build/response.json: line 1, column 2" in done.errors
    assert "To check the file, run: python3 -m json.tool build/response.json" in done.errors
    assert "build/other/model-settings.json: is a second model-settings.json" in done.errors
    assert "Put the artefact into build and write its path from there." in done.errors
    assert "models/doubler" not in done.errors
    assert serving.tip == tip


def test_a_link_out_of_the_repository_and_a_date_as_a_version_are_refused_at_once(
    model: ModelRepository, serving: ServingRepository
) -> None:
    tip = serving.tip
    (model.folder / "build" / "notes.txt").symlink_to("/etc/passwd")
    model.git("tag", "v2024-9-1")
    done = model.publish("v2024-9-1")
    assert done.code == 1
    assert "build/notes.txt: is a link to /etc/passwd, which is outside" in done.errors
    assert "Tag the commit v2024.9.1, and remove the tag v2024-9-1." in done.errors
    assert "Traceback" not in done.errors
    assert serving.tip == tip


@pytest.mark.thorough("tests/unit/test_catalog.py, and here what else the serving side would refuse")
def test_a_release_that_would_be_served_under_anothers_name_is_refused(
    tmp_path: Path, model: ModelRepository, serving: ServingRepository
) -> None:
    model.tag("v1-v2.0.0")
    assert model.publish("v1-v2.0.0").code == 0
    other = model_repository(tmp_path / "other", serving.url, name="doubler-v1", tags=("v2.0.0",))
    done = other.publish("v2.0.0")
    assert done.code == 1
    assert "would both be served as doubler-v1-v2-0-0" in done.errors


@pytest.mark.parametrize(
    ("code", "told"),
    [
        pytest.param(
            "raise RuntimeError('no weights')",
            "RuntimeError: no weights",
            marks=pytest.mark.thorough("the same error when it loads"),
        ),
        (
            "from mlserver import MLModel\nclass Doubler(MLModel):\n"
            "    async def load(self):\n        raise RuntimeError('no weights')\n",
            "RuntimeError: no weights",
        ),
        pytest.param(
            "import os\nos._exit(3)",
            "MLServer ended with 3",
            marks=pytest.mark.thorough("one that ends MLServer when it is asked, in test_trial.py"),
        ),
    ],
    ids=["when-imported", "when-loaded", "ended"],
)
def test_a_model_that_cannot_be_loaded_is_not_released(
    model: ModelRepository, serving: ServingRepository, code: str, told: str
) -> None:
    tip = serving.tip
    model.write({"build/own.py": code})
    done = model.publish("v1.0.1")
    assert done.code == 1
    assert told in done.errors
    assert "Traceback" not in done.errors.partition("Its last words")[0]
    assert serving.tip == tip


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("2 * each", "3 * each"), "expected: y[0] to be 2 within 0.0001; it is 3"),
        *(
            pytest.param(
                *each, marks=pytest.mark.thorough("another value; each answer, in tests/unit/test_contract.py")
            )
            for each in (
                (("2 * each", "float('nan')"), "expected: y[0] to be 2 within 0.0001; it is null"),
                (("[len(doubled)]", "[1, len(doubled)]"), "expected: y to have the shape [2]; it is [1, 2]"),
                (("doubled =", "raise ValueError('no'); doubled ="), "expected: the status 200"),
            )
        ),
    ],
    ids=["value", "no-number", "shape", "status"],
)
def test_a_model_that_breaks_its_contract_is_not_released(
    model: ModelRepository, serving: ServingRepository, change: tuple[str, str], told: str
) -> None:
    tip = serving.tip
    code = (model.folder / "build" / "own.py").read_text()
    assert change[0] in code
    model.write({"build/own.py": code.replace(*change)})
    done = model.publish("v1.0.1")
    assert done.code == 1
    assert "build/response.json: doubler v1.0.1 does not keep its contract." in done.errors
    assert told in done.errors
    assert serving.tip == tip


def test_another_environment_than_the_locked_one_is_refused(model: ModelRepository, serving: ServingRepository) -> None:
    lock = (model.folder / "requirements.lock").read_text()
    model.write({"requirements.lock": lock.replace("mlserver==1.7.1", "mlserver==1.7.0")})
    model.commit()
    model.git("tag", "--force", "v1.0.1")
    done = model.publish("v1.0.1")
    assert done.code == 1
    assert "mlserver is 1.7.1, locked 1.7.0" in done.errors


def test_a_rehearsal_on_a_laptop_leaves_the_release_and_delivers_nothing(
    tmp_path: Path, model: ModelRepository, serving: ServingRepository
) -> None:
    tip = serving.tip
    model.write({"model-settings.json": (model.folder / "model-settings.json").read_text() + "\n"})
    out = tmp_path / "out"
    done = model.publish("", "--dry-run", "--tag", "v1.2.3", "--out", str(out), CI_API_V4_URL="")
    assert done.code == 0, done.errors
    assert {path.name for path in (out / "doubler" / "v1.2.3").iterdir()} == RELEASED
    assert [path.name for path in out.iterdir()] == ["doubler"]
    assert "not committed, which a release refuses: model-settings.json" in done.output
    assert serving.tip == tip


def test_a_laptop_releases_nothing(model: ModelRepository, serving: ServingRepository) -> None:
    done = model.publish("v1.0.1", CI_API_V4_URL="")
    assert done.code == 1
    assert "this is not a job of GitLab or GitHub" in done.errors
    assert "publish --dry-run" in done.errors


# Merge requests


def by_request(folder: Path, serving: ServingRepository, url: str, place: str) -> ModelRepository:
    """A model's repository that asks for a merge; the serving repository is a folder, its site is stood in for."""
    api, project, token = (
        (f"{url}/api/v4", gitlab.SERVING, gitlab.TOKEN)
        if place == "gitlab"
        else (f"{url}/api/v3", github.SERVING, github.TOKEN)
    )
    made = model_repository(
        folder, serving.url, delivery="merge-request", site=place, api=api, project=project, tags=("v1.0.1",)
    )
    made.variables["MODEL_SERVING_TOKEN"] = token
    return made


@pytest.mark.parametrize("place", ["gitlab", "github"])
def test_one_merge_request_carries_the_release_is_found_again_and_has_no_successor_when_it_is_merged(
    tmp_path: Path, serving: ServingRepository, place: str
) -> None:
    tip = serving.tip
    branch = "release/doubler/v1.0.1"
    with sites() as server:
        model = by_request(tmp_path / "model", serving, server.url, place)
        first, again = model.publish("v1.0.1"), model.publish("v1.0.1")
        assert first.code == again.code == 0, first.errors + again.errors
        assert serving.tip == tip
        assert serving.git("rev-parse", f"{branch}^") == tip
        serving.git("update-ref", "refs/heads/main", f"refs/heads/{branch}")
        serving.git("branch", "--delete", "--force", branch)
        merged = model.publish("v1.0.1")
        assert merged.code == 0, merged.errors
        assert "was released already" in merged.last_line
        [request] = server.gitlab.requests if place == "gitlab" else server.github.requests
        assert len(server.calls("POST")) == 1
    assert request["title"] == "Release doubler v1.0.1"
    assert "mlserver 1.7.1" in (request.get("description") or request["body"])
    address = request.get("web_url") or request["html_url"]
    assert first.last_line == again.last_line == f"doubler v1.0.1 is delivered: {address}"


@pytest.mark.parametrize(
    "place",
    [
        "gitlab",
        pytest.param("github", marks=pytest.mark.thorough("GitLab; both sites, in tests/unit/test_sites_requests.py")),
    ],
)
def test_a_request_that_could_not_be_opened_is_opened_by_the_same_job_again(
    tmp_path: Path, serving: ServingRepository, place: str
) -> None:
    with sites() as server:
        model = by_request(tmp_path / "model", serving, server.url, place)
        server.fail("GET", "(merge_requests|pulls)$", 403)
        failed = model.publish("v1.0.1")
        assert failed.code == 1
        assert "The release's branch is there, and no merge request of it." in failed.errors
        assert model.variables["MODEL_SERVING_TOKEN"] not in failed.output + failed.errors
        again = model.publish("v1.0.1")
    assert again.code == 0, again.errors


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("own.py", marks=pytest.mark.thorough("other content under a released version, on main")),
        "README.md",
    ],
)
def test_a_branch_with_something_else_is_never_overwritten(
    tmp_path: Path, serving: ServingRepository, content: str
) -> None:
    name = "models/doubler/v1.0.1/own.py" if content == "own.py" else "README.md"
    theirs = serving.add(tmp_path / "other", {name: "theirs"}, branch="release/doubler/v1.0.1")
    with sites() as server:
        done = by_request(tmp_path / "model", serving, server.url, "gitlab").publish("v1.0.1")
        assert not server.calls("POST")
    assert done.code == 1
    assert ("with other content: " if content == "own.py" else "is there without the release") in done.errors
    assert serving.git("rev-parse", "release/doubler/v1.0.1") == theirs


# A server that asks for a token


def test_the_token_opens_the_server_and_is_in_no_file_no_argument_and_no_log(
    tmp_path: Path, serving: ServingRepository
) -> None:
    serving.git("config", "http.receivepack", "true")
    with git_server(serving.folder.parent, TOKEN) as server:
        model = model_repository(tmp_path / "model", f"{server.url}/serving.git")
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        seen = ""
        with model.start("v1.0.1", MODEL_SERVING_TOKEN=TOKEN, TMPDIR=str(temporary), GIT_TRACE_CURL="1") as process:
            while process.poll() is None:
                seen += arguments_below(process.pid) + contents(temporary)
                time.sleep(0.01)
            output, errors = process.communicate()
        assert process.returncode == 0, errors
        assert server.accounts == {"oauth2"}
        assert TOKEN not in "".join(server.paths)
    assert "git" in seen
    assert "url = http://127.0.0.1" in seen
    assert TOKEN not in seen + output + errors
    assert "doubler/v1.0.1" in serving.releases()
    assert not [*temporary.iterdir()]


def arguments_below(process: int) -> str:
    """Command lines of all processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == process:
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(found)


def files_below(folder: Path) -> list[Path]:
    """All that are there, while others come and go; pathlib's own search stumbles over a folder that has just gone."""
    return [Path(parent) / name for parent, _, names in os.walk(folder) for name in names]


def contents(folder: Path) -> str:
    """Of all small files in a folder, as far as they do not go while they are read."""
    found = []
    for path in files_below(folder):
        try:
            if path.stat().st_size < 10_000:
                found.append(path.read_text(errors="replace"))
        except OSError:
            continue
    return "\n".join(found)


@pytest.mark.parametrize(
    ("refused", "token", "told"),
    [
        ({}, "wrong", "rejects MODEL_SERVING_TOKEN (401)"),
        ({"git-receive-pack": 403}, TOKEN, "denies MODEL_SERVING_TOKEN access (403)"),
        ({"git-upload-pack": 403}, TOKEN, "denies MODEL_SERVING_TOKEN access (403)"),
        ({"git-upload-pack": 404}, TOKEN, "does not exist, or MODEL_SERVING_TOKEN cannot see it"),
        ({"git-upload-pack": 500}, TOKEN, "cannot be reached"),
        ({"git-receive-pack": 502}, TOKEN, "broke off the push"),
        ({}, "", "MODEL_SERVING_TOKEN is not set"),
    ],
)
def test_a_server_that_refuses_is_understood(
    tmp_path: Path, serving: ServingRepository, refused: dict[str, int], token: str, told: str
) -> None:
    serving.git("config", "http.receivepack", "true")
    with git_server(serving.folder.parent, TOKEN) as server:
        server.refused = refused
        done = model_repository(tmp_path / "model", f"{server.url}/serving.git").publish(
            "v1.0.1", MODEL_SERVING_TOKEN=token
        )
    assert done.code == 1
    assert told in done.errors
    assert TOKEN not in done.output + done.errors
    assert "Traceback" not in done.errors
    assert len(serving.commits()) == 1


def test_a_server_that_is_not_there_is_understood(tmp_path: Path) -> None:
    done = model_repository(tmp_path / "model", "http://127.0.0.1:1/serving.git").publish(
        "v1.0.1", MODEL_SERVING_TOKEN=TOKEN
    )
    assert done.code == 1
    assert "cannot be reached" in done.errors
    assert "nothing has to be cleaned up before" in done.errors


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (
            ("echo 'GitLab: You are not allowed to push code to protected branches on this project.' >&2", "exit 1"),
            "does not let MODEL_SERVING_TOKEN push to main, which is protected",
        ),
        pytest.param(
            ("echo 'Commits need a ticket.' >&2", "exit 1"),
            "refuses the push to main: Commits need a ticket.",
            marks=pytest.mark.thorough("the hook of a protected branch"),
        ),
    ],
    ids=["protected", "another-rule"],
)
def test_a_hook_that_declines_is_quoted(
    model: ModelRepository, serving: ServingRepository, lines: tuple[str, ...], told: str
) -> None:
    serving.hook("pre-receive", *lines)
    done = model.publish("v1.0.1")
    assert done.code == 1
    assert told in done.errors
    assert len(serving.commits()) == 1


@dataclass(frozen=True, kw_only=True)
class AmongOthers:
    """A release into a repository with much that is not its own.

    Attributes:
        before: what the repository had, as ``git ls-tree`` says it.
        largest: bytes of the largest pack that the job had of it at any moment.
        done: what the job did.
    """

    serving: ServingRepository
    before: set[str]
    largest: int
    done: Published


@pytest.fixture(scope="module")
def among_others(tmp_path_factory: pytest.TempPathFactory) -> AmongOthers:
    """One beside all that others leave: what git ignores and rewrites, releases with mistakes, large files."""
    folder = tmp_path_factory.mktemp("among-others")
    serving = serving_repository(folder)
    model = model_repository(folder / "model", serving.url)
    (model.folder / "build" / "notes.txt").write_bytes(b"one\r\ntwo\r\n")
    content = "".join(hashlib.sha256(bytes([*divmod(number, 256)])).hexdigest() for number in range(40_000))
    others = {
        ".gitignore": "*.py\n",
        ".gitattributes": "* text=auto eol=lf\n",
        # Two problems in each of the two releases, which lack a lock and settings that can be read.
        "models/broken/1.0/model-settings.json": "{",
        # One lies beside the release's folder, one in the root.
        "models/doubler/v0.9.0/weights.bin": content,
        "large.csv": content,
    }
    serving.add(folder / "other", others)
    before = set(serving.git("ls-tree", "-r", "main").splitlines())
    temporary = folder / "temporary"
    temporary.mkdir()
    largest = 0
    with model.start("v1.0.1", TMPDIR=str(temporary)) as process:
        while process.poll() is None:
            largest = max([largest, *(size(path) for path in files_below(temporary) if path.suffix == ".pack")])
            time.sleep(0.02)
        output, errors = process.communicate()
    done = Published(code=process.returncode, output=output, errors=errors)
    assert done.code == 0, done.errors
    return AmongOthers(serving=serving, before=before, largest=largest, done=done)


def test_problems_of_other_releases_stop_nobody(among_others: AmongOthers) -> None:
    assert "4 problems that are none of this release's" in among_others.done.output


def test_a_file_that_the_serving_repository_ignores_or_rewrites_is_released_as_it_is(
    among_others: AmongOthers,
) -> None:
    place, serving = "models/doubler/v1.0.1", among_others.serving
    assert f"{place}/own.py" in serving.files()
    assert serving.git("cat-file", "-s", f"main:{place}/notes.txt") == "10"


def test_large_files_of_others_are_not_fetched_and_stay_where_they_are(among_others: AmongOthers) -> None:
    """The server leaves them out of the clone."""
    assert 0 < among_others.largest < 500_000
    assert among_others.before < set(among_others.serving.git("ls-tree", "-r", "main").splitlines())


def size(path: Path) -> int:
    """In bytes; 0 once it is gone."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


# Large files


def large(tmp_path: Path, model: ModelRepository, *, remote: Path | None) -> bytes:
    """Makes a model whose weights are too large for git, and that needs them to answer; returns the weights."""
    weights = bytes(range(256)) * 8192
    (model.folder / "build" / "weights.bin").write_bytes(weights)
    code = (model.folder / "build" / "own.py").read_text()
    read = "Path(__file__).with_name('weights.bin').read_bytes()[2]"
    model.write({"build/own.py": f"from pathlib import Path\n{code}".replace("2 * each", f"{read} * each")})
    release = (model.folder / "release.yaml").read_text() + "artefacts:\n  largestMebibytes: 1\n"
    model.write({"release.yaml": release + (f"  remote: file://{remote}\n" if remote else "")})
    model.commit()
    model.git("tag", "--force", "v1.0.1")
    return weights


def test_a_large_file_is_tried_stored_in_the_remote_and_released_as_a_pointer(
    tmp_path: Path, model: ModelRepository, serving: ServingRepository
) -> None:
    weights = large(tmp_path, model, remote=tmp_path / "remote")
    first, again = model.publish("v1.0.1"), model.publish("v1.0.1")
    assert first.code == 0, first.errors
    assert again.code == 0, again.errors
    assert "was released already" in again.last_line
    names = {Path(path).name for path in serving.files(place="models/doubler/v1.0.1/")}
    assert names == RELEASED | {"weights.bin.dvc"}
    digest = hashlib.md5(weights, usedforsecurity=False).hexdigest()
    assert (tmp_path / "remote" / "files" / "md5" / digest[:2] / digest[2:]).read_bytes() == weights
    [pointer] = yaml.safe_load(serving.content("models/doubler/v1.0.1/weights.bin.dvc"))["outs"]
    assert (pointer["md5"], pointer["size"], pointer["path"]) == (digest, len(weights), "weights.bin")


def test_a_large_file_of_a_release_that_breaks_its_contract_is_not_stored(
    tmp_path: Path, model: ModelRepository
) -> None:
    large(tmp_path, model, remote=tmp_path / "remote")
    model.write({"build/response.json": json.dumps({"outputs": [{**RESPONSE["outputs"][0], "data": [2, 5]}]})})
    assert "does not keep its contract" in model.publish("v1.0.1").errors
    assert not [path for path in (tmp_path / "remote").rglob("*") if path.is_file()]


def test_a_large_file_without_a_remote_is_refused_before_the_trial(tmp_path: Path, model: ModelRepository) -> None:
    large(tmp_path, model, remote=None)
    done = model.publish("v1.0.1")
    assert done.code == 1
    assert "weights.bin" in done.errors
    assert "artefacts.remote" in done.errors
    assert "[4/6]" not in done.output


# Installed by pip


def test_the_command_runs_where_only_this_package_is_installed(tmp_path: Path) -> None:
    environment, checkout = tmp_path / "environment", tmp_path / "checkout"
    checkout.mkdir()
    serving_tools(checkout)
    python = environment / "bin" / "python"
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, str(environment)], check=True)
    subprocess.run([UV, "pip", "install", "--quiet", "--python", str(python), str(checkout)], check=True)
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(python), "-m", "model_serving", "publish", "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "python -m model_serving publish --dry-run --tag v1.0.1" in " ".join(done.stdout.split())
    for package in ("model_serving", "server"):
        [installed] = environment.glob(f"lib/*/site-packages/{package}")
        packed, here = (
            {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")}
            for folder in (installed, PROJECT / package)
        )
        assert packed == here


# Many at once, and killed ones


def check_history(serving: ServingRepository, expected: set[str]) -> None:
    """Every version exactly once, history linear, no commit with a part of a release."""
    assert not serving.git("rev-list", "--min-parents=2", "main")
    assert len(serving.commits()) == 1 + len(expected)
    seen: set[str] = set()
    for commit in reversed(serving.commits()):
        there = serving.releases(commit)
        assert seen <= there
        for release in there - {"iris-dtc/1.0"}:
            place = f"models/{release}/"
            assert {path.removeprefix(place) for path in serving.files(commit, place)} == RELEASED
        seen = there
    assert seen == expected | {"iris-dtc/1.0"}


def test_many_repositories_release_at_the_same_moment(
    tmp_path: Path, serving: ServingRepository, figure: Figure, is_thorough: bool
) -> None:
    names = [f"doubler-{number:02}" for number in range(20 if is_thorough else 6)]
    models = [model_repository(tmp_path / name, serving.url, name=name) for name in names]
    begun = time.monotonic()
    processes = [model.start("v1.0.1") for model in models]
    done = [Published(code=-1, output=output, errors=errors) for output, errors in map(communicate, processes)]
    seconds = time.monotonic() - begun
    failed = [each.errors for process, each in zip(processes, done, strict=True) if process.returncode]
    assert not failed
    check_history(serving, {f"{name}/v1.0.1" for name in names})
    again = sum(each.output.count("has moved on, trying again") for each in done)
    delivering = max(float(found[1]) for each in done if (found := re.search(r"deliver ([\d.]+) s", each.output)))
    figure(
        f"{len(names)} releases in {seconds:.1f} s, the slowest delivery {delivering:.1f} s, {again} pushes repeated"
    )


def test_two_jobs_of_one_tag_make_one_commit(model: ModelRepository, serving: ServingRepository) -> None:
    processes = [model.start("v1.0.1") for _ in range(2)]
    done = [communicate(process) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], done
    check_history(serving, {"doubler/v1.0.1"})
    # Which of them brought it is nobody's concern: in the same second, both make the very same commit.
    assert all(output.rstrip().endswith(f"commit {serving.tip[:10]} on main of {serving.url}") for output, _ in done)


def communicate(process: subprocess.Popen[str]) -> tuple[str, str]:
    with process:
        return process.communicate(timeout=600)


def test_a_release_that_is_killed_at_any_moment_is_finished_by_the_same_job(
    tmp_path: Path, figure: Figure, is_thorough: bool
) -> None:
    """Over HTTP, where the server lives on: half of the moments are anywhere, half within the delivery."""
    seed = int(os.environ.get("MODEL_SERVING_TEST_SEED") or random.SystemRandom().randrange(1_000_000))
    chance = random.Random(seed)  # noqa: S311 - it has to come out the same again
    with git_server(tmp_path, TOKEN) as server:
        begun = time.monotonic()
        _, model = with_token(tmp_path / "measured", server)
        usual = model.publish("v1.0.1")
        whole = time.monotonic() - begun
        assert usual.code == 0, usual.errors
        delivering = float(re.findall(r"deliver ([\d.]+) s", usual.output)[0])
        arrived, runs = 0, 10 if is_thorough else 2
        for number in range(runs):
            serving, model = with_token(tmp_path / f"run-{number}", server)
            first = "[5/6]" if number % 2 else ""
            seconds = chance.uniform(0, 1.5 * delivering if first else whole)
            told = f"seed {seed}, run {number}, killed {seconds:.2f} s after {first or 'its start'}"
            kill(model, after=first, seconds=seconds)
            arrived += len(serving.commits()) - 1
            done = model.publish("v1.0.1")
            assert done.code == 0, f"{told}: {done.errors}"
            check_history(serving, {"doubler/v1.0.1"})
    figure(f"{runs} releases killed (seed {seed}), {arrived} had arrived before, all were finished")


def with_token(folder: Path, server: GitServer) -> tuple[ServingRepository, ModelRepository]:
    """A serving repository that a server has, and a model's that releases into it."""
    folder.mkdir()
    serving = serving_repository(folder)
    serving.git("config", "http.receivepack", "true")
    model = model_repository(folder / "model", f"{server.url}/{folder.name}/serving.git")
    model.variables["MODEL_SERVING_TOKEN"] = TOKEN
    return serving, model


def kill(model: ModelRepository, *, after: str, seconds: float) -> None:
    """Kills a release with all its processes, so long after it has said something; waits until they are gone."""
    temporary = model.folder.parent / "temporary"
    temporary.mkdir()
    with model.start("v1.0.1", TMPDIR=str(temporary)) as process:
        assert process.stdout is not None
        while after and not process.stdout.readline().startswith(after):
            assert process.poll() is None
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert wait_until_nobody_is_below(temporary)


def wait_until_nobody_is_below(folder: Path, seconds: float = 20) -> bool:
    """Whether every process that works in a folder ends: a killed job's model server ends by itself."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not [link for link in Path("/proc").glob("[0-9]*/cwd") if works_in(link, folder)]:
            return True
        time.sleep(0.05)
    return False


def works_in(link: Path, folder: Path) -> bool:
    try:
        return link.readlink().is_relative_to(folder)
    except OSError:
        return False


def test_a_model_server_ends_with_a_job_of_which_only_itself_is_killed(tmp_path: Path, model: ModelRepository) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    model.write({"build/own.py": "import time\ntime.sleep(600)\n"})
    with model.start("v1.0.1", TMPDIR=str(temporary)) as process:
        deadline = time.monotonic() + 60
        while not [link for link in Path("/proc").glob("[0-9]*/cwd") if works_in(link, temporary)]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
        process.communicate()
    assert wait_until_nobody_is_below(temporary)


def test_a_cancelled_job_leaves_nothing_behind(tmp_path: Path, model: ModelRepository) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with model.start("v1.0.1", TMPDIR=str(temporary)) as process:
        deadline = time.monotonic() + 60
        while not [path for path in files_below(temporary) if path.match("models/doubler/own.py")]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.terminate()
        _, errors = process.communicate()
    assert process.returncode == 130
    assert "Interrupted." in errors
    assert "Traceback" not in errors
    assert not [*temporary.iterdir()]
