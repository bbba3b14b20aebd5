"""Settings under ``model-serving:models`` and the rules between them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from model_serving.quantities import Cores, Memory, between
from model_serving.sections import LONGEST_LABEL, DnsName, Section, Violation, no_truth, wrong

ALL_TRAFFIC: Final = 100
"""Percent. The weights of a model's versions add up to this."""
LONGEST_ROUTE: Final = 15
"""Maximum number of versions of a model at a time. An HTTPRoute holds one rule per version for testers and one for
everyone else, https://gateway-api.sigs.k8s.io/reference/spec/#httproutespec."""
ANSWER_SECONDS: Final = 30
"""Default of ``answerSeconds``."""
_BY_THE_PROGRAM: Final[Mapping[str, str]] = {
    "MODEL_SERVING_": "Write requestSize, answerSeconds or waiting beside environment instead.",
    "MLSERVER_PARALLEL_WORKERS": "Write workers beside environment instead.",
    "MLSERVER_CORS_SETTINGS": "Write allowedOrigins under model-serving:gateway instead.",
    "MLSERVER_MODEL_": "Write it into the release's model-settings.json instead, and release a new version.",
} | dict.fromkeys(
    (
        *("MLSERVER_HOST", "MLSERVER_HTTP_PORT", "MLSERVER_GRPC_PORT", "MLSERVER_ROOT_PATH"),
        *("MLSERVER_METRICS_PORT", "MLSERVER_METRICS_ENDPOINT", "MLSERVER_METRICS_REST_SERVER_PREFIX"),
        *("MLSERVER_METRICS_DIR", "MLSERVER_ENVIRONMENTS_DIR", "MLSERVER_LOAD_MODELS_AT_STARTUP"),
        *("MLSERVER_KAFKA_", "PATH", "PYTHONHOME"),
    ),
    "Remove it; no other value works in these pods.",
)
"""Variables of the server that are not the stack's to set, or how their names begin: what to do instead.

The probes, the Service, the routes, the alerts and the contract check rely on some, the image and its read-only file
system on others. Kafka is beyond what the pods may reach.
"""

_TRUTH: Final = "true|false|1|0|yes|no|on|off|y|n|t|f"
_TYPED: Final[Mapping[str, str]] = {
    **dict.fromkeys(("MLSERVER_DEBUG", "MLSERVER_CACHE_ENABLED", "MLSERVER_GZIP_ENABLED"), _TRUTH),
    "MLSERVER_USE_STRUCTURED_LOGGING": _TRUTH,
    **dict.fromkeys(("MLSERVER_CACHE_SIZE", "MLSERVER_PARALLEL_WORKERS_TIMEOUT"), "[0-9]{1,9}"),
    "MLSERVER_GRPC_MAX_MESSAGE_LENGTH": "-?[0-9]{1,9}",
}
"""Variables that MLServer reads as something else than a text: the form of their values."""


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


def _for_a_stack(variable: str) -> str:
    if not re.fullmatch(r"[-._a-zA-Z][-._a-zA-Z0-9]*", variable):
        raise wrong(
            "is not a name that a variable can have",
            "Kubernetes would refuse the pods.",
            "Write letters, digits, `_`, `-` and `.`, and begin with no digit.",
        )
    # MLServer reads its variables in any case.
    for name, remedy in _BY_THE_PROGRAM.items():
        if variable.upper() == name or (name.endswith("_") and variable.upper().startswith(name)):
            raise wrong(
                "is not for a stack to set",
                "The pods would not start, or would not serve what was released and checked.",
                remedy,
            )
    return variable


Variable = Annotated[str, AfterValidator(_for_a_stack)]
"""Name of an environment variable."""
Weight = Annotated[int, Field(ge=0, le=ALL_TRAFFIC), BeforeValidator(no_truth)]


class Resources(Section):
    """Resources of a pod. The CPU request has no limit; the memory request and limit are always equal."""

    cpu: Cores | None = Field(
        None,
        examples=["500m", "2"],
        description="CPU request of a pod, in cores. Defaults to what the implementation usually needs, mostly 100m. "
        "There is no limit, because throttling costs latency.",
    )
    memory: Annotated[Memory, between("128Mi", "16Ti")] | None = Field(
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
        max_length=LONGEST_LABEL,
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
        description="Timeout for the first correct answer, counted from the latest time at which the pods should be "
        "ready. Defaults to 30, or to 240 with a gcp section: Google's load balancer takes minutes to pick up a "
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
    environment: dict[Variable, str] = Field(
        default_factory=dict,
        description="Environment variables of the server, e.g. MLSERVER_ settings. No secrets.",
    )
    request_size: Annotated[Memory, between("1Ki", "1Gi")] | None = Field(
        None,
        examples=["16Mi"],
        description="Largest body of a request; a larger one gets 413. Defaults to what a pod can take: a 64th of its "
        "memory, so 8Mi of 512Mi, and 16Mi at most. Short numbers in JSON take 15 times their size when they are read.",
    )
    waiting: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Number of requests that may wait or run in a pod at once; any more get 503 with Retry-After.",
    )
    answer_seconds: int = Field(
        ANSWER_SECONDS,
        ge=1,
        le=290,
        json_schema_extra={
            "consequence": "Proxies end a request after 5 minutes in which nothing is sent.",
            "remedy": "Write 1 to 290; split what takes longer into several requests.",
        },
        description="Timeout for an answer, in seconds; what takes longer gets 503. The gateway, the contract check "
        "and a pod that shuts down wait accordingly.",
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
    drain_seconds: int | None = Field(
        None,
        ge=0,
        le=600,
        description="How long a terminating pod keeps serving, in seconds, until every proxy has removed it. Defaults "
        "to 5, or to 60 behind Google's load balancer.",
    )

    @property
    def most_pods(self) -> int:
        """Pods that a version may have."""
        return self.autoscaling.maximum if self.autoscaling else self.replicas


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


def server_can_read_its_variables(model: ModelSettings) -> Iterator[Violation]:
    for variable, value in model.environment.items():
        if "\0" in value:
            yield f"environment.{variable} has the character NUL", "No pod would start.", "Remove the character."
        form = _TYPED.get(variable.upper())
        if form and not re.fullmatch(form, value, re.IGNORECASE):
            yield (
                f"environment.{variable} is {json.dumps(value)}",
                "The server could not read it, and no pod would start.",
                'Write "true" or "false".' if form == _TRUTH else "Write a whole number, in quotes.",
            )


RULES: Final = (
    minimum_is_not_above_maximum,
    shadow_has_no_weight,
    autoscaling_replaces_replicas,
    server_can_read_its_variables,
)
