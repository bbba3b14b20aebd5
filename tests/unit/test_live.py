"""Which releases a stack serves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from model_serving.catalog import Catalog, Release
from model_serving.catalog.pointers import Pointer
from model_serving.problems import InvalidInput
from model_serving.stack import live
from model_serving.stack.settings import Settings
from tests.unit.releases import release

CATALOG = Catalog(
    by_name={
        "iris": (release("iris", "1.9"), release("iris", "1.10")),
        "long": tuple(release("long", f"1.{number}") for number in range(5)),
        "wine": (release("wine", "1"),),
    }
)


def resolve(
    models: dict[str, Any], class_name: str = "contour", catalog: Catalog = CATALOG, **others: Any
) -> tuple[live.LiveModel, ...]:
    content = {"registry": "r", "gateway": {"className": class_name}, "models": models, **others}
    return live.resolve(Settings.model_validate(content), catalog, file="stacks/Pulumi.test.yaml")


def weights(models: dict[str, Any]) -> dict[str, dict[str, int]]:
    return {
        model.name: {version.release.version: version.weight for version in model.versions} for model in resolve(models)
    }


def test_without_versions_the_newest_release_takes_all_traffic() -> None:
    assert weights({"iris": {}}) == {"iris": {"1.10": 100}}


def test_a_stack_pins_and_splits() -> None:
    assert weights({"iris": {"versions": {"1.9": 100}}}) == {"iris": {"1.9": 100}}
    assert weights({"iris": {"versions": {"1.10": 10, "1.9": 90}}}) == {"iris": {"1.9": 90, "1.10": 10}}


@pytest.mark.parametrize(
    ("model", "least"),
    [
        ({"requestSize": "64Mi", "resources": {"memory": "512Mi"}}, "1024Mi"),
        ({"requestSize": "20Mi", "resources": {"memory": "512Mi"}, "workers": 1}, "640Mi"),
        ({"requestSize": "512Mi"}, "8192Mi"),
    ],
)
def test_a_request_that_could_end_its_pod_is_refused(model: dict[str, Any], least: str) -> None:
    with pytest.raises(InvalidInput, match=f"or {least} or more as resources.memory") as refused:
        resolve({"wine": model})
    assert "models.wine.requestSize is" in str(refused.value)
    resolve({"wine": model | {"resources": {"memory": least}}})


def test_models_that_the_stack_does_not_name_are_not_served() -> None:
    assert [model.name for model in resolve({"wine": {}})] == ["wine"]


def test_unknown_models_and_versions_are_refused_at_once() -> None:
    with pytest.raises(InvalidInput) as refused:
        resolve({"irsi": {}, "iris": {"versions": {"1.1": 100}}, "zebra": {}})
    messages = sorted(str(problem) for problem in refused.value.problems)
    assert len(messages) == 3
    assert "models.iris.versions.1.1 is not in the folder models/iris/" in messages[0]
    assert "Write one of 1.9, 1.10, in quotes" in messages[0]
    assert "models.irsi is not in the folder models/" in messages[1]
    assert "Did you mean iris?" in messages[1]
    assert "Add a release of it, or remove the model from the stack." in messages[2]


RC = Catalog(by_name={"iris": tuple(release("iris", each) for each in ("1.0", "1.1.0-rc.1", "1.1", "1.2.0-rc.1"))})


@pytest.mark.parametrize(
    ("model", "versions"),
    [
        ({}, {"1.1": 100}),
        ({"keepWarm": 1}, {"1.0": 0, "1.1": 100}),
        ({"versions": {"1.2.0-rc.1": 10, "1.1": 90}}, {"1.1": 90, "1.2.0-rc.1": 10}),
        ({"versions": {"1.2.0-rc.1": 100}, "keepWarm": 1}, {"1.1": 0, "1.2.0-rc.1": 100}),
        ({"shadow": "1.2.0-rc.1"}, {"1.1": 100, "1.2.0-rc.1": 0}),
    ],
)
def test_a_prerelease_takes_traffic_only_where_a_stack_names_it(
    model: dict[str, Any], versions: dict[str, int]
) -> None:
    (served,) = resolve({"iris": model}, catalog=RC)
    assert {each.release.version: each.weight for each in served.versions} == versions


def test_a_models_objects_have_a_name_that_kubernetes_allows() -> None:
    named = Catalog(by_name={"Apple_RF_Model": (release("Apple_RF_Model", "1.0"),)})
    (model,) = resolve({"Apple_RF_Model": {}}, catalog=named)
    assert (model.name, model.object_name) == ("Apple_RF_Model", "apple-rf-model-fc039d4b")


def test_a_model_with_nothing_but_prereleases_has_to_be_named_one() -> None:
    only = Catalog(by_name={"iris": (release("iris", "1.0.0-rc.1"),)})
    with pytest.raises(InvalidInput, match=r"Name one, e.g. versions: \{"):
        resolve({"iris": {}}, catalog=only)
    assert resolve({"iris": {"versions": {"1.0.0-rc.1": 100}}}, catalog=only)


def deployed(model: dict[str, Any]) -> list[str]:
    return [version.release.version for version in resolve({"long": model})[0].versions]


@pytest.mark.parametrize(
    ("model", "versions"),
    [
        ({}, ["1.4"]),
        ({"keepWarm": 2}, ["1.2", "1.3", "1.4"]),
        ({"keepWarm": 9}, ["1.0", "1.1", "1.2", "1.3", "1.4"]),
        ({"keepWarm": 1, "versions": {"1.2": 100}}, ["1.1", "1.2"]),
        ({"keepWarm": 1, "versions": {"1.2": 100, "1.4": 0}}, ["1.1", "1.2", "1.4"]),
        ({"keepWarm": 1, "shadow": "1.4"}, ["1.2", "1.3", "1.4"]),
    ],
)
def test_releases_before_the_newest_live_one_stay_warm(model: dict[str, Any], versions: list[str]) -> None:
    assert deployed(model) == versions


def test_what_is_warm_gets_no_traffic() -> None:
    assert weights({"long": {"keepWarm": 1}}) == {"long": {"1.3": 0, "1.4": 100}}


def test_a_shadow_is_deployed_and_never_the_one_that_answers() -> None:
    (model,) = resolve({"iris": {"shadow": "1.10"}})
    assert [(version.release.version, version.weight, version.shadow) for version in model.versions] == [
        ("1.9", 100, False),
        ("1.10", 0, True),
    ]


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"shadow": "1.5"}, "models.long.shadow 1.5 is not in the folder models/long/"),
        ({"versions": {"1.0": 100}, "shadow": "1.5"}, "models.long.shadow 1.5 is not in the folder models/long/"),
    ],
)
def test_an_unknown_shadow_is_refused(model: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        resolve({"long": model})


def test_the_only_release_cannot_be_a_shadow() -> None:
    with pytest.raises(
        InvalidInput, match=r"models\.wine names no version, and each of its releases is a pre-release or its shadow"
    ):
        resolve({"wine": {"shadow": "1"}})


def test_a_gateway_that_copies_no_requests_is_refused_a_shadow_with_the_reason() -> None:
    with pytest.raises(InvalidInput, match=r"gke-l7-gxlb\n  .*Google's classic load balancer copies no requests"):
        resolve({"iris": {"shadow": "1.9"}}, "gke-l7-gxlb")
    assert resolve({"iris": {"shadow": "1.9"}}, "gke-l7-rilb")


def test_more_versions_than_a_route_has_room_for_are_refused() -> None:
    many = Catalog(by_name={"many": tuple(release("many", f"1.{number}") for number in range(20))})
    versions = {f"1.{number}": 0 for number in range(4, 20)} | {"1.4": 100}
    settings = Settings.model_validate(
        {"registry": "r", "gateway": {"className": "contour"}, "models": {"many": {"versions": versions}}}
    )
    with pytest.raises(InvalidInput, match="has 16 versions at once"):
        live.resolve(settings, many, file="stacks/Pulumi.test.yaml")


def with_pointer(version: str) -> Release:
    pointer = Pointer(path="model.joblib", md5="a304afb96060aad90176268345e10355", size=7)
    return replace(release("iris", version), pointers=(pointer,))


def test_a_release_with_pointers_needs_to_know_the_remote() -> None:
    catalog = Catalog(by_name={"iris": (release("iris", "1.0"), with_pointer("1.1"))})
    with pytest.raises(InvalidInput) as refused:
        resolve({"iris": {}}, catalog=catalog)
    [problem] = refused.value.problems
    assert problem.what == (
        "model-serving:artefacts is missing, and iris 1.1 has pointers in the place of model.joblib"
    )
    assert "Write artefacts: {remote: gs://…}" in problem.remedy
    assert resolve({"iris": {}}, catalog=catalog, artefacts={"remote": "gs://models"})
    assert resolve({"iris": {"versions": {"1.0": 100}}}, catalog=catalog), "it is not served"
