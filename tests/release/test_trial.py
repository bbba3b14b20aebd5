"""A release in a real MLServer on this machine."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from model_serving.problems import InvalidInput
from model_serving.releases import trial
from tests.release.repositories import OWN_CODE, RELEASED, REQUEST, RESPONSE, interpreter


def doubler(folder: Path, code: str = OWN_CODE) -> Path:
    folder.mkdir(parents=True)
    settings = {"name": "doubler", "implementation": "own.Doubler", "parameters": {"version": "v1"}}
    (folder / "model-settings.json").write_text(json.dumps(settings))
    (folder / "own.py").write_text(code)
    (folder / "request.json").write_text(json.dumps(REQUEST))
    (folder / "response.json").write_text(json.dumps(RESPONSE))
    return folder


def tried(folder: Path) -> bool | str:
    """The trial, or why it was refused."""
    try:
        return trial.run(folder, name="doubler", version="v1", python=interpreter())
    except InvalidInput as error:
        return str(error)


def test_a_released_model_keeps_its_contract() -> None:
    assert trial.run(RELEASED, name="iris-dtc", version="1.0", python=interpreter())


def test_a_model_without_a_contract_is_loaded_and_asked_nothing(tmp_path: Path) -> None:
    folder = doubler(tmp_path / "v1")
    for name in ("request.json", "response.json"):
        (folder / name).unlink()
    assert tried(folder) is False


def test_two_models_of_one_name_and_version_are_told_apart_at_the_same_moment(tmp_path: Path) -> None:
    right, wrong = doubler(tmp_path / "a"), doubler(tmp_path / "b", OWN_CODE.replace("2 * each", "3 * each"))
    with ThreadPoolExecutor() as pool:
        of_right, of_wrong = pool.map(tried, [right, wrong])
    assert of_right is True
    assert "expected: y[0] to be 2 within 0.0001; it is 3" in str(of_wrong)


def test_what_the_models_code_writes_beside_itself_is_no_part_of_the_release(tmp_path: Path) -> None:
    code = f"{OWN_CODE}\nfrom pathlib import Path\nPath(__file__).with_name('cache').touch()\n"
    folder = doubler(tmp_path / "v1", code)
    before = sorted(folder.iterdir())
    assert tried(folder) is True
    assert sorted(folder.iterdir()) == before


def test_a_model_that_refuses_a_derived_request_is_to_be_given_one(tmp_path: Path) -> None:
    folder = doubler(tmp_path / "v1", OWN_CODE.replace("doubled =", "assert payload.inputs[0].data[0]; doubled ="))
    for name in ("request.json", "response.json"):
        (folder / name).unlink()
    settings = json.loads((folder / "model-settings.json").read_text())
    inputs = [{"name": "x", "shape": [-1], "datatype": "FP32"}]
    (folder / "model-settings.json").write_text(json.dumps(settings | {"inputs": inputs}))
    told = str(tried(folder))
    assert told.startswith("request.json: doubler v1 does not keep its contract.")
    assert "add a request.json that it can answer" in told
    assert "Correct the model" not in told


def test_a_model_sees_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_SERVING_TOKEN", "secret")
    code = f"{OWN_CODE}\nimport os\nassert 'secret' not in os.environ.values()\n"
    assert tried(doubler(tmp_path / "v1", code)) is True


def test_settings_of_another_model_are_refused(tmp_path: Path) -> None:
    folder = doubler(tmp_path / "v1")
    (folder / "model-settings.json").write_text('{"name": "other", "implementation": "own.Doubler"}')
    assert "doubler cannot be loaded: its settings are of the model other" in str(tried(folder))


def test_a_model_that_cannot_be_loaded_says_why_at_once(tmp_path: Path) -> None:
    told = str(tried(doubler(tmp_path / "v1", "import no_such_package\n")))
    assert "doubler v1 cannot be loaded: ModuleNotFoundError: No module named 'no_such_package'" in told


def test_a_model_that_ends_mlserver_when_it_is_asked_is_refused_at_once_with_its_last_words(tmp_path: Path) -> None:
    code = OWN_CODE.replace(
        "doubled =", "print('out of memory')\n        import os\n        os._exit(7)\n        doubled ="
    )
    told = str(tried(doubler(tmp_path / "v1", code)))
    assert "doubler v1 cannot be served: MLServer ended with 7." in told
    assert "out of memory" in told


def test_a_model_that_takes_too_long_is_refused(tmp_path: Path) -> None:
    folder = doubler(tmp_path / "v1", "import time\ntime.sleep(600)\n")
    with pytest.raises(InvalidInput, match="it was not loaded within 1 s"):
        trial.run(folder, name="doubler", version="v1", python=interpreter(), ready_seconds=1)


def test_a_slow_model_may_take_its_answer_time_for_each_answer_and_no_longer(tmp_path: Path) -> None:
    code = OWN_CODE.replace("doubled =", "import asyncio\n        await asyncio.sleep(1)\n        doubled =")
    serve = partial(trial.run, doubler(tmp_path / "v1", code), name="doubler", version="v1", python=interpreter())
    # Three answers take longer than the first one may.
    assert serve(contract_seconds=1.5)
    with pytest.raises(InvalidInput, match=r"no answer within 0\.5 s, the answerSeconds of the model"):
        serve(contract_seconds=1.5, answer_seconds=0.5)
