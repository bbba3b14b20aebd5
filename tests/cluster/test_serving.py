"""The models as clients reach them: through the real gateway, from real pods."""

from __future__ import annotations

import json
import re
import time
from http.client import HTTPConnection, HTTPMessage
from typing import Any

import numpy as np
import pytest
from tritonclient import http as tritonclient

from tests.cluster.conftest import PROJECT, Project, ask

IRIS = {"inputs": [{"name": "predict", "shape": [1, 4], "datatype": "FP32", "data": [5, 3.4, 1.5, 0.2]}]}
PRODUCTS = {
    "inputs": [{"name": "predict", "shape": [3], "datatype": "BYTES", "data": ["boneca", "carrinho", "minecraft"]}]
}
PORTAL_SECONDS = 10
"""Until the gateway knows the portal's pods."""


def fetched(path: str) -> tuple[int, str, HTTPMessage]:
    connection = HTTPConnection("127.0.0.1", 8080, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode(), response.headers
    finally:
        connection.close()


@pytest.mark.parametrize("version", ["/versions/1.0", ""])
@pytest.mark.parametrize(
    ("model", "request_body", "answer"),
    [
        ("iris-dtc", IRIS, [0]),
        ("classificador-produtos", PRODUCTS, ["brinquedos", "brinquedos", "jogos"]),
    ],
)
def test_the_requests_of_the_original_workflow_work_verbatim(
    project: Project, model: str, version: str, request_body: dict[str, Any], answer: list[Any]
) -> None:
    status, body = ask(f"/mlapi/v2/models/{model}{version}/infer", request_body)
    assert status == 200, body
    assert (body["model_name"], body["model_version"]) == (model, "1.0")
    assert body["outputs"][0]["data"] == answer


@pytest.mark.parametrize("folder", sorted((PROJECT / "models").glob("*/*/request.json")), ids=lambda p: p.parts[-3])
def test_each_release_answers_its_contract(project: Project, folder: Any) -> None:
    model, version = folder.parts[-3:-1]
    status, body = ask(f"/mlapi/v2/models/{model}/versions/{version}/infer", json.loads(folder.read_text()))
    assert status == 200, body
    for output, expected in zip(
        body["outputs"], json.loads(folder.with_name("response.json").read_text())["outputs"], strict=True
    ):
        assert (output["name"], output["shape"], output["datatype"]) == (
            expected["name"],
            expected["shape"],
            expected["datatype"],
        )
        # Another processor may round the last digits of a float differently.
        assert output["data"] == (
            pytest.approx(expected["data"]) if output["datatype"].startswith("FP") else expected["data"]
        )


def test_a_client_of_the_ecosystem_works_as_it_comes(project: Project) -> None:
    client = tritonclient.InferenceServerClient("127.0.0.1:8080/mlapi")
    assert client.is_model_ready("iris-dtc", "1.0")
    tensor = tritonclient.InferInput("predict", [1, 4], "FP32")
    for is_binary in (True, False):
        tensor.set_data_from_numpy(np.array([[5, 3.4, 1.5, 0.2]], dtype=np.float32), binary_data=is_binary)
        wanted = None if is_binary else [tritonclient.InferRequestedOutput("predict", binary_data=False)]
        for version in ("", "1.0"):
            result = client.infer("iris-dtc", [tensor], model_version=version, outputs=wanted)
            assert result.as_numpy("predict").tolist() == [[0]]
    words = tritonclient.InferInput("predict", [2], "BYTES")
    words.set_data_from_numpy(np.array(["boneca", "minecraft"], dtype=object))
    found = client.infer("classificador-produtos", [words]).as_numpy("predict").ravel().tolist()
    assert found == [b"brinquedos", b"jogos"]
    client.close()


def test_the_portal_answers_for_the_whole_stack(project: Project) -> None:
    # No update waits for it.
    project.kubectl("rollout", "status", "deployment/portal", "--namespace", "models", "--timeout", "60s")
    client = tritonclient.InferenceServerClient("127.0.0.1:8080/mlapi")
    deadline = time.monotonic() + PORTAL_SECONDS
    while not client.is_server_ready():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert client.is_server_live()
    assert client.get_server_metadata()["name"] == "model-serving"
    served = {(each["name"], each["state"]) for each in client.get_model_repository_index()}
    assert served == {(name, "READY") for name in ("iris-dtc", "classificador-produtos", "wine-lgbm")}
    client.close()
    # What a browser loads first, and what the page then asks.
    status, page, headers = fetched("/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert all(fetched(path)[0] == 200 for path in re.findall(r'="(/[^"]+)"', page))
    listed = json.loads(fetched("/portal/served.json")[1])
    assert {(each["model"], each["weight"], each["shadow"]) for each in listed} == {
        (name, 100, False) for name, _ in served
    }
    assert all(each["deployed"] and each["about"]["request"] for each in listed)
    assert "/mlapi/v2/models/iris-dtc/infer" in json.loads(fetched("/mlapi/openapi.json")[1])["paths"]


@pytest.mark.parametrize(
    "path",
    [
        "/index.html",
        "/portals",
        "/portal/%2e%2e/app.py",
        "/mlapi",
        "/mlapi/openapi.json/more",
        "/mlapi/v2/models",
        "/mlapi/v2/models/iris-dtc/../../repository/models/iris-dtc/unload",
        "/mlapi/v2/models/iris-dtc/%2e%2e/%2e%2e/repository/models/iris-dtc/unload",
        "/mlapi/v2/models/iris-dtc/..%2f..%2frepository/index",
        "/mlapi/v2/models/iris",
        "/v2/models/iris-dtc",
        "/v2/repository/index",
        "/mlapi/v2/health",
        "/mlapi/v2/repository",
        "/mlapi/v2/repository/models/iris-dtc/unload",
        "/metrics",
    ],
)
def test_everything_but_the_models_is_unreachable(project: Project, path: str) -> None:
    assert ask(path, {})[0] == 404


def test_a_second_up_changes_nothing(project: Project) -> None:
    assert "changes" not in project.up("--expect-no-changes").stdout.rpartition("Resources:")[2]


def test_outputs_tell_endpoint_url_versions_and_digests(project: Project) -> None:
    outputs = project.outputs()
    assert outputs["endpoint"] == "http://127.0.0.1:8080"
    iris = outputs["models"]["iris-dtc"]
    assert iris["url"] == "http://127.0.0.1:8080/mlapi/v2/models/iris-dtc"
    assert iris["versions"]["1.0"]["weight"] == 100
    deployed = project.kubectl("get", "deployment", "iris-dtc-1-0", "--output", "jsonpath={..image}").stdout
    assert deployed.endswith(f"@{iris['versions']['1.0']['digest']}")


def test_the_checkout_stays_clean(project: Project) -> None:
    project.make("preview")
    assert project.run("git", "status", "--porcelain", "--", ":!models").stdout == ""
