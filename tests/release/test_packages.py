"""The launcher on the locked packages, with a newer FastAPI than MLServer asks for: what clients use of it."""

from __future__ import annotations

import gzip
import http.client
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from local.tools.environments import provide
from tests.release.launched import Launched, launched
from tests.release.repositories import OWN_CODE, PROJECT

RUNTIMES = PROJECT / "templates" / "runtimes"
TRAINING_SECONDS = 120
LARGE = 500_000
"""Values of a large body, 4 MB as JSON."""
# As MLflow's users write it: https://mlflow.org/docs/latest/ml/traditional-ml/tutorials/creating-custom-pyfunc/
PYFUNC = """
import mlflow.pyfunc
import pandas as pd


class Labels(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return pd.DataFrame({"label": ["yes", "no"], "score": [2.0, -2.0]})


mlflow.pyfunc.save_model("model", python_model=Labels(), pip_requirements=["pandas"])
"""


def python(runtime: str) -> str:
    """Of the environment of a runtime's lock."""
    return str(provide(RUNTIMES / runtime / "requirements.lock") / "bin" / "python")


def release(folder: Path, implementation: str, **parameters: str) -> Path:
    """The folder of a release, with its settings."""
    folder.mkdir(parents=True)
    settings = {"name": "own", "implementation": implementation, "parameters": {"version": "v1", **parameters}}
    (folder / "model-settings.json").write_text(json.dumps(settings))
    return folder


def asked(data: list[float]) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "shape": [len(data)], "datatype": "FP32", "data": data}]}


@pytest.fixture(scope="module", params=["0", "2"], ids=["in the server", "in workers"])
def own(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """A model of own code, which doubles."""
    folder = tmp_path_factory.mktemp("own")
    made = release(folder / "release", "own.Doubler")
    (made / "own.py").write_text(OWN_CODE)
    chosen: Mapping[str, str] = {"MLSERVER_PARALLEL_WORKERS": request.param}
    with launched(made, folder / "server", name="own", python=python("custom-code"), **chosen) as server:
        server.await_ready()
        yield server


@pytest.mark.parametrize("place", ["/v2", "/v2/models/own", "/v2/models/own/versions/v1"])
def test_its_documentation_can_be_read(own: Launched, place: str) -> None:
    page = own.ask("GET", f"{place}/docs")
    assert page.status == 200
    assert page.headers.get_content_type() == "text/html"
    assert "dataplane.json" in page.body
    described = own.ask("GET", f"{place}/docs/dataplane.json")
    assert described.status == 200
    assert any(path.endswith("/infer") for path in described.body["paths"])


def test_a_large_body_is_read_and_answered_whole(own: Launched) -> None:
    answer = own.infer(asked([each / 4 for each in range(LARGE)]))
    assert answer.status == 200
    assert answer.body["outputs"][0]["data"] == [each / 2 for each in range(LARGE)]


def test_a_client_that_takes_compressed_answers_gets_them(own: Launched) -> None:
    connection = own.connection()
    headers = {"Content-Type": "application/json", "Accept-Encoding": "gzip"}
    connection.request("POST", "/v2/models/own/infer", json.dumps(asked([0.5] * 1000)), headers)
    response = connection.getresponse()
    assert response.getheader("Content-Encoding") == "gzip"
    assert json.loads(gzip.decompress(response.read()))["outputs"][0]["data"] == [1.0] * 1000
    connection.close()


def test_what_it_answers_is_counted(own: Launched) -> None:
    path = "/v2/models/own/versions/v1/infer"
    assert own.ask("POST", path, json.dumps(asked([1.0])).encode()).status == 200
    connection = http.client.HTTPConnection("127.0.0.1", own.metrics_port, timeout=10)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    assert 'model_infer_request_success_total{model="own",version="v1"} 1.0' in lines
    counted = 'path="/v2/models/{model_name}/versions/{model_version}/infer",status_code="200"} 1.0'
    assert any(line.startswith("rest_server_requests_total{") and line.endswith(counted) for line in lines)


def test_a_table_of_an_mlflow_function_is_answered(tmp_path: Path) -> None:
    """MLflow's runtime leaves it to MLServer to encode it."""
    interpreter = python("mlflow")
    made = release(tmp_path / "release", "mlserver_mlflow.MLflowRuntime", uri="./model")
    subprocess.run([interpreter, "-c", PYFUNC], cwd=made, check=True, timeout=TRAINING_SECONDS, capture_output=True)
    with launched(made, tmp_path / "server", name="own", python=interpreter) as server:
        server.await_ready()
        answer = server.infer(asked([0.0]))
    assert answer.status == 200, answer.body
    assert [(output["name"], output["datatype"], output["data"]) for output in answer.body["outputs"]] == [
        ("label", "BYTES", ["yes", "no"]),
        ("score", "FP64", [2.0, -2.0]),
    ]
