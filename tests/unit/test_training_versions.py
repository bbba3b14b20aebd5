"""What a model was trained with, and that it is not served with anything else unnoticed."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

from model_serving import catalog
from model_serving.catalog.requirements import locked
from model_serving.catalog.training_versions import (
    FLAVORS,
    SEARCHED_MEBIBYTES,
    TrainedWith,
    sklearn_version,
    trained_with,
)
from model_serving.problems import InvalidInput, Problem

MODELS = Path(__file__).parents[2] / "models"
HASH = f"--hash=sha256:{'0' * 64}"
SKLEARN = "mlserver_sklearn.SKLearnModel"


class Estimator:
    """Keeps its state as scikit-learn's estimators do."""

    def __init__(self, version: str, **state: Any) -> None:
        self._state = state | {"_sklearn_version": version}

    def __getstate__(self) -> dict[str, Any]:
        return self._state


def lock(*pins: str) -> str:
    packages = ["mlserver==1.7.1", "mlserver-sklearn==1.7.1", "mlserver-mlflow==1.7.1", *pins]
    return "".join(f"{each} \\\n    {HASH}\n" for each in packages)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release of scikit-learn 1.7.2, by its artefact, and served with that."""
    folder = tmp_path / "models" / "iris" / "1.0"
    folder.mkdir(parents=True)
    (folder / "model.joblib").write_bytes(pickle.dumps(Estimator("1.7.2")))
    (folder / "requirements.lock").write_text(lock("scikit-learn==1.7.2"))
    settings(folder)
    return folder


def settings(folder: Path, implementation: str = SKLEARN, uri: str = "./model.joblib", **parameters: Any) -> None:
    content = {
        "name": "iris",
        "implementation": implementation,
        "parameters": {"version": "1.0", "uri": uri} | parameters,
    }
    (folder / "model-settings.json").write_text(json.dumps(content))


def provenance(folder: Path, **packages: str) -> None:
    content = {"packages": {name.replace("_", "-"): version for name, version in packages.items()}}
    (folder / "provenance.json").write_text(json.dumps(content))


def problems(release: Path) -> tuple[Problem, ...]:
    try:
        catalog.read(release.parents[1])
    except InvalidInput as error:
        return error.problems
    return ()


# What an artefact says


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("before", [0, 10, 300, 70_000])
def test_the_version_is_found_in_a_pickle_of_each_protocol(tmp_path: Path, protocol: int, before: int) -> None:
    """What comes before it moves it to other numbers of the memo, and across the frames of a large pickle."""
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps([[f"name {each}" for each in range(before)], Estimator("1.10.0rc1")], protocol))
    assert sklearn_version(path) == "1.10.0rc1"


@pytest.mark.parametrize("path", sorted(MODELS.rglob("*.joblib")), ids=lambda path: path.stem)
def test_the_version_is_found_in_what_scikit_learn_wrote(path: Path) -> None:
    locked_in = locked((path.parent / "requirements.lock").read_text())["scikit-learn"]
    assert locked_in.versions == {sklearn_version(path)}


def test_the_text_that_follows_the_version_is_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    # Protocol 2 writes a q behind each text, which a version could have.
    path.write_bytes(pickle.dumps(Estimator("1.7"), 2))
    assert sklearn_version(path) == "1.7"


@pytest.mark.parametrize("content", [b"", b"tree", b"_sklearn_version", b"_sklearn_version\x94\x8c\x05hello"])
def test_a_file_without_a_version_says_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.joblib"
    path.write_bytes(content)
    assert sklearn_version(path) is None


def test_a_large_artefact_is_read_no_further_than_said(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(bytes(SEARCHED_MEBIBYTES * 1024 * 1024) + pickle.dumps(Estimator("1.7.2")))
    assert sklearn_version(path) is None


def test_an_artefact_is_never_unpickled(release: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "sprung",)

    (release / "model.joblib").write_bytes(pickle.dumps([Trap(), Estimator("1.7.2")]))
    assert problems(release) == ()
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("flavor", FLAVORS)
def test_an_mlflow_model_says_what_each_flavor_was_made_with(tmp_path: Path, flavor: str) -> None:
    package, key = FLAVORS[flavor]
    path = tmp_path / "model" / "MLmodel"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump({"flavors": {flavor: {key: "1.2.3"}}, "mlflow_version": "3.1.0"}))
    assert list(trained_with(tmp_path, "mlserver_mlflow.MLflowRuntime", path.parent)) == [
        TrainedWith(package="mlflow", version="3.1.0", told_by=path),
        TrainedWith(package=package, version="1.2.3", told_by=path),
    ]


# What is served


def test_a_release_that_is_served_with_the_version_of_its_training_is_accepted(release: Path) -> None:
    provenance(release, scikit_learn="1.7.2", numpy="2.0")
    assert problems(release) == ()


def test_a_release_that_its_artefact_says_is_of_another_version_is_refused(release: Path) -> None:
    (release / "requirements.lock").write_text(lock("scikit-learn==1.9.1"))
    assert problems(release) == (
        Problem(
            file="models/iris/1.0/model.joblib",
            what="was made with scikit-learn 1.7.2, and models/iris/1.0/requirements.lock has 1.9.1",
            consequence="Another version may fail to load the model, or load it and give different predictions.",
            remedy="Lock scikit-learn==1.7.2, or train again; if the other version is known to work, write "
            '"extra": {"acceptsOtherVersions": ["scikit-learn"]} inside "parameters" of '
            "models/iris/1.0/model-settings.json.",
        ),
    )


def test_a_release_that_its_provenance_says_is_of_another_version_is_refused(release: Path) -> None:
    provenance(release, Scikit_Learn="1.6.0")
    (found,) = problems(release)
    assert (found.file, found.what.partition(",")[0]) == (
        "models/iris/1.0/provenance.json",
        "was made with scikit-learn 1.6.0",
    )


def test_a_model_may_accept_another_version(release: Path) -> None:
    (release / "requirements.lock").write_text(lock("scikit-learn==1.9.1"))
    settings(release, extra={"acceptsOtherVersions": ["scikit-learn"]})
    assert problems(release) == ()


def test_a_package_that_does_not_read_the_artefact_may_be_of_any_version(release: Path) -> None:
    provenance(release, scikit_learn="1.7.2", lightgbm="4.0")
    (release / "requirements.lock").write_text(lock("scikit-learn==1.7.2", "lightgbm==4.7.0"))
    assert problems(release) == ()


def test_each_framework_counts_where_nobody_knows_which_one_the_code_uses(release: Path) -> None:
    (release / "own.py").write_text("class Model: ...\n")
    settings(release, implementation="own.Model")
    provenance(release, scikit_learn="1.7.2", lightgbm="4.0")
    (release / "requirements.lock").write_text(lock("scikit-learn==1.7.2", "lightgbm==4.7.0"))
    (found,) = problems(release)
    assert found.what.startswith("was made with lightgbm 4.0")


def test_a_pickle_that_a_models_own_code_loads_counts_too(release: Path) -> None:
    """The class beside it only imports the transformers that the pickle names."""
    (release / "served.py").write_text("class Model: ...\n")
    settings(release, implementation="served.Model")
    assert problems(release) == ()
    (release / "requirements.lock").write_text(lock("scikit-learn==1.9.1"))
    (found,) = problems(release)
    assert (found.file, found.what.partition(",")[0]) == (
        "models/iris/1.0/model.joblib",
        "was made with scikit-learn 1.7.2",
    )


def test_a_lock_with_a_version_for_each_platform_has_the_right_one(release: Path) -> None:
    pins = ("scikit-learn==1.7.2 ; python_version < '3.12'", "scikit-learn==1.9.1 ; python_version >= '3.12'")
    (release / "requirements.lock").write_text(lock(*pins))
    assert problems(release) == ()


@pytest.mark.parametrize("accepted", ["scikit-learn", [1], None])
def test_what_a_model_accepts_has_to_be_a_list_of_packages(release: Path, accepted: object) -> None:
    settings(release, extra={"acceptsOtherVersions": accepted})
    (found,) = problems(release)
    assert found.remedy == 'Write a list of packages: "acceptsOtherVersions": ["scikit-learn"]'


@pytest.mark.parametrize("text", ["", "[]", "{", '{"packages": ["scikit-learn"]}'])
def test_a_provenance_that_says_nothing_is_no_mistake_of_the_models(release: Path, text: str) -> None:
    (release / "provenance.json").write_text(text)
    assert problems(release) == ()
