"""Binary tensors of the V2 protocol, as tritonclient writes and reads them."""

from __future__ import annotations

import json
import struct
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.http import InferenceServerClient, InferInput

from server.launcher import binary
from server.launcher.limits import BINARY_GROWTH, parsed_bytes
from server.launcher.protocol import mistakes
from tests.unit.test_launcher_protocol import request, tensor

ARRAYS: Final = {
    "BOOL": np.array([[True, False]]),
    **{f"INT{bits}": np.array([[-(2 ** (bits - 1)), 2 ** (bits - 1) - 1]], f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.array([[0, 2**bits - 1]], f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.array([[1.5, -0.25]], f"float{bits}") for bits in (16, 32, 64)},
    "BYTES": np.array([["boneca", "ação"]], dtype=object),
}


def asked(datatype: str, array: Any) -> tuple[bytes, str]:
    """The body and the header of tritonclient's request."""
    sent = InferInput("x", array.shape, datatype)
    sent.set_data_from_numpy(array)
    body, length = InferenceServerClient.generate_request_body([sent])
    return body, str(length)


def read(body: bytes, length: str | None) -> tuple[Any, list[Any], binary.Wanted]:
    """The JSON without the sizes, the values of its binary inputs, and the outputs that it wants."""
    text, rest = binary.split(body, length)
    document = json.loads(bytes(text))
    sizes = binary.sizes(document)
    contents = binary.parts(rest, sizes.values())
    named = [document["inputs"][position] for position in sizes]
    values = [
        binary.unpacked(each["name"], each["datatype"], content) for each, content in zip(named, contents, strict=True)
    ]
    return document, values, binary.Wanted(document)


@pytest.mark.parametrize("datatype", ARRAYS)
def test_tritonclients_request_has_the_values_that_json_would_have(datatype: str) -> None:
    array = ARRAYS[datatype]
    document, (values,), wanted = read(*asked(datatype, array))
    assert ([*values], values[0], len(values)) == (array.ravel().tolist(), array[0, 0], 2)
    assert type(values[1]) is type(array.ravel().tolist()[1])
    assert document["inputs"] == [{"name": "x", "shape": [1, 2], "datatype": datatype, "parameters": {}, "data": []}]
    assert "anything" in wanted
    assert mistakes(request(tensor("x", [1, 2], datatype, data=values)), []) == []


@pytest.mark.parametrize("datatype", ARRAYS)
def test_tritonclient_reads_the_answer(datatype: str) -> None:
    array = ARRAYS[datatype]
    content = binary.packed(datatype, [1, 2], array.tolist())
    assert content is not None
    output = {"name": "y", "shape": [1, 2], "datatype": datatype, "parameters": {binary.SIZE: len(content)}}
    text = json.dumps({"outputs": [output]}).encode()
    result = InferenceServerClient.parse_response_body(text + content, header_length=len(text)).as_numpy("y")
    if datatype == "BYTES":
        result = np.array([[each.decode() for each in row] for row in result])
    assert result.tolist() == array.tolist()


def test_numpy_gets_an_array_and_python_its_own_numbers() -> None:
    values = binary.unpacked("x", "UINT8", memoryview(bytes([200, 100])))
    assert isinstance(values, binary.Values)
    assert np.array(values, np.float32).tolist() == [200.0, 100.0]
    assert [2 * each for each in values] == [400, 200]
    assert values[:1] == [200]


def test_elements_that_are_not_text_stay_bytes() -> None:
    _, (values,), _ = read(*asked("BYTES", np.array([b"\xff\xd8", b"ab"], dtype=object)))
    assert values == [b"\xff\xd8", b"ab"]


def test_infinity_is_refused_and_nan_is_a_missing_number() -> None:
    _, (values,), _ = read(*asked("FP32", np.array([1, np.nan, np.inf], np.float32)))
    assert mistakes(request(tensor("x", [3], "FP32", data=values)), []) == ["x[2] is inf, which is not FP32"]
    assert mistakes(request(tensor("x", [2], "FP32", data=values)), []) == ["x has 3 values; its shape [2] needs 2"]


@pytest.mark.parametrize(
    ("datatype", "shape", "values"),
    [
        ("INT64", [2], [1, None]),
        ("BYTES", [2], ["a", None]),
        ("BYTES", [2, 1], [b"abcd"]),
        ("FP32", [3], [1.0, 2.0]),
    ],
)
def test_an_output_without_a_binary_form_stays_json(datatype: str, shape: list[int], values: list[Any]) -> None:
    assert binary.packed(datatype, shape, values) is None


def test_missing_numbers_of_an_output_are_nan() -> None:
    assert binary.packed("FP32", [2], [None, 1.0]) == struct.pack("<2f", float("nan"), 1.0)


def test_each_output_can_be_asked_for_alone() -> None:
    outputs = [{"name": "a", "parameters": {"binary_data": True}}, {"name": "b"}, 3, {"name": "c", "parameters": 3}]
    wanted = binary.Wanted({"outputs": outputs})
    assert ([name for name in "abc" if name in wanted], bool(wanted)) == (["a"], True)
    rest = {
        "parameters": {"binary_data_output": True},
        "outputs": [{"name": "a", "parameters": {"binary_data": False}}],
    }
    assert [name for name in "ab" if name in binary.Wanted(rest)] == ["b"]
    assert not binary.Wanted({"parameters": {"binary_data_output": "yes"}})
    assert not binary.Wanted([])


ONE: Final = {"name": "x", "shape": [1], "datatype": "FP32"}


def body(*inputs: Any, rest: bytes = b"", **more: Any) -> tuple[bytes, str]:
    text = json.dumps({"inputs": inputs, **more}).encode()
    return text + rest, str(len(text))


def sized(size: Any, **more: Any) -> dict[str, Any]:
    return ONE | {"parameters": {"binary_data_size": size}} | more


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        *(
            ((body(sized(4), rest=b"0000")[0], length), "is not a number of bytes up to 104, which the body has")
            for length in ("-1", "1e3", "", "+5", "9" * 400, "105", "18446744073709551616", "x", "95, 95", "٣", " 1")
        ),
        (body(sized(4), rest=b"000"), "have 4 bytes of binary data together; the body has 3"),
        (body(sized(4), rest=b"00000"), "have 4 bytes of binary data together; the body has 5"),
        (body(sized(2**62), sized(2**62), rest=b"0000"), "of binary data together; the body has 4"),
        *(
            (body(sized(size), rest=b"0000"), "the binary_data_size of x is not a number")
            for size in (-4, "4", 4.0, True)
        ),
        (body(sized(4, data=[1]), rest=b"0000"), "x has both data and binary_data_size"),
        (body(sized(3), rest=b"000"), "x has 3 bytes, and a value of FP32 has 4"),
        (body(sized(1, datatype="BOOL"), rest=b"\2"), "x has a byte that is neither 0 nor 1"),
        (body(sized(3, datatype="BYTES"), rest=b"\0\0\0"), "ends within the length of an element"),
        (body(sized(5, datatype="BYTES"), rest=b"\2\0\0\0a"), "ends within an element"),
        (body(sized(4, datatype="BYTES"), rest=b"\xff" * 4), "ends within an element"),
        (body(sized(0), outputs=[{"name": "y", "parameters": {"classification": 3}}]), "the parameter classification"),
    ],
)
def test_a_wrong_size_is_told(sent: tuple[bytes, str], told: str) -> None:
    with pytest.raises(binary.Malformed) as refused:
        read(*sent)
    assert told in str(refused.value)


def test_a_size_without_the_header_is_a_size_of_nothing() -> None:
    with pytest.raises(binary.Malformed, match="have 4 bytes of binary data together; the body has 0"):
        read(body(sized(4))[0], None)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=60), st.one_of(st.none(), st.integers(-5, 80).map(str), st.text(max_size=5)))
def test_whatever_is_sent_is_refused_or_read(content: bytes, length: str | None) -> None:
    try:
        text, rest = binary.split(content, length)
        binary.unpacked("x", "BYTES", rest)
    except binary.Malformed:
        return
    assert bytes(text) + bytes(rest) == content


def test_only_the_json_of_a_body_is_counted_as_json() -> None:
    text, commas = b'{"a": [1,2]}', b"," * 1000
    assert parsed_bytes(text + commas, b"12") == parsed_bytes(text) + BINARY_GROWTH * 1000
    for hostile in (None, b"-1", b"x", b"9" * 400, b"5000"):
        assert parsed_bytes(text + commas, hostile) >= 40 * 1000
