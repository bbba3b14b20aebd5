"""Releases made of what other tools leave, and what is said where that is not enough."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from model_serving import catalog
from model_serving.__main__ import main
from model_serving.catalog import Release
from model_serving.catalog.requirements import locked
from model_serving.releases import convert

MODELS = Path(__file__).parents[2] / "models"
IRIS = MODELS / "iris-dtc" / "1.0"
HASH = f"--hash=sha256:{'0' * 64}"
MLEM = {
    "artifacts": {"data": {"uri": "model"}},
    "object_type": "model",
    "model_type": {
        "type": "sklearn",
        "methods": {
            "predict": {"args": [{"name": "X", "type_": {"type": "ndarray", "dtype": "float32", "shape": [None, 4]}}]}
        },
    },
    "requirements": [{"module": "sklearn", "package_name": "scikit-learn", "version": "1.9.1"}, {"module": "numpy"}],
}
MLFLOW = {
    "flavors": {
        "python_function": {"loader_module": "mlflow.sklearn", "model_path": "model.pkl"},
        "sklearn": {"sklearn_version": "1.7.2"},
    },
    "mlflow_version": "3.1.0",
    "signature": {
        "inputs": json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 4]}}]),
        "outputs": json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]),
    },
}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def lock_of(folder: Path, *pins: str) -> Path:
    path = folder / "requirements.lock"
    path.write_text("".join(f"{each} {HASH}\n" for each in ("mlserver==1.7.1", *pins)))
    return path


def made(out: Path, name: str = "iris", version: str = "v1.0.0") -> Release:
    return catalog.read(out).get(name, version)


def settings_of(release: Release) -> Any:
    return json.loads((release.folder / "model-settings.json").read_text())


def refused(capsys: pytest.CaptureFixture[str], out: Path, *arguments: str) -> str:
    """What a conversion says that leaves nothing behind."""
    before = sorted(out.rglob("*"))
    assert main(["convert", *arguments, "--out", str(out)]) == 1
    assert sorted(out.rglob("*")) == before
    return capsys.readouterr().err


def done(out: Path, *arguments: str) -> int:
    return main(["convert", *arguments, "--out", str(out)])


NAMED = ("--name", "iris", "--version", "v1.0.0")


def test_a_link_out_of_a_model_is_refused(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = older(tmp_path, "iris-1.0")
    (folder / "notes.txt").symlink_to("/etc/passwd")
    (folder / "deep").mkdir()
    (folder / "deep" / "lost").symlink_to("nowhere")
    said = refused(capsys, out, "older", str(folder))
    assert f"{folder}/notes.txt: is a link to /etc/passwd, which is outside" in said
    assert f"{folder}/deep/lost: is a link to nowhere, which does not exist" in said


def test_what_the_command_line_names_may_be_a_link(tmp_path: Path, out: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "newest").symlink_to(older(tmp_path / "elsewhere", "iris-1.0"))
    assert done(out, "older", str(tmp_path / "newest")) == 0


# MLEM


@pytest.fixture
def mlem(tmp_path: Path) -> Path:
    """What MLEM writes: the metadata, and the artefact beside it."""
    folder = tmp_path / "mlem"
    folder.mkdir()
    shutil.copy(IRIS / "iris-decision-tree.joblib", folder / "model")
    return saved(folder, MLEM)


def saved(folder: Path, content: dict[str, Any]) -> Path:
    """Writes the metadata, with the artefact's size and hash."""
    artefact = (folder / "model").read_bytes()
    content = json.loads(json.dumps(content))
    content["artifacts"]["data"] |= {
        "size": len(artefact),
        "hash": hashlib.md5(artefact, usedforsecurity=False).hexdigest(),
    }
    path = folder / "model.mlem"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_model_of_mlem_becomes_a_release(mlem: Path, out: Path) -> None:
    assert done(out, "mlem", str(mlem), *NAMED, "--lock", str(IRIS / "requirements.lock")) == 0
    release = made(out)
    assert settings_of(release) == {
        "name": "iris",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "inputs": [{"name": "predict", "datatype": "FP32", "shape": [-1, 4]}],
        "parameters": {"version": "v1.0.0", "uri": "./model.joblib"},
    }
    assert (release.folder / "model.joblib").read_bytes() == (mlem.parent / "model").read_bytes()


def test_a_model_of_a_later_mlem_with_a_table_becomes_a_release(mlem: Path, out: Path) -> None:
    table = {"type": "dataframe", "columns": ["length", "kind"], "dtypes": ["float64", "object"]}
    kind = {"type": "sklearn", "methods": {"predict": {"args": [{"name": "X", "type_": table}]}}}
    content = {key: value for key, value in MLEM.items() if key != "model_type"} | {"processors": {"model": kind}}
    saved(mlem.parent, content)
    assert done(out, "mlem", str(mlem), *NAMED, "--lock", str(IRIS / "requirements.lock")) == 0
    settings = settings_of(made(out))
    assert [(each["name"], each["datatype"]) for each in settings["inputs"]] == [("length", "FP64"), ("kind", "BYTES")]
    assert settings["parameters"]["content_type"] == "pd"


def test_a_model_of_mlem_without_a_lock_is_told_what_to_lock(
    mlem: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, out, "mlem", str(mlem), *NAMED)
    assert "iris/v1.0.0: has no requirements.lock" in said
    assert "printf '%s\\n' mlserver==1.7.1 mlserver-sklearn==1.7.1 scikit-learn==1.9.1 | uv pip compile" in said


def test_the_versions_that_mlem_has_taken_down_are_held_against_the_lock(
    mlem: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = lock_of(mlem.parent, "mlserver-sklearn==1.7.1", "scikit-learn==1.6.0")
    said = refused(capsys, out, "mlem", str(mlem), *NAMED, "--lock", str(lock))
    assert f"provenance.json: was made with scikit-learn 1.9.1, and {lock} has 1.6.0" in said


@pytest.mark.parametrize(
    ("head", "name"), [(b'{"learner": {}}', "model.json"), (b"{\n", "model.json"), (b"{L\x00", "model.ubj")]
)
def test_an_xgboost_model_gets_a_name_that_xgboost_goes_by(mlem: Path, out: Path, head: bytes, name: str) -> None:
    (mlem.parent / "model").write_bytes(head)
    saved(mlem.parent, MLEM | {"model_type": {"type": "xgboost"}, "requirements": []})
    lock = lock_of(mlem.parent, "mlserver-xgboost==1.7.1", "xgboost==3.2.0")
    assert done(out, "mlem", str(mlem), *NAMED, "--lock", str(lock)) == 0
    assert settings_of(made(out))["parameters"]["uri"] == f"./{name}"


def test_everything_that_a_model_of_mlem_lacks_is_said_at_once(
    mlem: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mlem.write_text(yaml.safe_dump(MLEM | {"model_type": {"type": "torch"}}), encoding="utf-8")
    (mlem.parent / "model").unlink()
    said = refused(capsys, out, "mlem", str(mlem), *NAMED)
    assert 'the type of the model is "torch"' in said
    assert "artifacts.data.uri is model, which is not a file beside it" in said
    assert "dvc pull model" in said


@pytest.mark.parametrize("uri", ["../model", "/etc/hostname", "s3://bucket/model"])
def test_an_artefact_of_another_place_is_refused(
    mlem: Path, out: Path, capsys: pytest.CaptureFixture[str], uri: str
) -> None:
    shutil.copy(mlem.parent / "model", mlem.parents[1])
    mlem.write_text(yaml.safe_dump(MLEM | {"artifacts": {"data": {"uri": uri}}}), encoding="utf-8")
    assert "which is not a file beside it" in refused(capsys, out, "mlem", str(mlem), *NAMED)


def test_an_altered_artefact_is_refused(mlem: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artefact = mlem.parent / "model"
    artefact.write_bytes(artefact.read_bytes()[:-1] + b"?")
    assert "is not the artefact that was saved" in refused(capsys, out, "mlem", str(mlem), *NAMED)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [", "is not YAML"),
        ("just text", "holds no keys"),
        ("artifacts: {data: {size: 3}}", "artifacts.data.uri is missing"),
        ("{}", "says neither model_type nor processors.model"),
        ("model_type: {type: sklearn}", "artifacts names 0 files"),
    ],
)
def test_a_file_that_is_no_metadata_of_mlem_is_refused(
    mlem: Path, out: Path, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    mlem.write_text(content, encoding="utf-8")
    assert said in refused(capsys, out, "mlem", str(mlem), *NAMED)


def test_a_model_of_mlem_is_never_unpickled(mlem: Path, out: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "sprung",)

    (mlem.parent / "model").write_bytes(pickle.dumps(Trap()))
    saved(mlem.parent, MLEM)
    assert done(out, "mlem", str(mlem), *NAMED, "--lock", str(IRIS / "requirements.lock")) == 0
    assert not (tmp_path / "sprung").exists()


# MLflow


@pytest.fixture
def mlflow(tmp_path: Path) -> Path:
    """What MLflow writes."""
    folder = tmp_path / "mlflow"
    folder.mkdir()
    (folder / "MLmodel").write_text(yaml.safe_dump(MLFLOW))
    (folder / "model.pkl").write_bytes(b"tree")
    (folder / "requirements.txt").write_text("# made by MLflow\nmlflow==3.1.0\nscikit-learn==1.7.2  # exactly\n--pre\n")
    (folder / "python_env.yaml").write_text("python: 3.11.9\n")
    (folder / ".hidden").write_text("")
    return folder


def lock_of_mlflow(folder: Path, sklearn: str = "1.7.2") -> Path:
    return lock_of(folder, "mlserver-mlflow==1.7.1", "mlflow==3.1.0", f"scikit-learn=={sklearn}")


def test_a_model_of_mlflow_becomes_a_release_that_says_what_it_takes(
    mlflow: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert done(out, "mlflow", str(mlflow), *NAMED, "--lock", str(lock_of_mlflow(tmp_path))) == 0
    release = made(out)
    assert settings_of(release) == {
        "name": "iris",
        "implementation": "mlserver_mlflow.MLflowRuntime",
        "inputs": [{"name": "input-0", "datatype": "FP64", "shape": [-1, 4], "parameters": {"content_type": "np"}}],
        "outputs": [{"name": "output-1", "datatype": "INT64", "shape": [-1, 1], "parameters": {"content_type": "np"}}],
        "parameters": {"version": "v1.0.0", "uri": "./model"},
    }
    kept = {path.name for path in (release.folder / "model").iterdir()}
    assert kept == {"MLmodel", "model.pkl", "requirements.txt", "python_env.yaml"}
    assert "Python" not in capsys.readouterr().out


def test_a_model_of_mlflow_without_a_lock_is_told_what_to_lock(
    mlflow: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pins = "mlserver==1.7.1 mlserver-mlflow==1.7.1 mlflow==3.1.0 scikit-learn==1.7.2"
    assert f"printf '%s\\n' {pins} |" in refused(capsys, out, "mlflow", str(mlflow), *NAMED)


def test_the_version_that_mlflow_has_taken_down_is_held_against_the_lock(
    mlflow: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, out, "mlflow", str(mlflow), *NAMED, "--lock", str(lock_of_mlflow(tmp_path, "1.9.1")))
    assert "iris/v1.0.0/model/MLmodel: was made with scikit-learn 1.7.2" in said


Spec = dict[str, Any]
TEN_ROWS = [[float(row), 1.5] for row in range(10)]


def tensor(dtype: str, *shape: int, **more: Any) -> Spec:
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [*shape]}, **more}


def column(kind: str, name: str | None = None, **more: Any) -> Spec:
    return {"type": kind, "required": True, **({} if name is None else {"name": name}), **more}


def signed(
    folder: Path, inputs: list[Spec] | None = None, outputs: list[Spec] | None = None, loader: str = "mlflow.sklearn"
) -> Path:
    """The model with another signature, without one if neither is given; None is a part that it does not have."""
    function = MLFLOW["flavors"]["python_function"] | {"loader_module": loader}  # type: ignore[index]
    parts = {"inputs": inputs, "outputs": outputs}
    signature = {key: None if specs is None else json.dumps(specs) for key, specs in parts.items()} | {"params": None}
    content = MLFLOW | {"flavors": {"python_function": function}, "signature": signature}
    if inputs is None and outputs is None:
        del content["signature"]
    (folder / "MLmodel").write_text(yaml.safe_dump(content))
    return folder


def converted(folder: Path, out: Path) -> Any:
    """The settings of the release."""
    assert done(out, "mlflow", str(folder), *NAMED, "--lock", str(lock_of_mlflow(out.parent))) == 0
    return settings_of(made(out))


def request_of(folder: Path, out: Path) -> Any:
    converted(folder, out)
    request = made(out).request
    return None if request is None else json.loads(request.read_text())


@pytest.mark.parametrize(
    ("loader", "outputs", "described"),
    [
        ("mlflow.sklearn", [tensor("int64", -1)], [("output-1", "INT64", [-1, 1])]),
        ("mlflow.xgboost", [tensor("float32", -1, 3)], [("output-1", "FP32", [-1, 3])]),
        ("mlflow.lightgbm", [tensor("float64", -1, name="price")], [("output-1", "FP64", [-1, 1])]),
        ("mlflow.sklearn", [tensor("str", -1)], [("output-1", "BYTES", [-1, 1])]),
        # These models return arrays, of which columns tell neither names nor types.
        ("mlflow.sklearn", [column("long", "species")], []),
        ("mlflow.xgboost", [column("double")], []),
        ("mlflow.pyfunc.model", [tensor("float64", -1, 4)], [("output-1", "FP64", [-1, 4])]),
        ("mlflow.pyfunc.model", [tensor("object", -1, 2, 2)], [("output-1", "BYTES", [-1, 2, 2])]),
        # A dictionary of arrays, and a DataFrame.
        (
            "mlflow.pyfunc.model",
            [tensor("float64", -1, name="p"), tensor("bool", -1, 2, name="q")],
            [("p", "FP64", [-1, 1]), ("q", "BOOL", [-1, 2])],
        ),
        (
            "mlflow.pyfunc.model",
            [column("string", "label"), column("double", "score"), column("array", "all", items={"type": "long"})],
            [("label", "BYTES", [-1, 1]), ("score", "FP64", [-1, 1]), ("all", "BYTES", [-1, 1])],
        ),
        # MLflow's integer may be of 8, 16 or 32 bits.
        ("mlflow.pyfunc.model", [column("integer", "place"), column("double", "score")], []),
        # A list of text; MLServer answers no other list.
        ("mlflow.pyfunc.model", [column("string")], [("output-1", "BYTES", [-1, 1])]),
        ("mlflow.pyfunc.model", [column("double")], []),
    ],
)
def test_outputs_of_mlflow_are_described_as_mlserver_answers_them_or_not_at_all(
    mlflow: Path, out: Path, loader: str, outputs: list[Spec], described: list[Any]
) -> None:
    settings = converted(signed(mlflow, [tensor("float64", -1, 4)], outputs, loader), out)
    assert [(each["name"], each["datatype"], each["shape"]) for each in settings.get("outputs", [])] == described


def test_outputs_of_mlflow_that_are_not_described_are_mentioned(
    mlflow: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    converted(signed(mlflow, [tensor("float64", -1, 4)], [column("double")]), out)
    assert "the release does not describe them" in capsys.readouterr().out


def test_inputs_of_mlflow_are_described_as_mlserver_describes_them(mlflow: Path, out: Path) -> None:
    columns = [column("double", "age"), column("boolean", "active"), column("datetime", "when"), column("string")]
    assert converted(signed(mlflow, columns, [tensor("int64", -1)]), out)["inputs"] == [
        {"name": "age", "datatype": "FP64", "shape": [-1, 1], "parameters": {"content_type": "np"}},
        {"name": "active", "datatype": "BOOL", "shape": [-1, 1], "parameters": {"content_type": "np"}},
        {"name": "when", "datatype": "BYTES", "shape": [-1, 1], "parameters": {"content_type": "datetime"}},
        {"name": "input-3", "datatype": "BYTES", "shape": [-1, 1], "parameters": {"content_type": "str"}},
    ]


def test_columns_that_the_signature_calls_optional_may_be_missing_in_requests(mlflow: Path, out: Path) -> None:
    columns = [column("double", "age", required=True), column("string", "sex", required=False)]
    inputs = converted(signed(mlflow, columns, [tensor("int64", -1)]), out)["inputs"]
    assert [each["parameters"].get("optional") for each in inputs] == [None, True]


def test_optional_columns_of_an_older_mlflow_may_be_missing_too(mlflow: Path, out: Path) -> None:
    columns = [column("double", "age"), column("string", "sex", optional=True)]
    inputs = converted(signed(mlflow, columns, [tensor("int64", -1)]), out)["inputs"]
    assert [each["parameters"].get("optional") for each in inputs] == [None, True]


def test_no_request_is_derived_from_columns_of_lists(
    mlflow: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = [column("double", "length"), column("array", "all", items={"type": "double"})]
    (mlflow / "python_env.yaml").write_text("python: 3.9.1\n")
    converted(signed(mlflow, columns, [tensor("int64", -1)]), out)
    assert not made(out).describes_inputs
    said = capsys.readouterr().out
    assert "the release does not describe its inputs" in said
    assert "It has no request.json" in said
    assert "saved by Python 3.9.1 and is served by 3.11" in said


def test_a_model_of_mlflow_without_a_signature_says_what_requests_need(
    mlflow: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = converted(signed(mlflow), out)
    assert settings.keys() == {"name", "implementation", "parameters"}
    assert 'each request must say what it is, "parameters": {"content_type": "np"}' in capsys.readouterr().out


ARRAY = [tensor("float64", -1, 2)]
NUMBERS = [column("double", "x"), column("double", "y")]
FEATURES: list[Spec] = [{"type": "double", "name": number} for number in range(3)]


@pytest.mark.parametrize(
    ("inputs", "example", "expected"),
    [
        (
            ARRAY,
            {"inputs": TEN_ROWS},
            [("input-0", "FP64", "np", [5, 2], [0.0, 1.5, 1.0, 1.5, 2.0, 1.5, 3.0, 1.5, 4.0, 1.5])],
        ),
        (ARRAY, TEN_ROWS[:1], [("input-0", "FP64", "np", [1, 2], [0.0, 1.5])]),
        (ARRAY, {"inputs": [[1.5, None], [2.5, 3.5]]}, [("input-0", "FP64", "np", [1, 2], [2.5, 3.5])]),
        (ARRAY, {"inputs": [[1.5, float("nan")]]}, [("input-0", "FP64", "np", [1, 2], [1.5, None])]),
        # It has no rows: all of it is needed.
        ([tensor("int64", 6)], {"inputs": [1, 2, 3, 4, 5, 6]}, [("input-0", "INT64", "np", [6], [1, 2, 3, 4, 5, 6])]),
        ([tensor("str", -1)], {"inputs": ["good", "bad"]}, [("input-0", "BYTES", "np", [2], ["good", "bad"])]),
        (
            [tensor("float32", -1, name="a"), tensor("int64", -1, 2, name="b")],
            {"inputs": {"a": [1.5], "b": [[1, 2]]}},
            [("a", "FP32", "np", [1], [1.5]), ("b", "INT64", "np", [1, 2], [1, 2])],
        ),
        (
            [column("double", "age"), column("string", "sex"), column("boolean", "active"), column("datetime", "when")],
            {
                "dataframe_split": {
                    "columns": ["age", "sex", "active", "when"],
                    "data": [[float("nan"), "male", True, "2024-01-01T00:00:00"], [29.0, "f", False, "2024-01-02"]],
                }
            },
            [
                ("age", "FP64", "np", [1, 1], [29.0]),
                ("sex", "BYTES", "str", [1, 1], ["f"]),
                ("active", "BOOL", "np", [1, 1], [False]),
                ("when", "BYTES", "datetime", [1, 1], ["2024-01-02"]),
            ],
        ),
        (NUMBERS, {"columns": ["y"], "index": [0], "data": [[1.5]]}, [("y", "FP64", "np", [1, 1], [1.5])]),
        (
            [column("double"), column("long")],
            {"dataframe_split": {"data": [[1.5, 2]]}},
            [("input-0", "FP64", "np", [1, 1], [1.5]), ("input-1", "INT64", "np", [1, 1], [2])],
        ),
        (
            [column("object", "o", properties={}), column("binary", "b")],
            {"dataframe_split": {"columns": ["o", "b"], "data": [[{"é": [1]}, "YWI=\n"]]}},
            [("o", "BYTES", "pd_json", [1, 1], ['{"é": [1]}']), ("b", "BYTES", "base64", [1, 1], ["YWI="])],
        ),
        (
            NUMBERS,
            {"inputs": [{"x": 1.5, "y": 2.5}, {"y": 3.5}, {"y": 4.5, "x": 0.5}]},
            [("x", "FP64", "np", [2, 1], [1.5, 0.5]), ("y", "FP64", "np", [2, 1], [2.5, 4.5])],
        ),
        (NUMBERS, {"x": 1.5, "y": 2.5}, [("x", "FP64", "np", [1, 1], [1.5]), ("y", "FP64", "np", [1, 1], [2.5])]),
        ([column("string")], ["good", "bad"], [("input-0", "BYTES", "str", [2, 1], ["good", "bad"])]),
    ],
)
def test_the_example_of_mlflow_is_the_request(
    mlflow: Path, out: Path, inputs: list[Spec], example: Any, expected: list[Any]
) -> None:
    (mlflow / "serving_input_example.json").write_text(json.dumps(example))
    request = request_of(signed(mlflow, inputs, [tensor("int64", -1)]), out)
    found = [
        (each["name"], each["datatype"], each["parameters"]["content_type"], each["shape"], each["data"])
        for each in request["inputs"]
    ]
    assert found == expected
    assert request.keys() == {"inputs"}


@pytest.mark.parametrize(
    ("example", "content_type", "expected"),
    [
        ({"inputs": [[1, 2]]}, "np", [("input-0", "INT64", "np", [1, 2])]),
        ({"inputs": [[1, 2.5]]}, "np", [("input-0", "FP64", "np", [1, 2])]),
        (
            {"dataframe_split": {"columns": ["a", "b", "c"], "data": [[True, "x", [1]]]}},
            "pd",
            [("a", "BOOL", "np", [1, 1]), ("b", "BYTES", "str", [1, 1]), ("c", "BYTES", "pd_json", [1, 1])],
        ),
    ],
)
def test_an_example_without_a_signature_says_how_requests_are_decoded(
    mlflow: Path, out: Path, example: Any, content_type: str, expected: list[Any]
) -> None:
    (mlflow / "serving_input_example.json").write_text(json.dumps(example))
    inputs = request_of(signed(mlflow), out)["inputs"]
    found = [(each["name"], each["datatype"], each["parameters"]["content_type"], each["shape"]) for each in inputs]
    assert found == expected
    assert settings_of(made(out))["parameters"]["content_type"] == content_type


def test_what_mlflow_serves_counts_before_the_older_form_and_brings_its_parameters(mlflow: Path, out: Path) -> None:
    (mlflow / "input_example.json").write_text(json.dumps({"inputs": [[0.0, 0.0]], "params": {"factor": 2.0}}))
    (mlflow / "serving_input_example.json").write_text(json.dumps({"inputs": [[1.5, 2.5]], "params": {"factor": 3.0}}))
    request = request_of(signed(mlflow, ARRAY, ARRAY), out)
    assert (request["inputs"][0]["data"], request["parameters"]) == ([1.5, 2.5], {"factor": 3.0})


@pytest.mark.parametrize(
    ("inputs", "example"),
    [
        (ARRAY, "no JSON"),
        (ARRAY, "5"),
        (ARRAY, '{"messages": [{"role": "user"}]}'),
        (ARRAY, '{"inputs": [[1.5, 2.5], [3.5]]}'),
        (ARRAY, '{"inputs": []}'),
        (ARRAY, "[" * 100_000),
        (ARRAY, '{"inputs": [[1.5, 2.5, 3.5, 4.5]], "params": 5}'),
        ([column("binary", "a")], '{"dataframe_split": {"columns": ["a"], "data": [[5]]}}'),
        (NUMBERS, '{"dataframe_split": {"columns": ["x", "x"], "data": [[1.5, 2.5]]}}'),
        ([tensor("float64", -1, name="a")], '{"inputs": {"b": [1.5]}}'),
        (NUMBERS, '{"dataframe_split": {"columns": ["x", "z"], "data": [[1.5, 2.5]]}}'),
        (NUMBERS, '{"dataframe_split": {"columns": ["x", "y"], "data": [[1.5]]}}'),
        (None, '{"inputs": {"a": [1.5]}}'),
    ],
)
def test_an_example_that_no_request_can_be_made_of_is_mentioned(
    mlflow: Path, out: Path, capsys: pytest.CaptureFixture[str], inputs: list[Spec] | None, example: str
) -> None:
    (mlflow / "serving_input_example.json").write_text(example)
    assert request_of(signed(mlflow, inputs, inputs and [tensor("int64", -1)]), out) is None
    assert "it is not the request.json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((ARRAY, None), "signature has no outputs"),
        ((None, ARRAY), "signature has no inputs"),
        (([column("double", "x"), *FEATURES], ARRAY), "signature.inputs has names that are not text: 0, 1, 2"),
        (([tensor("datetime64[ns]", -1)], ARRAY), "signature.inputs[0] is of the type datetime64[ns]"),
        ((ARRAY, [tensor("complex64", -1)]), "signature.outputs[0] is of the type complex64"),
        ((ARRAY, [column("newer")]), "signature.outputs[0] is of the type newer"),
        ((ARRAY, []), "signature.outputs is not a JSON list"),
    ],
)
def test_a_signature_with_which_mlserver_loads_no_model_is_refused(
    mlflow: Path, out: Path, capsys: pytest.CaptureFixture[str], parts: Any, said: str
) -> None:
    message = refused(capsys, out, "mlflow", str(signed(mlflow, *parts)), *NAMED)
    assert said in message
    assert f'mlflow.models.set_signature("{mlflow}", ' in message


def test_settings_inside_of_an_mlflow_model_are_left_out(
    mlflow: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (mlflow / "artifacts").mkdir()
    for name in ("model-settings.json", "artifacts/model-settings.json", "artifacts/encoder.pkl"):
        (mlflow / name).write_text("{}")
    settings = converted(mlflow, out)
    assert settings["implementation"] == "mlserver_mlflow.MLflowRuntime"
    folder = made(out).folder
    assert [*folder.rglob("model-settings.json")] == [folder / "model-settings.json"]
    assert (folder / "model" / "artifacts" / "encoder.pkl").is_file()
    said = capsys.readouterr().out
    for name in ("model/model-settings.json", "model/artifacts/model-settings.json"):
        assert f"{name} is left out" in said


@pytest.mark.parametrize(
    ("flavors", "said"),
    [
        ({"spark": {}}, "has no flavor python_function, but spark"),
        ({"python_function": {"model_path": "lost.pkl"}}, "model_path is lost.pkl, which does not exist"),
    ],
)
def test_a_model_of_mlflow_that_cannot_be_loaded_is_refused(
    mlflow: Path, out: Path, capsys: pytest.CaptureFixture[str], flavors: dict[str, Any], said: str
) -> None:
    (mlflow / "MLmodel").write_text(yaml.safe_dump(MLFLOW | {"flavors": flavors}))
    assert said in refused(capsys, out, "mlflow", str(mlflow), *NAMED)


@pytest.mark.parametrize("content", ["flavors: 2024-13-45", "[" * 5000])
def test_an_mlmodel_that_no_one_could_read_is_refused(
    mlflow: Path, out: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (mlflow / "MLmodel").write_text(content)
    assert "MLmodel: is not YAML: " in refused(capsys, out, "mlflow", str(mlflow), *NAMED)


def test_a_signature_that_no_one_could_read_is_refused(
    mlflow: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (mlflow / "MLmodel").write_text(json.dumps(MLFLOW | {"signature": {"inputs": "[" * 100_000, "outputs": "[]"}}))
    assert "signature.inputs is not a JSON list" in refused(capsys, out, "mlflow", str(mlflow), *NAMED)


def test_a_pipe_in_a_model_is_refused(mlflow: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(mlflow / "log")
    assert "log: is a pipe, a socket or a device" in refused(capsys, out, "mlflow", str(mlflow), *NAMED)


def test_a_folder_without_an_mlmodel_is_refused(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "MLmodel: is missing" in refused(capsys, out, "mlflow", str(tmp_path), *NAMED)


# The older layout


def older(tmp_path: Path, folder: str = "iris-dtc-v0.0.10", **settings: Any) -> Path:
    """A release as the older layout has it, with what is given in its settings."""
    path = tmp_path / folder
    shutil.copytree(IRIS, path)
    content = json.loads((path / "model-settings.json").read_text()) | settings
    (path / "model-settings.json").write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    "settings",
    [
        {"parameters": {"version": "$VERSAO", "uri": "./iris-decision-tree.joblib"}},
        {"parameters": {"version": "$VERSION", "uri": "./iris-decision-tree.joblib"}},
        {"version": "$VERSAO", "parameters": {"uri": "./iris-decision-tree.joblib"}},
        {"version": "v0.0.10", "parameters": {"uri": "./iris-decision-tree.joblib"}},
        {"parameters": {"version": "v0.0.9", "uri": "./iris-decision-tree.joblib"}},
    ],
)
def test_a_release_of_the_older_layout_gets_its_version_where_mlserver_looks(
    tmp_path: Path, out: Path, settings: dict[str, Any]
) -> None:
    assert done(out, "older", str(older(tmp_path, **settings))) == 0
    release = made(out, "iris-dtc", "v0.0.10")
    found = settings_of(release)
    assert "version" not in found
    assert found["parameters"] == {"version": "v0.0.10", "uri": "./iris-decision-tree.joblib"}
    assert (release.request, release.response) == (release.folder / "request.json", release.folder / "response.json")


@pytest.mark.parametrize(
    ("folder", "told", "place"),
    [
        ("iris-1.0", "other", "iris/1.0"),
        ("iris-dtc-1.0.0-rc1", "other", "iris-dtc/1.0.0-rc1"),
        ("iris-2-1.0", "iris-2", "iris-2/1.0"),
        ("iris-2-1.0", "iris", "iris-2/1.0"),
        ("iris-1.0-v2", "iris-1.0", "iris-1.0/v2"),
        ("iris-1.0-v2", "iris", "iris/1.0-v2"),
        ("iris-1.0-v2", "other", "iris/1.0-v2"),
    ],
)
def test_a_dash_in_a_name_is_told_from_that_before_the_version(
    tmp_path: Path, out: Path, folder: str, told: str, place: str
) -> None:
    """By what the settings say where both can be meant, else by the longest version."""
    assert done(out, "older", str(older(tmp_path, folder, name=told))) == 0
    assert made(out, *place.split("/")).folder == out / place


@pytest.mark.parametrize(
    "options", [("--name", "iris-2"), ("--version", "1.0"), ("--name", "iris-2", "--version", "1.0")]
)
def test_what_is_said_of_a_dash_counts(tmp_path: Path, out: Path, options: tuple[str, ...]) -> None:
    assert done(out, "older", str(older(tmp_path, "iris-2-1.0")), *options) == 0
    assert made(out, "iris-2", "1.0")


def test_a_folder_whose_name_has_no_version_needs_to_be_told(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(older(tmp_path, "iris-newest"))
    assert "--name iris-dtc --version v0.0.10" in refused(capsys, out, "older", folder)
    assert done(out, "older", folder, *NAMED) == 0


@pytest.mark.parametrize("text", ["", "[]", '{"parameters": []}'])
def test_settings_that_are_no_settings_are_refused(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    folder = older(tmp_path)
    (folder / "model-settings.json").write_text(text)
    assert "Write MLServer's settings of the model there" in refused(capsys, out, "older", str(folder))


def test_half_of_a_character_in_settings_is_refused_by_its_name(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = older(tmp_path, platform="\ud800")
    assert 'has half of a character, "\\ud800"' in refused(capsys, out, "older", str(folder))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"parameters": ' + "9" * 5000 + "}"])
def test_settings_that_python_cannot_read_are_refused(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    folder = older(tmp_path)
    (folder / "model-settings.json").write_text(text)
    assert "is not JSON: " in refused(capsys, out, "older", str(folder))


# DVC


def test_what_it_takes_to_fetch_from_dvc_is_said_at_once(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = "https://user:secret@example.com/group/iris.git"
    said = refused(capsys, out, "dvc", address, "model.joblib", *NAMED, "--dvc", "no-such-program")
    assert "--implementation: is missing" in said
    assert "pip install dvc" in said
    assert "REPOSITORY: has an account in it" in said
    assert "secret" not in said


def test_words_of_dvc_that_are_not_utf_8_are_told(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "dvc"
    program.write_text("#!/bin/sh\nprintf 'n\\343o existe\\n' >&2; exit 1\n")
    program.chmod(0o755)
    options = ("--implementation", "mlserver_sklearn.SKLearnModel", "--dvc", str(program))
    assert "n\ufffdo existe" in refused(capsys, out, "dvc", "https://[bad", "model.joblib", *NAMED, *options)
    assert 'PATH: is "..", which is the name of no file' in refused(capsys, out, "dvc", "repo", "..", *NAMED, *options)


# What all have in common


def test_the_same_conversion_again_is_a_success(mlem: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("mlem", str(mlem), *NAMED, "--lock", str(IRIS / "requirements.lock"))
    assert done(out, *arguments) == 0
    before = made(out).content_hash
    assert done(out, *arguments) == 0
    assert "v1.0.0 is there already, with the same content." in capsys.readouterr().out
    assert made(out).content_hash == before


def test_a_release_that_is_there_is_never_changed(mlem: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("mlem", str(mlem), *NAMED, "--lock", str(IRIS / "requirements.lock"))
    assert done(out, *arguments) == 0
    saved(mlem.parent, MLEM | {"requirements": []})
    before = made(out).content_hash
    assert "is there already, with other content" in refused(capsys, out, *arguments)
    assert made(out).content_hash == before


def test_what_a_killed_run_has_left_is_no_release_and_stops_nobody(mlem: Path, out: Path) -> None:
    left = out / "iris" / ".release-left" / "v1.0.0"
    left.mkdir(parents=True)
    (left / "model.joblib").write_bytes(b"half of it")
    assert done(out, "mlem", str(mlem), *NAMED, "--lock", str(IRIS / "requirements.lock")) == 0
    assert [release.version for release in catalog.read(out).releases("iris")] == ["v1.0.0"]
    assert (made(out).folder / "model.joblib").read_bytes() == (mlem.parent / "model").read_bytes()


def test_a_release_that_cannot_be_moved_whole_is_not_there(
    mlem: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_source: Path, target: Path) -> None:
        target.mkdir()
        (target / "model.joblib").write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(shutil, "move", full)
    (out / "iris").mkdir(parents=True)
    said = refused(capsys, out, "mlem", str(mlem), *NAMED, "--lock", str(IRIS / "requirements.lock"))
    assert "No space left on device" in said


def test_a_release_lands_nowhere_but_in_its_place(
    mlem: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, out, "mlem", str(mlem), "--name", "../iris", "--version", "..")
    assert "--name: '../iris' is not the name of a folder" in said
    assert "--version: '..' is not the name of a folder" in said


def test_the_rules_of_the_serving_side_are_said_beside_the_missing_lock(
    mlem: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, out, "mlem", str(mlem), "--name", "iris 2", "--version", "newest")
    assert 'the model\'s name is "iris 2"' in said
    assert 'the version "newest" has no semantic order' in said
    assert "has no requirements.lock" in said


def test_a_file_in_the_place_of_a_folder_is_said(mlem: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out.mkdir()
    (out / "iris").write_text("")
    said = refused(capsys, out, "mlem", str(mlem), *NAMED, "--lock", str(IRIS / "requirements.lock"))
    assert f"{out}/iris: File exists" in said


def test_a_lock_that_is_not_there_is_refused(mlem: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "lost.lock: is not a file" in refused(capsys, out, "mlem", str(mlem), *NAMED, "--lock", "lost.lock")


def test_a_large_artefact_goes_to_the_remote(
    mlem: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (mlem.parent / "model").read_bytes()
    monkeypatch.setattr(convert, "LARGEST_BYTES", len(content) - 1)
    # The lock stays, however large: the serving side reads it before it asks a remote.
    lock = lock_of(mlem.parent, "mlserver-sklearn==1.7.1", "scikit-learn==1.9.1")
    remote = tmp_path / "remote"
    assert done(out, "mlem", str(mlem), *NAMED, "--lock", str(lock), "--remote", remote.as_uri()) == 0
    (pointer,) = made(out).pointers
    assert (pointer.path, pointer.size) == ("model.joblib", len(content))
    assert (remote / "files" / "md5" / pointer.md5[:2] / pointer.md5[2:]).read_bytes() == content


def test_a_lock_is_suggested_with_the_mlserver_that_the_models_here_have() -> None:
    assert {convert.MLSERVER} == locked((IRIS / "requirements.lock").read_text())["mlserver"].versions
