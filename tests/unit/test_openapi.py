"""The API description: which paths it has, and what its schemas allow."""

from __future__ import annotations

import re
from typing import Any

import pytest

from server.portal import openapi, schemas
from server.portal.served import Version

INPUT = {"name": "predict", "datatype": "FP32", "shape": [-1, 4]}
METHODS = ("get", "post")
STACK = {"/mlapi/v2", "/mlapi/v2/health/live", "/mlapi/v2/health/ready", "/mlapi/v2/repository/index"}


def version(number: str, weight: int = 100, *, model: str = "iris", shadow: bool = False, **about: Any) -> Version:
    return Version(model=model, version=number, weight=weight, ready_url="http://10.0.0.1", shadow=shadow, about=about)


def infer(document: dict[str, Any], path: str = "/mlapi/v2/models/iris") -> dict[str, Any]:
    operation: dict[str, Any] = document["paths"][f"{path}/infer"]["post"]
    return operation


def body(document: dict[str, Any], path: str = "/mlapi/v2/models/iris") -> dict[str, Any]:
    found: dict[str, Any] = infer(document, path)["requestBody"]["content"]["application/json"]
    return found


def request_schema(*inputs: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schemas.of(version("1.0", inputs=[*inputs]))["iris..1.0..request"]["properties"]["inputs"]
    return found


def test_each_model_and_version_has_its_paths_and_nothing_else_has() -> None:
    paths = openapi.document([version("1.0", 0), version("1.1"), version("3", model="wine")], "1")["paths"]
    own = ["iris", "iris/versions/1.0", "iris/versions/1.1", "wine", "wine/versions/3"]
    wanted = {f"/mlapi/v2/models/{path}{end}" for path in own for end in ("", "/ready", "/infer")}
    assert paths.keys() == STACK | wanted


def test_a_stack_that_serves_nothing_is_described() -> None:
    assert openapi.document([], "1")["paths"].keys() == STACK


def test_names_of_operations_and_schemas_are_unique_and_allowed() -> None:
    document = openapi.document(
        [version("1.0", model="a.b"), version("1.0", model="a_1"), version("1", model="a")], "1"
    )
    names = [each["operationId"] for item in document["paths"].values() for key, each in item.items() if key in METHODS]
    assert len(names) == len({*names})
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in document["components"]["schemas"])


def test_the_header_chooses_among_the_versions_that_answer() -> None:
    document = openapi.document([version("1.0", 0), version("1.1"), version("1.2", 0, shadow=True)], "1")
    (parameter,) = document["paths"]["/mlapi/v2/models/iris/infer"]["parameters"]
    assert (parameter["name"], parameter["schema"]["enum"]) == ("x-model-version", ["1.0", "1.1"])


def test_the_models_own_path_takes_what_a_version_with_traffic_takes() -> None:
    one = openapi.document([version("1.0", 0), version("1.1")], "1")
    assert body(one)["schema"] == {"$ref": "#/components/schemas/iris..1.1..request"}
    both = openapi.document([version("1.0", 50), version("1.1", 50)], "1")
    assert len(body(both)["schema"]["anyOf"]) == 2


def test_examples_are_those_of_the_release() -> None:
    request, response = {"inputs": [{"name": "predict"}]}, {"outputs": [{"name": "predict"}]}
    document = openapi.document([version("1.0", request=request, response=response)], "1")
    assert body(document)["examples"] == {"1.0": {"value": request}}
    answer = infer(document)["responses"]["200"]["content"]["application/json"]
    assert answer["examples"] == {"1.0": {"value": {"model_name": "iris", "model_version": "1.0", **response}}}
    assert "examples" not in body(openapi.document([version("1.0")], "1"))


def test_a_model_that_can_be_busy_says_when_to_ask_again() -> None:
    errors = openapi.document([version("1.0")], "1")["components"]["responses"]
    assert errors.keys() == {"400", "404", "408", "413", "500", "503"}
    assert "Retry-After" in errors["503"]["headers"]


@pytest.mark.parametrize(
    ("wanted", "allowed", "refused"),
    [
        ("FP32", {"FP32", "FP64", "INT8"}, {"BYTES", "BOOL"}),
        ("INT64", {"INT8", "UINT64"}, {"FP32"}),
        ("BOOL", {"BOOL"}, {"INT8"}),
    ],
)
def test_a_datatype_may_be_one_that_becomes_the_models(wanted: str, allowed: set[str], refused: set[str]) -> None:
    datatypes = request_schema({**INPUT, "datatype": wanted})["items"]["properties"]["datatype"]["enum"]
    assert datatypes[0] == wanted
    assert allowed <= {*datatypes}
    assert not refused & {*datatypes}


def test_the_name_of_an_only_input_does_not_matter() -> None:
    assert request_schema(INPUT)["items"]["properties"]["name"] == {"type": "string", "examples": ["predict"]}
    several = request_schema(INPUT, {**INPUT, "name": "other"})["items"]["anyOf"]
    assert [each["properties"]["name"] for each in several] == [{"const": "predict"}, {"const": "other"}]


@pytest.mark.parametrize(
    ("shape", "sizes"), [([-1, 4], (2, 2)), ([-1], (1, 2)), ([-1, 1], (1, 2)), ([], (0, 0)), ([-1, 28, 28], (3, 3))]
)
def test_a_shape_has_as_many_sizes_as_the_models(shape: list[int], sizes: tuple[int, int]) -> None:
    found = request_schema({**INPUT, "shape": shape})["items"]["properties"]["shape"]
    assert (found["minItems"], found["maxItems"]) == sizes


def test_a_model_that_does_not_describe_its_inputs_takes_any_tensor() -> None:
    assert request_schema()["items"] == {"$ref": "#/components/schemas/Tensor"}
