"""Images leave a real registry by what a real backend refers to, and the disk gets its space back."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from local.cluster import garbage, probes, programs
from local.cluster.layout import Layout
from local.cluster.processes import Processes
from model_serving import catalog
from model_serving.images import runtimes
from model_serving.images.builds import CONTENT_LABEL
from model_serving.pipelines import stacks
from tests.cluster.conftest import copy_project
from tests.engine.conftest import SmallProject

MODEL = "iris-dtc"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEGABYTE = 1_000_000
OTHER = "ba9876543210"
"""A runtime on which only the oldest version is built."""


@dataclass(frozen=True, kw_only=True)
class Registry:
    """The image registry of the local cluster, without the cluster."""

    layout: Layout
    port: int
    processes: Processes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "processes", Processes(self.layout))

    @property
    def host(self) -> str:
        return f"localhost:{self.port}"

    def ask(self, path: str, method: str = "GET", content: bytes | None = None, kind: str = MANIFEST) -> Any:
        url = path if path.startswith("http") else f"http://{self.host}/v2/{path}"
        headers = {"Accept": MANIFEST, "Content-Type": kind}
        return urllib.request.urlopen(urllib.request.Request(url, content, headers, method=method), timeout=10)

    def tags(self, repository: str = MODEL) -> set[str]:
        try:
            with self.ask(f"{repository}/tags/list") as answer:
                return set(json.load(answer)["tags"] or [])
        except urllib.error.HTTPError:
            return set()

    def push(self, name: str, *layers: bytes, content: str | None = None) -> str:
        """Pushes an image as a builder does: what the registry says it has is not sent; returns its digest."""
        repository, _, tag = name.partition(":")
        config = json.dumps({"of": name, "config": {"Labels": {CONTENT_LABEL: content} if content else None}}).encode()
        blobs = [self._blob(repository, blob) for blob in (config, *layers)]
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": blobs[0], "layers": blobs[1:]}
        with self.ask(f"{repository}/manifests/{tag}", "PUT", json.dumps(manifest).encode()) as answer:
            return str(answer.headers["Docker-Content-Digest"])

    def tag(self, name: str, other: str) -> None:
        """Another tag on the very same image."""
        repository, _, tag = name.partition(":")
        with self.ask(f"{repository}/manifests/{tag}") as answer:
            self.ask(f"{repository}/manifests/{other}", "PUT", answer.read()).close()

    def is_whole(self, name: str) -> bool:
        """Whether an image can be pulled, byte for byte."""
        repository, _, tag = name.partition(":")
        with self.ask(f"{repository}/manifests/{tag}") as answer:
            manifest = json.load(answer)
        for blob in (manifest["config"], *manifest["layers"]):
            with self.ask(f"{repository}/blobs/{blob['digest']}") as answer:
                if f"sha256:{hashlib.sha256(answer.read()).hexdigest()}" != blob["digest"]:
                    return False
        return True

    def disk(self) -> int:
        files = (self.layout.cache / "registry").rglob("*")
        return sum(path.stat().st_size for path in files if path.is_file())

    def _blob(self, repository: str, content: bytes) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        try:
            self.ask(f"{repository}/blobs/{digest}", "HEAD").close()
        except urllib.error.HTTPError:
            with self.ask(f"{repository}/blobs/uploads/", "POST", b"") as answer:
                location = answer.headers["Location"]
            self.ask(f"{location}&digest={digest}", "PUT", content, "application/octet-stream").close()
        return {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": len(content)}


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(programs, "REGISTRY_PORT", port)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Not in the test's own folder: its name is too long for the sockets that a cluster would have.
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        registry = Registry(layout=Layout(name=f"prune-{os.getpid()}", state=state, bin=state / "bin"), port=port)
        registry.processes.launch(programs.registry(registry.layout))
        while not probes.http_ok(port, "/v2/"):
            time.sleep(0.02)
        yield registry
        registry.processes.end_all(["registry"])
        shutil.rmtree(registry.layout.run)


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """A project with its releases 1.0 to 1.3, of which its stack serves the newest."""

    folder: Path
    environment: dict[str, str]

    def command(self, *options: str) -> list[str]:
        return [sys.executable, "-m", "model_serving", "prune", "--stack", "local", "--keep", "1", *options]

    def prune(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.run(*self.command(*options))

    def run(self, *command: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, input=text, capture_output=True, text=True, check=False
        )

    def import_state(self, stack: str, image: str) -> None:
        """A state that refers to an image."""
        _, project, name = stack.split("/")
        resource = {
            "urn": f"urn:pulumi:{name}::{project}::pulumi:pulumi:Stack::{project}-{name}",
            "type": "pulumi:pulumi:Stack",
            "custom": False,
            "outputs": {"deployed": {"containers": [{"image": image}]}},
        }
        elsewhere = self.folder.parent / project
        elsewhere.mkdir()
        (elsewhere / "Pulumi.yaml").write_text(f"name: {project}\nruntime: yaml\n")
        made = self.run("pulumi", "stack", "init", name, "--cwd", str(elsewhere))
        assert made.returncode == 0, made.stderr
        state = json.dumps({"version": 3, "deployment": {"manifest": {}, "resources": [resource]}})
        done = self.run("pulumi", "stack", "import", "--stack", name, "--cwd", str(elsewhere), text=state)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def checkout(tmp_path: Path, registry: Registry) -> Checkout:
    folder = tmp_path / "checkout"
    folder.mkdir()
    copy_project(folder)
    for version in ("1.1", "1.2", "1.3"):
        path = shutil.copytree(folder / "models" / MODEL / "1.0", folder / "models" / MODEL / version)
        settings = path / "model-settings.json"
        settings.write_text(settings.read_text().replace('"1.0"', f'"{version}"'))
    stack = folder / "stacks" / "Pulumi.local.yaml"
    stack.write_text(stack.read_text().replace("registry: localhost:5000", f"registry: {registry.host}"))
    backend = tmp_path / "backend"
    backend.mkdir()
    environment = os.environ | {
        "PULUMI_BACKEND_URL": f"file://{backend}?metadata=skip",
        "PULUMI_CONFIG_PASSPHRASE": "local",
        "PULUMI_HOME": str(tmp_path / "home"),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PATH": f"{stacks.PROJECT}/.state/bin:{os.environ['PATH']}",
    }
    return Checkout(folder=folder, environment=environment)


@pytest.fixture
def pushed(checkout: Checkout, registry: Registry) -> dict[str, bytes]:
    """The images of the releases and what else may be beside them; the layers by which a test knows them again."""
    random = {
        name: os.urandom(size * MEGABYTE) for name, size in (("os", 3), ("wheels", 10), ("other", 20), ("1.0", 2))
    }
    releases = catalog.read(checkout.folder / "models").releases(MODEL)
    runtime = runtimes.tag_of(releases[0], stacks.read("local").images)
    registry.push(f"runtime:{runtime}", random["os"], random["wheels"])
    registry.push(f"runtime:{OTHER}", random["os"], random["other"])
    for release in releases:
        base = random["other" if release.version == "1.0" else "wheels"]
        own = random.get(release.version, release.version.encode())
        registry.push(f"{MODEL}:{release.version}", random["os"], base, own, content=release.content_hash)
    registry.push("rose:1.0", random["os"], b"another project's")
    registry.tag(f"{MODEL}:1.3", "0.9")
    checkout.import_state("organization/elsewhere/dev", f"127.0.0.1:{registry.port}/{MODEL}:1.1")
    return random


def test_what_nothing_needs_goes_and_all_else_stays_whole(
    checkout: Checkout, registry: Registry, pushed: dict[str, bytes]
) -> None:
    listed = checkout.prune("--unreleased")
    assert listed.returncode == 0, listed.stderr
    assert "2 go, which frees 22.0 MB" in listed.stdout, listed.stdout
    assert registry.tags() == {"0.9", "1.0", "1.1", "1.2", "1.3"}, "it only lists"

    told = checkout.prune("--unreleased", "--apply").stdout
    assert registry.tags() == {"0.9", "1.1", "1.2", "1.3"}
    assert OTHER not in registry.tags("runtime")
    assert len(registry.tags("runtime")) == 1
    assert registry.tags("rose") == {"1.0"}
    for reason in (
        "the same image as iris-dtc:1.3",
        "the state of organization/elsewhere/dev refers to it",
        "a rollback of local needs it",
        "stacks/Pulumi.local.yaml serves it",
        "not a model of this project",
    ):
        assert reason in told
    assert "[2/2] removed iris-dtc:1.0" in told

    before = registry.disk()
    freed = garbage.collect(registry.layout, registry.processes)
    assert freed == before - registry.disk()
    assert freed > 21.9 * MEGABYTE, "both runtimes have the layer of the system"
    names = [f"{MODEL}:{tag}" for tag in registry.tags()] + [f"runtime:{tag}" for tag in registry.tags("runtime")]
    assert all(registry.is_whole(name) for name in [*names, "rose:1.0"])
    assert "There was nothing to do." in checkout.prune("--unreleased", "--apply").stdout


def test_what_went_can_be_pushed_again(checkout: Checkout, registry: Registry, pushed: dict[str, bytes]) -> None:
    checkout.prune("--apply")
    garbage.collect(registry.layout, registry.processes)
    registry.push(f"{MODEL}:1.0", pushed["os"], pushed["other"], pushed["1.0"])
    assert registry.is_whole(f"{MODEL}:1.0"), "the registry does not take layers for present that are gone"


def test_images_are_pulled_while_the_garbage_is_collected(registry: Registry, pushed: dict[str, bytes]) -> None:
    answers: list[tuple[float, bool]] = []
    end = threading.Event()

    def pull() -> None:
        while not end.wait(0.005):
            try:
                registry.ask(f"{MODEL}/manifests/1.3").close()
                answers.append((time.monotonic(), True))
            except OSError:
                answers.append((time.monotonic(), False))

    puller = threading.Thread(target=pull)
    puller.start()
    start = time.monotonic()
    garbage.collect(registry.layout, registry.processes)
    seconds = time.monotonic() - start
    end.set()
    puller.join()
    unanswered = sum(not answered for _, answered in answers)
    print(f"{seconds:.2f} s, {unanswered} of {len(answers)} pulls were refused, while it started anew twice")
    assert unanswered < len(answers)


def test_nothing_is_pushed_while_the_garbage_is_collected(
    registry: Registry, pushed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []

    def meanwhile(*_: object) -> None:
        with pytest.raises(urllib.error.HTTPError, match="405"):
            registry.push("rose:1.1", b"new")
        refused.append(registry.is_whole(f"{MODEL}:1.3"))
        # What a killed run leaves behind is told from the usual by the next start of the cluster.
        record = registry.processes.record("registry")
        assert record
        assert record.digest != programs.registry(registry.layout).digest

    monkeypatch.setattr(garbage, "_collect", meanwhile)
    garbage.collect(registry.layout, registry.processes)
    assert refused == [True]
    registry.push("rose:1.1", b"new")


def test_a_state_that_cannot_be_read_stops_it(
    checkout: Checkout, registry: Registry, pushed: dict[str, bytes], tmp_path: Path
) -> None:
    state = tmp_path / "backend" / ".pulumi" / "stacks" / "elsewhere" / "dev.json"
    state.write_text(state.read_text()[:100])
    refused = checkout.prune("--apply")
    assert refused.returncode == 1
    assert "`pulumi stack ls" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "1.0" in registry.tags()


def test_nothing_is_removed_while_an_update_runs(
    checkout: Checkout, registry: Registry, pushed: dict[str, bytes], small: SmallProject
) -> None:
    project = small('import pulumi_gcp as gcp\ngcp.storage.Bucket("b", name="bucket-b", location="EU")\n')
    project.cloud.fail({"fault": "slow", "seconds": 60})
    backend = project.environment["PULUMI_BACKEND_URL"]
    assert backend.endswith("?metadata=skip")
    up = ["pulumi", "up", "--yes", "--skip-preview", "--non-interactive", "--stack", project.stack]
    with subprocess.Popen(up, cwd=project.folder, env=project.environment, stdout=subprocess.PIPE, text=True) as update:
        assert update.stdout
        assert any("creating" in line for line in update.stdout)
        environ = {"PULUMI_BACKEND_URL": backend, "PULUMI_CONFIG_PASSPHRASE": "stand-in"}
        refused = replace(checkout, environment=checkout.environment | environ).prune("--apply")
        project.cloud.fail()
        update.stdout.read()
    assert refused.returncode == 1, refused.stdout
    assert "stack test is being updated by" in refused.stderr
    assert "its process is running on this machine" in refused.stderr
    assert "1.0" in registry.tags()
    assert update.returncode == 0


def test_a_run_that_was_interrupted_is_gone_on_with(
    checkout: Checkout, registry: Registry, pushed: dict[str, bytes]
) -> None:
    count = 60
    for number in range(count):
        registry.push(f"{MODEL}:0.0.{number}", pushed["os"], str(number).encode(), content="experiment")
    command = checkout.command("--unreleased", "--apply")
    with subprocess.Popen(
        command,
        cwd=checkout.folder,
        env=checkout.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("[3/"):
                process.send_signal(signal.SIGINT)
                break
        process.stdout.read()
    assert process.returncode == 130
    left = len(registry.tags()) - len({"0.9", "1.1", "1.2", "1.3"})
    assert 0 < left < count
    # The registry may have ended one removal more, whose answer nobody waited for.
    removed = re.findall(r"\[(\d+)/\1\] removed", checkout.prune("--unreleased", "--apply").stdout)
    assert removed in ([str(left)], [str(left - 1)])
    assert registry.tags() == {"0.9", "1.1", "1.2", "1.3"}
