"""Models of each of MLflow's flavours, converted, and served by a real MLServer as they predict without one."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from local.tools.environments import provide
from model_serving import catalog
from model_serving.__main__ import main
from model_serving.releases import trial
from server import contract
from server.contract import Answer, Door
from tests.release.repositories import PROJECT

RUNTIMES: Final = PROJECT / "templates" / "runtimes"
EXAMPLE: Final = RUNTIMES / "mlflow"
MODELS: Final = Path(__file__).with_name("mlflow_models.py")
BESIDE: Final = {"lightgbm": ("lightgbm",), "xgboost": ("xgboost", "nvidia-nccl-cu12")}
"""Runtime -> packages of its lock that MLflow's flavour of the same name needs."""
VERSION: Final = "v1.0.0"
TRAINING_SECONDS: Final = 180
LOADED_SECONDS: Final = 120
ANSWER_SECONDS: Final = 30
SPECIES: Final = [("output-1", "INT64", [3, 1])]
DOUBLED: Final = [("output-1", "FP64", [3, 4])]
ANSWERS: Final = {
    **{
        f"{flavour}-{saved_with}": DOUBLED if flavour == "pyfunc" else SPECIES
        for flavour in ("sklearn", "xgboost", "lightgbm", "pyfunc")
        for saved_with in ("both", "signature", "example", "neither")
    },
    "table": [("output-1", "BOOL", [3, 1])],
    "table-signature": [("output-1", "BOOL", [3, 1])],
    "probabilities": [("output-1", "FP64", [3, 3])],
    "names": [("output-1", "BYTES", [3, 1])],
    "by-hand": [("output-1", "FP32", [3, 1])],
    "frame": [("sum", "FP64", [3, 1]), ("whole", "INT64", [3, 1])],
    "arrays": [("first", "FP64", [3, 1]), ("sum", "FP64", [3, 4])],
    "texts": [("output-1", "BYTES", [2, 1])],
    "parameters": DOUBLED,
}
"""Model in mlflow_models.py -> name, datatype and shape of each output of MLServer's."""
UNTOLD: Final = {"by-hand"}
"""Its signature names and types the output in a way of its own."""


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lock of the runtime, with the packages of the other flavours from theirs."""
    text = (EXAMPLE / "requirements.lock").read_text()
    for runtime, packages in BESIDE.items():
        names = "|".join(packages)
        entries = re.compile(rf"^(?:{names})==.*\n(?:[ \t].*\n)*", re.MULTILINE)
        text += "".join(entries.findall((RUNTIMES / runtime / "requirements.lock").read_text()))
    path = tmp_path_factory.mktemp("lock") / "requirements.lock"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def python(lock: Path) -> str:
    return str(provide(lock) / "bin" / "python")


@pytest.fixture(scope="module")
def saved(python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of MLflow for each model, and what the models predict."""
    folder = tmp_path_factory.mktemp("saved")
    subprocess.run([python, MODELS, folder], cwd=folder, check=True, timeout=TRAINING_SECONDS, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def direct(saved: Path) -> Mapping[str, Any]:
    predictions: dict[str, Any] = json.loads((saved / "direct.json").read_text())
    return predictions


@pytest.fixture(scope="module")
def converted(saved: Path, lock: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    for name in ANSWERS:
        options = ("--name", name, "--version", VERSION, "--lock", str(lock), "--out", str(out))
        assert main(["convert", "mlflow", str(saved / name), *options]) == 0
    return out


@pytest.fixture(scope="module")
def door(converted: Path, python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """One MLServer with all releases."""
    scratch = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_HTTP_PORT": str(port),
        "MLSERVER_GRPC_PORT": "0",
        "MLSERVER_METRICS_PORT": "0",
        "MLSERVER_PARALLEL_WORKERS": "0",
        "MLSERVER_ENVIRONMENTS_DIR": str(scratch),
    }
    log = scratch / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python, "-c", "from mlserver.cli import main; main()", "start", str(converted)],
            cwd=scratch,
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | settings,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + LOADED_SECONDS
        while not all(_is_ready(port, name) for name in ANSWERS):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield Door(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait()


def _is_ready(port: int, name: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", f"/v2/models/{name}/versions/{VERSION}/ready")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


def asked(door: Door, name: str, request: Mapping[str, Any]) -> Answer:
    return door.ask(f"/v2/models/{name}/versions/{VERSION}/infer", request)(seconds=ANSWER_SECONDS)


def request_of(converted: Path, name: str) -> dict[str, Any]:
    """Its own, or that of the same model with a signature and an example, as convert says to ask it."""
    folder = converted / name / VERSION
    if (folder / "request.json").is_file():
        return dict(json.loads((folder / "request.json").read_text()))
    model, _, saved_with = name.partition("-")
    whole = "table" if model == "table" else f"{model}-both"
    request = request_of(converted, whole)
    return request | ({"parameters": {"content_type": "np"}} if saved_with == "neither" else {})


@pytest.mark.parametrize("name", ANSWERS)
def test_a_model_of_mlflow_answers_what_it_predicts(
    converted: Path, door: Door, direct: Mapping[str, Any], name: str
) -> None:
    answer = asked(door, name, request_of(converted, name))
    assert answer.status == 200, answer.body
    outputs = json.loads(answer.body)["outputs"]
    assert [(each["name"], each["datatype"], each["shape"]) for each in outputs] == ANSWERS[name]
    for output, predicted in zip(outputs, direct[name], strict=True):
        numbers = output["datatype"].startswith("FP")
        assert output["data"] == (pytest.approx(predicted, rel=1e-6) if numbers else predicted)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_model_of_mlflow_keeps_the_contract_that_convert_writes(converted: Path, door: Door, name: str) -> None:
    folder = converted / name / VERSION
    promised = contract.read(folder)
    saved_with = name.rpartition("-")[2]
    assert (folder / "request.json").is_file() == (saved_with not in {"signature", "neither"})
    if saved_with == "neither":
        assert promised is None
        return
    assert promised is not None
    assert bool(promised.outputs) == (saved_with != "example" and name not in UNTOLD)
    contract.check(promised, asked(door, name, promised.request), model=name, version=VERSION)


def test_the_example_of_the_runtime_is_served_from_what_mlflow_saved(python: str, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "training")
    subprocess.run(
        [python, "train.py"], cwd=tmp_path / "training", check=True, timeout=TRAINING_SECONDS, capture_output=True
    )
    build, out = tmp_path / "training" / "build", tmp_path / "out"
    options = ("--name", "iris", "--version", VERSION, "--lock", str(EXAMPLE / "requirements.lock"), "--out", str(out))
    assert main(["convert", "mlflow", str(build / "model"), *options]) == 0
    for name in ("request.json", "response.json"):
        shutil.copy(build / name, out / "iris" / VERSION)
    folder = catalog.read(out).get("iris", VERSION).folder
    assert trial.run(folder, name="iris", version=VERSION, python=python) is True
