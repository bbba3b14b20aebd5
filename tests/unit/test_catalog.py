from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_serving import catalog
from model_serving.catalog.requirements import LOCK_COMMAND, LOCK_HELP
from model_serving.problems import InvalidInput, Problem

HASH = f"--hash=sha256:{'0' * 64}"
LOCK = f"mlserver==1.7.1 \\\n    {HASH}\n    # via mlserver-sklearn\nmlserver-sklearn==1.7.1 \\\n    {HASH}\n"
REQUEST = {"inputs": [{"name": "predict", "shape": [1, 4], "datatype": "FP32", "data": [5, 3.4, 1.5, 0.2]}]}
RESPONSE = {"outputs": [{"name": "predict", "shape": [1, 1], "datatype": "INT64", "data": [0]}]}

Write = Callable[..., Path]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def write(models: Path) -> Write:
    """Writes a release that is in order, save for what a test says."""

    def write(
        name: str = "iris-dtc", version: str = "1.0", *, lock: str | None = LOCK, settings: dict[str, Any] | None = None
    ) -> Path:
        folder = models / name / version
        folder.mkdir(parents=True)
        (folder / "model.joblib").write_bytes(b"trained")
        if lock is not None:
            (folder / "requirements.lock").write_text(lock)
        content = {
            "name": name,
            "implementation": "mlserver_sklearn.SKLearnModel",
            "parameters": {"version": version, "uri": "./model.joblib"},
        } | (settings or {})
        kept = {key: value for key, value in content.items() if value is not None}
        (folder / "model-settings.json").write_text(json.dumps(kept))
        return folder

    return write


def problems(models: Path) -> tuple[Problem, ...]:
    with pytest.raises(InvalidInput) as caught:
        catalog.read(models)
    return caught.value.problems


def only(models: Path) -> Problem:
    found = problems(models)
    assert len(found) == 1, [str(problem) for problem in found]
    return found[0]


# What is read


def test_a_release_is_read_with_its_lock_and_contract(models: Path, write: Write) -> None:
    folder = write()
    (folder / "request.json").write_text(json.dumps(REQUEST))
    (folder / "response.json").write_text(json.dumps(RESPONSE))
    assert catalog.read(models).get("iris-dtc", "1.0") == catalog.Release(
        name="iris-dtc",
        version="1.0",
        folder=folder,
        implementation="mlserver_sklearn.SKLearnModel",
        lock=folder / "requirements.lock",
        request=folder / "request.json",
        response=folder / "response.json",
    )


def test_a_release_without_a_contract_has_none(models: Path, write: Write) -> None:
    write()
    release = catalog.read(models).newest("iris-dtc")
    assert release.request is None
    assert release.response is None


def test_a_release_without_a_lock_is_served_with_the_lock_of_all_models(models: Path, write: Write) -> None:
    write(lock=None)
    (models / "requirements.lock").write_text(LOCK)
    assert catalog.read(models).newest("iris-dtc").lock == models / "requirements.lock"


def test_the_lock_of_a_release_wins_over_that_of_all_models(models: Path, write: Write) -> None:
    folder = write()
    (models / "requirements.lock").write_text("")
    assert catalog.read(models).newest("iris-dtc").lock == folder / "requirements.lock"


def test_a_class_of_the_release_itself_needs_mlserver_alone_and_no_artefact(models: Path, write: Write) -> None:
    lock = f"mlserver==1.7.1 {HASH}\n"
    folder = write(lock=lock, settings={"implementation": "runtime.Rules", "parameters": {"version": "1.0"}})
    (folder / "runtime.py").write_text("class Rules: ...\n")
    assert catalog.read(models).newest("iris-dtc").implementation == "runtime.Rules"


def test_an_artefact_may_be_a_folder(models: Path, write: Write) -> None:
    folder = write(settings={"parameters": {"version": "1.0", "uri": "./artefact"}})
    (folder / "artefact").mkdir()
    (folder / "artefact" / "weights").write_bytes(b"trained")
    assert catalog.read(models).names() == ("iris-dtc",)


def test_what_is_no_release_by_its_name_is_left_alone(models: Path, write: Write) -> None:
    write()
    for path in (".DS_Store", "README.md", "iris-dtc/.gitkeep", "iris-dtc/README.md"):
        (models / path).touch()
    (models / "__pycache__").mkdir()
    (models / "iris-dtc" / ".ipynb_checkpoints").mkdir()
    assert [release.version for release in catalog.read(models).releases("iris-dtc")] == ["1.0"]


def test_models_are_named_in_alphabetical_order(models: Path, write: Write) -> None:
    for name in ("wine", "iris", "products"):
        write(name)
    assert catalog.read(models).names() == ("iris", "products", "wine")


def test_what_was_never_released_is_a_key_error(models: Path, write: Write) -> None:
    write()
    read = catalog.read(models)
    with pytest.raises(KeyError, match=r"2\.0"):
        read.get("iris-dtc", "2.0")
    with pytest.raises(KeyError, match="wine"):
        read.get("wine", "1.0")
    with pytest.raises(KeyError, match="wine"):
        read.newest("wine")


# Versions


@pytest.mark.parametrize(
    "oldest_first",
    [
        ("v0.0.9", "v0.0.10"),
        ("0.9", "1.0", "1.1", "1.10", "2.0"),
        ("1.0.0-rc1", "1.0"),
        ("1.2.3-alpha", "1.2.3-beta", "1.2.3"),
        ("v0.0.9", "0.0.10", "v1"),
    ],
    ids=" < ".join,
)
def test_the_newest_is_the_newest_in_semantic_order(models: Path, write: Write, oldest_first: tuple[str, ...]) -> None:
    for version in sorted(oldest_first):
        write(version=version)
    read = catalog.read(models)
    assert tuple(release.version for release in read.releases("iris-dtc")) == oldest_first
    assert read.newest("iris-dtc").version == oldest_first[-1]


@pytest.mark.parametrize(
    ("version", "slug"),
    [("1.0", "1-0"), ("v0.0.10", "v0-0-10"), ("1.2.3-RC1", "1-2-3-rc1"), ("1.0.0-a--b", "1-0-0-a-b")],
)
def test_the_slug_is_the_version_as_a_part_of_a_dns_label(models: Path, write: Write, version: str, slug: str) -> None:
    write(version=version)
    release = catalog.read(models).newest("iris-dtc")
    assert release.slug == slug
    assert release.label == f"iris-dtc-{slug}"


# The content hash


def hash_of(models: Path) -> str:
    return catalog.read(models).newest("iris-dtc").content_hash


def test_the_content_hash_is_that_of_the_content_not_of_the_place(tmp_path: Path, models: Path, write: Write) -> None:
    write()
    before = hash_of(models)
    assert len(before) == 64
    assert hash_of(models.rename(tmp_path / "elsewhere")) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "model.joblib").write_bytes(b"trained again"),
        lambda folder: (folder / "labels.txt").write_bytes(b""),
        lambda folder: (folder / "requirements.lock").write_text(f"{LOCK}\n"),
        lambda folder: (folder / "notes").mkdir() or (folder / "notes" / "a.txt").touch(),
    ],
    ids=["bytes", "file", "lock", "nested file"],
)
def test_the_content_hash_changes_with_the_content(
    models: Path, write: Write, change: Callable[[Path], object]
) -> None:
    folder = write()
    before = hash_of(models)
    change(folder)
    assert hash_of(models) != before


def test_the_content_hash_tells_names_and_bytes_apart(models: Path, write: Write) -> None:
    folder = write()
    (folder / "a").write_bytes(b"b")
    before = hash_of(models)
    (folder / "a").rename(folder / "b")
    assert hash_of(models) != before


def test_what_is_no_part_of_a_release_leaves_its_hash_alone(models: Path, write: Write) -> None:
    folder = write()
    before = hash_of(models)
    (folder / ".DS_Store").write_bytes(b"view")
    for hidden in (".dvc", "__pycache__", "nested/__pycache__"):
        (folder / hidden).mkdir(parents=True)
        (folder / hidden / "cache").write_bytes(b"cache")
    (folder / "model.joblib").touch()
    assert hash_of(models) == before


# Bad input: the folder


def test_every_problem_is_told_at_once_each_with_its_file(models: Path, write: Write) -> None:
    (write() / "model.joblib").unlink()
    write("wine-", lock=None)
    (write("products", "latest") / "model-settings.json").write_text("{")
    (models / "stray.txt").touch()
    assert [problem.file for problem in problems(models)] == [
        "models/stray.txt",
        "models/iris-dtc/1.0/model-settings.json",
        "models/products/latest",
        "models/products/latest/model-settings.json",
        "models/wine-",
        "models/wine-/1.0",
    ]


def test_a_problem_names_the_file_what_follows_and_the_cure(models: Path, write: Write) -> None:
    (write() / "model.joblib").unlink()
    with pytest.raises(InvalidInput) as caught:
        catalog.read(models)
    assert str(caught.value) == (
        'models/iris-dtc/1.0/model-settings.json: parameters.uri is "./model.joblib", which does not exist\n'
        "  The image would not contain the artefact, and the model server has no network to fetch it.\n"
        "  Put the artefact into models/iris-dtc/1.0 and write its path from there."
    )


def test_paths_in_problems_are_relative_to_the_root(models: Path, write: Write) -> None:
    write("wine-")
    with pytest.raises(InvalidInput, match=f"^{models.parent.name}/models/wine-: "):
        catalog.read(models, root=models.parent.parent)


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_without_models_is_refused(models: Path, exists: bool) -> None:
    if not exists:
        models.rmdir()
    problem = only(models)
    assert problem.what == "contains no model"
    assert problem.remedy == "Add a release: models/<name>/<version>/ with its model-settings.json and artefact."


def test_a_model_without_versions_is_refused(models: Path) -> None:
    (models / "iris-dtc").mkdir()
    assert only(models).remedy == "Add a release, models/iris-dtc/<version>/, or remove the folder."


def test_a_file_where_a_model_is_expected_is_refused(models: Path, write: Write) -> None:
    write()
    (models / "model.joblib").touch()
    assert only(models).remedy == "Move it into a release, models/<name>/<version>/, or remove it."


def test_a_file_where_a_version_is_expected_is_refused(models: Path, write: Write) -> None:
    write()
    (models / "iris-dtc" / "model.joblib").touch()
    assert only(models).remedy == "Move it into a release, models/iris-dtc/<version>/, or remove it."


# Bad input: names and versions


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("iris", "iris-1-0"),
        ("iris-dtc", "iris-dtc-1-0"),
        ("my_model", "my-model-535d4cfe-1-0"),
        ("My_model", "my-model-913a9586-1-0"),
        ("Apple_RF_Model", "apple-rf-model-fc039d4b-1-0"),
        ("llama.cpp.llama2", "llama-cpp-llama2-76916ea4-1-0"),
        ("3d-shapes", "m-3d-shapes-bf056c09-1-0"),
    ],
)
def test_a_model_keeps_its_name_and_its_kubernetes_name_is_derived(
    models: Path, write: Write, name: str, label: str
) -> None:
    write(name)
    release = catalog.read(models).newest(name)
    assert release.name == name
    assert release.label == label, "names of what runs already never change"
    assert f"{release.repository}-1-0" == label


@pytest.mark.parametrize("name", ["iris-", "-iris", "iris.lock", "_iris", "iris..dtc", "íris", "my model", "i" * 64])
def test_the_refusal_of_a_name_says_what_is_allowed(models: Path, write: Write, name: str) -> None:
    write(name)
    problem = problems(models)[0]
    assert problem.what == f'the model\'s name is "{name}"'
    assert problem.remedy == (
        "Rename the folder: up to 63 letters, digits, ., _ and -, starting and ending with a letter or digit, "
        "no two dots in a row, no .lock at the end."
    )


def test_two_models_with_one_name_in_kubernetes_are_refused(models: Path, write: Write) -> None:
    write("my_model", "1.0")
    write("my-model-535d4cfe", "2.0")
    problem = only(models)
    assert problem.file == "models/my_model"
    assert problem.what == ("it and models/my-model-535d4cfe would both have the name my-model-535d4cfe in Kubernetes")


def test_a_name_that_leaves_no_room_for_the_version_is_refused(models: Path, write: Write) -> None:
    write("a" * 59, "1.0")
    write("b" * 62, "1.0")
    problem = only(models)
    assert "have 66 characters" in problem.what
    assert problem.remedy == "Shorten the model's name or the version by 3 or more."


@pytest.mark.parametrize("version", ["1.0.0+build", "1.0.0-a-", f"1.0.0-{'a' * 58}"])
def test_a_version_that_is_no_registry_tag_is_refused(models: Path, write: Write, version: str) -> None:
    write("i", version)
    remedies = [problem.remedy for problem in problems(models)]
    assert remedies[0] == (
        "Rename the folder: up to 63 letters, digits, ., _ and -, starting and ending with a letter or digit."
    )


@pytest.mark.parametrize(
    ("version", "form"),
    [
        ("v2024-9-1", "v2024.9.1"),
        ("2024-09-01", "2024.9.1"),
        ("2024.09.01", "2024.9.1"),
        ("2024_01", "2024.1"),
        ("2024.9-1", "2024.9.1"),
        ("01.0", "1.0"),
    ],
)
def test_a_date_is_refused_with_the_version_to_use(models: Path, write: Write, version: str, form: str) -> None:
    write(version=version)
    problem = only(models)
    assert problem.what == f'the version "{version}" has no semantic order'
    assert problem.remedy == f"Rename the folder to {form}."


@pytest.mark.parametrize("version", ["latest", "1.0.0.0", "version-1", "V1.0", "1.x", "2024-9-1-rc1"])
def test_a_version_without_semantic_order_is_refused(models: Path, write: Write, version: str) -> None:
    write(version=version)
    problem = only(models)
    assert problem.what == f'the version "{version}" has no semantic order'
    assert problem.remedy == "Rename the folder like 1.0, 1.2.3, v0.0.10 or 1.2.3-rc1, numbers without leading zeros."


@pytest.mark.parametrize(("one", "other"), [("1.0", "1.0.0"), ("1.0", "v1.0"), ("2", "v2.0.0")])
def test_two_versions_of_one_order_are_refused(models: Path, write: Write, one: str, other: str) -> None:
    write(version=one)
    write(version=other)
    problem = only(models)
    assert problem.what == f"{one} and {other} are the same version in semantic order"
    assert problem.remedy == "Remove the one that was never published, or release it under a higher version."


@pytest.mark.parametrize(
    ("one", "other", "label"),
    [
        (("iris", "1.0.0-a--b"), ("iris", "1.0.0-a-b"), "iris-1-0-0-a-b"),
        (("iris", "1.0.0-RC1"), ("iris", "1.0.0-rc1"), "iris-1-0-0-rc1"),
        (("iris", "1.0"), ("iris-1", "0"), "iris-1-0"),
    ],
    ids=["slug", "case", "models"],
)
def test_two_releases_that_would_be_served_under_one_name_are_refused(
    models: Path, write: Write, one: tuple[str, str], other: tuple[str, str], label: str
) -> None:
    write(*one)
    write(*other)
    problem = only(models)
    assert problem.file == f"models/{'/'.join(other)}"
    assert problem.what == f"it and models/{'/'.join(one)} would both be served as {label}"
    assert problem.remedy == "Rename the one that was never published, so that they differ in more than . - _ or case."


# Bad input: model-settings.json


def test_missing_settings_are_refused(models: Path, write: Write) -> None:
    (write() / "model-settings.json").unlink()
    assert only(models).remedy == (
        'Write it, with "name", "implementation", and "version" and "uri" inside "parameters".'
    )


def test_malformed_settings_are_refused_with_line_and_column(models: Path, write: Write) -> None:
    (write() / "model-settings.json").write_text('{\n  "name": "iris-dtc"\n  "implementation": ""\n}\n')
    problem = only(models)
    assert problem.what.startswith("line 3, column 3: ")
    assert problem.remedy == (
        "Correct it. To check the file, run: python3 -m json.tool models/iris-dtc/1.0/model-settings.json"
    )


def test_settings_that_are_not_utf_8_are_refused_with_line_and_column(models: Path, write: Write) -> None:
    (write() / "model-settings.json").write_bytes('{\n  "name": "vestuário"}'.encode("latin-1"))
    problem = only(models)
    assert problem.what == "line 2, column 17: not UTF-8"
    assert problem.remedy == "Save the file as UTF-8."


def test_settings_that_are_no_object_are_refused(models: Path, write: Write) -> None:
    (write() / "model-settings.json").write_text("[]")
    assert only(models).remedy == "Begin it with { and end it with }."


def test_a_name_that_differs_from_the_folder_is_refused(models: Path, write: Write) -> None:
    write(settings={"name": "iris"})
    problem = only(models)
    assert problem.what == 'name is "iris", and that of the release is "iris-dtc"'
    assert problem.remedy == 'Write "name": "iris-dtc"'


def test_a_version_that_differs_from_the_folder_is_refused(models: Path, write: Write) -> None:
    write(settings={"parameters": {"version": "1.1", "uri": "./model.joblib"}})
    problem = only(models)
    assert problem.what == 'parameters.version is "1.1", and that of the release is "1.0"'
    assert problem.remedy == 'Write "version": "1.0"'


def test_a_version_outside_of_parameters_is_refused(models: Path, write: Write) -> None:
    # MLServer ignores it there, and answers 404 to a request for the version.
    write(settings={"version": "1.0", "parameters": {"uri": "./model.joblib"}})
    problem = only(models)
    assert problem.what == "parameters.version is missing; it is outside of parameters"
    assert problem.remedy == 'Write a string inside parameters: "version": "1.0"'


@pytest.mark.parametrize(
    ("settings", "what", "remedy"),
    [
        (
            {"implementation": None},
            "implementation is missing",
            'Write a string: "implementation": "mlserver_sklearn.SKLearnModel"',
        ),
        (
            {"implementation": None, "implementaton": "mlserver_sklearn.SKLearnModel"},
            'implementation is missing; there is "implementaton"',
            'Write a string: "implementation": "mlserver_sklearn.SKLearnModel"',
        ),
        (
            {"implementation": ["mlserver_sklearn.SKLearnModel"]},
            'implementation is ["mlserver_sklearn.SKLearnModel"]',
            'Write a string: "implementation": "mlserver_sklearn.SKLearnModel"',
        ),
        (
            {"implementation": "SKLearnModel"},
            'implementation is "SKLearnModel", which is not a class in a module',
            'Write the module and the class, separated by a dot: "implementation": "mlserver_sklearn.SKLearnModel"',
        ),
        ({"parameters": None}, "parameters is missing", 'Write an object: "parameters": {"version": "1.0", "uri": …}'),
        ({"parameters": 1}, "parameters is 1", 'Write an object: "parameters": {"version": "1.0", "uri": …}'),
        (
            {"parameters": {"version": 1.0, "uri": "./model.joblib"}},
            "parameters.version is 1.0",
            'Write a string inside parameters: "version": "1.0"',
        ),
        (
            {"parameters": {"version": "1.0"}},
            "parameters.uri is missing",
            'Write a string inside parameters: "uri": "./model.joblib"',
        ),
        (
            {"parameters": {"version": "1.0", "uri": ""}},
            'parameters.uri is ""',
            'Write a string inside parameters: "uri": "./model.joblib"',
        ),
        (
            {"inputs": {}},
            "inputs is not a list of tensors",
            'Write "inputs": a list of objects with name, shape, datatype.',
        ),
        (
            {"outputs": [{"name": "predict", "shape": [-1], "datatype": "FLOAT"}]},
            'outputs[0].datatype is "FLOAT"',
            'Write for example "datatype": "FP32", or BOOL, BYTES, FP16 to FP64, INT8 to INT64, UINT8 to UINT64.',
        ),
    ],
)
def test_a_key_that_is_missing_or_of_another_type_is_refused(
    models: Path, write: Write, settings: dict[str, Any], what: str, remedy: str
) -> None:
    write(settings=settings)
    problem = only(models)
    assert problem.file == "models/iris-dtc/1.0/model-settings.json"
    assert problem.what == what
    assert problem.remedy == remedy


@pytest.mark.parametrize(
    ("settings", "what", "why"),
    [
        ({"max_batch_size": 16}, "max_batch_size is 16", "merges requests that ask for different outputs"),
        ({"max_batch_size": "16"}, 'max_batch_size is "16"', "Remove it, together with max_batch_time."),
        ({"max_batch_time": 0.05}, "max_batch_time is 0.05", "no effect without max_batch_size"),
        ({"parallel_workers": 2}, "parallel_workers is 2", "set workers for the model"),
        ({"warm_workers": True}, "warm_workers is true", "MLServer ignores it"),
        ({"http_port": 9000}, "http_port is 9000", "It is a setting of the server"),
        ({"content_type": "pd"}, 'content_type is "pd"', "Move it inside parameters."),
    ],
)
def test_a_key_that_mlserver_ignores_or_that_does_harm_is_refused(
    models: Path, write: Write, settings: dict[str, Any], what: str, why: str
) -> None:
    write(settings=settings)
    problem = only(models)
    assert problem.what == what
    assert why in str(problem)


@pytest.mark.parametrize(
    ("parameters", "what", "remedy"),
    [
        (
            {"environment_tarball": "./no-such.tar.gz"},
            'parameters.environment_tarball is "./no-such.tar.gz"',
            "lock what the model needs",
        ),
        ({"environment_path": "./env"}, 'parameters.environment_path is "./env"', "lock what the model needs"),
        ({"inference_pool_gid": "a"}, 'parameters.inference_pool_gid is "a"', "Remove it."),
        ({"autogenerate_inference_pool_gid": True}, "parameters.autogenerate_inference_pool_gid is true", "Remove it."),
        ({"parallel_workers": 2}, "parameters.parallel_workers is 2", "set workers for the model"),
        ({"cache_enabled": True}, "parameters.cache_enabled is true", "Move it outside of parameters."),
        ({"debug": True}, "parameters.debug is true", "docs/runtimes.md says how a stack sets it"),
    ],
)
def test_a_parameter_that_mlserver_ignores_or_that_does_harm_is_refused(
    models: Path, write: Write, parameters: dict[str, Any], what: str, remedy: str
) -> None:
    write(settings={"parameters": {"version": "1.0", "uri": "./model.joblib"} | parameters})
    problem = only(models)
    assert problem.what == what
    assert remedy in problem.remedy


def test_keys_that_mlserver_honours_and_defaults_are_accepted(models: Path, write: Write) -> None:
    parameters = {"version": "1.0", "uri": "./model.joblib", "format": "x", "content_type": "np", "extra": {"a": 1}}
    harmless = {"inference_pool_gid": None, "autogenerate_inference_pool_gid": False, "threshold": 0.5}
    write(
        settings={
            "parameters": parameters | harmless,
            "platform": "sklearn",
            "versions": ["sklearn/1.7.2"],
            "cache_enabled": True,
            "parallel_workers": 0,
            "max_batch_size": 0,
            "version": "1.0",
            "description": "flowers",
        }
    )
    assert catalog.read(models).names() == ("iris-dtc",)


@pytest.mark.parametrize("name", ["model-settings.json", "model-settings.json.dvc"])
def test_a_second_model_in_a_release_is_refused(models: Path, write: Write, name: str) -> None:
    folder = write(version="v1.0.1")
    (folder / "other").mkdir()
    (folder / "other" / name).write_bytes((folder / "model-settings.json").read_bytes())
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / name).touch()
    problem = next(problem for problem in problems(models) if problem.what.startswith("is a second"))
    assert problem.file == f"models/iris-dtc/v1.0.1/other/{name}"
    assert problem.remedy == "Remove it, or give it another name."


def test_settings_of_the_server_in_a_release_are_refused(models: Path, write: Write) -> None:
    folder = write()
    (folder / "settings.json").write_text('{"parallel_workers": 2}')
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "settings.json").write_text("{}")
    problem = only(models)
    assert problem.file == "models/iris-dtc/1.0/settings.json"
    assert "set what it says in the stack file: workers" in problem.remedy


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("./other.joblib", "which does not exist"),
        ("../../../secret", "which is outside of the release"),
        ("/etc/hostname", "which is outside of the release"),
        ("./.dvc/model.joblib", "which is hidden, and hidden files are not part of a release"),
    ],
)
def test_an_artefact_that_is_not_in_the_release_is_refused(models: Path, write: Write, uri: str, why: str) -> None:
    write(settings={"parameters": {"version": "1.0", "uri": uri}})
    problem = only(models)
    assert problem.what == f'parameters.uri is "{uri}", {why}'
    assert problem.remedy == "Put the artefact into models/iris-dtc/1.0 and write its path from there."


NAMED = "--name iris-dtc --version 1.0"


@pytest.mark.parametrize(
    ("uri", "implementation", "remedy"),
    [
        (
            "models:/CancerModel/1",
            "mlserver_sklearn.SKLearnModel",
            "mlflow artifacts download --artifact-uri models:/CancerModel/1 --dst-path FOLDER, and make the release of "
            f"it: python -m model_serving convert mlflow FOLDER {NAMED}",
        ),
        (
            "runs:/abc/model",
            "mlserver_sklearn.SKLearnModel",
            f"convert mlflow FOLDER {NAMED}",
        ),
        (
            "s3://bucket/model",
            "mlserver_mlflow.MLflowRuntime",
            f"Download the folder with the file MLmodel, and make the release of it: python -m model_serving convert "
            f"mlflow FOLDER {NAMED}",
        ),
        (
            "s3://bucket/model.joblib",
            "mlserver_sklearn.SKLearnModel",
            "Download it into models/iris-dtc/1.0, and write its path from there. If DVC tracks it, make the release "
            f"of it: python -m model_serving convert dvc REPOSITORY PATH {NAMED}",
        ),
    ],
)
def test_an_address_of_an_artefact_is_refused_with_what_makes_a_release_of_it(
    models: Path, write: Write, uri: str, implementation: str, remedy: str
) -> None:
    lock = LOCK + f"mlserver-mlflow==1.7.1 {HASH}\n"
    write(lock=lock, settings={"implementation": implementation, "parameters": {"version": "1.0", "uri": uri}})
    problem = only(models)
    assert problem.what == f'parameters.uri is "{uri}", which is not a file of the release'
    assert remedy in problem.remedy


# Bad input: links


@pytest.mark.parametrize(
    ("link", "target", "why"),
    [
        ("lost", "nowhere", "which does not exist"),
        ("itself", "itself", "which leads back to itself"),
        ("folder", ".", "which is a folder that it is in"),
        ("deep/folder", "..", "which is a folder that it is in"),
        ("notes.txt", "/etc/passwd", "which is outside"),
        ("notes.txt", "../1.1/model.joblib", "which is outside"),
        ("hidden", ".cache", "which other machines and the image do not have"),
    ],
)
def test_a_link_that_leads_nowhere_or_out_refuses_its_release_alone(
    models: Path, write: Write, link: str, target: str, why: str
) -> None:
    folder = write()
    write(version="1.1")
    (write("wine") / "model.joblib").unlink()
    (folder / "deep").mkdir()
    (folder / ".cache").touch()
    (folder / link).symlink_to(target)
    first, other = problems(models)
    assert first.file == f"models/iris-dtc/1.0/{link}"
    assert first.what == f"is a link to {target}, {why}"
    assert first.remedy == "Put the file itself there, or a relative link to a file of the same release."
    assert other.file == "models/wine/1.0/model-settings.json", "the others are checked too"


def test_a_link_that_is_the_same_on_no_other_machine_is_refused(models: Path, write: Write) -> None:
    folder = write()
    (folder / "copy").symlink_to(folder / "model.joblib")
    assert only(models).what.endswith("which other machines and the image do not have")


def test_links_inside_of_a_release_are_part_of_it(models: Path, write: Write) -> None:
    folder = write()
    (folder / "deep").mkdir()
    (folder / "deep" / "model.joblib").symlink_to("../model.joblib")
    (folder / "again").symlink_to("deep")
    assert len(catalog.read(models).newest("iris-dtc").content_hash) == 64


@pytest.mark.parametrize("place", ["wine", "iris-dtc/2.0", "requirements.lock"])
def test_a_model_or_version_behind_a_link_is_refused(models: Path, write: Write, place: str, tmp_path: Path) -> None:
    write()
    (tmp_path / "other").mkdir()
    (models / place).symlink_to(tmp_path / "other")
    problem = only(models)
    assert problem.file == f"models/{place}"
    assert problem.what == f"is a link to {tmp_path / 'other'}, which is outside"


# Large files


MD5 = "a304afb96060aad90176268345e10355"


def make_pointer(folder: Path, md5: str = MD5, size: int = 7) -> None:
    """Takes the artefact away and leaves DVC's pointer to it."""
    (folder / "model.joblib").unlink()
    out = f"- md5: {md5}\n  size: {size}\n  hash: md5\n  path: model.joblib\n"
    (folder / "model.joblib.dvc").write_text(f"outs:\n{out}")


def test_an_artefact_may_be_a_pointer(models: Path, write: Write) -> None:
    make_pointer(write())
    [pointer] = catalog.read(models).newest("iris-dtc").pointers
    assert (pointer.path, pointer.md5, pointer.size) == ("model.joblib", MD5, 7)


def test_a_release_whose_pointer_changes_is_another_release(models: Path, write: Write) -> None:
    make_pointer(write(version="1.0"))
    first = catalog.read(models).newest("iris-dtc").content_hash
    pointer = models / "iris-dtc" / "1.0" / "model.joblib.dvc"
    pointer.write_text(pointer.read_text().replace(MD5, MD5[::-1]))
    assert catalog.read(models).newest("iris-dtc").content_hash != first


def test_every_mistake_of_a_pointer_is_told_beside_those_of_the_release(models: Path, write: Write) -> None:
    make_pointer(write(settings={"name": "iris"}), md5="a", size=-1)
    found = [(problem.file, problem.what) for problem in problems(models)]
    assert ("models/iris-dtc/1.0/model.joblib.dvc", 'outs.0.md5 is "a"') in found
    assert ("models/iris-dtc/1.0/model.joblib.dvc", "outs.0.size is -1") in found
    assert len(found) == 3


# Bad input: requirements.lock


def test_an_implementation_whose_runtime_is_not_in_the_lock_is_refused(models: Path, write: Write) -> None:
    write(settings={"implementation": "mlserver_lightgbm.LightGBMModel"})
    problem = only(models)
    assert problem.what == (
        "implementation mlserver_lightgbm.LightGBMModel needs mlserver-lightgbm, "
        "which models/iris-dtc/1.0/requirements.lock lacks"
    )
    assert problem.remedy == (
        f"Add mlserver-lightgbm to the requirements and lock them again: {LOCK_COMMAND} "
        "requirements.in --output-file models/iris-dtc/1.0/requirements.lock "
        f"({LOCK_HELP})"
    )


def test_the_name_of_a_package_is_read_in_any_spelling(models: Path, write: Write) -> None:
    write(lock=LOCK.replace("mlserver-sklearn", "MLServer_SKLearn"))
    assert catalog.read(models).names() == ("iris-dtc",)


def test_a_lock_without_mlserver_is_refused_even_for_a_class_of_the_release(models: Path, write: Write) -> None:
    folder = write(lock=f"numpy==2.4.6 {HASH}\n", settings={"implementation": "runtime.Rules"})
    (folder / "runtime.py").touch()
    assert only(models).remedy.startswith("Add mlserver to the requirements and lock them again: ")


def test_a_release_without_any_lock_is_refused(models: Path, write: Write) -> None:
    write(lock=None)
    problem = only(models)
    assert problem.what == "has no requirements.lock, and models has none for all models"
    assert problem.remedy == (
        f"Lock its requirements: {LOCK_COMMAND} requirements.in --output-file models/iris-dtc/1.0/requirements.lock "
        f"({LOCK_HELP})"
    )


def test_a_lock_without_hashes_is_refused_once(models: Path, write: Write) -> None:
    write(version="1.0", lock=None)
    write(version="1.1", lock=None)
    (models / "requirements.lock").write_text("mlserver==1.7.1\nmlserver-sklearn==1.7.1\n")
    problem = only(models)
    assert problem.what == "mlserver and 1 more without a hash"
    assert problem.remedy == (
        f"Lock with hashes: {LOCK_COMMAND} requirements.in --output-file models/requirements.lock ({LOCK_HELP})"
    )


# Bad input: request.json and response.json


@pytest.mark.parametrize("name", ["request.json", "response.json"])
def test_a_malformed_contract_is_refused_with_line_and_column(models: Path, write: Write, name: str) -> None:
    folder = write()
    (folder / "request.json").write_text(json.dumps(REQUEST))
    (folder / name).write_text('{\n  "inputs": [}\n')
    problem = only(models)
    assert problem.file == f"models/iris-dtc/1.0/{name}"
    assert problem.what.startswith("line 2, column 14: ")
    assert problem.remedy.endswith(f"python3 -m json.tool models/iris-dtc/1.0/{name}")


@pytest.mark.parametrize(
    ("request_", "what", "remedy"),
    [
        ({}, "inputs is missing", 'Write "inputs": a list of objects with name, shape, datatype, data.'),
        (
            {"inputs": []},
            "inputs is not a list of tensors",
            'Write "inputs": a list of objects with name, shape, datatype, data.',
        ),
        ({"inputs": [1]}, "inputs[0] is not an object", "Write an object with name, shape, datatype, data."),
        (
            {"inputs": [{"name": "predict", "shape": [1], "datatype": "FP32"}]},
            "inputs[0].data is missing",
            'Write for example "data": [5, 3.4, 1.5, 0.2].',
        ),
        (
            {"inputs": [*REQUEST["inputs"], {"name": "other", "shape": "1", "datatype": "FP32", "data": [1]}]},
            'inputs[1].shape is "1"',
            'Write for example "shape": [1, 4].',
        ),
    ],
)
def test_a_request_that_is_not_in_the_form_of_v2_is_refused(
    models: Path, write: Write, request_: object, what: str, remedy: str
) -> None:
    (write() / "request.json").write_text(json.dumps(request_))
    problem = only(models)
    assert problem.what == what
    assert problem.remedy == remedy


def test_a_response_that_is_not_in_the_form_of_v2_is_refused(models: Path, write: Write) -> None:
    folder = write()
    (folder / "request.json").write_text(json.dumps(REQUEST))
    (folder / "response.json").write_text(json.dumps(REQUEST))
    assert only(models).remedy == 'Write "outputs": a list of objects with name, shape, datatype, data.'


def tensor(name: str, shape: list[int], datatype: str, data: list[Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data, **more}


@pytest.mark.parametrize(
    ("file", "tensors", "what"),
    [
        ("response", [tensor("predict", [2], "INT64", [2])], '"predict": shape [2] needs 2 values, there is 1'),
        ("response", [tensor("p", [1], "FP32", ["a"])], '"p": value 0 is "a", not a finite FP32'),
        ("response", [tensor("p", [1], "INT64", [None])], '"p": value 0 is null, not INT64'),
        ("response", [tensor("p", [1, 2], "INT64", [[1, 2], [3, 4]])], '"p": shape [1, 2] needs 2 values, there are 4'),
        ("request", [tensor("x", [1, 4], "FP32", [1, 2, 3])], '"x": shape [1, 4] needs 4 values, there are 3'),
        ("request", [tensor("x", [1], "INT64", [None])], '"x": value 0 is null, not INT64'),
        (
            "request",
            [tensor("x", [2, 2], "FP32", [[1, 2, 3], [4]])],
            '"x": lists are not nested as the shape [2, 2] says',
        ),
        ("request", [tensor("x", [-1, 1], "FP32", [1])], '"x": shape is [-1, 1], not a list of sizes'),
    ],
)
def test_values_that_do_not_fit_shape_or_datatype_are_refused(
    models: Path, write: Write, file: str, tensors: list[dict[str, Any]], what: str
) -> None:
    folder = write()
    key = {"request": "inputs", "response": "outputs"}[file]
    (folder / "request.json").write_text(json.dumps(REQUEST))
    (folder / f"{file}.json").write_text(json.dumps({key: tensors}))
    problem = only(models)
    assert problem.file == f"models/iris-dtc/1.0/{file}.json"
    assert problem.what == f"{key}[0] {what}"


def test_nested_lists_and_missing_values_of_a_request_are_accepted(models: Path, write: Write) -> None:
    inputs = [
        tensor("x", [2, 2], "FP32", [[1, None], [3, 4.5]]),
        tensor("text", [2, 1], "BYTES", ["a", None], parameters={"content_type": "str"}),
        tensor("flag", [1], "BOOL", [True]),
    ]
    (write() / "request.json").write_text(json.dumps({"inputs": inputs}))
    assert catalog.read(models).names() == ("iris-dtc",)


@pytest.mark.parametrize("content", ["9" * 5000, "[" * 100_000])
def test_json_that_nothing_could_read_is_refused(models: Path, write: Write, content: str) -> None:
    (write() / "request.json").write_text(f'{{"inputs": {content}')
    problem = only(models)
    assert problem.what.startswith("cannot be read: ")
    assert problem.remedy == "Write shorter numbers, and fewer lists inside of each other."


LABELS = tensor("label", [1], "BYTES", ["a"])


@pytest.mark.parametrize(
    ("response", "what", "remedy"),
    [
        (
            {"outputs": [tensor("p", [1], "FP32", [1], parameters=["a"])]},
            "outputs[0].parameters is not an object",
            '"content_type"',
        ),
        (
            {"outputs": [LABELS], "parameters": {"tolerance": -1}},
            "parameters.tolerance is -1",
            "the permitted difference",
        ),
        (
            {"outputs": [LABELS], "parameters": {"tolerance": 10**309}},
            f"parameters.tolerance is {10**309}",
            "the permitted difference",
        ),
        (
            {"outputs": [LABELS | {"parameters": {"tolerance": 1e-3}}]},
            "parameters.tolerance is 0.001 for BYTES",
            "Remove it: a tolerance counts for floats only.",
        ),
    ],
)
def test_a_tolerance_that_compares_nothing_is_refused(
    models: Path, write: Write, response: dict[str, Any], what: str, remedy: str
) -> None:
    folder = write()
    (folder / "request.json").write_text(json.dumps(REQUEST))
    (folder / "response.json").write_text(json.dumps(response))
    problem = only(models)
    assert problem.what == what
    assert remedy in problem.remedy


def test_a_tolerance_of_the_whole_response_may_stand_beside_texts(models: Path, write: Write) -> None:
    folder = write()
    response = {"outputs": [LABELS, tensor("p", [1], "FP32", [0.5])], "parameters": {"tolerance": 1e-3}}
    (folder / "request.json").write_text(json.dumps(REQUEST))
    (folder / "response.json").write_text(json.dumps(response))
    assert catalog.read(models).names() == ("iris-dtc",)


def test_a_response_without_a_request_is_refused(models: Path, write: Write) -> None:
    (write() / "response.json").write_text(json.dumps(RESPONSE))
    assert only(models).remedy == "Add the request.json that it answers, or remove it."


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"parameters": [1]}, "parameters is not an object"),
        ({"parameters": {"content_type": 5}}, "parameters.content_type is 5"),
        ({"inputs": [REQUEST["inputs"][0] | {"parameters": []}]}, "inputs[0].parameters is not an object"),
        ({"inputs": REQUEST["inputs"] * 2}, 'inputs has "predict" 2 times'),
        ({"inputs": [REQUEST["inputs"][0] | {"shape": [2**31 + 1]}]}, "inputs[0].shape is [2147483649]"),
    ],
)
def test_a_request_that_the_server_would_refuse_is_refused(
    models: Path, write: Write, change: dict[str, Any], told: str
) -> None:
    (write() / "request.json").write_text(json.dumps(REQUEST | change))
    assert only(models).what == told


def test_parameters_of_a_response_that_are_not_an_object_are_refused(models: Path, write: Write) -> None:
    folder = write()
    (folder / "request.json").write_text(json.dumps(REQUEST))
    (folder / "response.json").write_text(json.dumps(RESPONSE | {"parameters": "np"}))
    assert only(models).what == "parameters is not an object"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xef\xbb\xbf{}", "begins with a byte order mark"),
        (b'{"name": "\\ud800"}', 'has half of a character, "\\ud800"'),
    ],
)
def test_text_that_other_programs_could_not_read_is_refused(
    models: Path, write: Write, content: bytes, told: str
) -> None:
    (write() / "model-settings.json").write_bytes(content)
    assert only(models).what == told


@pytest.mark.parametrize(
    ("key", "value", "form"),
    [
        ("platform", 5, "text"),
        ("versions", "1.0", "a list of text"),
        ("versions", [1], "a list of text"),
        ("cache_enabled", [], "true or false"),
        ("parameters.format", 5, "text"),
        ("parameters.content_type", ["np"], "text"),
        ("parameters.extra", [], "an object"),
    ],
)
def test_a_setting_with_which_mlserver_loads_no_model_is_refused(
    models: Path, write: Write, key: str, value: object, form: str
) -> None:
    last = key.removeprefix("parameters.")
    parameters = {"version": "1.0", "uri": "./model.joblib"}
    write(settings={last: value} if last == key else {"parameters": parameters | {last: value}})
    problem = only(models)
    assert problem.what == f"{key} is {json.dumps(value)}"
    assert problem.remedy == f"Write {form} there, or remove it."


def test_empty_lists_of_tensors_and_missing_values_are_accepted(models: Path, write: Write) -> None:
    parameters = {"version": "1.0", "uri": "./model.joblib", "format": None, "content_type": None, "extra": None}
    write(settings={"inputs": [], "outputs": [], "versions": [], "parameters": parameters})
    assert not catalog.read(models).newest("iris-dtc").can_be_asked


@pytest.mark.parametrize("uri", ["a\0b", "x" * 5000])
def test_an_artefact_that_no_file_could_be_is_refused(models: Path, write: Write, uri: str) -> None:
    write(settings={"parameters": {"version": "1.0", "uri": uri}})
    assert only(models).what.endswith("which cannot be the path of a file")


def test_inputs_that_no_derived_request_could_hold_need_a_request(models: Path, write: Write) -> None:
    inputs = [{"name": "image", "datatype": "FP32", "shape": [-1, 10**6, 10**6]}]
    folder = write(settings={"inputs": inputs})
    problem = only(models)
    assert problem.what == "inputs[0].shape is [-1, 1000000, 1000000], which is 1000000000000 values in each request"
    assert problem.remedy.endswith("add a request.json.")
    (folder / "request.json").write_text(json.dumps(REQUEST))
    assert catalog.read(models).newest("iris-dtc").can_be_asked


@pytest.mark.parametrize("name", ["notes", "model-settings.json", "model.joblib"])
def test_a_pipe_in_a_release_is_refused_and_never_opened(models: Path, write: Write, name: str) -> None:
    path = write() / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    problem = only(models)
    assert problem.file == f"models/iris-dtc/1.0/{name}"
    assert problem.what == "is a pipe, a socket or a device"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("iris-dtc", "is a folder that this account may not read: allow it, chmod a+rX"),
        ("iris-dtc/1.0", "is a folder that this account may not read: allow it, chmod a+rX"),
        ("iris-dtc/1.0/model-settings.json", "is a file that this account may not read: allow it, chmod a+rX"),
    ],
)
def test_what_may_not_be_read_is_refused_by_its_name(
    models: Path, write: Write, name: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write()
    # Not by its mode, which does not count for root.
    monkeypatch.setattr(os, "access", lambda path, mode: path != models / name)
    assert next(problem.what for problem in problems(models) if problem.file == f"models/{name}") == told


def test_a_pointer_of_git_lfs_in_place_of_a_file_is_refused(models: Path, write: Write) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    (write() / "model.joblib").write_text(pointer)
    problem = only(models)
    assert problem.file == "models/iris-dtc/1.0/model.joblib"
    assert problem.what == "is a pointer of Git LFS and not the file itself"
    assert "git lfs pull" in problem.remedy


@pytest.mark.parametrize("content", ["outs: 2024-13-45", "outs: 0b_", "[" * 5000])
def test_yaml_that_is_none_to_its_library_is_refused_or_tells_nothing(models: Path, write: Write, content: str) -> None:
    folder = write()
    (folder / "model.joblib").rename(folder / "artefact")
    (folder / "model.joblib.dvc").write_text(content)
    assert only(models).what.startswith("is no YAML: ")


@pytest.mark.parametrize(
    "line",
    ["-e .", "-r others.txt", "--constraint=others.txt", "./wheels/foo.whl", "foo>=1", "foo", "foo==1.*", "<html>"],
)
def test_a_line_of_a_lock_with_which_no_image_could_be_built_is_refused(models: Path, write: Write, line: str) -> None:
    write(lock=f"{LOCK}{line} {HASH}  # {HASH}\n")
    problem = only(models)
    assert problem.file == "models/iris-dtc/1.0/requirements.lock"
    assert problem.what == f'"{line}": not one exact version'


@pytest.mark.parametrize(
    "lock",
    [
        f"\ufeff{LOCK}",
        LOCK.replace("\n", "\r\n"),
        f"--index-url https://pypi.example.com/simple\n--only-binary :all:\n\n# by hand\n{LOCK}",
        f"{LOCK}foo[all]==1.0 ; python_version >= '3.11' {HASH}  # via bar\nbar===1.0+cpu {HASH}\n",
        f"{LOCK}foo @ https://example.com/foo-1.0-py3-none-any.whl {HASH}\n",
    ],
)
def test_a_lock_that_installers_read_is_accepted(models: Path, write: Write, lock: str) -> None:
    write(lock=lock)
    assert catalog.read(models).names() == ("iris-dtc",)


def test_a_lock_that_powershell_has_written_is_refused_with_the_reason(models: Path, write: Write) -> None:
    (write() / "requirements.lock").write_bytes(LOCK.encode("utf-16"))
    problem = only(models)
    assert problem.what == "is not UTF-8"
    assert "PowerShell" in problem.remedy


def test_a_response_may_be_empty_and_a_request_may_not(models: Path, write: Write) -> None:
    folder = write()
    boxes = {"name": "boxes", "shape": [0, 4], "datatype": "FP32", "data": []}
    (folder / "request.json").write_text(json.dumps(REQUEST))
    (folder / "response.json").write_text(json.dumps({"outputs": [boxes]}))
    assert catalog.read(models).newest("iris-dtc").response
    (folder / "request.json").write_text(json.dumps({"inputs": [boxes]}))
    assert only(models).what == "inputs[0].data is []"
