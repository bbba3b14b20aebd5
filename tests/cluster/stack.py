"""The stack local of a test's project, whose models and releases a test changes and puts back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from tests.cluster.conftest import Project

MODEL: Final = "iris-dtc"
_UP: Final = ("up", "--yes", "--skip-preview", "--stack", "local")
PULUMI_UP: Final = ("pulumi", *_UP)
UPDATE: Final = ("pulumi", *_UP)
"""The update as `make up` runs it, without what that starts and mends first."""
GONE_SECONDS: Final = 180
CHANGED_SECONDS: Final = 300
"""Bounds for a machine that is busy with something else, no measures."""


class Stack:
    """The stack of a project."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._path = project.folder / "stacks" / "Pulumi.local.yaml"
        self._before = self._path.read_text()
        self._folders: list[Path] = []
        self._updates: list[Update] = []

    # what is released and what is served

    def set(self, key: str, value: Any) -> None:
        """Writes a setting of the whole stack into the stack file."""
        content = yaml.safe_load(self._path.read_text())
        content["config"][f"model-serving:{key}"] = value
        self._path.write_text(yaml.safe_dump(content))

    def configure(self, model: str = MODEL, **settings: Any) -> None:
        """Writes the settings of a model into the stack file."""
        content = yaml.safe_load(self._path.read_text())
        content["config"]["model-serving:models"][model] = settings
        self._path.write_text(yaml.safe_dump(content))

    def serve(self, model: str = MODEL, **settings: Any) -> float:
        """Runs an update with these settings of a model; returns its seconds."""
        self.configure(model, **settings)
        began = time.monotonic()
        self.project.up()
        return time.monotonic() - began

    def release(self) -> str:
        """Releases a copy of the iris model under a version that no registry has seen; returns the version."""
        version = f"1.0.{time.time_ns() // 10**6}"
        self.keep(self.project.release(MODEL, version, like="1.0"))
        return version

    def release_code(self, model: str, version: str, code: str, **extra: Any) -> Path:
        """Releases a model that is a Python class `Model` of its own; what is extra is in its settings."""
        folder = self.keep(self.project.folder / "models" / model / version)
        folder.mkdir(parents=True)
        (folder / "code_of_model.py").write_text(code)
        settings = {
            "name": model,
            "implementation": "code_of_model.Model",
            "parameters": {"version": version, "extra": extra},
        }
        (folder / "model-settings.json").write_text(json.dumps(settings))
        shutil.copy(self.project.folder / "models" / MODEL / "1.0" / "requirements.lock", folder)
        return folder

    def keep(self, folder: Path) -> Path:
        """Remembers a release's folder, to be removed in the end."""
        self._folders.append(folder)
        return folder

    def take_back(self, version: str) -> None:
        """Removes a release of the iris model."""
        self.remove(self.project.folder / "models" / MODEL / version)

    def remove(self, folder: Path) -> None:
        """Takes a release back, and its model's folder if it is empty."""
        shutil.rmtree(folder, ignore_errors=True)
        self._folders.remove(folder)
        if folder.parent.exists() and not any(folder.parent.iterdir()):
            folder.parent.rmdir()

    def restore(self) -> None:
        """Puts the files back as they were; the cluster follows when a test needs it."""
        self._path.write_text(self._before)
        for folder in [*self._folders]:
            self.remove(folder)
        self.project.left.append("what a stack served")
        for update in self._updates:
            update.sweep()

    # pods

    def pods(self, model: str = MODEL) -> list[dict[str, Any]]:
        """The model's servers; a pod of another kind, which checks a release, comes to its end by itself."""
        listed = self.project.kubectl("get", "pods", f"--selector=app.kubernetes.io/name={model}", "--output=json")
        pods: list[dict[str, Any]] = json.loads(listed.stdout)["items"]
        return [pod for pod in pods if pod["spec"]["restartPolicy"] == "Always"]

    def await_pods(self, count: int, model: str = MODEL) -> None:
        """Waits until so many pods are ready and none is on its way out."""
        deadline = time.monotonic() + GONE_SECONDS
        while True:
            pods = self.pods(model)
            if len(pods) == count and all(map(_is_ready, pods)):
                return
            assert time.monotonic() < deadline, [pod["metadata"]["name"] for pod in pods]
            time.sleep(0.5)

    def evict(self, pod: str) -> None:
        """What a drain of the pod's node would do, with respect for its PodDisruptionBudget."""
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": "models"}}
        path = self.project.folder / ".state" / "eviction.json"
        path.write_text(json.dumps(eviction))
        self.project.kubectl("create", "--raw", f"/api/v1/namespaces/models/pods/{pod}/eviction", "-f", str(path))

    # the cluster's processes

    @property
    def gateway_log(self) -> Path:
        return self.project.folder / ".state" / "local" / "logs" / "envoy.log"

    def process(self, name: str) -> int:
        """Id of one of the cluster's processes."""
        path = self.project.folder / ".state" / "local" / "pids" / name
        pid: int = json.loads(path.read_text())["pid"]
        return pid

    def kill(self, name: str) -> None:
        os.kill(self.process(name), signal.SIGKILL)

    def start_what_died(self) -> str:
        """What `make up` does first."""
        return self.project.make("cluster").stdout

    @contextmanager
    def stopped(self, name: str) -> Iterator[Callable[[], None]]:
        """A process does nothing, until the end of the block or until what this gives is called."""
        pid = self.process(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield lambda: os.kill(pid, signal.SIGCONT)
        finally:
            os.kill(pid, signal.SIGCONT)

    # an update while something else happens

    @contextmanager
    def update(self, *command: str) -> Iterator[Update]:
        """An update that runs beside the block, which has to end it."""
        update = Update(self.project, command or ("make", "up"))
        self._updates.append(update)
        try:
            yield update
        finally:
            update.end()


class Update:
    """A command that updates the stack, in a session of its own."""

    def __init__(self, project: Project, command: tuple[str, ...]) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=project.folder,
            env=project.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._said: list[str] = []

    @property
    def said(self) -> str:
        return "".join(self._said)

    def read_until(self, text: str) -> None:
        """Reads on until a line has the text."""
        assert self._process.stdout
        for line in self._process.stdout:
            self._said.append(line)
            if text in line:
                return
        raise AssertionError(f"{text!r} was not said:\n{self.said}")

    def wait(self) -> int:
        """Reads to the end; returns the exit code."""
        assert self._process.stdout
        self._said += self._process.stdout.readlines()
        return self._process.wait(CHANGED_SECONDS)

    def end(self) -> None:
        """Whatever is left of it, when a test has failed."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def sweep(self) -> None:
        """Stops the plugins that an engine left waiting when it was killed: each is a group, all are one session."""
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(ProcessLookupError):
                if os.getsid(int(folder.name)) == self._process.pid:
                    os.kill(int(folder.name), signal.SIGKILL)


@contextmanager
def changed(project: Project, *, as_left: bool = False) -> Iterator[Stack]:
    """The stack for a while; its files are put back afterwards.

    Args:
        as_left: whether what the tests before have left may be served at the beginning, and not what is committed.
    """
    if not as_left:
        project.clean()
    stack = Stack(project)
    try:
        yield stack
    finally:
        stack.restore()


def name_of(version: str, model: str = MODEL) -> str:
    """What a release is called in Kubernetes."""
    return f"{model}-{version.replace('.', '-')}"


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    ready = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]
