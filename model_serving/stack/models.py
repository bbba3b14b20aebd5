"""Settings under ``model-serving:models`` and the rules between them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from model_serving.sections import DnsName, Quantity, Section, Violation, wrong

ALL_TRAFFIC: Final = 100
"""Percent. The weights of a model's versions add up to this."""
LONGEST_ROUTE: Final = 15
"""Maximum number of versions of a model at a time. An HTTPRoute holds one rule per version for testers and one for
everyone else, https://gateway-api.sigs.k8s.io/reference/spec/#httproutespec."""
WORKERS_VARIABLE: Final = "MLSERVER_PARALLEL_WORKERS"


def _whole_traffic(weights: dict[str, int]) -> dict[str, int]:
    if weights and sum(weights.values()) != ALL_TRAFFIC:
        raise wrong(
            f"has weights that add up to {sum(weights.values())}",
            "Part of the requests would go to a version that no one chose.",
            f"Write weights that add up to {ALL_TRAFFIC}; a single version has the weight {ALL_TRAFFIC}.",
        )
    return weights


def _own_priority(name: str) -> str:
    if name.startswith("system-"):
        raise wrong(
            f"is {name}",
            "Kubernetes reserves these classes for its own components, and GKE refuses the pods.",
            "Write a PriorityClass of your own; `kubectl get priorityclass` lists those that exist.",
        )
    return name


def _workers_in_one_place(environment: dict[str, str]) -> dict[str, str]:
    if WORKERS_VARIABLE in environment:
        raise wrong(
            f"has {WORKERS_VARIABLE}",
            "The memory of a pod is calculated from the setting workers, which would then be wrong.",
            f"Write workers: {environment[WORKERS_VARIABLE]} beside environment.",
        )
    return environment


Weight = Annotated[int, Field(ge=0, le=ALL_TRAFFIC)]


class Resources(Section):
    """Resources of a pod. The CPU request has no limit; the memory request and limit are always equal."""

    cpu: Quantity | None = Field(
        None,
        examples=["500m", "2"],
        description="CPU request of a pod, in cores. Defaults to what the implementation usually needs, mostly 100m. "
        "There is no limit, because throttling costs latency.",
    )
    memory: Quantity | None = Field(
        None,
        examples=["512Mi", "2Gi"],
        description="Memory request and limit of a pod, so that a pod out of memory affects no other. Defaults to "
        "what the implementation usually needs, once for the server and once for each worker.",
    )


class Autoscaling(Section):
    """A HorizontalPodAutoscaler, which owns the replica count from then on."""

    minimum: int = Field(1, ge=1, le=1000, description="Minimum number of pods.")
    maximum: int = Field(ge=1, le=1000, examples=[10], description="Maximum number of pods.")
    cpu_percent: int = Field(
        70, ge=1, le=1000, description="Average CPU usage, in percent of the request, above which pods are added."
    )


class Gpu(Section):
    """Accelerators of a pod."""

    type: str = Field(
        pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        examples=["nvidia-l4", "nvidia-tesla-t4"],
        description="Accelerator type, as in GKE's node labels, "
        "https://cloud.google.com/kubernetes-engine/docs/concepts/gpus.",
    )
    count: Literal[1, 2, 4, 8, 16] = Field(1, description="Accelerators per pod.")


class ContractSettings(Section):
    """The check of a version before it gets traffic."""

    check: bool = Field(
        True,
        description="Send each version the request in its request.json through the gateway. Write false if pods "
        "cannot reach the gateway; a version then passes when its pods are ready.",
    )
    seconds: int | None = Field(
        None,
        ge=1,
        le=3600,
        examples=[30],
        description="Timeout for the correct answer, counted from the latest time at which the pods should be ready. "
        "Defaults to 30, or to 240 with a gcp section: Google's load balancer takes minutes to pick up a "
        "new Service.",
    )


class ModelSettings(Section):
    """How one model is served in this stack."""

    versions: Annotated[dict[str, Weight], AfterValidator(_whole_traffic)] = Field(
        default_factory=dict,
        description="Version to percent of the traffic. Defaults to all traffic for the newest release that is not "
        "a pre-release such as 1.1.0-rc.1.",
    )
    shadow: str | None = Field(
        None, examples=['"1.1"'], description="Version that gets a copy of every request; its answers are discarded."
    )
    keep_warm: int = Field(
        0,
        ge=0,
        le=LONGEST_ROUTE - 1,
        description="Number of full releases before the newest live one to keep deployed without traffic. Rolling "
        "back to one of them only changes the route.",
    )
    contract: ContractSettings = Field(
        default_factory=ContractSettings, description="The check of a version before it gets traffic."
    )
    replicas: int = Field(
        1,
        ge=1,
        le=1000,
        json_schema_extra={
            "consequence": "The route would have no endpoint, and every request would get 503.",
            "remedy": "Write 1 or more, or remove the model to stop serving it.",
        },
        description="Pods per live version.",
    )
    autoscaling: Autoscaling | None = Field(
        None, description="Scale the number of pods with the load, instead of setting replicas."
    )
    resources: Resources = Field(default_factory=Resources, description="Resources of each pod.")
    workers: int = Field(
        0,
        ge=0,
        le=64,
        description="Number of inference processes per pod, besides the one that takes requests. With 0, that process "
        "also runs inference, which suits small models; each worker loads the model again.",
    )
    gpu: Gpu | None = Field(None, description="Accelerators of each pod. Defaults to none.")
    priority: Annotated[DnsName, AfterValidator(_own_priority)] | None = Field(
        None,
        examples=["models-high"],
        description="Existing PriorityClass of the pods: which pods are scheduled first and may preempt others.",
    )
    environment: Annotated[dict[str, str], AfterValidator(_workers_in_one_place)] = Field(
        default_factory=dict, description="Environment variables of the server, e.g. MLSERVER_ settings. No secrets."
    )
    start_seconds: int = Field(
        120, ge=5, le=3600, description="Timeout for a pod to load its model; after that, the release has failed."
    )
    provision_seconds: int = Field(
        300,
        ge=10,
        le=3600,
        description="Additional timeout for a pod to get a node and its image. A pod that ends while it loads its "
        "model fails the release at once.",
    )
    drain_seconds: Annotated[int, Field(ge=0, le=600)] | None = Field(
        None,
        description="How long a terminating pod keeps serving, in seconds, until every proxy has removed it. Defaults "
        "to 5, or to 60 behind Google's load balancer.",
    )


def minimum_is_not_above_maximum(autoscaling: Autoscaling) -> Iterator[Violation]:
    if autoscaling.maximum < autoscaling.minimum:
        yield (
            f"maximum is {autoscaling.maximum}, and minimum is {autoscaling.minimum}",
            "Kubernetes would refuse the autoscaler halfway through the release.",
            f"Write {autoscaling.minimum} or more, or a lower minimum.",
        )


def shadow_has_no_weight(model: ModelSettings) -> Iterator[Violation]:
    if model.shadow in model.versions:
        yield (
            f"shadow is {model.shadow}, which has a weight in versions as well",
            "It would answer clients, which a shadow never does.",
            "Remove it from versions, or remove shadow.",
        )


def autoscaling_replaces_replicas(model: ModelSettings) -> Iterator[Violation]:
    if model.autoscaling is not None and model.replicas != 1:
        yield (
            "autoscaling is set together with replicas",
            "Both would set the number of pods and undo each other's changes.",
            "Remove replicas; autoscaling.minimum sets the minimum number of pods.",
        )


RULES: Final = (minimum_is_not_above_maximum, shadow_has_no_weight, autoscaling_replaces_replicas)
