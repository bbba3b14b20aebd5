"""Judges how far a rollout and a contract check are, from what Kubernetes shows of them.

Each function returns None once it is over, or what it still waits for, and raises Failed as soon as it cannot succeed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

Object = Mapping[str, Any]
"""As the API spells it."""


class Objects(dict[str, Object]):
    """By uid."""

    @cached_property
    def owned(self) -> Mapping[str, Sequence[Object]]:
        """By their owner's uid. Read once for all versions, of which there may be many."""
        owned: defaultdict[str, list[Object]] = defaultdict(list)
        for thing in self.values():
            for owner in thing["metadata"].get("ownerReferences") or []:
                owned[owner["uid"]].append(thing)
        return owned


Judge = Callable[[Objects], str | None]

REVISION: Final = "deployment.kubernetes.io/revision"
COMPLETE: Final = "NewReplicaSetAvailable"
"""Reason of the condition Progressing once a rollout is over, even if a pod fails later."""
OUT_OF_MEMORY: Final = "OOMKilled"


class Failed(Exception):
    """It cannot succeed; the text says why and what to do."""


def rollout(objects: Objects, uid: str, *, generation: int, changed: bool) -> str | None:
    """How far the pods of a Deployment are.

    Args:
        objects: what there is.
        uid: of the Deployment.
        generation: the oldest that counts.
        changed: whether this update has changed it. If not, a finished rollout stays finished.
    """
    deployment = objects.get(uid, {})
    status = deployment.get("status", {})
    if status.get("observedGeneration", 0) < generation:
        return "Kubernetes has not taken up the Deployment yet"
    wanted, available = deployment["spec"]["replicas"], status.get("availableReplicas", 0)
    if _condition(deployment, "Progressing").get("reason") == COMPLETE and (available >= wanted or not changed):
        return None
    pods = [*_newest_pods(objects, deployment)]
    for pod in pods:
        _refuse_failed(pod)
    ready = sum(_condition(pod, "Ready").get("status") == "True" for pod in pods)
    why = [_condition(deployment, "ReplicaFailure").get("message", ""), *map(_waits_for, pods)]
    return "; ".join([f"{ready} of {wanted} pods are ready", *dict.fromkeys(filter(None, why))])


def check(objects: Objects, uid: str) -> str | None:
    """How far the Job of a contract check is. Its pod is done seconds before the Job, whose controller gathers news."""
    job = objects.get(uid, {})
    pods = objects.owned.get(uid, [])
    ends = [container["state"].get("terminated") for pod in pods for container in _containers(pod)]
    for ended in filter(None, ends):
        if ended["exitCode"]:
            raise Failed(ended.get("message") or f"the contract check ended with exit code {ended['exitCode']}")
        return None
    if _condition(job, "Complete").get("status") == "True":
        return None
    if (failed := _condition(job, "Failed")).get("status") == "True":
        raise Failed(f"the contract check did not finish: {failed.get('message') or failed.get('reason')}")
    return "; ".join(["the contract is being checked", *dict.fromkeys(filter(None, map(_waits_for, pods)))])


def _newest_pods(objects: Objects, deployment: Object) -> Iterator[Object]:
    for replica_set in objects.owned.get(deployment["metadata"]["uid"], []):
        if _revision(replica_set) == _revision(deployment):
            yield from objects.owned.get(replica_set["metadata"]["uid"], [])


def _refuse_failed(pod: Object) -> None:
    if "deletionTimestamp" in pod["metadata"] or pod.get("status", {}).get("phase") == "Failed":
        return  # Evicted, or taken from a node: another pod comes in its place.
    for container in _containers(pod):
        ended = container["state"].get("terminated") or container.get("lastState", {}).get("terminated")
        if ended and not container["ready"]:
            raise Failed(f"pod {pod['metadata']['name']}: {_why(pod, ended)}")


def _why(pod: Object, ended: Mapping[str, Any]) -> str:
    if ended.get("reason") == OUT_OF_MEMORY:
        limit = pod["spec"]["containers"][0]["resources"]["limits"]["memory"]
        return f"it ran out of memory, of which it may have {limit}.\n  Set more under resources.memory of the model."
    if message := ended.get("message", "").strip():
        return str(message)
    return (
        f"it ended with exit code {ended['exitCode']} before it was ready.\n"
        "  If the model only takes long to load, set more startSeconds."
    )


def _waits_for(pod: Object) -> str:
    for container in _containers(pod):
        waiting = container["state"].get("waiting") or {}
        if waiting.get("message"):
            return f"{waiting['reason']}: {waiting['message']}"
    scheduled = _condition(pod, "PodScheduled")
    return str(scheduled.get("message", "")) if scheduled.get("status") == "False" else ""


def _containers(pod: Object) -> list[dict[str, Any]]:
    return pod.get("status", {}).get("containerStatuses") or []


def _condition(thing: Object, kind: str) -> Mapping[str, Any]:
    conditions = thing.get("status", {}).get("conditions") or []
    return next((condition for condition in conditions if condition["type"] == kind), {})


def _revision(thing: Object) -> str | None:
    revision: str | None = (thing["metadata"].get("annotations") or {}).get(REVISION)
    return revision
