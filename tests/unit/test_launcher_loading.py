"""Why a release cannot be loaded, as the log and Kubernetes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.launcher.loading import LONGEST_MESSAGE, NoImplementation, Unloadable, report, settings_file, unloadable


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "models" / "iris-dtc"
    (made / "other").mkdir(parents=True)
    (made / "model.joblib").touch()
    for place in (made, made / "other"):
        (place / "model-settings.json").write_text("{}")
    return made


def told(folder: Path, error: BaseException, implementation: str = "mlserver_sklearn.SKLearnModel") -> Unloadable:
    artefact = folder / "model.joblib"
    return unloadable("iris-dtc 1.0", error, implementation=implementation, artefact=artefact, folder=folder)


def test_only_the_settings_at_the_top_of_a_release_count(folder: Path) -> None:
    assert settings_file(folder.parent) == folder / "model-settings.json"


def test_an_image_holds_one_release(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Unloadable, match="must hold one release; there is none"):
        settings_file(tmp_path)
    (folder.parent / "another").mkdir()
    (folder.parent / "another" / "model-settings.json").touch()
    with pytest.raises(Unloadable, match=r"there is another/model-settings\.json, iris-dtc/model-settings\.json"):
        settings_file(folder.parent)


def test_an_empty_artefact_is_named(folder: Path) -> None:
    reason = told(folder, EOFError("Ran out of input"))
    assert str(reason).startswith(
        "iris-dtc 1.0 cannot be loaded: EOFError: Ran out of input\n  file: model.joblib (0 bytes)\n  The file is not"
    )
    (folder / "model.joblib").unlink()
    assert told(folder, EOFError()).file == "model.joblib (not there)"


def test_an_error_without_a_text_is_its_type(folder: Path) -> None:
    assert told(folder, EOFError()).what == "iris-dtc 1.0 cannot be loaded: EOFError"


def test_the_error_of_a_worker_has_its_type_in_its_text(folder: Path) -> None:
    error = type("WorkerError", (Exception,), {})("builtins.EOFError: Ran out of input")
    assert told(folder, error).what == "iris-dtc 1.0 cannot be loaded: EOFError: Ran out of input"


@pytest.mark.parametrize("at_import", [True, False])
def test_a_package_that_is_not_locked_is_named(folder: Path, at_import: bool) -> None:
    error: BaseException = ModuleNotFoundError("No module named 'lightgbm'", name="lightgbm")
    if at_import:
        error = caused(error)
    reason = told(folder, error)
    assert (reason.file, reason.remedy.startswith("A package is missing")) == ("requirements.lock", True)
    assert "No module named 'lightgbm'" in reason.what


def caused(error: BaseException) -> NoImplementation:
    made = NoImplementation()
    made.__cause__ = error
    return made


@pytest.mark.parametrize("name", ["own", "own.models"])
def test_an_implementation_that_is_nowhere_is_named(folder: Path, name: str) -> None:
    reason = told(folder, caused(ModuleNotFoundError(f"No module named '{name}'", name=name)), "own.models.Model")
    assert reason.file == "model-settings.json"
    assert "The module of the implementation own.models.Model is neither in requirements.lock nor" in reason.remedy


def test_an_implementation_that_is_not_one_is_named(folder: Path) -> None:
    reason = told(folder, caused(AttributeError("module 'own' has no attribute 'Nope'")), "own.Nope")
    assert reason.what == "iris-dtc 1.0 cannot be loaded: AttributeError: module 'own' has no attribute 'Nope'"
    assert reason.remedy == "Correct the implementation own.Nope, or its code, and release a new version."


def test_a_model_that_needs_more_memory_says_where_to_give_it(folder: Path) -> None:
    assert "resources.memory" in told(folder, MemoryError()).remedy


def test_kubernetes_is_told_if_it_asks(folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    report(told(folder, EOFError()), log)
    assert not log.exists()
    log.touch()
    report(told(folder, EOFError("é" * 9999)), log)
    assert log.read_bytes().startswith(b"iris-dtc 1.0 cannot be loaded: EOFError: ")
    assert log.stat().st_size == LONGEST_MESSAGE
