"""What a version's answer is held against, and how it is asked."""

from __future__ import annotations

import base64
import errno
import json
import math
import socket
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from model_serving.stack.models import ANSWER_SECONDS
from server import contract
from server.contract import Answer, Broken, Contract, NoAnswer
from tests.unit.conftest import serving

REQUEST = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}


def output(data: list[Any], datatype: str = "FP64", **changes: Any) -> dict[str, Any]:
    return {"name": "y", "shape": [len(data)], "datatype": datatype, "data": data, **changes}


def answered(*outputs: dict[str, Any], status: int = 200, **rest: Any) -> Answer:
    return Answer(status, json.dumps({"model_name": "iris", "model_version": "1", "outputs": outputs, **rest}))


def refusal(answer: Answer, *expected: dict[str, Any], **rest: Any) -> str:
    response = {"outputs": [*expected], **rest} if expected else None
    with pytest.raises(Broken) as broken:
        contract.check(Contract(REQUEST, response), answer, model="iris", version="1")
    return str(broken.value)


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        (output([0.5, 2]), output([0.5, 2])),
        (output([0.5]), output([0.5 + 4e-7])),
        (output([0.5], "FP32"), output([0.50004], "FP32")),
        (output([0.5], parameters={"tolerance": 0.1}), output([0.59])),
        (output([3], "INT64"), output([3], "INT64")),
        (output(["a", "b"], "BYTES"), output(["a", "b"], "BYTES")),
        (output([True], "BOOL"), output([True], "BOOL")),
        (output([1.0, 2.0], shape=[1, 2]), output([[1.0, 2.0]], shape=[1, 2])),
        (output([255], "UINT8"), output([255], "UINT8")),
        (output([0.5, None], "FP32"), output([0.5, None], "FP32")),
        (output(["a", None], "BYTES"), output(["a", None], "BYTES")),
    ],
)
def test_the_right_answer_keeps_the_contract(expected: dict[str, Any], given: dict[str, Any]) -> None:
    contract.check(Contract(REQUEST, {"outputs": [expected]}), answered(given), model="iris", version="1")


def test_a_tolerance_of_the_whole_response_counts_for_floats_only() -> None:
    expected = output([0.5], "FP32"), output(["a"], "BYTES", name="label"), output([7], "INT64", name="rank")
    response = {"outputs": [*expected], "parameters": {"tolerance": 0.1}}
    kept = answered(output([0.59], "FP32"), *expected[1:])
    contract.check(Contract(REQUEST, response), kept, model="iris", version="1")
    for broken, told in (
        (output(["b"], "BYTES", name="label"), 'label[0] to be "a"; it is "b"'),
        (output([8], "INT64", name="rank"), "rank[0] to be 7; it is 8"),
    ):
        others = [each for each in expected if each["name"] != broken["name"]]
        assert refusal(answered(*others, broken), *expected, parameters={"tolerance": 0.1}) == told


@pytest.mark.parametrize(
    ("expected", "given", "told"),
    [
        (output([0.5]), output([0.6]), "y[0] to be 0.5 within 1e-06; it is 0.6"),
        (output([0.5]), output([None]), "y[0] to be 0.5 within 1e-06; it is null"),
        (output([None]), output([0.5]), "y[0] to be null within 1e-06; it is 0.5"),
        (output([0.5], parameters={"tolerance": 0}), output([0.5 + 4e-7]), "y[0] to be 0.5; it is 0.5000004"),
        (output([1, 2], "INT64"), output([1, 3], "INT64"), "y[1] to be 2; it is 3"),
        (output(["a"], "BYTES"), output(["b"], "BYTES"), 'y[0] to be "a"; it is "b"'),
        (output([1], "INT64"), output([1], "INT32"), "y to have the datatype INT64; it is INT32"),
        (output([1, 2]), output([1, 2], shape=[1, 2]), "y to have the shape [2]; it is [1, 2]"),
        (output([1]), output([1], name="z"), "the outputs y; there are z"),
    ],
)
def test_another_answer_breaks_it(expected: dict[str, Any], given: dict[str, Any], told: str) -> None:
    assert refusal(answered(given), expected) == told


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (output([math.nan]), "value 0 is NaN, not a finite FP64"),
        (output([1.0, math.inf]), "value 1 is Infinity, not a finite FP64"),
        (output([None]), "value 0 is null, not a finite FP64"),
        (output(["a"], "FP32"), 'value 0 is "a", not a finite FP32'),
        (output([10**400]), f"value 0 is 1{'0' * 399}… (401 characters), not a finite FP64"),
        (output([1.5], "INT64"), "value 0 is 1.5, not INT64"),
        (output([128], "INT8"), "value 0 is 128, not INT8"),
        (output([-1], "UINT8"), "value 0 is -1, not UINT8"),
        (output([True]), "value 0 is true, not a finite FP64"),
        (output([2], "BOOL"), "value 0 is 2, not BOOL"),
        (output([1], "BYTES"), "value 0 is 1, not BYTES"),
        (output([{"a": [1]}], "BYTES"), 'value 0 is {"a": [1]}, not BYTES'),
        (output([1, 2], shape=[3]), "shape [3] needs 3 values, there are 2"),
        (output([2], shape=[2]), "shape [2] needs 2 values, there is 1"),
        (output([[1], [2, 3]], shape=[3]), "lists are not nested as the shape [3] says"),
        (output([[1, 2], [3, 4]], shape=[4, 1]), "lists are not nested as the shape [4, 1] says"),
        (output([], shape=None), "shape is null, not a list of sizes"),
        (output([], shape=["a", None]), 'shape is ["a", null], not a list of sizes'),
        (output([1], shape=[-1]), "shape is [-1], not a list of sizes"),
        (output([1], datatype="FLOAT"), 'datatype is "FLOAT", not one of the V2 protocol'),
        ({"name": "y"}, "shape is null, not a list of sizes"),
    ],
)
def test_values_of_another_kind_break_it_even_if_nothing_was_expected(given: dict[str, Any], told: str) -> None:
    assert refusal(answered(given)) == f"a valid output y; its {told}"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(500, "boom"), "the status 200"),
        (Answer(200, "<html>"), "a response of the V2 protocol"),
        (Answer(200, "[]"), "a response of the V2 protocol"),
        (Answer(200, "[" * 100_000), "a response of the V2 protocol"),
        (Answer(200, f'{{"outputs": {"9" * 5000}}}'), "a response of the V2 protocol"),
        (Answer(200, '{"outputs": {"y": 1}}'), "a response of the V2 protocol"),
        (Answer(200, '{"outputs": ["y"]}'), "a response of the V2 protocol"),
        (Answer(200, '{"outputs": [{"name": ["y"]}]}'), "a response of the V2 protocol"),
        (answered(output([1]), model_version="2"), "model_version to be 1; it is 2"),
    ],
)
def test_what_is_no_answer_of_this_version_breaks_it(answer: Answer, told: str) -> None:
    assert refusal(answer, output([1])).startswith(told)


def test_without_expected_outputs_the_models_own_metadata_is_held_against_the_answer() -> None:
    metadata = [{"name": "y", "shape": [-1, 2], "datatype": "FP64"}]
    kept = Contract(REQUEST, outputs=metadata)
    contract.check(kept, answered(output([1, 2, 3, 4], shape=[2, 2])), model="iris", version="1")
    with pytest.raises(Broken, match=r"y to have the shape \[-1, 2\]; it is \[3\]"):
        contract.check(kept, answered(output([1, 2, 3])), model="iris", version="1")
    with pytest.raises(Broken, match="y to have the datatype FP64; it is FP32"):
        contract.check(kept, answered(output([1, 2], "FP32", shape=[1, 2])), model="iris", version="1")


def test_a_request_is_derived_from_what_the_model_takes() -> None:
    inputs: list[dict[str, Any]] = [
        {"name": "x", "shape": [-1, 2], "datatype": "FP32"},
        {"name": "sex", "shape": [-1], "datatype": "BYTES", "parameters": {"content_type": "str"}},
        {"name": "active", "shape": [1], "datatype": "BOOL"},
        {"name": "when", "shape": [-1], "datatype": "BYTES", "parameters": {"content_type": "datetime"}},
        {"name": "photo", "shape": [-1], "datatype": "BYTES", "parameters": {"content_type": "base64"}},
        {"name": "tags", "shape": [-1], "datatype": "BYTES", "parameters": {"content_type": "pd_json"}},
        {"name": "age", "shape": [-1, 1], "datatype": "INT64", "parameters": {"content_type": "np"}},
    ]
    derived = contract.derived_request(inputs)
    assert derived is not None
    of_bytes = {each["name"]: each["data"] for each in derived["inputs"] if each["datatype"] == "BYTES"}
    assert datetime.fromisoformat(of_bytes["when"][0])
    assert base64.b64decode(of_bytes["photo"][0], validate=True)
    assert json.loads(of_bytes["tags"][0]) == {}
    assert [each for each in derived["inputs"] if each["name"] not in {"when", "photo", "tags"}] == [
        {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0.0, 0.0]},
        {"name": "sex", "shape": [1], "datatype": "BYTES", "parameters": {"content_type": "str"}, "data": ["a"]},
        {"name": "active", "shape": [1], "datatype": "BOOL", "data": [False]},
        {"name": "age", "shape": [1, 1], "datatype": "INT64", "parameters": {"content_type": "np"}, "data": [0]},
    ]
    assert contract.derived_request([]) is None


def write(folder: Path, **files: Any) -> Path:
    for name, content in files.items():
        (folder / f"{name.replace('_', '-')}.json").write_text(json.dumps(content))
    return folder


def test_a_release_with_its_own_request_is_asked_that(tmp_path: Path) -> None:
    inputs = [{"name": "x", "shape": [1], "datatype": "FP32"}]
    folder = write(tmp_path, model_settings={"inputs": inputs}, request=REQUEST)
    read = contract.read(folder)
    assert read is not None
    assert read.request == REQUEST


def test_a_release_without_request_and_metadata_is_not_asked(tmp_path: Path) -> None:
    assert contract.read(write(tmp_path, model_settings={"name": "iris"})) is None
    arguments = [
        "--model=iris",
        "--version=1",
        f"--folder={tmp_path}",
        "--url=http://nobody",
        "--path=/",
        "--seconds=1",
    ]
    assert contract.main(arguments) == 0


class Asked:
    """Answers in turn, and the last one for ever."""

    def __init__(self, *answers: Answer | str, takes: float = 0) -> None:
        self.answers = [*answers]
        self.takes = takes
        self.count = 0

    def __call__(self, *, seconds: float) -> Answer:
        self.count += 1
        time.sleep(min(seconds, self.takes))
        if self.takes > seconds:
            raise NoAnswer(f"no answer within {seconds:g} s")
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, str):
            raise NoAnswer(answer)
        return answer


def fulfil(ask: Asked, seconds: float = 5, answer_seconds: float = 1) -> None:
    expected = Contract(REQUEST, {"outputs": [output([1])]})
    contract.fulfil(expected, ask, model="iris", version="1", seconds=seconds, answer_seconds=answer_seconds)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "PAUSE_SECONDS", 0.001)


def test_it_is_asked_until_the_gateway_knows_the_way() -> None:
    ask = Asked("no answer: refused", Answer(404, ""), Answer(503, "no healthy upstream"), answered(output([1])))
    fulfil(ask)
    assert ask.count == 3 + contract.RIGHT_ANSWERS


def test_a_model_that_takes_its_time_is_asked_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "ROW_SECONDS", 0)
    ask = Asked(answered(output([1])))
    fulfil(ask)
    assert ask.count == contract.FEWEST_ANSWERS


def test_a_slow_model_keeps_its_contract_if_its_first_answer_comes_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # As 20 s for an answer are to `contract: {seconds: 60}`: three answers take longer than that.
    monkeypatch.setattr(contract, "ROW_SECONDS", 0)
    ask = Asked(answered(output([1])), takes=0.1)
    fulfil(ask, seconds=0.15, answer_seconds=0.15)
    assert ask.count == contract.FEWEST_ANSWERS


def test_a_model_that_needs_longer_than_its_answer_time_breaks_its_contract() -> None:
    with pytest.raises(Broken) as broken:
        fulfil(Asked(answered(output([1])), takes=1), seconds=0.1, answer_seconds=0.05)
    assert broken.value.args == ("an answer within 0.1 s", "no answer within 0.05 s")


def test_a_late_answer_is_told_with_the_setting_that_allows_it(tmp_path: Path) -> None:
    late = threading.Event()

    class Late(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            late.wait(5)

    with serving(Late) as host:
        ask = contract.Door(f"http://{host}").ask("/", REQUEST)
        with pytest.raises(NoAnswer, match=r"no answer within 0\.05 s, the answerSeconds of the model"):
            ask(seconds=0.05)
        late.set()


def asked_by_the_job(folder: Path, url: str) -> int:
    (folder / "model-settings.json").write_text(json.dumps({"name": "iris", "parameters": {"version": "1.0"}}))
    (folder / "request.json").write_text(json.dumps(REQUEST))
    told = ["--model", "iris", "--version", "1.0", "--folder", str(folder), "--url", url, "--path", "/infer"]
    return contract.main([*told, "--seconds", "0.05"])


def test_a_gateway_that_cannot_be_reached_is_never_called_a_broken_contract(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What firewalld's reject rules, a refused port, a dropped packet and an unknown name look like in a pod.
    errors = [
        OSError(errno.EHOSTUNREACH, "No route to host"),
        ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
        TimeoutError("timed out"),
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
    ]
    for error in errors:

        def fail(*_: object, error: OSError = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(socket, "create_connection", fail)
        assert asked_by_the_job(tmp_path, "http://10.213.0.1") == 1
        told = capsys.readouterr().out
        assert "iris 1.0 could not be checked, because its pod cannot reach the gateway." in told
        assert str(error) in told
        assert "look at the firewall" in told
        assert "Correct the model" not in told
        assert "contract." not in told.splitlines()[0]


def test_a_version_that_hangs_up_is_still_a_broken_contract(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Hanging(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.connection.close()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with serving(Hanging) as host:
        assert asked_by_the_job(tmp_path, f"http://{host}") == 1
    assert "iris 1.0 does not keep its contract." in capsys.readouterr().out


def test_the_answer_time_is_that_of_the_stacks_setting_by_default() -> None:
    assert contract.ANSWER_SECONDS == ANSWER_SECONDS


@pytest.mark.parametrize(("asked", "seconds"), [(0, 0.001), (5, 0.1), (30, 0.6), (600, 1)])
def test_who_has_asked_for_long_asks_less_often(asked: float, seconds: float) -> None:
    assert contract.pause(asked) == pytest.approx(seconds)


def test_a_model_that_falls_over_after_some_answers_is_refused() -> None:
    right, dead = answered(output([1])), "no answer: Connection reset by peer"
    ask = Asked(*[right] * 9, *[dead] * 1000)
    with pytest.raises(Broken, match="9 right ones had come before, and then none"):
        fulfil(ask, seconds=0.05)


def test_a_wrong_answer_is_not_asked_for_again() -> None:
    ask = Asked(answered(output([1])), answered(output([2])), answered(output([1])))
    with pytest.raises(Broken) as broken:
        fulfil(ask)
    assert ask.count == 2
    expected, came = broken.value.args
    assert expected == "y[0] to be 1 within 1e-06; it is 2"
    assert came.startswith('200 {"model_name": "iris"')


def test_who_does_not_answer_in_time_breaks_it_and_the_last_word_is_told() -> None:
    with pytest.raises(Broken) as broken:
        fulfil(Asked(Answer(503, "no healthy upstream")), seconds=0.05)
    assert broken.value.args == ("an answer within 0.05 s", "503 no healthy upstream")


class Server(BaseHTTPRequestHandler):
    answers: Iterator[Answer]

    def do_POST(self) -> None:
        assert json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"][0]["name"] == "x"
        answer = next(self.answers)
        self.send_response(answer.status)
        self.end_headers()
        self.wfile.write(answer.body.encode())

    def log_message(self, *_: object) -> None:
        pass


def run(folder: Path, *answers: Answer, seconds: float = 5) -> int:
    Server.answers = iter(answers)
    with serving(Server) as host:
        options = {"model": "iris", "version": "1", "folder": folder, "url": f"http://{host}", "path": "/p/infer"}
        return contract.main([*(f"--{key}={value}" for key, value in options.items()), f"--seconds={seconds}"])


def test_a_message_names_version_question_answer_and_expectation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, request=REQUEST, response={"outputs": [output([1])]})
    assert run(folder, answered(output([2]))) == 1
    told = capsys.readouterr().out
    assert told.startswith("iris 1 does not keep its contract.\n")
    assert "/p/infer {" in told
    assert 'came back: 200 {"model_name": "iris"' in told
    assert "expected: y[0] to be 1 within 1e-06; it is 2\n" in told
    assert "what served before still serves" in told


def test_a_model_that_refuses_a_derived_request_may_be_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, model_settings={"inputs": [{"name": "x", "shape": [-1, 2], "datatype": "FP32"}]})
    assert run(folder, Answer(400, '{"error": "0 is not allowed"}')) == 1
    told = capsys.readouterr().out
    assert "add a request.json that it can answer" in told
    assert "Correct the model" not in told
    assert run(write(tmp_path, request=REQUEST), Answer(400, "no")) == 1
    assert "Correct the model" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"outputs": [{"name": "y", "shape": [2], "datatype": "INT64", "data": [2]}]}',
        "9" * 5000,
        "[" * 100_000,
        '{"a": "\udcff"}',
    ],
)
def test_a_contract_that_cannot_be_read_is_a_verdict_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    folder = write(tmp_path, request=REQUEST)
    (folder / "response.json").write_bytes(content.encode(errors="surrogateescape"))
    assert run(folder) == 1
    told = capsys.readouterr().out
    assert told.startswith("iris 1 has a contract that cannot be read.\n  expected: response.json to ")
    assert len(told.encode()) < 2048


def test_a_kept_contract_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path, request=REQUEST, response={"outputs": [output([1])]})
    assert run(folder, Answer(404, ""), *[answered(output([1]))] * contract.RIGHT_ANSWERS) == 0
    assert capsys.readouterr().out == f"{contract.KEPT}\n"


def test_a_message_fits_into_what_kubernetes_keeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = {"inputs": [{"name": "x", "shape": [9999], "datatype": "FP32", "data": [0.5] * 9999}]}
    folder = write(tmp_path, request=request)
    with serving(BaseHTTPRequestHandler) as host:
        options = [f"--folder={folder}", f"--url=http://{host}", "--path=/", "--seconds=1"]
        assert contract.main(["--model=iris", "--version=1", *options]) == 1
    assert len(capsys.readouterr().out.encode()) < 2048
