"""A version gets traffic only after it has answered, through the gateway, what its release says that it can."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import Project, ask
from tests.cluster.stack import Stack
from tests.cluster.test_release import Watch
from tests.cluster.test_serving import IRIS
from tests.conftest import Figure

pytestmark = pytest.mark.as_left

MODEL = "/mlapi/v2/models/iris-dtc/infer"
START_SECONDS = 120
"""What a version may take to start, unless the stack says otherwise; a check asks for longer."""
WRONG_MODEL = """
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Model(MLModel):
    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        output = ResponseOutput(name="predict", shape=[1], datatype="FP64", data=[float("nan")])
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
"""
SLOW_MODEL = """
import asyncio

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Model(MLModel):
    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        await asyncio.sleep(31)
        output = ResponseOutput(name="answer", shape=[1], datatype="FP64", data=[1.0])
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
"""


@pytest.fixture
def release(project: Project, stack: Stack) -> Path:
    """A release of the iris model that nobody has seen yet; it is gone afterwards."""
    return project.folder / "models" / "iris-dtc" / stack.release()


def jobs(project: Project) -> dict[str, str]:
    """Name -> id of each check that there is a record of."""
    listed = json.loads(project.kubectl("get", "jobs", "--output", "json").stdout)
    return {job["metadata"]["name"]: job["metadata"]["uid"] for job in listed["items"]}


def described(project: Project, kind: str, name: str) -> dict[str, Any]:
    """An object as the API server has it."""
    command = ("get", kind, name, "--output", "json", "--show-managed-fields")
    found: dict[str, Any] = json.loads(project.kubectl(*command).stdout)
    return found


def of_version(jobs: Iterable[str], release: Path) -> list[str]:
    return [name for name in jobs if name.startswith(f"iris-dtc-{release.name.replace('.', '-')}-contract-")]


def answer_no_number(folder: Path) -> None:
    """Makes a release answer what is no number."""
    (folder / "broken.py").write_text(WRONG_MODEL)
    settings = json.loads((folder / "model-settings.json").read_text())
    settings["implementation"] = "broken.Model"
    (folder / "model-settings.json").write_text(json.dumps(settings))


def test_a_version_that_keeps_its_contract_gets_the_traffic_and_a_record(
    project: Project, release: Path, figure: Figure
) -> None:
    project.up()
    assert ask(MODEL, IRIS)[1]["model_version"] == release.name
    recorded = jobs(project)
    assert len(of_version(recorded, release)) == 1
    project.up("--expect-no-changes")
    assert jobs(project) == recorded, "nothing is asked again"
    (job,) = of_version(recorded, release)
    ended = described(project, "job", job)["status"]["completionTime"]
    changes = described(project, "httproute", "iris-dtc")["metadata"]["managedFields"]
    moved = max(change["time"] for change in changes if "subresource" not in change)
    figure(f"the traffic moved at {moved}, the check's Job ended at {ended}")


def test_a_version_that_answers_the_wrong_class_gets_no_traffic(project: Project, release: Path) -> None:
    response = json.loads((release / "response.json").read_text())
    response["outputs"][0]["data"] = [2]
    (release / "response.json").write_text(json.dumps(response))
    assert_stopped(project, release, "predict[0] to be 2; it is 0")


@pytest.mark.thorough("the wrong class, above, and taking broken releases back in test_faults_of_models.py")
def test_a_check_that_failed_is_made_again_and_the_mistake_stays_a_mistake(project: Project, release: Path) -> None:
    answer_no_number(release)
    assert_stopped(project, release, "predict to have the datatype INT64; it is FP64")
    first = jobs(project)
    assert_stopped(project, release, "predict to have the datatype INT64; it is FP64")
    assert jobs(project).keys() == first.keys()
    assert jobs(project) != first


def assert_stopped(project: Project, release: Path, told: str) -> None:
    """An update ends with the reason, and in the meantime and afterwards the version that served serves."""
    before = ask(MODEL, IRIS)[1]["model_version"]
    with Watch(MODEL) as watch:
        start = time.monotonic()
        refused = project.up(check=False)
        elapsed = time.monotonic() - start
    assert refused.returncode != 0
    assert f"iris-dtc {release.name} does not keep its contract." in refused.stdout, refused.stdout
    assert f"asked: POST http://10.213.0.1/mlapi/v2/models/iris-dtc/versions/{release.name}/infer" in refused.stdout
    assert "came back: 200" in refused.stdout
    assert "expected: predict" in refused.stdout
    assert told in refused.stdout
    assert "Traceback" not in refused.stdout
    assert set(watch.answers) == {before}
    assert ask(MODEL, IRIS)[1]["model_version"] == before
    assert elapsed < START_SECONDS, "a wrong answer is not asked for until the time is over"


@pytest.mark.thorough("tests/unit/test_contract.py and test_components.py")
def test_a_version_without_anything_to_ask_is_said_to_have_none(project: Project, release: Path) -> None:
    for name in ("request.json", "response.json"):
        (release / name).unlink()
    settings = json.loads((release / "model-settings.json").read_text())
    del settings["inputs"]
    (release / "model-settings.json").write_text(json.dumps(settings))
    shown = project.run("pulumi", "preview", "--stack", "local").stdout
    assert f"iris-dtc {release.name} gets traffic as soon as its pods are ready" in shown
    project.up()
    assert ask(MODEL, IRIS)[1]["model_version"] == release.name


@pytest.mark.thorough("tests/unit/test_contract.py, which derives such requests")
def test_a_request_is_made_from_what_a_model_says_that_it_takes(project: Project, release: Path) -> None:
    for name in ("request.json", "response.json"):
        (release / name).unlink()
    project.up()
    assert len(of_version(jobs(project), release)) == 1
    assert ask(MODEL, IRIS)[1]["model_version"] == release.name


@pytest.mark.thorough("tests/unit/test_contract.py and test_components.py, and tests/release/test_trial.py, in parts")
def test_a_slow_model_is_checked_and_answers_clients_within_its_answer_time(stack: Stack) -> None:
    request = {"inputs": [{"name": "question", "shape": [1], "datatype": "FP64", "data": [1.0]}]}
    (stack.release_code("slow", "1.0", SLOW_MODEL) / "request.json").write_text(json.dumps(request))
    # Its three answers take longer than both together, in which the first one has to come.
    stack.serve("slow", answerSeconds=60, contract={"seconds": 40}, startSeconds=40)
    status, answer = ask("/mlapi/v2/models/slow/infer", request, timeout=60)
    assert (status, answer["outputs"][0]["data"]) == (200, [1.0])
