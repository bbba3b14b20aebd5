"""Each runtime's example: trained, built and served with what its lock says, as docs/runtimes.md promises."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from local.tools.environments import provide
from model_serving import catalog
from model_serving.catalog import Release
from model_serving.images.runtimes import tag_of
from model_serving.images.settings import ImageSettings
from model_serving.releases import release, trial
from model_serving.releases.jobs import Job, Subject
from model_serving.releases.project import Project

PROJECT = Path(__file__).parents[2]
EXAMPLES = sorted(path.parent for path in (PROJECT / "templates" / "runtimes").glob("*/train.py"))
VERSION = "v1.0.0"
TRAINING_SECONDS = 120


def trained(example: Path, target: Path, python: Path) -> Release:
    """The example's release, as the serving side reads it."""
    root = target / "repository"
    shutil.copytree(example, root)
    subprocess.run([python, "train.py"], cwd=root, check=True, timeout=TRAINING_SECONDS, capture_output=True)
    name = f"runtime-{example.name}"
    project = Project.model_validate({"name": name, "serving": {"repository": "file:///serving", "delivery": "push"}})
    job = Job(site="", tag=VERSION, commit="0" * 40, is_protected=True, pipeline=None, repository=None)
    release.build(root, project, Subject(job=job, tag=VERSION, commit=job.commit), target / "models")
    return catalog.read(target / "models").get(name, VERSION)


ELSEWHERE = {
    "lightgbm": "wine-cultivars in test_templates.py, which is trained and served with the same lock",
    "mlflow": "test_convert_mlflow.py, which trains the same example and serves what mlflow has saved",
    "scikit-learn": "iris-dtc in test_trial.py and iris-decision-tree in test_templates.py, with the same lock",
}
"""What stands for an example in `make test`: its runtime serves another model there."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            each, id=each.name, marks=[pytest.mark.thorough(ELSEWHERE[each.name])] if each.name in ELSEWHERE else []
        )
        for each in EXAMPLES
    ],
)
def example(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture(scope="module")
def python(example: Path) -> Path:
    return provide(example / "requirements.lock") / "bin" / "python"


@pytest.fixture(scope="module")
def made(example: Path, python: Path, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return trained(example, tmp_path_factory.mktemp(example.name), python)


def test_an_example_of_each_runtime_is_trained_and_keeps_its_contract(made: Release, python: Path) -> None:
    assert (made.request, made.response) == (made.folder / "request.json", made.folder / "response.json")
    assert trial.run(made.folder, name=made.name, version=VERSION, python=str(python)) is True


@pytest.mark.thorough("the examples of the template, which are trained again in test_templates.py")
def test_training_an_example_again_gives_the_same_answers(
    example: Path, made: Release, python: Path, tmp_path: Path
) -> None:
    again = trained(example, tmp_path, python)
    for name in ("request.json", "response.json"):
        assert (again.folder / name).read_bytes() == (made.folder / name).read_bytes()


def test_the_lock_of_a_training_decides_the_runtime_image(tmp_path: Path) -> None:
    """Another lock is another image, whatever else the releases have in common; one lock is one image."""

    def of(lock: Path, name: str) -> Release:
        folder = tmp_path / name
        folder.mkdir()
        return Release(
            name=name, version=VERSION, folder=folder, implementation="", lock=lock, request=None, response=None
        )

    images = ImageSettings()
    tags = {example.name: tag_of(of(example / "requirements.lock", example.name), images) for example in EXAMPLES}
    assert tags.pop("custom-transformers") == tags["scikit-learn"], "they have the same packages"
    assert len({*tags.values()}) == len(tags) == 5
    twin = shutil.copy(EXAMPLES[0] / "requirements.lock", tmp_path)
    assert tag_of(of(Path(twin), "twin"), images) in tags.values()
