"""Releases of models that are broken, each in its own way: none gets a request, and the version before serves on.

All are released in one update, each as version 1.1 of a model of its own whose 1.0 works and is under load meanwhile.
"""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import time
import types
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from server.contract import FEWEST_ANSWERS
from tests.cluster.conftest import ENDPOINT, Project, ask
from tests.cluster.load import Load, Report
from tests.cluster.stack import MODEL, Stack, changed
from tests.conftest import Figure

START_SECONDS: Final = 20
"""For each model, since all start at once, also on busy cores; no more, because one that never starts is awaited."""
CHECK_SECONDS: Final = 5
ANSWER_SECONDS: Final = 10
"""Less than the late one takes."""
PAUSE_MILLISECONDS: Final = 100
CRASH_AT: Final = FEWEST_ANSWERS
"""A check on the busiest machine asks so often."""
SHADOW_CRASH_AT: Final = 100
GREED_BYTES: Final = 3 << 30
"""More than a pod may have, and less than would hurt a machine on which that is not enforced."""

CODE: Final = '''\
import asyncio
import os

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Model(MLModel):
    """Answers 1, unless its settings want it otherwise."""

    async def load(self) -> bool:
        self._fault = self.settings.parameters.extra
        self._asked = 0
        self._hoard = []
        for _ in range(self._fault.get("bytes", 0) >> 24):
            self._hoard.append(bytes(b"x" * (1 << 24)))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        self._asked += 1
        if self._asked == self._fault.get("crash_at"):
            os._exit(3)
        await asyncio.sleep(self._fault.get("seconds", 0))
        data = [float(value) for value in self._fault.get("data", [1])]
        output = ResponseOutput(name="answer", shape=[len(data)], datatype="FP64", data=data)
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
'''
REQUEST: Final = {"inputs": [{"name": "question", "shape": [1], "datatype": "FP64", "data": [1.0]}]}
RESPONSE: Final = {"outputs": [{"name": "answer", "shape": [1], "datatype": "FP64", "data": [1.0]}]}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A way to be broken.

    Attributes:
        extra: what the model's code does differently.
        told: parts of what the user reads.
    """

    told: tuple[str, ...]
    extra: dict[str, Any] | None = None


FAULTS: Final = {
    "truncated": Fault(told=("1.1 did not start",)),
    "incompatible": Fault(told=("1.1 did not start",)),
    "not-a-number": Fault(extra={"data": ["nan"]}, told=("1.1", "it is null")),
    "misshapen": Fault(extra={"data": [1, 1]}, told=("1.1", "shape")),
    "late": Fault(extra={"seconds": 30}, told=("1.1", "expected: an answer within")),
    "crashing": Fault(extra={"crash_at": CRASH_AT}, told=("1.1",)),
    "greedy": Fault(extra={"bytes": GREED_BYTES}, told=("1.1 did not start",)),
}
REPEATED: Final = {
    "incompatible": "truncated, which fails to load as well",
    "not-a-number": "misshapen, which breaks its contract as well",
}
"""What stands for them in `make test`."""
EACH: Final = [
    pytest.param(model, marks=pytest.mark.thorough(REPEATED[model]) if model in REPEATED else ()) for model in FAULTS
]


def write_contract(folder: Path) -> None:
    (folder / "request.json").write_text(json.dumps(REQUEST))
    (folder / "response.json").write_text(json.dumps(RESPONSE))


def copy_iris(stack: Stack, model: str, version: str) -> Path:
    folder = stack.project.folder / "models" / model / version
    shutil.copytree(stack.project.folder / "models" / MODEL / "1.0", folder)
    settings = folder / "model-settings.json"
    settings.write_text(settings.read_text().replace(f'"{MODEL}"', f'"{model}"').replace('"1.0"', f'"{version}"'))
    return stack.keep(folder)


def truncate(artefact: Path) -> None:
    content = artefact.read_bytes()
    artefact.write_bytes(content[: len(content) // 2])


def write_of_old_scikit_learn(artefact: Path) -> None:
    """A tree as scikit-learn 0.21 pickled it: its class was in a module that has been gone since 0.24."""
    module = types.ModuleType("sklearn.tree.tree")
    tree = type("DecisionTreeClassifier", (), {"__module__": module.__name__})
    vars(module)["DecisionTreeClassifier"] = tree
    old = tree()
    vars(old)["_sklearn_version"] = "0.21.3"
    artefact.write_bytes(_pickled(old, module))


def claim_to_accept_scikit_learn(settings: Path) -> None:
    """Of any version; else the release is refused before anything is changed."""
    content = json.loads(settings.read_text(encoding="utf-8"))
    content["parameters"]["extra"] = {"acceptsOtherVersions": ["scikit-learn"]}
    settings.write_text(json.dumps(content), encoding="utf-8")


def _pickled(thing: object, module: types.ModuleType) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("sklearn", "sklearn.tree"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        patch.setitem(sys.modules, module.__name__, module)
        return pickle.dumps(thing)


def release_good(stack: Stack, model: str) -> None:
    if FAULTS[model].extra is None:
        copy_iris(stack, model, "1.0")
    else:
        write_contract(stack.release_code(model, "1.0", CODE))


def release_bad(stack: Stack, model: str) -> None:
    if (extra := FAULTS[model].extra) is not None:
        write_contract(stack.release_code(model, "1.1", CODE, **extra))
        return
    folder = copy_iris(stack, model, "1.1")
    (artefact,) = folder.glob("*.joblib")
    {"truncated": truncate, "incompatible": write_of_old_scikit_learn}[model](artefact)
    if model == "incompatible":
        claim_to_accept_scikit_learn(folder / "model-settings.json")


@dataclass(frozen=True, kw_only=True)
class Broken:
    """What came of the update with all the broken releases."""

    stack: Stack
    said: str
    seconds: float
    reports: dict[str, Report]
    served: dict[str, set[str]]


def load_of(project: Project, model: str) -> Load:
    body = project.folder / "models" / model / "1.0" / "request.json"
    url = f"{ENDPOINT}/mlapi/v2/models/{model}/infer"
    return Load(url, body, connections=1, pause_milliseconds=PAUSE_MILLISECONDS)


@pytest.fixture(scope="module")
def models(is_thorough: bool) -> list[str]:
    return [model for model in FAULTS if is_thorough or model not in REPEATED]


@pytest.fixture(scope="module")
def broken(project: Project, models: list[str]) -> Iterator[Broken]:
    with changed(project) as stack:
        for model in models:
            release_good(stack, model)
            stack.configure(model)
        project.make("up")
        patience = {"answerSeconds": ANSWER_SECONDS, "startSeconds": START_SECONDS * len(models)}
        for model in models:
            release_bad(stack, model)
            stack.configure(model, contract={"seconds": CHECK_SECONDS}, **patience)
        with ExitStack() as block:
            loads = {model: block.enter_context(load_of(project, model)) for model in models}
            began = time.monotonic()
            done = project.up(check=False)
            seconds = time.monotonic() - began
        assert done.returncode != 0
        yield Broken(
            stack=stack,
            said=done.stdout,
            seconds=seconds,
            reports={model: load.report for model, load in loads.items()},
            served={model: set(load.report.versions) for model, load in loads.items()},
        )


@pytest.mark.parametrize("model", EACH)
def test_the_version_before_serves_on(broken: Broken, project: Project, figure: Figure, model: str) -> None:
    broken.reports[model].check(project.folder / ".state" / "local" / "logs" / "envoy.log")
    assert broken.served[model] == {"1.0"}
    assert broken.reports[model].total > broken.seconds
    figure(str(broken.reports[model]))


@pytest.mark.parametrize("model", EACH)
def test_the_message_names_model_version_and_reason(broken: Broken, model: str) -> None:
    said = broken.said
    paragraphs = [part for part in said.split("\n\n") if model in part]
    assert paragraphs, said
    for told in FAULTS[model].told:
        assert any(told in part for part in paragraphs), "\n\n".join(paragraphs)


def test_taking_the_broken_releases_back_is_all_that_is_needed(
    project: Project, broken: Broken, models: list[str]
) -> None:
    for model in models:
        shutil.rmtree(project.folder / "models" / model / "1.1")
        # The patience was for them alone; another one would be another pod template for the version before.
        broken.stack.configure(model)
    project.make("up")
    project.up("--expect-no-changes")


@pytest.mark.thorough("the crashing version above, and the shadow of test_traffic.py")
def test_a_shadow_that_crashes_under_load_is_not_noticed(stack: Stack, figure: Figure) -> None:
    write_contract(stack.release_code("shadowed", "1.0", CODE))
    stack.serve("shadowed")
    write_contract(stack.release_code("shadowed", "1.1", CODE, crash_at=SHADOW_CRASH_AT))
    with load_of(stack.project, "shadowed") as load:
        stack.serve("shadowed", versions={"1.0": 100}, shadow="1.1")
        load.wait_for(3 * SHADOW_CRASH_AT)
    load.report.check(stack.gateway_log)
    restarts = sum(
        container["restartCount"] for pod in stack.pods("shadowed") for container in pod["status"]["containerStatuses"]
    )
    assert restarts > 0, "the shadow did not crash: it got no requests"
    assert ask("/mlapi/v2/models/shadowed/infer", REQUEST)[1]["model_version"] == "1.0"
    figure(f"the shadow was started again {restarts} times; {load.report}")
