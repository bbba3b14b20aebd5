"""A merge request's releases are found, served and removed again; a cluster that only lists and deletes stands in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from model_serving.__main__ import main
from model_serving.hosts.github import GitHub
from model_serving.hosts.gitlab import GitLab
from model_serving.pipelines import review, review_objects, stacks
from model_serving.stack import gke
from model_serving.stack.reviews import REQUEST_LABEL, UNTIL_LABEL, Review
from tests.unit.conftest import serving

PROJECT = Path(__file__).resolve().parents[2]
MODEL = "iris-dtc"
OBJECTS = "/apis/apps/v1/namespaces/models/deployments"
ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/models/httproutes"
SERVICES = "/api/v1/namespaces/models/services"
GATEWAYS = "/apis/gateway.networking.k8s.io/v1/namespaces/models{}/gateways/{}gateway"
GOOGLES_POLICIES = "/apis/networking.gke.io/v1/namespaces/models-review/healthcheckpolicies"
LOGIN = """#!/bin/sh
echo '{"status": {"token": "of-the-job"}}'
"""
FAR = int(time.time()) + 9999
MERGE_REQUEST = {
    "CI_API_V4_URL": "https://gitlab.example/api/v4",
    "CI_MERGE_REQUEST_IID": "12",
    "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
    "CI_MERGE_REQUEST_PROJECT_ID": "7",
    "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "7",
}


class Cluster(BaseHTTPRequestHandler):
    """Path of a kind -> the labels of its objects."""

    objects: ClassVar[dict[str, list[dict[str, str]]]] = {}
    addresses: ClassVar[list[dict[str, str]]] = []
    refuses: ClassVar[bool] = False
    cluster: ClassVar[dict[str, Any]] = {}
    """What Google says of it."""

    def do_GET(self) -> None:
        if self.refuses:
            self.send_error(403, "Forbidden")
            return
        path, selected = self._asked()
        if path.startswith("/v1/projects/"):
            assert path == "/v1/projects/acme-dev/locations/europe-west1/clusters/model-serving"
            assert self.headers["Authorization"] == "Bearer of-the-job"
            self._answer(self.cluster)
            return
        if path in (GATEWAYS.format("", ""), GATEWAYS.format("-review", "review-")):
            self._answer({"status": {"addresses": self.addresses}})
            return
        items = [{"metadata": {"name": "one", "labels": each}} for each in self.objects.get(path, []) if selected(each)]
        self._answer({"metadata": {}, "items": items})

    def do_DELETE(self) -> None:
        path, selected = self._asked()
        self.objects[path] = [each for each in self.objects.get(path, []) if not selected(each)]
        self._answer({"kind": "Status", "apiVersion": "v1", "status": "Success"})

    def _asked(self) -> tuple[str, Any]:
        parts = urlsplit(self.path)
        key, _, value = parse_qs(parts.query).get("labelSelector", [""])[0].partition("=")
        return parts.path, lambda labels: key in labels and (not value or labels[key] == value)

    def _answer(self, content: Mapping[str, Any]) -> None:
        text = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Not in the tests' output."""


def labels(request: int, until: int = FAR) -> dict[str, str]:
    return Review(request=request, until=until).labels


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def write_stack(folder: Path, **ci: Any) -> None:
    config = {
        "registry": "registry.example",
        "kubeconfig": str(folder / "kubeconfig"),
        "gateway": {"className": "contour", "allowedOrigins": ["https://app.example.com"]},
        "ci": {"order": 1, **ci},
        "models": {MODEL: {"versions": {"1.0": 100}, "replicas": 3, "requestSize": "1Mi"}},
    }
    content = {"config": {f"model-serving:{key}": value for key, value in config.items()}}
    (folder / "stacks" / "Pulumi.dev.yaml").write_text(json.dumps(content))


def release(folder: Path, version: str) -> None:
    new = folder / "models" / MODEL / version
    shutil.copytree(new.with_name("1.0"), new)
    settings = new / "model-settings.json"
    settings.write_text(settings.read_text().replace('"1.0"', f'"{version}"'))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Cluster, "objects", {})
    monkeypatch.setattr(Cluster, "addresses", [{"value": "192.0.2.10"}])
    with serving(Cluster) as host:
        yield host


@pytest.fixture
def checkout(tmp_path: Path, cluster: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A branch of a serving repository, in a job of merge request 12."""
    folder = tmp_path / "checkout"
    shutil.copytree(PROJECT / "models" / MODEL / "1.0", folder / "models" / MODEL / "1.0")
    (folder / "stacks").mkdir()
    kubeconfig = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://{cluster}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (folder / "kubeconfig").write_text(json.dumps(kubeconfig))
    write_stack(folder, review={"hours": 2})
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", tmp_path / "origin"], check=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "remote", "add", "origin", str(tmp_path / "origin"))
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Begin")
    git(folder, "push", "--quiet", "origin", "main")
    git(folder, "switch", "--quiet", "--create", "branch")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(stacks, "PROJECT", folder)
    monkeypatch.setattr(stacks, "FOLDER", folder / "stacks")
    for name, value in MERGE_REQUEST.items():
        monkeypatch.setenv(name, value)
    return folder


class Engine:
    """Stands for Pulumi; remembers what it was to serve."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.ups: list[tuple[str, Mapping[str, Any], Review]] = []

    def __call__(self, stack: str, content: Mapping[str, Any], asked: Review) -> int:
        self.ups.append((stack, content, asked))
        Cluster.objects[OBJECTS] = [*Cluster.objects.get(OBJECTS, []), asked.labels]
        return self.code


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    made = Engine()
    monkeypatch.setattr(review, "_up", made)
    return made


def test_what_a_merge_request_adds_is_served_with_its_stacks_settings(
    checkout: Path, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    release(checkout, "1.1")
    began = int(time.time())
    assert main(["review", "--stack", "dev", "--out", "review.env"]) == 0
    ((stack, content, asked),) = engine.ups
    assert stack == "dev-review-12"
    assert asked.request == 12
    assert began + 2 * 3600 <= asked.until <= time.time() + 2 * 3600
    assert content["model-serving:models"] == {MODEL: {"requestSize": "1Mi", "versions": {"1.1": 100}}}, "one pod"
    assert content["model-serving:gateway"] == {
        "className": "contour",
        "allowedOrigins": ["https://app.example.com"],
        "endpoint": "http://192.0.2.10",
        "clusterEndpoint": "http://192.0.2.10",
    }
    assert "model-serving:ci" not in content
    url = f"http://192.0.2.10/mlapi/review/12/v2/models/{MODEL}/infer"
    assert (checkout / "review.env").read_text() == f"REVIEW_URL={url}\n"
    assert url in capsys.readouterr().out


def test_of_several_new_versions_the_newest_is_the_models(checkout: Path, engine: Engine) -> None:
    release(checkout, "1.10")
    release(checkout, "1.9")
    assert main(["review", "--stack", "dev"]) == 0
    assert engine.ups[0][1]["model-serving:models"][MODEL]["versions"] == {"1.9": 0, "1.10": 100}


def test_what_the_target_has_released_since_is_not_this_merge_requests(checkout: Path, engine: Engine) -> None:
    git(checkout, "switch", "--quiet", "main")
    release(checkout, "1.1")
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--message", "Release")
    git(checkout, "push", "--quiet", "origin", "main")
    git(checkout, "switch", "--quiet", "--create", "merged")
    release(checkout, "1.2")
    assert main(["review", "--stack", "dev"]) == 0
    assert engine.ups[0][1]["model-serving:models"][MODEL]["versions"] == {"1.2": 100}


def test_a_merge_request_without_a_release_leaves_nothing_behind(checkout: Path, engine: Engine) -> None:
    Cluster.objects = {OBJECTS: [labels(12), labels(13)], SERVICES: [labels(12)], ROUTES: [{"app": "other"}]}
    assert main(["review", "--stack", "dev", "--out", "review.env"]) == 0
    assert engine.ups == []
    assert Cluster.objects == {OBJECTS: [labels(13)], SERVICES: [], ROUTES: [{"app": "other"}]}
    assert (checkout / "review.env").read_text() == "", "GitLab wants the file"


def test_an_older_push_is_removed_before_a_newer_one_is_served(checkout: Path, engine: Engine) -> None:
    release(checkout, "1.1")
    Cluster.objects = {OBJECTS: [labels(12, FAR - 1)]}
    assert main(["review", "--stack", "dev"]) == 0
    assert Cluster.objects[OBJECTS] == [engine.ups[0][2].labels]


def test_a_mistake_is_told_of_the_file_that_people_write(
    checkout: Path, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    release(checkout, "1.1")
    file = checkout / "stacks" / "Pulumi.dev.yaml"
    file.write_text(file.read_text().replace('"1Mi"', '"1Gi"'))
    assert main(["review", "--stack", "dev"]) == 1
    assert engine.ups == []
    said = capsys.readouterr().err
    assert f"stacks/Pulumi.dev.yaml: model-serving:models.{MODEL}.requestSize is 1Gi" in said
    assert "1.1 has" in said


def test_what_does_not_work_is_not_served(checkout: Path, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    release(checkout, "1.1")
    engine.code = 255
    assert main(["review", "--stack", "dev"]) == 1
    assert Cluster.objects[OBJECTS] == []
    assert "Correct the release and push again." in capsys.readouterr().err


def test_the_end_of_a_merge_request_removes_what_was_served_for_it_and_nothing_else(checkout: Path) -> None:
    others = {OBJECTS: [labels(13), {"app": "other"}]}
    Cluster.objects = {OBJECTS: [labels(12), *others[OBJECTS]]}
    write_stack(checkout)
    assert main(["review", "--stack", "dev", "--remove"]) == 0, "also once the stack serves no reviews"
    assert Cluster.objects == others


@pytest.mark.usefixtures("checkout")
def test_what_has_reached_its_time_is_removed_whatever_is_left_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    Cluster.objects = {OBJECTS: [labels(12), labels(13, 1)], SERVICES: [labels(14, 1), {"app": "other"}]}
    assert main(["review", "--stack", "dev", "--expired"]) == 0
    assert Cluster.objects == {OBJECTS: [labels(12)], SERVICES: [{"app": "other"}]}
    assert "!14: removed" in capsys.readouterr().out


def test_a_fork_is_refused(
    checkout: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    release(checkout, "1.1")
    monkeypatch.setenv("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "8")
    assert main(["review", "--stack", "dev"]) == 1
    assert engine.ups == []
    assert "push its branch to this repository" in capsys.readouterr().err


def test_a_stack_that_does_not_say_so_serves_nothing(
    checkout: Path, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    release(checkout, "1.1")
    write_stack(checkout)
    assert main(["review", "--stack", "dev"]) == 1
    assert engine.ups == []
    assert "Write `review: {}` under ci" in capsys.readouterr().err


@pytest.mark.usefixtures("checkout")
def test_outside_of_a_merge_request_its_number_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CI_API_V4_URL")
    assert main(["review", "--stack", "dev", "--remove"]) == 1
    assert "--request 12" in capsys.readouterr().err


@pytest.mark.parametrize("trouble", ["refused", "no address", "no cluster"])
def test_a_cluster_that_does_not_do_its_part_is_told(
    trouble: str, checkout: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    release(checkout, "1.1")
    if trouble == "refused":
        monkeypatch.setattr(Cluster, "refuses", True)
    elif trouble == "no address":
        monkeypatch.setattr(Cluster, "addresses", [])
    else:
        text = (checkout / "kubeconfig").read_text()
        (checkout / "kubeconfig").write_text(text.replace('"current-context": "x"', '"current-context": "y"'))
    assert main(["review", "--stack", "dev"]) == 1
    said = capsys.readouterr().err
    assert {
        "refused": "answers 403",
        "no address": "has no address",
        "no cluster": "the kubeconfig cannot be used",
    }[trouble] in said
    assert engine.ups == []


def test_pulumi_works_with_a_state_that_is_forgotten(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "gs://the-stacks-own")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0))
    with review._forgotten_stack("dev-review-12", {"model-serving:registry": "r"}) as environ:
        backend = Path(environ["PULUMI_BACKEND_URL"].removeprefix("file://"))
        assert backend.is_dir()
        file = checkout / "stacks" / "Pulumi.dev-review-12.yaml"
        assert json.loads(file.read_text()) == {"config": {"model-serving:registry": "r"}}
    assert not backend.exists()
    assert not file.exists()


def test_a_site_knows_the_number_of_its_merge_request(tmp_path: Path) -> None:
    assert GitLab(MERGE_REQUEST).request == 12
    assert GitLab({**MERGE_REQUEST, "CI_MERGE_REQUEST_IID": ""}).request is None
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"pull_request": {"number": 12}}))
    assert GitHub({"GITHUB_EVENT_PATH": str(event)}).request == 12
    event.write_text("{}")
    assert GitHub({"GITHUB_EVENT_PATH": str(event)}).request is None


def test_the_labels_are_what_the_objects_are_found_by() -> None:
    asked = Review(request=12, until=1_764_000_000)
    assert asked.labels == {REQUEST_LABEL: "12", UNTIL_LABEL: "1764000000"}
    assert Review.of(asked.environment()) == asked
    assert Review.of({}) is None
    assert asked.deadline == "2025-11-24 16:00 UTC"
    assert {kind for *_, kind in review_objects.KINDS} >= {"httproutes", "deployments", "jobs", "networkpolicies"}


@pytest.fixture
def on_google(checkout: Path, cluster: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkout, with a stack on Google Cloud that jobs reach through the agent."""
    ready = {"status": "RUNNING", "controlPlaneEndpointsConfig": {"dnsEndpointConfig": {"endpoint": cluster}}}
    monkeypatch.setattr(Cluster, "cluster", ready)
    monkeypatch.setenv("GOOGLE_CONTAINER_CUSTOM_ENDPOINT", f"http://{cluster}/v1/")
    # Google's endpoint has a certificate; this one has none.
    secure = gke.kubeconfig
    monkeypatch.setattr(gke, "kubeconfig", lambda name, host: _with_plain_http(secure(name, host)))
    login = checkout.parent / "bin" / "gke-gcloud-auth-plugin"
    login.parent.mkdir()
    login.write_text(LOGIN)
    login.chmod(0o755)
    monkeypatch.setenv("PATH", f"{login.parent}{os.pathsep}{os.environ['PATH']}")
    config = {
        "gcp": {"project": "acme-dev", "region": "europe-west1"},
        "gateway": {"endpoint": "http://models.example", "clusterEndpoint": "http://192.0.2.99"},
        "agent": {"name": "dev", "project": "acme/models", "projectId": 11, "groupIds": [1]},
        "kubeContext": "acme/models:dev",
        "ci": {"order": 1, "review": {}},
    }
    content = {"config": {f"model-serving:{key}": value for key, value in config.items()}}
    (checkout / "stacks" / "Pulumi.dev.yaml").write_text(json.dumps(content))
    return checkout


def _with_plain_http(kubeconfig: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(kubeconfig).replace("https://", "http://"))  # type: ignore[no-any-return]


def test_on_google_cloud_a_review_reaches_the_cluster_as_its_job_and_asks_the_gateway_of_reviews(
    on_google: Path, engine: Engine
) -> None:
    release(on_google, "1.1")
    there = "/apis/apps/v1/namespaces/models-review/deployments"
    Cluster.objects = {
        there: [labels(12, FAR - 1)],
        GOOGLES_POLICIES: [labels(12), labels(13, 1)],
        OBJECTS: [labels(12)],
    }
    assert main(["review", "--stack", "dev"]) == 0
    assert Cluster.objects[there] == Cluster.objects[GOOGLES_POLICIES] == [], "an older push, and an expired one"
    ((_, content, _),) = engine.ups
    addresses = dict.fromkeys(("endpoint", "clusterEndpoint"), "http://192.0.2.10")
    assert content["model-serving:gateway"] == addresses, "not those of the models"
    assert content["model-serving:gcp"]["project"] == "acme-dev"
    assert not content.keys() & {f"model-serving:{key}" for key in ("agent", "kubeContext", "ci")}
    assert not Path(content["model-serving:kubeconfig"]).exists(), "it went with the command"


@pytest.mark.parametrize(
    ("described", "login", "told"),
    [
        ({}, LOGIN, "it has no DNS endpoint"),
        ({}, "#!/bin/sh\necho no account >&2; exit 1\n", "no account"),
        ({}, "#!/bin/sh\necho nothing\n", "Expecting value"),
    ],
)
def test_a_cluster_that_google_does_not_show_is_told(
    on_google: Path, described: dict[str, Any], login: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Cluster.cluster = described
    (on_google.parent / "bin" / "gke-gcloud-auth-plugin").write_text(login)
    assert main(["review", "--stack", "dev", "--remove"]) == 1
    said = capsys.readouterr().err
    assert told in said
    assert "needs `credentials --duty review`" in said


def test_a_fork_is_refused_before_google_is_asked(
    on_google: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (on_google.parent / "bin" / "gke-gcloud-auth-plugin").unlink()
    monkeypatch.setenv("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "8")
    assert main(["review", "--stack", "dev"]) == 1
    assert "push its branch to this repository" in capsys.readouterr().err
