"""What a stack says: the keys of stacks/Pulumi.<stack>.yaml, their defaults and the rules between them.

Plain Python: nothing here knows Pulumi, so the rules are tested in milliseconds and used by the commands in ci/ too.
``read`` reports every mistake of a stack at once, each with the key, the value, what it would cause and its cure.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

from gcp import GcpSettings
from problems import InvalidInput, Problem
from sections import Cidr, DnsLabel, HttpUrl, Quantity, Section, wrong

NAMESPACE: Final = "model-serving"
"""The prefix of this program's keys in a stack file, which is the project's name in Pulumi.yaml."""

ALL_TRAFFIC: Final = 100
"""Percent. The weights of a model's versions add up to this."""


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

    cpu: Quantity = Field(
        "100m",
        examples=["500m", "2"],
        description="Cores reserved for a pod. There is no limit: throttling costs latency.",
    )
    memory: Quantity = Field(
        "512Mi",
        examples=["512Mi", "2Gi"],
        description="Memory of a pod, request and limit alike, so that it fails alone.",
    )


class ModelSettings(Section):
    """How one model is served in this stack."""

    versions: Annotated[dict[str, Weight], AfterValidator(_whole_traffic)] = Field(
        default_factory=dict,
        description="Version to percent of the traffic. Without it the newest release takes all.",
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
    resources: Resources = Field(default_factory=Resources, description="What each pod is given.")
    environment: dict[str, str] = Field(
        default_factory=dict, description="Environment variables of the server, e.g. MLSERVER_ settings. No secrets."
    )
    drain_seconds: int = Field(
        10,
        ge=0,
        le=600,
        description="Seconds for which a pod that is leaving goes on serving, until every proxy has forgotten it.",
    )


class ImageSettings(Section):
    """How images are built."""

    base: str = Field(
        "python:3.11-slim-bookworm",
        min_length=1,
        description="Image with Python 3.11 and its venv module, on which the runtime images are built.",
    )
    builder: str | None = Field(
        None, description="Name of a buildx builder. Without it the default builder of the machine is used."
    )
    wheels: str | None = Field(
        None,
        description="Folder with a folder of wheels per lock, relative to the project. A lock that has one is "
        "installed from there without a network; any other is installed from the package index.",
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
    client_ranges: list[Cidr] = Field(
        default_factory=list,
        description="Addresses that the gateway's proxies have when they reach a pod; nobody else is let in.",
        json_schema_extra={
            "consequence": "The pods would not let the gateway in and every request would get 503.",
            "remedy": "Write ranges such as 10.0.0.0/24.",
        },
    )


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
    gateway: GatewaySettings = Field(
        default_factory=GatewaySettings, validate_default=True, description="How clients reach the models."
    )
    scraper_namespaces: list[DnsLabel] = Field(
        default_factory=list, description="Namespaces whose pods may read the servers' metrics."
    )
    models: dict[str, ModelSettings] = Field(
        default_factory=dict, description="What this stack serves: model name to how. See the folder models/."
    )

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


RETIRED: Final[Mapping[str, str]] = {}
"""Keys that an earlier version had, each with what to write instead."""


def file_of(stack: str) -> str:
    """Where the stack's settings are written, as messages name it."""
    return f"stacks/Pulumi.{stack}.yaml"


def read(stack: str, values: Mapping[str, str]) -> Settings:
    """Reads a stack's configuration.

    Args:
        stack: the stack's name.
        values: key with its prefix -> value as Pulumi hands it over, a text that is JSON for lists and mappings.

    Raises:
        InvalidInput: with every mistake of the stack.
    """
    file = file_of(stack)
    prefix = f"{NAMESPACE}:"
    own = {key.removeprefix(prefix): _parsed(value) for key, value in values.items() if key.startswith(prefix)}
    try:
        return Settings.model_validate(own)
    except ValidationError as error:
        raise InvalidInput(_problem(file, details) for details in error.errors(include_url=False)) from None


def _parsed(value: str) -> Any:
    """Lists and mappings arrive as JSON; a text that merely begins like one stays a text and fails its own check."""
    if not value.startswith(("{", "[")):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _problem(file: str, details: ErrorDetails) -> Problem:
    key = f"{NAMESPACE}:" + ".".join(str(part) for part in details["loc"] if part != "[key]")
    context = details.get("ctx", {})
    match details["type"]:
        case "setting":
            what, consequence, remedy = f"{key} {context['what']}", context["consequence"], context["remedy"]
        case "extra_forbidden":
            what = f"{key} is no setting"
            consequence = "It would be ignored, and the stack would not do what it says."
            remedy = _nearest(str(details["loc"][-1]), _section_at(details["loc"][:-1]))
        case "missing":
            what = f"{key} is missing"
            consequence, remedy = _advice(details)
        case _:
            what = f"{key} is {json.dumps(details['input'], default=str)}"
            consequence, remedy = _advice(details)
    return Problem(file=file, what=what, consequence=consequence, remedy=remedy)


def _advice(details: ErrorDetails) -> tuple[str, str]:
    """What the setting itself says of a wrong value, else the rule that the value breaks."""
    section, key = _field_at(details["loc"])
    for info in section.model_fields.values():
        extra = info.json_schema_extra
        if info.alias == key:
            if isinstance(extra, dict) and "remedy" in extra:
                return str(extra["consequence"]), str(extra["remedy"])
            consequence = f"It is meant for this: {info.description}"
            if info.examples:
                return consequence, f"Write for example {' or '.join(map(str, info.examples))}."
            return consequence, f"{details['msg']}."
    return "The stack would not do what it says.", f"{details['msg']}."


def _nearest(key: str, section: type[BaseModel]) -> str:
    if key in RETIRED:
        return RETIRED[key]
    known = [str(info.alias) for info in section.model_fields.values()]
    close = difflib.get_close_matches(key, known, n=1)
    return f"Did you mean {close[0]}?" if close else f"Known here: {', '.join(sorted(known))}."


def _section_at(location: tuple[int | str, ...]) -> type[BaseModel]:
    """The deepest section on the way to a place in the file."""
    section: type[BaseModel] = Settings
    for part in location:
        for info in section.model_fields.values():
            if info.alias == part:
                section = next(sections_in(info.annotation), section)
    return section


def _field_at(location: tuple[int | str, ...]) -> tuple[type[BaseModel], str]:
    """The setting that a place belongs to: an entry of a list or a mapping is described where the list is."""
    for end in range(len(location), 0, -1):
        section = _section_at(location[: end - 1])
        if any(info.alias == location[end - 1] for info in section.model_fields.values()):
            return section, str(location[end - 1])
    return Settings, str(location[0])


def sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a field's type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from sections_in(argument)
