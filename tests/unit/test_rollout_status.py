"""How far a rollout and a contract check are, by what Kubernetes shows of them."""

from __future__ import annotations

from typing import Any

import pytest

from components.serving.rollout_status import COMPLETE, REVISION, Failed, Objects, check, rollout

UID = "deployment"
JOB = "job"


def thing(uid: str, *, owner: str = "", revision: str = "1", **content: Any) -> dict[str, Any]:
    owners = [{"uid": owner}] if owner else []
    metadata = {"uid": uid, "name": uid, "ownerReferences": owners, "annotations": {REVISION: revision}}
    return {"metadata": metadata, **content}


def deployment(
    *, replicas: int = 1, available: int = 0, complete: bool = False, revision: str = "2", **status: Any
) -> dict[str, Any]:
    progress = {"type": "Progressing", "status": "True", "reason": COMPLETE if complete else "ReplicaSetUpdated"}
    status = {"observedGeneration": 2, "availableReplicas": available, "conditions": [progress], **status}
    return thing(UID, revision=revision, spec={"replicas": replicas}, status=status)


def pod(
    name: str = "pod", *, owner: str = "new", ready: bool = False, phase: str = "Running", **container: Any
) -> dict[str, Any]:
    statuses = [{"ready": ready, "state": {"running": {}}, **container}]
    conditions = [{"type": "Ready", "status": str(ready)}]
    limits = {"containers": [{"resources": {"limits": {"memory": "480Mi"}}}]}
    status = {"phase": phase, "conditions": conditions, "containerStatuses": statuses}
    return thing(name, owner=owner, spec=limits, status=status)


def ended(code: int, **more: str) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, **more}}


def waiting(reason: str, message: str) -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


SETS = [thing("old", owner=UID, revision="1"), thing("new", owner=UID, revision="2")]


def judged(*things: dict[str, Any], generation: int = 2, changed: bool = True) -> str | None:
    objects = Objects({each["metadata"]["uid"]: each for each in [*SETS, *things]})
    return rollout(objects, UID, generation=generation, changed=changed)


def checked(*things: dict[str, Any]) -> str | None:
    return check(Objects({each["metadata"]["uid"]: each for each in things}), JOB)


@pytest.mark.parametrize(
    ("now", "changed"),
    [
        (deployment(available=1, complete=True), True),
        # A pod that fails later, or one more that an autoscaler wants, is not this update's.
        (deployment(replicas=3, available=2, complete=True), False),
    ],
)
def test_a_rollout_is_over(now: dict[str, Any], changed: bool) -> None:
    assert judged(now, pod(ready=True), changed=changed) is None


@pytest.mark.parametrize(
    "now",
    [
        deployment(available=1),
        # More pods of the same template: Kubernetes does not call that progress.
        deployment(replicas=3, available=1, complete=True),
    ],
)
def test_a_rollout_goes_on_until_all_pods_are_ready(now: dict[str, Any]) -> None:
    assert judged(now, pod("a", ready=True), pod("b")) == f"1 of {now['spec']['replicas']} pods are ready"


def test_what_kubernetes_has_not_seen_is_not_over() -> None:
    done = deployment(available=1, complete=True)
    assert judged(done, generation=3) == "Kubernetes has not taken up the Deployment yet"
    assert judged() == "Kubernetes has not taken up the Deployment yet"


def test_it_says_what_a_pod_waits_for() -> None:
    told = judged(
        deployment(replicas=2),
        pod("a", state=waiting("ImagePullBackOff", "no such host")),
        pod("b", state=waiting("ImagePullBackOff", "no such host")),
    )
    assert told == "0 of 2 pods are ready; ImagePullBackOff: no such host"


def test_it_says_why_no_pod_is_made_or_scheduled() -> None:
    quota = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    assert judged(deployment(conditions=[quota])) == "0 of 1 pods are ready; exceeded quota"
    homeless = thing("pod", owner="new", status={"conditions": [scheduled("Insufficient memory")]})
    assert judged(deployment(), homeless) == "0 of 1 pods are ready; Insufficient memory"


def scheduled(message: str) -> dict[str, str]:
    return {"type": "PodScheduled", "status": "False", "message": message}


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"state": ended(78, message="EOFError: no data\n")}, "pod pod: EOFError: no data"),
        ({"lastState": ended(78, message="EOFError"), "state": waiting("CrashLoopBackOff", "…")}, "pod pod: EOFError"),
        ({"lastState": ended(137, reason="OOMKilled")}, "ran out of memory, of which it may have 480Mi"),
        (
            {"lastState": ended(0)},
            "ended with exit code 0 before it was ready.\n  If the model only takes long to load",
        ),
    ],
)
def test_a_pod_that_ends_before_it_is_ready_fails_the_rollout_at_once(state: dict[str, Any], told: str) -> None:
    with pytest.raises(Failed) as failed:
        judged(deployment(), pod(**state))
    assert told in str(failed.value)


@pytest.mark.parametrize(
    "other",
    [
        pod("of-before", owner="old", state=ended(1)),
        pod("evicted", phase="Failed", state=ended(137)),
        pod("recovered", ready=True, lastState=ended(1)),
        {
            **pod("goes", state=ended(143)),
            "metadata": {**pod("goes", state=ended(143))["metadata"], "deletionTimestamp": "…"},
        },
    ],
)
def test_other_ends_of_pods_do_not_fail_it(other: dict[str, Any]) -> None:
    assert judged(deployment(), other)


def test_a_contract_is_kept_as_soon_as_its_pod_is_done() -> None:
    assert checked(thing(JOB), pod(owner=JOB)) == "the contract is being checked"
    assert checked(thing(JOB), pod(owner=JOB, state=ended(0))) is None


def test_a_contract_was_kept_when_its_pod_is_gone() -> None:
    assert checked(thing(JOB, status={"conditions": [{"type": "Complete", "status": "True"}]})) is None


def test_a_broken_contract_says_why() -> None:
    with pytest.raises(Failed, match="expected: 1"):
        checked(thing(JOB), pod(owner=JOB, phase="Failed", state=ended(1, message="expected: 1")))
    with pytest.raises(Failed, match="exit code 137"):
        checked(thing(JOB), pod(owner=JOB, phase="Failed", state=ended(137)))


def test_a_check_without_a_pod_ends_with_its_job() -> None:
    late = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "active longer than 180 s"}
    with pytest.raises(Failed, match="active longer than 180 s"):
        checked(thing(JOB, status={"conditions": [late]}))


def test_a_check_says_what_its_pod_waits_for() -> None:
    stuck = pod(owner=JOB, phase="Pending", state=waiting("ErrImagePull", "refused"))
    assert checked(thing(JOB), stuck) == "the contract is being checked; ErrImagePull: refused"
