"""How events of the engine become a preview."""

from __future__ import annotations

from typing import Any

import pytest

from model_serving.pipelines import costs
from model_serving.pipelines.changes import Preview, Violation, terraform_report
from model_serving.pipelines.events import Recorder
from model_serving.pipelines.redact import Redactor

ROUTE = "kubernetes:gateway.networking.k8s.io/v1:HTTPRoute"
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "[secret]"}


def step(operation: str, kind: str, name: str, old: Any = None, new: Any = None, **more: Any) -> dict[str, Any]:
    """An event about one resource; ``old`` and ``new`` are its arguments."""
    urn = f"urn:pulumi:dev::model-serving::{kind}::{name}"
    states = {
        side: None if inputs is None else {"custom": True, "parent": "", "inputs": inputs, "outputs": {}}
        for side, inputs in (("old", old), ("new", new))
    }
    metadata = {"op": operation, "urn": urn, "type": kind, "detailedDiff": None, **states, **more}
    return {"resourcePreEvent": {"metadata": metadata, "planning": True}}


def previewed(*events: dict[str, Any], code: int = 0, secrets: tuple[str, ...] = ()) -> Preview:
    recorder = Recorder(stack="dev", commit="a" * 40, redactor=Redactor(secrets))
    for event in events:
        recorder.event(event)
    return recorder.preview(code)


def route(model: str, **weights: int) -> dict[str, Any]:
    """The shared route of a model; a version ``v1`` is served by ``iris-v1``."""
    backends = [{"name": f"{model}-{version}", "weight": weight} for version, weight in weights.items()]
    return {"spec": {"rules": [rule(f"/mlapi/v2/models/{model}", backends)]}}


def pinned(model: str, version: str, service: str | None = None) -> dict[str, Any]:
    backends = [{"name": service or f"{model}-{version}", "weight": 1}]
    return {"spec": {"rules": [rule(f"/mlapi/v2/models/{model}/versions/{version}", backends)]}}


def rule(path: str, backends: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"matches": [{"path": {"type": "PathPrefix", "value": path}, **more}], "backendRefs": backends}


def shares(preview: Preview, *, after: bool = True) -> dict[str, float]:
    (model,) = preview.models
    return {share.version: share.percent for share in (model.after if after else model.before)}


def test_a_replacement_counts_as_both_in_gitlabs_report() -> None:
    bucket = "gcp:storage/bucket:Bucket"
    found = previewed(
        step("create", bucket, "new", new={}),
        step("update", bucket, "changed", old={"a": 1}, new={"a": 2}),
        step("delete-replaced", bucket, "moved", old={"location": "EU"}),
        step(
            "replace",
            bucket,
            "moved",
            old={"location": "EU"},
            new={"location": "US"},
            detailedDiff={"location": {"diffKind": "update-replace", "inputDiff": True}},
        ),
        step("create-replacement", bucket, "moved", old={"location": "EU"}, new={"location": "US"}),
        step("same", bucket, "kept", old={}, new={}),
    )
    assert terraform_report(found) == {"create": 2, "update": 1, "delete": 1}
    assert found.unchanged == 1
    (moved,) = (change for change in found.changes if change.operation == "replace")
    assert [(each.path, each.old, each.new) for each in moved.forced_by] == [("location", "EU", "US")]


def test_what_is_only_forgotten_is_not_called_deleted() -> None:
    event = step("delete", "docker-build:index:Image", "iris-1", old={})
    event["resourcePreEvent"]["metadata"]["old"]["retainOnDelete"] = True
    (change,) = previewed(event).changes
    assert change.operation == "forget"
    assert not change.is_destructive


def test_a_refresh_is_no_change_of_its_own() -> None:
    bucket = "gcp:storage/bucket:Bucket"
    found = previewed(
        step("refresh", bucket, "data", old={"a": 1}, new={"a": 2}),
        step("update", bucket, "data", old={"a": 2}, new={"a": 1}),
        step("refresh", bucket, "kept", old={}, new={}),
        step("same", bucket, "kept", old={}, new={}),
    )
    assert [(change.operation, change.name) for change in found.changes] == [("update", "data")]
    assert found.unchanged == 1


def test_the_weights_of_a_route_are_shares_of_the_traffic() -> None:
    found = previewed(
        step("same", ROUTE, "iris.v1", old=pinned("iris", "1.0", "iris-v1"), new=pinned("iris", "1.0", "iris-v1")),
        step("create", ROUTE, "iris.v2", new=pinned("iris", "1.1", "iris-v2")),
        step("update", ROUTE, "iris", old=route("iris", v1=100), new=route("iris", v1=3, v2=1)),
    )
    assert shares(found, after=False) == {"1.0": 100}
    assert shares(found) == {"1.0": 75, "1.1": 25}


def test_versions_are_found_by_their_order_while_their_services_are_unknown() -> None:
    unknown = route("iris", v1=90, v2=10)
    for backend in unknown["spec"]["rules"][0]["backendRefs"]:
        backend["name"] = UNKNOWN
    found = previewed(
        step("create", ROUTE, "iris.v10", new=pinned("iris", "1.10", UNKNOWN)),
        step("create", ROUTE, "iris.v9", new=pinned("iris", "1.9", UNKNOWN)),
        step("create", ROUTE, "iris", new=unknown),
    )
    assert shares(found) == {"1.9": 90, "1.10": 10}


def test_who_asks_by_header_and_who_gets_copies_does_not_count_as_traffic() -> None:
    everybody = rule("/mlapi/v2/models/iris", [{"name": "iris-v1", "weight": 100}])
    copy = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "iris-v2"}}}
    everybody["filters"] = [{"type": "URLRewrite"}, copy]
    tester = rule("/mlapi/v2/models/iris", [{"name": "iris-v1"}], headers=[{"name": "x-model-version", "value": "1.0"}])
    found = previewed(
        step("create", ROUTE, "iris.v1", new=pinned("iris", "1.0", "iris-v1")),
        step("create", ROUTE, "iris.v2", new=pinned("iris", "1.1", "iris-v2")),
        step("create", ROUTE, "iris", new={"spec": {"rules": [tester, everybody]}}),
    )
    (model,) = found.models
    assert [(share.version, share.percent, share.shadow) for share in model.after] == [
        ("1.0", 100, False),
        ("1.1", 0, True),
    ]


@pytest.mark.parametrize(
    "inputs",
    [
        {"spec": UNKNOWN},
        {"spec": None},
        {"spec": SECRET},
        {"spec": {"rules": UNKNOWN, "template": None, "replicas": None}},
        {"spec": {"rules": [{"matches": None}], "template": {"spec": {"containers": [UNKNOWN, {"resources": None}]}}}},
        {"rules": None, "conditions": UNKNOWN, "metadata": UNKNOWN},
    ],
)
def test_what_is_not_known_yet_or_missing_counts_for_nothing(inputs: dict[str, Any]) -> None:
    kinds = [ROUTE, *costs.PRICES]
    cluster = step("same", "gcp:container/cluster:Cluster", "c", *[{"enableAutopilot": True}] * 2)
    found = previewed(cluster, *(step("create", kind, "new", None, inputs) for kind in kinds))
    assert (found.outcome, found.count("create"), found.models) == ("ok", len(kinds), ())


@pytest.mark.parametrize(("weight", "percent"), [(UNKNOWN, 0), (None, 100), (7, 100)])
def test_a_weight_may_be_unknown_or_left_out(weight: object, percent: float) -> None:
    backends = [{"name": "iris-v1", "weight": weight}]
    shared = {"spec": {"rules": [rule("/mlapi/v2/models/iris", backends)]}}
    assert shares(previewed(step("create", ROUTE, "iris", None, shared))) == {"iris-v1": percent}


def test_a_model_that_stays_as_it_is_is_only_counted() -> None:
    found = previewed(step("same", ROUTE, "iris", old=route("iris", v1=100), new=route("iris", v1=100)))
    assert found.models == ()
    assert found.unchanged_models == 1


def test_policies_are_told_and_a_mandatory_one_fails_the_preview() -> None:
    event = {
        "policyEvent": {
            "resourceUrn": "urn:pulumi:dev::model-serving::gcp:storage/bucket:Bucket::data",
            "message": "it is open to s3cr3t\n",
            "policyName": "no-public-buckets",
            "policyPackName": "house",
            "enforcementLevel": "mandatory",
        }
    }
    found = previewed(event, code=1, secrets=("s3cr3t",))
    assert found.outcome == "failed"
    assert "mandatory policy" in found.why
    assert found.violations == (
        Violation(
            policy="no-public-buckets",
            pack="house",
            level="mandatory",
            message="it is open to [secret]",
            resource="Bucket data",
        ),
    )


def test_the_end_of_pulumi_decides_the_outcome() -> None:
    assert previewed(code=0).outcome == "ok"
    assert previewed(code=7).outcome == "ok", "--expect-no-changes found some"
    assert "code 255" in previewed(code=255).why
    assert "signal 15" in previewed(code=-15).why


def test_errors_are_told_once_with_the_resource() -> None:
    event = {"diagnosticEvent": {"severity": "error", "message": "no\n", "urn": "urn:pulumi:dev::p::t:i:T::data"}}
    recorder = Recorder(stack="dev", commit="a" * 40, redactor=Redactor(["s3cr3t"]))
    for _ in range(2):
        recorder.event(event)
    recorder.text("error: the stack is locked by s3cr3t")
    recorder.text("warning: nothing")
    assert recorder.preview(255).errors == ("data: no", "the stack is locked by [secret]")


def test_a_secret_is_hidden_in_every_text_before_it_is_shortened() -> None:
    long = "x" * 150 + "s3cr3t-value" + "y" * 50
    found = previewed(
        step("create", "kubernetes:core/v1:Secret", "s3cr3t-value", new={"data": {"a": "b"}, "stringData": SECRET}),
        step("create", "kubernetes:core/v1:ConfigMap", "map", new={"data": {"s3cr3t-value": long, "b": SECRET}}),
        secrets=("s3cr3t-value",),
    )
    text = found.model_dump_json()
    assert "s3cr" not in text
    assert "ciphertext" not in text
    assert {each.new for change in found.changes for each in change.differences} >= {"[secret]"}


def test_a_preview_survives_its_file() -> None:
    found = previewed(step("update", "gcp:storage/bucket:Bucket", "data", old={"a": [1]}, new={"a": [1, 2]}))
    assert Preview.model_validate_json(found.model_dump_json()) == found
