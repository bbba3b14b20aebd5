"""What `make up` ends with."""

from __future__ import annotations

from pathlib import Path

import pytest

from ci import show

MODELS = {
    "iris": {
        "url": "http://127.0.0.1:8080/mlapi/v2/models/iris",
        "versions": {"1.0": {"weight": 90}, "1.1": {"weight": 10}},
    },
    "classificador": {"url": "http://127.0.0.1:8080/mlapi/v2/models/classificador", "versions": {"2": {"weight": 100}}},
}


def test_the_table_has_a_row_per_live_version() -> None:
    assert show.table(MODELS).splitlines() == [
        "MODEL          VERSION  WEIGHT  URL",
        "iris           1.0      90%     http://127.0.0.1:8080/mlapi/v2/models/iris",
        "iris           1.1      10%     http://127.0.0.1:8080/mlapi/v2/models/iris",
        "classificador  2        100%    http://127.0.0.1:8080/mlapi/v2/models/classificador",
    ]


def test_the_example_is_a_request_that_came_with_a_live_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert show.example(MODELS) is None
    request = Path("models", "iris", "1.1", "request.json")
    request.parent.mkdir(parents=True)
    request.touch()
    assert show.example(MODELS) == ("http://127.0.0.1:8080/mlapi/v2/models/iris/versions/1.1/infer", request)
