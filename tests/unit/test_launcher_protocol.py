"""Requests of the V2 protocol, compared with themselves and with a model's metadata."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from server.launcher.protocol import mistakes, optional_inputs


def tensor(name: str = "x", shape: list[int] | None = None, datatype: str = "FP32", **more: Any) -> SimpleNamespace:
    parameters = SimpleNamespace(**more.pop("parameters", {}))
    return SimpleNamespace(name=name, shape=shape or [1, 4], datatype=datatype, parameters=parameters, **more)


def request(*inputs: SimpleNamespace, **parameters: Any) -> SimpleNamespace:
    return SimpleNamespace(inputs=list(inputs), parameters=SimpleNamespace(**parameters))


def sent(data: Any, shape: list[int], datatype: str = "FP32", name: str = "x") -> SimpleNamespace:
    return request(tensor(name, shape, datatype, data=data))


FOUR = [5, 3.4, 1.5, 0.2]
IRIS = [tensor("predict", [-1, 4])]
DEEP: Any = 1
for _ in range(500):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "asked",
    [
        sent(FOUR, [1, 4]),
        sent([FOUR, FOUR], [2, 4]),
        sent(FOUR, [1, 4], "FP64"),
        sent([1, 2, 3, 4], [1, 4], "INT64"),
        sent([1.0, 2, 3, 4], [1, 4], "UINT8"),
        # MLServer reads it as NaN, and there are models that take missing numbers.
        sent([None, 1, 2, 3], [1, 4]),
    ],
)
def test_a_request_that_fits_has_no_mistakes(asked: Any) -> None:
    assert mistakes(asked, IRIS) == []


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            sent([5, 3.4, 1.5], [1, 3]),
            "x has the shape [1, 3]; the model expects [-1, 4], which is 4 features and not 3",
        ),
        (sent([5, 3.4, 1.5], [1, 4]), "x has 3 values; its shape [1, 4] needs 4"),
        (sent([], [0, 4]), "x has the shape [0, 4], which has no values: send one row or more"),
        (sent(["a", 1, 2, 3], [1, 4]), 'x[0] is "a", which is not FP32'),
        (sent([1, 2, None, 3], [1, 4], "INT64"), "x[2] is null, which is not INT64"),
        (sent([1, 2, 3.5, 3], [1, 4], "INT64"), "x[2] is 3.5, which is not INT64"),
        (sent([1, 2, 300, 3], [1, 4], "UINT8"), "x[2] is 300, which is not UINT8"),
        (sent([1, -1, 3, 3], [1, 4], "UINT64"), "x[1] is -1, which is not UINT64"),
        (sent([1, 2, 1e39, 3], [1, 4]), "x[2] is 1e+39, which is not FP32"),
        (sent([1, 2, True, 3], [1, 4]), "x[2] is a boolean, which is not FP32"),
        (sent([1, 2, {}, 3], [1, 4]), "x[2] is an object, which is not FP32"),
        (sent([[1, 2], 3, 4], [1, 4]), "the data of x has lists beside values, or is nested more than 32 deep"),
        (sent(DEEP, [1]), "the data of x has lists beside values, or is nested more than 32 deep"),
        (sent([1], [-1]), "the shape of x is not one: up to 32 sizes, each from 1 to 2147483648"),
        (sent([1], [10**400]), "the shape of x is not one: up to 32 sizes, each from 1 to 2147483648"),
        (sent(["a"] * 4, [1, 4], "BYTES"), "x has the datatype BYTES; the model expects FP32"),
        (sent(FOUR, [4]), "x has the shape [4]; the model expects [-1, 4]"),
        (request(), "inputs is empty"),
    ],
)
def test_what_a_client_got_wrong_is_told(asked: Any, told: str) -> None:
    assert told in mistakes(asked, IRIS)


def test_all_mistakes_are_told_at_once() -> None:
    assert mistakes(sent(["a"], [1, 3], "INT64"), IRIS) == [
        "x has 1 values; its shape [1, 3] needs 3",
        "x has the shape [1, 3]; the model expects [-1, 4], which is 4 features and not 3",
    ]


@pytest.mark.parametrize(
    ("data", "datatype", "told"),
    [
        ([True, 0, 1], "BOOL", []),
        ([True, 2, 1], "BOOL", ["x[1] is 2, which is not BOOL"]),
        (["a", "b", "c"], "BYTES", []),
        (["a", None, "c"], "BYTES", ["x[1] is null, which is not BYTES"]),
        (["a", 1, "c"], "BYTES", ["x[1] is 1, which is not BYTES"]),
        ([65504, 65505, 0], "FP16", ["x[1] is 65505, which is not FP16"]),
    ],
)
def test_values_are_of_their_type_also_without_metadata(data: list[Any], datatype: str, told: list[str]) -> None:
    assert mistakes(sent(data, [3], datatype), []) == told


COLUMNS = [tensor("age", [-1], "INT64"), tensor("sex", [-1], "BYTES")]
AGE, SEX = tensor("age", [2, 1], "INT64", data=[1, 2]), tensor("sex", [2], "BYTES", data=["f", None])


def test_the_columns_of_a_table_are_known_by_name() -> None:
    assert mistakes(request(SEX, AGE), COLUMNS, "pd") == []
    assert mistakes(request(AGE), COLUMNS, "pd") == ["the input sex is missing"]
    other = tensor("sexe", [2], "BYTES", data=["f", "m"])
    assert mistakes(request(AGE, other), COLUMNS, "pd") == [
        "sexe is not an input of the model, which are age, sex",
        "the input sex is missing",
    ]
    assert mistakes(request(AGE, AGE, SEX), COLUMNS, "pd") == ["age is there 2 times"]


def test_a_table_of_one_column_needs_its_name_and_another_request_does_not() -> None:
    asked = request(tensor("other", [2], "INT64", data=[1, 2]))
    assert mistakes(asked, COLUMNS[:1]) == []
    assert "the input age is missing" in mistakes(asked, COLUMNS[:1], "pd")


def test_the_client_may_choose_the_content_type() -> None:
    assert mistakes(request(AGE, SEX, content_type="pd"), COLUMNS) == []


def test_an_input_may_be_optional() -> None:
    inputs = [COLUMNS[0], tensor("sex", [-1], "BYTES", parameters={"optional": True})]
    assert optional_inputs(inputs) == {"sex"}
    assert mistakes(request(AGE), inputs, "pd", optional={"sex"}) == []
    assert mistakes(request(AGE), inputs, "pd") == ["the input sex is missing"]


@pytest.mark.parametrize(
    ("given", "wanted", "fits"),
    [
        ("INT8", "INT64", True),
        ("INT64", "INT8", True),
        ("INT64", "FP32", True),
        ("FP64", "FP32", True),
        ("FP32", "INT64", False),
        ("BOOL", "INT64", False),
        ("INT64", "BOOL", False),
        ("BYTES", "BYTES", True),
        ("INT64", "BYTES", False),
    ],
)
def test_numbers_stand_for_wider_ones_and_nothing_else_does(given: str, wanted: str, fits: bool) -> None:
    value = {"BYTES": "a", "BOOL": True}.get(given, 1)
    assert (mistakes(sent([value], [1], given), [tensor("x", [-1], wanted)]) == []) is fits


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ({"_decoded_payload": 1}, "the parameter _decoded_payload begins with _"),
        ({"a": {"b": DEEP}}, "parameters are nested more than 32 deep"),
    ],
)
def test_parameters_that_would_harm_mlserver_are_refused(extra: dict[str, Any], told: str) -> None:
    asked = sent(FOUR, [1, 4])
    assert mistakes(request(*asked.inputs, model_extra=extra), IRIS) == [told]
    asked.inputs[0].parameters = SimpleNamespace(model_extra=extra)
    assert mistakes(asked, IRIS) == [told]
