"""Each release runs with the packages of its own lock, and code of a model's own is served like any other model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from model_serving.images.registry import Registry
from tests.cluster.conftest import PROJECT, Project, ask
from tests.cluster.stack import MODEL, Stack, changed, name_of

pytestmark = pytest.mark.as_left

EXAMPLE: Final = PROJECT / "templates" / "runtimes" / "custom-code"
OWN: Final = "runtime-custom-code"
LIGHTGBM: Final = "wine-lgbm"


@pytest.fixture(scope="module")
def stack(project: Project) -> Iterator[Stack]:
    with changed(project, as_left=True) as stack:
        yield stack


@pytest.fixture(scope="module")
def served(stack: Stack) -> Project:
    """The stack with the example of own code besides its models of scikit-learn and LightGBM."""
    release_own_code(stack)
    stack.serve(OWN)
    return stack.project


def release_own_code(stack: Stack) -> None:
    """The example as its training leaves it, on the lock of the iris models, which has all that it needs."""
    folder = stack.keep(stack.project.folder / "models" / OWN / "1.0")
    folder.mkdir(parents=True)
    shutil.copy(EXAMPLE / "outliers.py", folder)
    settings = (EXAMPLE / "model-settings.json").read_text().replace("$VERSION", "1.0")
    (folder / "model-settings.json").write_text(settings)
    shutil.copy(stack.project.folder / "models" / MODEL / "1.0" / "requirements.lock", folder)
    (folder / "seen.json").write_text(json.dumps({"mean": [0.0, 1.0], "deviation": [1.0, 2.0], "limit": 4.0}))
    (folder / "request.json").write_text(json.dumps(asked([0.0, 1.0], [0.0, 9.5])))
    (folder / "response.json").write_text(json.dumps({"outputs": [answer(0, 1)]}))


def asked(*rows: list[float]) -> dict[str, Any]:
    return {"inputs": [{"name": "values", "shape": [len(rows), 2], "datatype": "FP64", "data": rows}]}


def answer(*flags: int) -> dict[str, Any]:
    return {"name": "outlier", "shape": [len(flags), 1], "datatype": "INT64", "data": list(flags)}


def layers(project: Project, deployment: str) -> list[str]:
    """Digests of the layers of what a release runs on; the release itself is the last one, and left out."""
    image = project.kubectl("get", "deployment", deployment, "--output", "jsonpath={..image}").stdout
    name, _, digest = image.partition("@")
    registry, _, repository = name.rpartition(":")[0].partition("/")
    found = Registry(registry).image(repository, digest)
    assert found, f"{image} is not in the registry"
    return [*found.layers[:-1]]


def processes(project: Project, deployment: str) -> int:
    """How many of a server's processes are MLServer."""
    count = """
import glob
lines = [open(path, "rb").read() for path in glob.glob("/proc/[0-9]*/cmdline")]
print(sum(b"model_serving_launcher" in line or b"spawn_main" in line for line in lines))
"""
    return int(project.kubectl("exec", f"deployment/{deployment}", "--", "python", "-c", count).stdout)


@pytest.mark.parametrize("version", ["", "/versions/1.0"])
def test_code_of_a_models_own_answers_through_the_gateway(served: Project, version: str) -> None:
    status, body = ask(f"/mlapi/v2/models/{OWN}{version}/infer", asked([0.5, 0.5], [4.5, 1.0], [0.0, -8.0]))
    assert status == 200, body
    (output,) = body["outputs"]
    assert {key: output[key] for key in ("name", "shape", "datatype", "data")} == answer(0, 1, 1)


@pytest.mark.parametrize("model", [MODEL, LIGHTGBM])
def test_the_models_of_other_runtimes_answer_beside_it(served: Project, model: str) -> None:
    folder = Path(served.folder, "models", model, "1.0")
    status, body = ask(f"/mlapi/v2/models/{model}/infer", json.loads((folder / "request.json").read_text()))
    assert status == 200, body
    (expected,) = json.loads((folder / "response.json").read_text())["outputs"]
    assert body["outputs"][0]["data"] == pytest.approx(expected["data"])


def test_the_lock_of_a_release_decides_its_runtime_image(served: Project) -> None:
    own, iris, wine = (layers(served, name_of("1.0", model)) for model in (OWN, MODEL, LIGHTGBM))
    assert own == iris, "one lock, one image"
    assert iris != wine


@pytest.mark.thorough("tests/release/test_packages.py, in workers")
def test_workers_predict_in_processes_of_their_own(served: Project, stack: Stack) -> None:
    alone = processes(served, name_of("1.0", OWN))
    stack.serve(OWN, workers=2)
    stack.await_pods(1, OWN)
    assert processes(served, name_of("1.0", OWN)) == alone + 2
    status, body = ask(f"/mlapi/v2/models/{OWN}/infer", asked([0.0, -8.0]))
    assert status == 200, body
    assert body["outputs"][0]["data"] == [1]
