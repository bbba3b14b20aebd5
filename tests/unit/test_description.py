"""What people are told about a release."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model_serving.catalog import Release
from model_serving.catalog.description import describe

LOCK = "scikit-learn==1.9.1 --hash=sha256:1\nmlserver==1.7.1 --hash=sha256:2\nnumpy==2.0 --hash=sha256:3\n"
INPUTS = [{"name": "predict", "datatype": "FP32", "shape": [-1, 4]}]
REQUEST = {"inputs": [{"name": "predict", "shape": [1, 4], "datatype": "FP32", "data": [5, 3.4, 1.5, 0.2]}]}
ORIGIN = {
    "repository": "https://git.example.com/iris",
    "commit": "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    "tag": "v1",
    "pipeline": "https://git.example.com/iris/-/pipelines/7",
}


def release(folder: Path, *, implementation: str = "mlserver_sklearn.SKLearnModel", **files: Any) -> Release:
    """A release with these files, by the names that they have without their suffix; text is written as it is."""
    for name, content in {"model-settings": {"inputs": INPUTS}, **files}.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{name}.json").write_text(text)
    lock = folder / "requirements.lock"
    lock.write_text(LOCK)
    request = folder / "request.json"
    return Release(
        name="iris",
        version="v1",
        folder=folder,
        implementation=implementation,
        lock=lock,
        request=request if request.is_file() else None,
        response=None,
    )


def test_a_release_is_described_by_its_files(tmp_path: Path) -> None:
    provenance = {**ORIGIN, "data": None, "packages": {"numpy": "2.0"}}
    assert describe(release(tmp_path, request=REQUEST, provenance=provenance)) == {
        "implementation": "mlserver_sklearn.SKLearnModel",
        "frameworks": {"scikit-learn": "1.9.1", "mlserver": "1.7.1"},
        "inputs": INPUTS,
        "request": REQUEST,
        "origin": ORIGIN,
    }


def test_a_class_of_ones_own_is_described_by_every_known_framework(tmp_path: Path) -> None:
    described = describe(release(tmp_path, implementation="own.Model"))
    assert described["frameworks"] == {"scikit-learn": "1.9.1", "mlserver": "1.7.1"}


@pytest.mark.parametrize(
    "request_text",
    [
        json.dumps({"inputs": [{"data": [0] * 20_000}]}),
        '{"inputs": [], "parameters": {"missing": NaN}}',
        '{"inputs": [], "parameters": {"infinite": 1e999}}',
        "[" * 100_000,
        "nonsense",
        "[1]",
    ],
    ids=["large", "nan", "infinite", "deep", "nonsense", "list"],
)
def test_an_example_that_cannot_be_shown_is_left_out(tmp_path: Path, request_text: str) -> None:
    described = describe(release(tmp_path, request=request_text))
    assert "request" not in described
    assert described["inputs"] == INPUTS


@pytest.mark.parametrize("provenance", [{}, {"packages": {}}, {"commit": 1, "tag": None}, "nonsense"])
def test_a_release_without_an_origin_has_none(tmp_path: Path, provenance: Any) -> None:
    assert "origin" not in describe(release(tmp_path, provenance=provenance))
