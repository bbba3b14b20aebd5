"""The API description of the released models: judged by a validator, and used by a client that is generated from it."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest

from local.tools import environments
from model_serving import catalog
from model_serving.catalog.description import describe
from server.portal import openapi
from server.portal.served import Version
from tests.release.repositories import PROJECT

LOCK: Final = PROJECT / "tests" / "release" / "openapi.txt"
VALIDATE: Final = """
import json, sys
from openapi_spec_validator import OpenAPIV31SpecValidator
from openapi_schema_validator import OAS31Validator

document = json.load(sys.stdin)
for error in OpenAPIV31SpecValidator(document).iter_errors():
    print(error.json_path, error.message)
for path, item in document["paths"].items():
    for method in item.keys() - {"parameters"}:
        operation = item[method]
        for body in (operation.get("requestBody", {}), operation["responses"]["200"]):
            content = body.get("content", {}).get("application/json", {})
            schema = {**content.get("schema", {}), "components": document["components"]}
            for name, example in content.get("examples", {}).items():
                for error in OAS31Validator(schema).iter_errors(example["value"]):
                    print(path, method, name, error.json_path, error.message)
"""
ASK: Final = """
import importlib, json, sys, typing

folder, url, tag, operation = sys.argv[1:]
sys.path.insert(0, folder)
from client import Client

module = importlib.import_module(f"client.api.{tag}.{operation}")
request = typing.get_type_hints(module._get_kwargs)["body"].from_dict(json.load(sys.stdin))
print(json.dumps(module.sync(client=Client(base_url=url), body=request).to_dict()))
"""


def released() -> list[Version]:
    known = catalog.read(PROJECT / "models")
    return [
        Version(model=name, version=release.version, weight=100, ready_url="http://10.0.0.1", about=describe(release))
        for name in known.names()
        for release in known.releases(name)
    ]


ODD: Final = [
    Version(model="a.b", version="1", weight=0, ready_url="", about={"inputs": [], "outputs": []}),
    Version(
        model="a.b",
        version="2-rc.1",
        weight=50,
        ready_url="",
        about={"inputs": [{"name": "x", "datatype": "BOOL", "shape": []}]},
    ),
    Version(model="a.b", version="2", weight=50, ready_url="", shadow=False),
    Version(model="a.b", version="3", weight=0, ready_url="", shadow=True),
    Version(
        model="a-b",
        version="1",
        weight=100,
        ready_url="",
        about={
            "inputs": [{"name": f"<b>{each}", "datatype": "BYTES", "shape": [-1, 1]} for each in range(3)],
            "outputs": [{"name": "}{", "datatype": "FP16", "shape": [-1, 2, 2], "parameters": {"content_type": "np"}}],
        },
    ),
]


@pytest.fixture(scope="module")
def python() -> Path:
    return environments.provide(LOCK) / "bin" / "python"


def judged(python: Path, document: Any) -> list[str]:
    done = subprocess.run(
        [str(python), "-c", VALIDATE], input=json.dumps(document), capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("versions", [released(), ODD, []], ids=["released", "odd", "none"])
def test_the_description_is_valid_and_its_examples_fit(python: Path, versions: list[Version]) -> None:
    assert judged(python, openapi.document(versions, "1")) == []


def test_a_description_with_a_mistake_is_not_valid(python: Path) -> None:
    document = openapi.document(released(), "1")
    request = document["paths"]["/mlapi/v2/models/iris-dtc/infer"]["post"]["requestBody"]["content"]["application/json"]
    request["examples"]["1.0"]["value"] = {
        "inputs": [{"name": "predict", "shape": [1], "datatype": "BYTES", "data": []}]
    }
    document["info"].pop("title")
    found = judged(python, document)
    assert "$.info 'title' is a required property" in found
    assert [line.split()[0] for line in found[1:]] == ["/mlapi/v2/models/iris-dtc/infer"] * len(found[1:])
    assert len(found) > 1


class _Models(ThreadingHTTPServer):
    """Answers each model's request.json with its response.json, and anything else with 400."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        model = self.path.split("/")[4]
        (folder,) = (PROJECT / "models" / model).glob("*")
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_right = sent == json.loads((folder / "request.json").read_text())
        answer = json.loads((folder / "response.json").read_text()) if is_right else {"error": "another request"}
        content = json.dumps({"model_name": model, **answer} if is_right else answer).encode()
        self.send_response(200 if is_right else 400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Not in the tests' output."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with _Models() as models:
        threading.Thread(target=models.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{models.server_port}"
        models.shutdown()


@pytest.fixture(scope="module")
def client(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a client that was generated from the description."""
    folder = tmp_path_factory.mktemp("generated")
    document = folder / "openapi.json"
    document.write_text(json.dumps(openapi.document(released(), "1")))
    command = ["generate", "--path", str(document), "--meta", "none", "--output-path", str(folder / "client")]
    done = subprocess.run(
        [str(python.with_name("openapi-python-client")), *command, "--fail-on-warning"],
        cwd=folder,
        env={"PATH": f"{python.parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("version", released(), ids=lambda version: version.model)
@pytest.mark.parametrize("is_pinned", [False, True])
def test_a_generated_client_asks_each_model_right(
    python: Path, client: Path, url: str, version: Version, is_pinned: bool
) -> None:
    tag = version.model.replace("-", "_")
    operation = f"infer_{tag}" + (f"_{version.version.replace('.', '_')}" if is_pinned else "")
    done = subprocess.run(
        [str(python), "-c", ASK, str(client), url, tag, operation],
        input=json.dumps(version.about["request"]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outputs"] == version.about["response"]["outputs"]
