from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from model_serving.pipelines import interrupted, served
from model_serving.pipelines.backend import Backend
from model_serving.pipelines.commits import Checkout
from model_serving.pipelines.phases import Phases
from model_serving.problems import Failure

HTTP_ROUTE = "kubernetes:gateway.networking.k8s.io/v1:HTTPRoute"
URN = "urn:pulumi:dev::model-serving::"


class Repository:
    """A repository and a clone of it, as a job has one."""

    def __init__(self, folder: Path) -> None:
        self.origin, self.clone = folder / "origin", folder / "clone"
        self.origin.mkdir()
        self.git("init", "--quiet", "--initial-branch", "main")
        self.commits = [self.commit(str(number)) for number in range(4)]

    def commit(self, content: str) -> str:
        (self.origin / "file").write_text(content)
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", content)
        return self.git("rev-parse", "HEAD")

    def git(self, *words: str, folder: Path | None = None) -> str:
        person = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.com")
        command = ["git", *person, *words]
        done = subprocess.run(command, cwd=folder or self.origin, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def job(self, commit: str, *, depth: int, **environ: str) -> Checkout:
        """What a runner leaves: one commit and some before it, on no branch."""
        self.clone.mkdir()
        self.git("init", "--quiet", folder=self.clone)
        self.git("remote", "add", "origin", f"file://{self.origin}", folder=self.clone)
        self.git("fetch", "--quiet", f"--depth={depth}", "origin", commit, folder=self.clone)
        self.git("checkout", "--quiet", commit, folder=self.clone)
        return Checkout(folder=self.clone, environ={"PATH": os.environ["PATH"], **environ})


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


@pytest.mark.parametrize("depth", [1, 2, 10])
def test_newer_and_older_commits_are_told_apart_in_clones_of_any_depth(repository: Repository, depth: int) -> None:
    oldest, old, head, new = repository.commits
    checkout = repository.job(head, depth=depth)
    assert checkout.head() == head
    assert checkout.relation(head, head) == "same"
    assert checkout.relation(old, head) == "older"
    assert checkout.relation(oldest, head) == "older"
    assert checkout.relation(new, head) == "newer"


def test_a_commit_of_another_branch_is_neither(repository: Repository) -> None:
    repository.git("checkout", "--quiet", "-b", "other", repository.commits[1])
    other = repository.commit("other")
    assert repository.job(repository.commits[3], depth=1).relation(other, repository.commits[3]) == "diverged"


def test_a_commit_that_nobody_pushed_is_unknown(repository: Repository) -> None:
    head = repository.commits[3]
    assert repository.job(head, depth=1).relation("0" * 40, head) == "unknown"


@pytest.mark.parametrize("name", ["CI_COMMIT_SHA", "GITHUB_SHA"])
def test_only_the_jobs_own_commit_is_deployed(repository: Repository, name: str) -> None:
    _, _, old, head = repository.commits
    checkout = repository.job(head, depth=1, **{name: old})
    with pytest.raises(Failure, match="Check out the job's commit"):
        checkout.refuse_other_than_head(head, previewed=None)


def test_only_the_previewed_commit_is_deployed(repository: Repository) -> None:
    _, _, old, head = repository.commits
    checkout = repository.job(head, depth=1, CI_COMMIT_SHA=head)
    checkout.refuse_other_than_head(head, previewed=head)
    with pytest.raises(Failure, match="Preview HEAD, then deploy"):
        checkout.refuse_other_than_head(head, previewed=old)


@pytest.mark.parametrize("name", ["file", "models/new/1.0/model-settings.json"])
def test_what_is_in_no_commit_is_refused_but_for_what_the_job_brings(repository: Repository, name: str) -> None:
    head = repository.commits[3]
    checkout = repository.job(head, depth=1)
    (repository.clone / "previews").mkdir()
    (repository.clone / "previews" / "dev.json").write_text("{}")
    checkout.refuse_other_than_head(head, previewed=None, apart_from=[Path("previews")])
    (repository.clone / name).parent.mkdir(parents=True, exist_ok=True)
    (repository.clone / name).write_text("changed")
    with pytest.raises(Failure, match=f"no commit: {name}"):
        checkout.refuse_other_than_head(head, previewed=None, apart_from=[Path("previews")])


def test_a_folder_without_git_is_refused(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    with pytest.raises(Failure, match="in a clone of the repository"):
        Checkout(folder=tmp_path, environ=environ).head()


def _route(name: str, path: str, **weights: int) -> dict[str, object]:
    backends = [{"name": service.replace("_", "-"), "weight": weight} for service, weight in weights.items()]
    rule = {"matches": [{"path": {"value": f"/mlapi/v2/models/{path}"}}], "backendRefs": backends}
    return {"type": HTTP_ROUTE, "outputs": {"metadata": {"name": name}, "spec": {"rules": [rule]}}}


def _state(weights: dict[str, int], *routes: dict[str, object]) -> dict[str, object]:
    versions = {version: {"weight": weight} for version, weight in weights.items()}
    outputs = {"endpoint": "https://m.example.com", "models": {"iris": {"url": "x", "versions": versions}}}
    return {"resources": [{"type": "pulumi:pulumi:Stack", "outputs": outputs}, *routes]}


def test_what_is_live_is_what_the_routes_say() -> None:
    routes = [
        _route("iris.1-0", "iris/versions/1.0", iris_1_0=1),
        _route("iris.1-1", "iris/versions/1.1", iris_1_1=1),
        _route("iris", "iris", iris_1_0=90, iris_1_1=10),
    ]
    agreeing = served.report(_state({"1.0": 90, "1.1": 10}, *routes))
    assert [line.split() for line in agreeing.splitlines()] == [
        ["MODEL", "VERSION", "WEIGHT", "URL"],
        ["iris", "1.0", "90%", "https://m.example.com/mlapi/v2/models/iris"],
        ["iris", "1.1", "10%", "https://m.example.com/mlapi/v2/models/iris"],
    ]
    failed = served.report(_state({"1.1": 100}, *routes))
    assert failed.startswith(agreeing)
    assert "`pulumi stack output` differs" in failed


def test_nothing_is_live_before_there_is_a_route() -> None:
    assert served.report({}) == served.NOTHING
    assert served.report(_state({"1.0": 100})) == served.NOTHING


def _operation(kind: str, token: str, name: str) -> dict[str, Any]:
    provider = f"{URN}pulumi:providers:gcp::default::0a1b"
    return {"type": kind, "resource": {"urn": f"{URN}{token}::{name}", "type": token, "provider": provider}}


class Written(Backend):
    """The backend of a stack with a state in memory."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        super().__init__(stack="dev", environ={})
        self.__dict__["kept"] = state

    def state(self) -> dict[str, Any]:
        return dict(self.__dict__["kept"])

    def change_state(self, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        self.__dict__["kept"] = change(self.state())


def test_each_interrupted_operation_has_its_own_way_on() -> None:
    bucket = _operation("creating", "gcp:storage/bucket:Bucket", "b")
    image = _operation("creating", "docker-build:index:Image", "iris-1-0")
    made = _operation("creating", "kubernetes:apps/v1:Deployment", "iris")
    made["resource"]["inputs"] = {"metadata": {"name": "iris", "namespace": "models"}}
    updating = _operation("updating", HTTP_ROUTE, "iris")
    deleting = _operation("deleting", "kubernetes:core/v1:Service", "old")
    backend = Written({"pending_operations": [bucket, image, made, updating, deleting]})
    explained = [each.cure for each in interrupted.pending(backend.state())]
    assert "this fails and the log says what to do" in explained[0]
    assert explained[1:] == ["it is built again", *["it is refreshed before anything else"] * 3]
    urns = [each["resource"]["urn"] for each in (made, updating, deleting)]
    assert interrupted.repair(backend) == sorted(urns)
    state = backend.state()
    assert [(each["urn"], each["id"]) for each in state["resources"]] == [(urns[0], "models/iris")]
    # The refresh drops those of updates, and the next update that of the bucket.
    assert state["pending_operations"] == [bucket, updating, deleting]
    told, command = interrupted.left_behind(interrupted.pending(state), "dev")
    assert told.startswith("The killed run may have created b.")
    assert command.startswith("pulumi import --stack dev")
    assert f"provider={URN}pulumi:providers:gcp::default " in command
    assert command.endswith("gcp:storage/bucket:Bucket b ID")
    assert interrupted.pending({}) == []


def test_a_state_without_creations_is_not_written() -> None:
    before = {"pending_operations": [_operation("updating", HTTP_ROUTE, "iris")]}
    backend = Written(before)
    assert interrupted.repair(backend) == [f"{URN}{HTTP_ROUTE}::iris"]
    assert backend.__dict__["kept"] is before


def test_time_is_told_by_who_took_it() -> None:
    now = [0.0]

    def at(seconds: float) -> None:
        now[0] = seconds

    def event(kind: str, token: str, operation: str = "create") -> dict[str, object]:
        return {kind: {"metadata": {"type": token, "urn": token, "op": operation}}}

    phases = Phases(lambda: now[0])
    at(1)
    with phases.during("start"):
        at(2)
        phases.event(event("resourcePreEvent", "pulumi:pulumi:Stack"))
        at(3)
        phases.event(event("resourcePreEvent", "docker-build:index:Image"))
        at(7)
        phases.event(event("resourcePreEvent", "kubernetes:core/v1:Service"))
        phases.event(event("resOutputsEvent", "docker-build:index:Image"))
        phases.event(event("resourcePreEvent", "docker-build:index:Image", "same"))
        at(18)
    with phases.during("waiting"):
        at(20)
    at(20.5)
    assert str(phases) == (
        "took 20.5 s: own overhead 1.5 s, waiting for locks 2.0 s, Pulumi's start 2.0 s, images 4.0 s, rollout 11.0 s"
    )
