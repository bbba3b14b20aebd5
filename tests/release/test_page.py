"""The page of the portal, run by Node.js with a small document in the browser's place (browser.mjs)."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)

from local.tools import node
from local.tools.recipe import cache_folder
from model_serving import catalog
from model_serving.catalog.description import describe
from server.launcher import binary
from server.portal.served import Version
from tests.release.repositories import PROJECT

STATIC: Final = PROJECT / "server" / "portal" / "static"
BROWSER: Final = Path(__file__).with_name("browser.mjs")
SERVED: Final = "/portal/served.json"
INDEX: Final = "/mlapi/v2/repository/index"
LOOK: Final = {"step": "look"}
ORIGIN: Final = {
    "repository": "https://gitlab.example.com/team/iris",
    "commit": "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    "tag": "v1.0",
    "pipeline": "https://gitlab.example.com/team/iris/-/pipelines/7",
}
HOSTILE: Final = '<img src=x onerror="alert(1)"><script>alert(2)</script>'


def released() -> list[Version]:
    known = catalog.read(PROJECT / "models")
    newest = [known.newest(name) for name in known.names()]
    return [version(each.name, each.version, about=describe(each)) for each in newest]


def version(model: str = "iris", number: str = "1.0", weight: int = 100, **more: Any) -> Version:
    return Version(model=model, version=number, weight=weight, ready_url="http://10.0.0.1", **more)


def tensor(name: str, datatype: str, shape: list[int], data: Any = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, **({} if data is None else {"data": data}), **more}


def answers_of(versions: list[Version], *, down: str = "") -> dict[str, Any]:
    index = [
        {"name": each.model, "version": each.version, "state": "UNAVAILABLE" if each.version == down else "READY"}
        for each in versions
    ]
    return {SERVED: answer([each.public for each in versions]), INDEX: answer(index)}


def answer(document: Any, status: int = 200) -> dict[str, Any]:
    return {"status": status, "text": json.dumps(document)}


def seen(
    versions: list[Version],
    *steps: Mapping[str, Any],
    answers: Mapping[str, Any] | None = None,
    origin: str = "https://models.example.com",
) -> list[dict[str, Any]]:
    """What the page shows after each step."""
    program, _ = node.node_and_npm(cache_folder())
    script = {"answers": answers_of(versions) | dict(answers or {}), "steps": steps or [LOOK], "origin": origin}
    done = subprocess.run(
        [program, str(BROWSER), str(STATIC / "page.js")],
        input=json.dumps(script),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown: list[dict[str, Any]] = json.loads(done.stdout)
    return shown


def press(button: str, model: str = "iris", **more: Any) -> dict[str, Any]:
    return {"step": "press", "model": model, "button": button, **more}


def infer_path(model: str = "iris", number: str = "") -> str:
    return f"/mlapi/v2/models/{model}{f'/versions/{number}' if number else ''}/infer"


def sent_by(shown: Mapping[str, Any]) -> dict[str, Any]:
    (body,) = [each["body"] for each in shown["asked"] if each["path"].endswith("/infer")]
    request: dict[str, Any] = json.loads(body)
    return request


def test_it_lists_every_version_with_its_share_state_and_origin() -> None:
    versions = [
        version(number="0.9", weight=0, deployed="2026-11-20T08:00:00Z"),
        version(number="1.0", about={"frameworks": {"scikit-learn": "1.9.1"}, "origin": ORIGIN}),
        version(number="1.1", weight=0, shadow=True),
    ]
    (shown,) = seen(versions, answers=answers_of(versions, down="1.1"))
    text = shown["models"]["iris"]
    assert "0.9|warm, no traffic|ready|" in text
    assert "1.0|100 %|ready|unknown|v1.0|, |commit 4b825dc642|, |pipeline|, |repository|scikit-learn 1.9.1" in text
    assert "1.1|shadow, gets copies|not ready" in text
    assert shown["links"] == [
        f"{ORIGIN['repository']}/-/commit/{ORIGIN['commit']}",
        ORIGIN["pipeline"],
        ORIGIN["repository"],
    ]
    assert shown["stack"] == "Every version with traffic is ready."


def test_a_commit_on_github_is_linked_as_well() -> None:
    origin = {**ORIGIN, "repository": "https://github.com/a/b", "pipeline": "https://github.com/a/b/actions/runs/7"}
    (shown,) = seen([version(about={"origin": origin})])
    assert shown["links"][0] == f"https://github.com/a/b/commit/{ORIGIN['commit']}"


@pytest.mark.parametrize("each", released(), ids=lambda each: each.model)
@pytest.mark.parametrize("is_pinned", [False, True])
def test_the_form_of_each_released_model_asks_its_example(each: Version, is_pinned: bool) -> None:
    path = infer_path(each.model, each.version if is_pinned else "")
    response = {"model_name": each.model, "model_version": each.version, **each.about["response"]}
    choose = {"step": "choose", "model": each.model, "value": "0" if is_pinned else ""}
    shown = seen(released(), choose, press("Send", each.model), answers={path: answer(response)})[-1]
    assert sent_by(shown) == each.about["request"]
    assert shown["unlabelled"] == 0
    text = shown["models"][each.model]
    assert re.search(rf"\|Version {each.version} answered in \d+ ms\.\|", text)
    (output,) = response["outputs"]
    for value in output["data"]:
        assert f"|{value}" in text
    assert json.dumps(response) in shown["code"]


def test_filled_in_values_are_sent_with_their_rows() -> None:
    iris = version(about={"inputs": [tensor("x", "FP32", [-1, 2])]})
    fill = [
        {"step": "fill", "model": "iris", "label": f"x, {column}, row {row}", "value": value}
        for column, row, value in ((1, 1, "5.5"), (2, 1, "-1e3"), (1, 2, " 7 "), (2, 2, ""))
    ]
    shown = seen([iris], press("Add row"), *fill, press("Send"))[-1]
    assert sent_by(shown)["inputs"] == [tensor("x", "FP32", [2, 2], [5.5, -1000, 7, None])]
    shown = seen([iris], press("Add row"), press("Remove row"), press("Send"))[-1]
    assert sent_by(shown)["inputs"] == [tensor("x", "FP32", [1, 2], [0, 0])]


def test_columns_of_one_table_are_filled_in_together() -> None:
    request = {
        "id": "example",
        "parameters": {"content_type": "pd"},
        "inputs": [
            tensor("age", "INT64", [2], [30, 9007199254740993]),
            tensor("job", "BYTES", [2, 1], ["nurse", 'baker "x"'], parameters={"content_type": "str"}),
            tensor("owns", "BOOL", [2], [True, False]),
        ],
    }
    shown = seen([version(about={"request": request})], press("Send"))[-1]
    fields = shown["fields"]["iris"]
    assert [fields[1], fields[2], fields[4], fields[5]] == ["nurse", True, 'baker "x"', False]
    sent = sent_by(shown)
    assert sent["parameters"] == {"content_type": "pd"}
    assert "id" not in sent
    assert [each["data"] for each in sent["inputs"][1:]] == [["nurse", 'baker "x"'], [True, False]]
    assert [each["shape"] for each in sent["inputs"]] == [[2], [2, 1], [2]]


def test_a_long_integer_that_is_typed_keeps_its_digits() -> None:
    iris = version(about={"inputs": [tensor("x", "INT64", [-1])]})
    fill = {"step": "fill", "model": "iris", "label": "x, value, row 1", "value": "9007199254740993"}
    assert sent_by(seen([iris], fill, press("Send"))[-1])["inputs"][0]["data"] == [9007199254740993]


@pytest.mark.parametrize(
    ("datatype", "value", "problem"),
    [
        ("INT8", "1.5", "write a whole number"),
        ("INT8", "", "write a whole number"),
        ("FP32", "five", "write a number"),
        ("FP32", "1e999", "write a number"),
    ],
)
def test_a_wrong_value_is_told_beside_its_place_and_not_sent(datatype: str, value: str, problem: str) -> None:
    iris = version(about={"inputs": [tensor("x", datatype, [-1, 2])]})
    fill = {"step": "fill", "model": "iris", "label": "x, 2, row 1", "value": value}
    shown = seen([iris], fill, press("Send"))[-1]
    assert f"Row 1, column 2: {problem}" in shown["models"]["iris"]
    assert shown["focused"] == "x, 2, row 1"
    assert not [each for each in shown["asked"] if each["path"].endswith("/infer")]


def test_what_fits_no_table_is_written_as_json() -> None:
    iris = version(about={"inputs": [tensor("image", "FP32", [-1, 2, 2])]})
    written = tensor("image", "FP32", [1, 2, 2], [[[1, 2], [3, 4]]])
    write = {"step": "write", "model": "iris", "value": json.dumps(written)}
    assert sent_by(seen([iris], write, press("Send"))[-1]) == {"inputs": [written]}
    unknown = version()
    write = {"step": "write", "model": "iris", "value": json.dumps({"inputs": [written]})}
    assert sent_by(seen([unknown], write, press("Send"))[-1]) == {"inputs": [written]}
    write = {"step": "write", "model": "iris", "value": "{"}
    assert "The request is not JSON" in seen([unknown], write, press("Send"))[-1]["models"]["iris"]


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (answer({"error": "x has 3 values"}, 400), "Error 400 after 0 ms: x has 3 values"),
        ({"status": 503, "text": "no healthy upstream"}, "Error 503 after 0 ms: no healthy upstream"),
        ({"status": 404, "text": ""}, "Error 404 after 0 ms: no reason given"),
        ({"status": 200, "text": "<html>sign in</html>"}, "Error 200 after 0 ms: <html>sign in</html>"),
        (answer({"outputs": [1]}), "Error 200 after 0 ms"),
        (None, "No answer: fetch failed"),
    ],
)
def test_an_error_is_shown_as_it_is(reply: Any, told: str) -> None:
    answers = {} if reply is None else {infer_path(): reply}
    shown = seen([version(about={"inputs": [tensor("x", "FP32", [-1])]})], press("Send"), answers=answers)[-1]
    assert told in re.sub(r"\d+ ms", "0 ms", shown["models"]["iris"])


def test_a_model_that_goes_away_and_comes_back_is_told() -> None:
    iris = [version()]
    steps = [
        LOOK,
        {"step": "answer", "path": INDEX, **answers_of(iris, down="1.0")[INDEX]},
        {"step": "wait"},
        {"step": "break", "path": INDEX},
        {"step": "wait"},
        {"step": "answer", "path": INDEX, **answers_of(iris)[INDEX]},
        {"step": "wait"},
        {"step": "answer", "path": INDEX, **answer([])},
        {"step": "wait"},
    ]
    shown = seen(iris, *steps)
    assert [each["stack"] for each in shown[::2]] == [
        "Every version with traffic is ready.",
        "Not ready: iris 1.0",
        "Which models are ready is not known: fetch failed.",
        "Every version with traffic is ready.",
        "What is served has changed. Reload the page",
    ]
    states = [re.findall("not ready|ready|unknown", each["models"]["iris"])[0] for each in shown[::2]]
    assert states == ["ready", "not ready", "unknown", "ready", "ready"]


def test_a_portal_that_does_not_answer_is_told() -> None:
    (shown,) = seen([], answers={SERVED: {"status": 503, "text": ""}})
    assert shown["stack"] == f"What is served is not known: {SERVED} answers 503. Reload the page to try again."


def test_what_a_release_or_an_answer_says_is_never_markup() -> None:
    evil = [tensor(HOSTILE, "BYTES", [-1], parameters={HOSTILE: HOSTILE})]
    about = {
        "implementation": HOSTILE,
        "frameworks": {HOSTILE: HOSTILE},
        "origin": {
            "repository": "javascript:alert(1)",
            "commit": HOSTILE,
            "tag": HOSTILE,
            "pipeline": "javascript:alert(2)",
        },
        "inputs": evil,
        "outputs": evil,
    }
    response = {"model_version": HOSTILE, "outputs": [tensor(HOSTILE, "BYTES", [1], [HOSTILE])]}
    steps = [press("Send"), press("Show as code")]
    shown = seen([version(number=HOSTILE, about=about)], *steps, answers={infer_path(): answer(response)})[-1]
    assert HOSTILE in shown["models"]["iris"]
    assert not {"img", "script"} & {*shown["elements"]}
    assert shown["links"] == []
    for path in STATIC.iterdir():
        assert not re.search("innerHTML|outerHTML|insertAdjacent|document.write|eval|Function\\(", path.read_text()), (
            path
        )


def test_the_page_is_small_and_loads_nothing_from_elsewhere() -> None:
    assert sum(path.stat().st_size for path in STATIC.iterdir()) < 100_000
    for path in STATIC.iterdir():
        assert {*re.findall(r"https?://[^\s\"'`]+", path.read_text())} <= {"http://www.w3.org/2000/svg"}, path
    html = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]*\ssrc=)", html)
    for name in re.findall(r"/portal/([\w.]+)", html):
        assert (STATIC / name).is_file()


# The same call as code

TABLE: Final = {
    "parameters": {"content_type": "np"},
    "inputs": [
        tensor("it's", "FP32", [2, 2], [1.5, None, -0.25, 4]),
        tensor("text", "BYTES", [2, 1], ["caf\u00e9 'n' \"x\" $HOME\n", "\\"]),
        tensor("flags", "BOOL", [2], [True, False]),
        tensor("counts", "INT64", [2], [1, -2]),
    ],
}


def code_of(request: Mapping[str, Any], *, over_grpc: bool = False, **more: Any) -> list[str]:
    about = {"request": request, "outputs": [tensor("predict", "INT64", [-1])]}
    steps = [{"step": "choose", "model": "iris", "value": "0"}, press("Show as code")]
    codes: list[str] = seen([version(about=about, grpc=over_grpc)], *steps, **more)[-1]["code"]
    return codes


def test_curl_sends_the_same_request() -> None:
    words = shlex.split(code_of(TABLE)[0])
    assert words[:3] == ["curl", "--fail-with-body", "--header"]
    assert json.loads(words[words.index("--data") + 1]) == TABLE
    assert words[-1] == "https://models.example.com/mlapi/v2/models/iris/versions/1.0/infer"


class _Model(ThreadingHTTPServer):
    """Keeps the last request, as the launcher reads it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.path = ""
        self.request: dict[str, Any] = {}


class _Handler(BaseHTTPRequestHandler):
    server: _Model

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.path, self.server.request = self.path, read(body, self.headers.get(binary.HEADER))
        content = json.dumps({"model_name": "iris", "outputs": [tensor("predict", "INT64", [1], [7])]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Not in the tests' output."""


def read(body: bytes, header: str | None) -> dict[str, Any]:
    """A request, its values in lists whether they were binary or not."""
    head, rest = binary.split(body, header)
    request: dict[str, Any] = json.loads(bytes(head))
    sizes = binary.sizes(request)
    for place, content in zip(sizes, binary.parts(rest, sizes.values()), strict=True):
        tensor = request["inputs"][place]
        values = [*binary.unpacked(tensor["name"], tensor["datatype"], content)]
        tensor["data"] = [None if value != value else value for value in values]  # noqa: PLR0124 - NaN is no equal of itself
    return request


@pytest.fixture(scope="module")
def model() -> Iterator[_Model]:
    with _Model() as model:
        threading.Thread(target=model.serve_forever, daemon=True).start()
        yield model
        model.shutdown()


def ran(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{code}\n{done.stderr}"
    return done.stdout


def test_python_with_requests_sends_the_same_request(model: _Model) -> None:
    origin = f"http://127.0.0.1:{model.server_port}"
    assert "'data': [7]" in ran(code_of(TABLE, origin=origin)[1])
    assert (model.path, model.request) == ("/mlapi/v2/models/iris/versions/1.0/infer", TABLE)


def test_python_with_tritonclient_sends_the_same_values(model: _Model) -> None:
    origin = f"http://127.0.0.1:{model.server_port}"
    assert ran(code_of(TABLE, origin=origin)[2]) == "[7]\n"
    assert model.path == "/mlapi/v2/models/iris/versions/1.0/infer"
    for sent, wanted in zip(model.request["inputs"], TABLE["inputs"], strict=True):
        assert {key: sent[key] for key in wanted} == wanted
    assert model.request["parameters"]["content_type"] == "np"


class _Remembering(GRPCInferenceServiceServicer):  # type: ignore[misc]
    """A model over gRPC that keeps the last request and its metadata."""

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        self.request, self.metadata = request, dict(context.invocation_metadata())
        output = service_pb2.ModelInferResponse.InferOutputTensor(name="predict", datatype="INT64", shape=[1])
        content = (7).to_bytes(8, "little")
        return service_pb2.ModelInferResponse(outputs=[output], raw_output_contents=[content])


def test_python_over_grpc_sends_the_same_values_and_the_metadata_that_chooses_the_version() -> None:
    server, model = grpc.server(ThreadPoolExecutor(1)), _Remembering()
    add_GRPCInferenceServiceServicer_to_server(model, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert ran(code_of(TABLE, over_grpc=True, origin=f"http://127.0.0.1:{port}")[3]) == "[7]\n"
    finally:
        server.stop(None)
    assert (model.metadata["x-model-name"], model.metadata["x-model-version"]) == ("iris", "1.0")
    assert (model.request.model_name, model.request.parameters["content_type"].string_param) == ("iris", "np")
    inputs: Any = TABLE["inputs"]
    for sent, content, wanted in zip(model.request.inputs, model.request.raw_input_contents, inputs, strict=True):
        assert (sent.name, sent.datatype, [*sent.shape]) == (wanted["name"], wanted["datatype"], wanted["shape"])
        values = [*binary.unpacked(sent.name, sent.datatype, memoryview(content))]
        assert [None if value != value else value for value in values] == wanted["data"]  # noqa: PLR0124 - NaN


def test_grpc_is_shown_if_the_stack_has_it_with_the_port_and_tls_of_the_address() -> None:
    assert len(code_of(TABLE)) == 3
    code = code_of(TABLE, over_grpc=True)[3]
    assert 'InferenceServerClient("models.example.com:443", ssl=True)' in code


def test_python_says_what_tritonclient_cannot_send() -> None:
    request = {"inputs": [tensor("x", "BYTES", [1], ["YQ=="], parameters={"content_type": "base64"})]}
    assert "# tritonclient cannot send the parameters of an input." in code_of(request)[2]
    assert "ssl=True" in code_of(request)[2]
