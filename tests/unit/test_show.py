"""What `make up` ends with."""

from __future__ import annotations

import email.message
import urllib.error
from pathlib import Path

import pytest

from model_serving.pipelines import show
from model_serving.problems import Failure

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


def test_the_examples_are_requests_that_came_with_live_releases_one_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert show.examples(MODELS) == []
    paths = [
        Path("models", *name, "request.json") for name in (("iris", "1.1"), ("classificador", "2"), ("other", "1"))
    ]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.touch()
    assert show.examples(MODELS) == [
        ("http://127.0.0.1:8080/mlapi/v2/models/iris/versions/1.1/infer", paths[0]),
        ("http://127.0.0.1:8080/mlapi/v2/models/classificador/versions/2/infer", paths[1]),
    ]


def failing(monkeypatch: pytest.MonkeyPatch, *failures: OSError) -> list[OSError]:
    """Each question ends with the next failure, and is answered when none is left."""
    left = [*failures]

    def predict(_: str, __: Path) -> str:
        if left:
            raise left.pop(0)
        return "answer"

    monkeypatch.setattr(show, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(show, "predict", predict)
    return left


def status(code: int) -> urllib.error.HTTPError:
    return urllib.error.HTTPError("http://127.0.0.1", code, "told", email.message.Message(), None)


def test_a_prediction_waits_for_pods_that_are_coming_back(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, ConnectionRefusedError(), status(404), status(503))
    assert show.predict_when_ready("http://127.0.0.1", Path("request.json")) == "answer"


def test_every_model_is_waited_for_and_one_answer_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left = failing(monkeypatch, status(503), status(503))
    show.show_prediction([("http://127.0.0.1/a", Path("a")), ("http://127.0.0.1/b", Path("b"))])
    assert left == []
    assert capsys.readouterr().out == "answer\n"


def test_a_model_that_does_not_answer_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(show, "predict", lambda url, _: _refuse(url))
    with pytest.raises(Failure, match=r"^http://127\.0\.0\.1/b did not answer: "):
        show.show_prediction([("http://127.0.0.1/a", Path("a")), ("http://127.0.0.1/b", Path("b"))])
    assert capsys.readouterr().out == ""


def _refuse(url: str) -> str:
    if url.endswith("b"):
        raise status(400)
    return "answer"


def test_what_the_model_itself_refuses_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    left = failing(monkeypatch, status(400), status(400))
    with pytest.raises(urllib.error.HTTPError, match="400"):
        show.predict_when_ready("http://127.0.0.1", Path("request.json"))
    assert len(left) == 1


def test_a_prediction_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "READY_SECONDS", -1)
    failing(monkeypatch, status(503))
    with pytest.raises(urllib.error.HTTPError, match="503"):
        show.predict_when_ready("http://127.0.0.1", Path("request.json"))
