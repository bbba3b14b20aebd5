"""What a stack says: the keys of stacks/Pulumi.<stack>.yaml, their defaults and the rules between them.

Plain Python: nothing here knows Pulumi, so the rules are tested in milliseconds, and commands use them too.
``read`` reports every mistake of a stack at once, each with the key, the value, what it would cause and its cure.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, field_validator

from model_serving.images.settings import ImageSettings
from model_serving.problems import InvalidInput, Problem
from model_serving.sections import Cidr, DnsLabel, DnsName, HttpUrl, Quantity, RemoteUrl, Section, problems_of, wrong
from model_serving.stack.gitlab_agent import AgentSettings
from model_serving.stack.gitlab_agent import problems as agent_problems
from model_serving.stack.google import GcpSettings
from model_serving.stack.pipelines import CiSettings

NAMESPACE: Final = "model-serving"
"""The prefix of this program's keys in a stack file, which is the project's name in Pulumi.yaml."""

ALL_TRAFFIC: Final = 100
"""Percent. The weights of a model's versions add up to this."""


LONGEST_ROUTE: Final = 15
"""Versions that a model can have at once. A rule each for testers and one for everybody is what an HTTPRoute holds,
https://gateway-api.sigs.k8s.io/reference/spec/#httproutespec."""
WORKERS_VARIABLE: Final = "MLSERVER_PARALLEL_WORKERS"


def _whole_traffic(weights: dict[str, int]) -> dict[str, int]:
    if weights and sum(weights.values()) != ALL_TRAFFIC:
        raise wrong(
            f"has weights that add up to {sum(weights.values())}",
            "Part of the requests would go to a version that nobody chose.",
            f"Write weights that add up to {ALL_TRAFFIC}; a single version has the weight {ALL_TRAFFIC}.",
        )
    return weights


Weight = Annotated[int, Field(ge=0, le=ALL_TRAFFIC)]


class Resources(Section):
    """What a pod is given. The request is what the scheduler reserves; memory has one value for both, by design."""

    cpu: Quantity | None = Field(
        None,
        examples=["500m", "2"],
        description="Cores reserved for a pod. Without it, what the implementation usually needs, mostly 100m. "
        "There is no limit: throttling costs latency.",
    )
    memory: Quantity | None = Field(
        None,
        examples=["512Mi", "2Gi"],
        description="Memory of a pod, request and limit alike, so that it fails alone. Without it, what the "
        "implementation usually needs, once for the server and once for each worker.",
    )


class Autoscaling(Section):
    """A HorizontalPodAutoscaler. Once it has taken over, the number of pods is its own affair."""

    minimum: int = Field(1, ge=1, le=1000, description="Pods that are always there.")
    maximum: int = Field(ge=1, le=1000, examples=[10], description="Pods that there can be at most.")
    cpu_percent: int = Field(
        70, ge=1, le=1000, description="Share of the reserved cores above which pods are added, on average of all pods."
    )

    @field_validator("maximum")
    @classmethod
    def _above_minimum(cls, value: int, info: ValidationInfo) -> int:
        minimum = info.data.get("minimum", 1)
        if value < minimum:
            raise wrong(
                f"is {value}, and minimum is {minimum}",
                "Kubernetes would refuse the autoscaler when half of the release is done.",
                f"Write {minimum} or more, or a lower minimum.",
            )
        return value


class Gpu(Section):
    """Accelerators of a pod."""

    type: str = Field(
        pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        examples=["nvidia-l4", "nvidia-tesla-t4"],
        description="As GKE labels its nodes, https://cloud.google.com/kubernetes-engine/docs/concepts/gpus.",
    )
    count: Literal[1, 2, 4, 8, 16] = Field(1, description="Accelerators of each pod.")


class ContractSettings(Section):
    """What a version is asked before any traffic moves to it."""

    check: bool = Field(
        True,
        description="Ask each version through the gateway what its request.json says. Write false where pods cannot "
        "reach the gateway; then a version is good when its pods are ready.",
    )
    seconds: int | None = Field(
        None,
        ge=1,
        le=3600,
        examples=[30],
        description="How long a version may take to answer right, from when its pods should be ready at the latest. "
        "Without it 30, and 240 with a gcp section: Google's load balancer takes minutes to learn of a new Service.",
    )


class ModelSettings(Section):
    """How one model is served in this stack."""

    versions: Annotated[dict[str, Weight], AfterValidator(_whole_traffic)] = Field(
        default_factory=dict,
        description="Version to percent of the traffic. Without it the newest release takes all.",
    )
    shadow: str | None = Field(
        None,
        examples=['"1.1"'],
        description="Version that gets a copy of every request, and whose answers nobody sees.",
    )
    keep_warm: int = Field(
        0,
        ge=0,
        le=LONGEST_ROUTE - 1,
        description="So many releases before the newest live one stay deployed without traffic: going back to one of "
        "them is a change of the route alone.",
    )
    contract: ContractSettings = Field(
        default_factory=ContractSettings, description="What a version is asked before traffic moves to it."
    )
    replicas: int = Field(
        1,
        ge=1,
        le=1000,
        description="Pods per live version.",
        json_schema_extra={
            "consequence": "The route would have no endpoint and every request would get 503.",
            "remedy": "Write 1 or more, or remove the model to stop serving it.",
        },
    )
    autoscaling: Autoscaling | None = Field(
        None, description="Let the load decide on the number of pods, instead of replicas."
    )
    resources: Resources = Field(default_factory=Resources, description="What each pod is given.")
    workers: int = Field(
        0,
        ge=0,
        le=64,
        description="Processes of each pod that predict, besides the one that takes requests. With 0 that one does "
        "both, which is right for small models; each worker loads the model again.",
    )
    gpu: Gpu | None = Field(None, description="Accelerators of each pod. Without it there are none.")
    priority: DnsName | None = Field(
        None,
        examples=["models-high"],
        description="PriorityClass of the pods, which has to exist: who is scheduled first, and who may displace whom.",
    )
    environment: dict[str, str] = Field(
        default_factory=dict, description="Environment variables of the server, e.g. MLSERVER_ settings. No secrets."
    )
    start_seconds: int = Field(
        120,
        ge=5,
        le=3600,
        description="How long a pod may take to load its model, before its release counts as failed.",
    )
    provision_seconds: int = Field(
        300,
        ge=10,
        le=3600,
        description="How long a pod may wait for a node and for its image on top of that. Whatever keeps it from "
        "coming up is told after both.",
    )
    drain_seconds: Annotated[int, Field(ge=0, le=600)] | None = Field(
        None,
        description="Seconds for which a pod that is leaving goes on serving, until every proxy has forgotten it. "
        "Without it 5, or 60 where Google's load balancer leads to the models.",
    )

    @field_validator("shadow")
    @classmethod
    def _beside_the_others(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and value in info.data.get("versions", {}):
            raise wrong(
                f"is {value}, which has a weight in versions as well",
                "It would answer clients, which a shadow never does.",
                "Remove it from versions, or remove shadow.",
            )
        return value

    @field_validator("autoscaling")
    @classmethod
    def _instead_of_replicas(cls, value: Autoscaling | None, info: ValidationInfo) -> Autoscaling | None:
        if value is not None and info.data.get("replicas", 1) != 1:
            raise wrong(
                "stands beside replicas",
                "Both would set the number of pods, and take turns at it.",
                "Remove replicas; autoscaling.minimum says how many pods there are at least.",
            )
        return value

    @field_validator("priority")
    @classmethod
    def _not_the_system(cls, value: str | None) -> str | None:
        if value is not None and value.startswith("system-"):
            raise wrong(
                f"is {value}",
                "Kubernetes keeps these classes for what it needs itself, and GKE refuses the pods.",
                "Write a PriorityClass of your own; `kubectl get priorityclass` shows what there is.",
            )
        return value

    @field_validator("environment")
    @classmethod
    def _workers_in_one_place(cls, value: dict[str, str]) -> dict[str, str]:
        if WORKERS_VARIABLE in value:
            raise wrong(
                f"has {WORKERS_VARIABLE}",
                "The memory of a pod is worked out from the number of its workers, which would be another one.",
                f"Write workers: {value[WORKERS_VARIABLE]} beside environment.",
            )
        return value


class ArtefactSettings(Section):
    """Where the large files of releases are, for which pointers are released."""

    remote: RemoteUrl = Field(
        examples=["gs://my-models-dvc/releases"],
        description="DVC remote: a bucket of Google Cloud Storage (gs://), S3 (s3://) or Azure (az://), with an "
        "optional path, or a folder (file:///). It has to be the one that the models' repositories name in "
        "release.yaml.",
    )


class GatewaySettings(Section):
    """The one door through which clients reach the models."""

    class_name: str | None = Field(
        None,
        min_length=1,
        description="GatewayClass, which decides who implements the gateway. With a gcp section it is Google's load "
        "balancer, unless another is named here.",
    )
    endpoint: HttpUrl | None = Field(
        None,
        description="Where clients reach the gateway, if that is not the address which the Gateway reports.",
        json_schema_extra={
            "consequence": "The stack's outputs would name an address that no client can use.",
            "remedy": "Write scheme, host and port and nothing behind them, e.g. http://127.0.0.1:8080.",
        },
    )
    cluster_endpoint: HttpUrl | None = Field(
        None,
        description="Where pods reach the gateway, which ask a new version through it, if that is not the address "
        "which the Gateway reports.",
        json_schema_extra={
            "consequence": "No version could be asked before it gets traffic, and no release would come to its end.",
            "remedy": "Write scheme, host and port and nothing behind them, e.g. http://10.0.0.5.",
        },
    )
    client_ranges: list[Cidr] = Field(
        default_factory=list,
        description="Addresses that the gateway's proxies have when they reach a pod; nobody else is let in.",
        json_schema_extra={
            "consequence": "The pods would not let the gateway in and every request would get 503.",
            "remedy": "Write ranges such as 10.0.0.0/24.",
        },
    )


class Encrypted(Section):
    """A value that `pulumi config set --secret` wrote; nobody but Pulumi reads it."""

    secure: str = Field(description="The value as Pulumi encrypted it.")


class Settings(Section):
    """A whole stack."""

    kubeconfig: str | None = Field(
        None,
        description="Path of a kubeconfig, relative to the project. Without it KUBECONFIG or ~/.kube/config is used.",
    )
    kube_context: str | None = Field(None, description="Context in the kubeconfig. Without it its current one is used.")
    gcp: GcpSettings | None = Field(
        None, description="The platform on Google Cloud. Without it the cluster and the registry are there already."
    )
    registry: str | None = Field(
        None,
        validate_default=True,
        min_length=1,
        pattern=r"^[a-z0-9.-]+(:\d+)?(/[a-z0-9._/-]+)?$",
        description="Where images are pushed to and pulled from: host, port and path, without a scheme. "
        "With a gcp section it is the platform's own, unless another is named here.",
        json_schema_extra={
            "consequence": "No image could be pushed, so no model could be served.",
            "remedy": "Write a host with port and path as needed, e.g. localhost:5000.",
        },
    )
    namespace: DnsLabel = Field(
        "models", examples=["models"], description="Kubernetes namespace of the model servers and the gateway."
    )
    images: ImageSettings = Field(default_factory=ImageSettings, description="How images are built.")
    artefacts: ArtefactSettings | None = Field(
        None,
        description="Where the large files of releases are. With a gcp section it is the root of the platform's DVC "
        "bucket, unless another is named here.",
    )
    gateway: GatewaySettings = Field(
        default_factory=GatewaySettings, validate_default=True, description="How clients reach the models."
    )
    scraper_namespaces: list[DnsLabel] = Field(
        default_factory=list, description="Namespaces whose pods may read the servers' metrics."
    )
    agent: AgentSettings | None = Field(None, description="The GitLab agent. Without it none is installed.")
    agent_token: Encrypted | None = Field(
        None,
        description="Token of an agent that was registered elsewhere. "
        "`pulumi config set --secret model-serving:agentToken` writes it.",
    )
    ci: CiSettings | None = Field(None, description="How pipelines treat this stack. Without it they leave it alone.")
    models: dict[str, ModelSettings] = Field(
        default_factory=dict, description="What this stack serves: model name to how. See the folder models/."
    )

    @property
    def has_googles_gateway(self) -> bool:
        """Whether Google's load balancer leads to the models, and not a gateway whose class the stack names."""
        return self.gcp is not None and not self.gateway.class_name

    @property
    def image_registry(self) -> str:
        """Where images are pushed to, be it there yet or not: host, port and path, without a scheme."""
        return self.registry or (self.gcp.image_registry if self.gcp else "")

    @property
    def remote(self) -> str | None:
        """Where large files are fetched from, if there is such a place."""
        if self.artefacts:
            return self.artefacts.remote
        return f"gs://{self.gcp.bucket}" if self.gcp else None

    @field_validator("models")
    @classmethod
    def _on_nodes_that_there_are(
        cls, value: dict[str, ModelSettings], info: ValidationInfo
    ) -> dict[str, ModelSettings]:
        gcp = info.data.get("gcp")
        wanting = [name for name, model in value.items() if model.gpu]
        if gcp is not None and wanting and gcp.cluster.mode == "standard" and gcp.cluster.existing is None:
            raise wrong(
                f"wants accelerators for {', '.join(wanting)}, and the node pool of this stack has none",
                "The pods would wait for a node for ever, and the release would fail.",
                "Write mode: autopilot under gcp.cluster, which makes nodes as pods need them, or remove gpu.",
            )
        return value

    @field_validator("models")
    @classmethod
    def _where_pods_reach_the_gateway(
        cls, value: dict[str, ModelSettings], info: ValidationInfo
    ) -> dict[str, ModelSettings]:
        gcp, gateway = info.data.get("gcp"), info.data.get("gateway")
        asked = [name for name, model in value.items() if model.contract.check]
        if gcp is None or gateway is None or gateway.cluster_endpoint or not asked:
            return value
        if gcp.gateway.public and gcp.network.existing is None and not gcp.network.nat:
            raise wrong(
                f"has versions of {', '.join(asked)} asked through a public gateway, and gcp.network.nat is false",
                "No pod could reach the gateway, so no version would ever get traffic.",
                "Write nat: true, or contract: {check: false} under each of these models.",
            )
        return value

    @field_validator("registry")
    @classmethod
    def _somewhere(cls, value: str | None, info: ValidationInfo) -> str | None:
        # A gcp section that has mistakes of its own is not in the data: one message for it is enough.
        if value is None and info.data.get("gcp", ...) is None:
            raise wrong(
                "is missing",
                "No image could be pushed, so no model could be served.",
                "Write a host with port and path as needed, e.g. localhost:5000, or add a gcp section.",
            )
        return value

    @field_validator("gateway")
    @classmethod
    def _by_somebody(cls, value: GatewaySettings, info: ValidationInfo) -> GatewaySettings:
        if value.class_name is None and info.data.get("gcp", ...) is None:
            raise wrong(
                "has no className",
                "Nobody would implement the gateway, and no request would reach a model.",
                "Write one that `kubectl get gatewayclass` shows.",
            )
        return value


SECRETS: Final = frozenset({f"{NAMESPACE}:agentToken"})
"""Keys that are encrypted in the stack file. What they say is none of this module's business, nor of its messages."""

RETIRED: Final[Mapping[str, str]] = {}
"""Keys that an earlier version had, each with what to write instead."""


def file_of(stack: str) -> str:
    """Where the stack's settings are written, as messages name it."""
    return f"stacks/Pulumi.{stack}.yaml"


def read(stack: str, values: Mapping[str, str], *, secret: Collection[str] | None = None) -> Settings:
    """Reads a stack's configuration.

    Args:
        stack: the stack's name.
        values: key with its prefix -> value as Pulumi hands it over, a text that is JSON for lists and mappings.
        secret: keys that the stack file has encrypted; None if whoever calls cannot tell, and then nobody is told of
            a secret in plain text.

    Raises:
        InvalidInput: with every mistake of the stack, and never with the value of a secret.
    """
    file = file_of(stack)
    prefix = f"{NAMESPACE}:"
    ours = {key: value for key, value in values.items() if key.startswith(prefix)}
    hidden = _settings_among(secret or ())
    exposed = [] if secret is None else _exposed(file, ours, secret)
    problems = [*exposed, *(_hidden(file, key) for key in hidden)]
    # A marker in the place of each secret, whoever encrypted it: from here on nothing can tell it.
    marked = ours | dict.fromkeys(SECRETS & ours.keys(), '{"secure": ""}')
    own = {key.removeprefix(prefix): _parsed(value) for key, value in marked.items() if key not in hidden}
    try:
        settings = Settings.model_validate(own)
    except ValidationError as error:
        wrong_values = problems_of(error, Settings, file=file, prefix=prefix, retired=RETIRED)
        raise InvalidInput([*problems, *wrong_values]) from None
    problems += _between_sections(settings, stack)
    if problems:
        raise InvalidInput(problems)
    return settings


def _exposed(file: str, values: Mapping[str, str], secret: Collection[str]) -> Iterator[Problem]:
    """Secrets that stand in the file for everybody to read."""
    for key in sorted((SECRETS & values.keys()) - set(secret)):
        yield Problem(
            file=file,
            what=f"{key} is in plain text",
            consequence="Whoever reads the stack file or its history could use it.",
            remedy=f"Make a new one, and run `pulumi config set --secret {key}`; the old one is spoilt.",
        )


def _settings_among(secret: Collection[str]) -> list[str]:
    """The encrypted keys that are settings to be seen. One that is no setting at all gets another message."""
    known = {f"{NAMESPACE}:{info.alias}" for info in Settings.model_fields.values()}
    return sorted((known - SECRETS) & set(secret))


def _hidden(file: str, key: str) -> Problem:
    return Problem(
        file=file,
        what=f"{key} is encrypted",
        consequence="Nobody could see in a merge request what changes, and messages would show it all the same.",
        remedy=f"Write it in plain text; only {', '.join(sorted(SECRETS))} is a secret.",
    )


def _between_sections(settings: Settings, stack: str) -> Iterator[Problem]:
    if settings.agent is not None:
        yield from agent_problems(
            settings.agent,
            stack=stack,
            has_token=settings.agent_token is not None,
            kube_context=settings.kube_context,
            serving_namespace=settings.namespace,
            has_platform=settings.gcp is not None,
        )
    elif settings.agent_token is not None:
        yield Problem(
            file=file_of(stack),
            what=f"{NAMESPACE}:agentToken is set, and there is no {NAMESPACE}:agent",
            consequence="The stack file would keep a secret that nothing uses.",
            remedy=f"Run `pulumi config rm {NAMESPACE}:agentToken`, or write the section.",
        )


def _parsed(value: str) -> Any:
    """Lists and mappings arrive as JSON; a text that merely begins like one stays a text and fails its own check."""
    if not value.startswith(("{", "[")):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value
