"""Settings of a stack: the keys of stacks/Pulumi.<stack>.yaml, their defaults and the rules between them.

Plain Python without Pulumi: tests of the rules take milliseconds, and commands can read a stack.
``read`` reports all mistakes of a stack at once, each with its key, value, consequence and remedy.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, ValidationError

from model_serving.images.settings import ImageSettings
from model_serving.problems import InvalidInput, Problem
from model_serving.sections import (
    IMAGE_PATH,
    LONGEST_LABEL,
    DnsLabel,
    Namespace,
    RemoteUrl,
    Section,
    Violation,
    problems_of,
    reachable,
    valid_part,
    violations,
)
from model_serving.stack import gitlab_agent, google_cluster, google_rules, models
from model_serving.stack.gateway import GatewaySettings
from model_serving.stack.gitlab_agent import AgentSettings
from model_serving.stack.google import REVIEW, GcpSettings
from model_serving.stack.models import ModelSettings
from model_serving.stack.pipelines import CiSettings

NAMESPACE: Final = "model-serving"
"""Prefix of this program's keys in a stack file: the project's name in Pulumi.yaml."""


class ArtefactSettings(Section):
    """Storage of releases' large files; the releases contain pointers to them."""

    remote: RemoteUrl = Field(
        examples=["gs://my-models-dvc/releases"],
        description="DVC remote: a bucket of Google Cloud Storage (gs://), S3 (s3://) or Azure (az://), with an "
        "optional path, or a folder (file:///). It must be the remote that the models' repositories set "
        "in release.yaml.",
    )


class Encrypted(Section):
    """A value that `pulumi config set --secret` wrote; only Pulumi can read it."""

    secure: str = Field(description="The value as encrypted by Pulumi.")


class Settings(Section):
    """A whole stack."""

    kubeconfig: str | None = Field(
        None,
        min_length=1,
        examples=[".state/kubeconfig"],
        description="Path of a kubeconfig, relative to the project. Defaults to KUBECONFIG or ~/.kube/config.",
    )
    kube_context: str | None = Field(
        None,
        min_length=1,
        examples=["model-serving-local"],
        description="Context in the kubeconfig. Defaults to the kubeconfig's current context.",
    )
    gcp: GcpSettings | None = Field(
        None, description="The platform on Google Cloud. Without it, the cluster and the registry already exist."
    )
    registry: (
        Annotated[str, Field(pattern=rf"^[a-z0-9.-]+(:[0-9]+)?(/{IMAGE_PATH})?$"), AfterValidator(reachable)] | None
    ) = Field(
        None,
        json_schema_extra={
            "consequence": "No image could be pushed, so no model could be served.",
            "remedy": "Write a host with port and path as needed, e.g. localhost:5000.",
        },
        description="Registry to which images are pushed and from which they are pulled: host, port and path, without "
        "a scheme. With a gcp section, it defaults to the platform's own.",
    )
    namespace: Namespace = Field(
        "models", examples=["models"], description="Kubernetes namespace of the model servers and the gateway."
    )
    images: ImageSettings = Field(default_factory=ImageSettings, description="How images are built.")
    artefacts: ArtefactSettings | None = Field(
        None,
        description="Storage of releases' large files. With a gcp section, it defaults to the root of the platform's "
        "DVC bucket.",
    )
    gateway: GatewaySettings = Field(default_factory=GatewaySettings, description="How clients reach the models.")
    portal: bool = Field(
        True,
        description="Run the portal: a small deployment that serves the page at `/`, the API description at "
        "`/mlapi/openapi.json`, and what concerns all models, such as `/mlapi/v2/health/ready`.",
    )
    scraper_namespaces: list[DnsLabel] = Field(
        default_factory=list, description="Namespaces whose pods may read the servers' metrics."
    )
    agent: AgentSettings | None = Field(None, description="The GitLab agent. Without it, no agent is installed.")
    agent_token: Encrypted | None = Field(
        None,
        description="Token of an agent that was registered elsewhere. `pulumi config set --secret "
        "model-serving:agentToken` writes it.",
    )
    ci: CiSettings | None = Field(
        None, description="How pipelines deploy this stack. Without it, pipelines ignore the stack."
    )
    models: dict[str, ModelSettings] = Field(
        default_factory=dict,
        description="Models that this stack serves: name to settings. The folder models/ has the releases.",
    )

    @property
    def has_googles_gateway(self) -> bool:
        """Whether Google's load balancer is the gateway, and not a GatewayClass that the stack sets."""
        return self.gcp is not None and not self.gateway.class_name

    @property
    def has_reviews(self) -> bool:
        """Whether the stack serves what merge requests add."""
        return self.ci is not None and self.ci.review is not None

    @property
    def review_namespace(self) -> str:
        """Namespace of reviews on Google Cloud."""
        return f"{self.namespace}-{REVIEW}"

    @property
    def has_portal(self) -> bool:
        """Whether there is a portal: without models it would have nothing to say."""
        return self.portal and bool(self.models)

    @property
    def has_several_pods(self) -> bool:
        """Whether a model has more than one pod, or may have."""
        return any(model.most_pods > 1 for model in self.models.values())

    @property
    def image_registry(self) -> str:
        """Where images are pushed to, be it there yet or not: host, port and path, without a scheme."""
        return self.registry or (self.gcp.image_registry if self.gcp else "")

    @property
    def remote(self) -> str | None:
        """Address of the remote for large files, if there is one."""
        if self.artefacts:
            return self.artefacts.remote
        return f"gs://{self.gcp.bucket}" if self.gcp else None


def registry_is_known(settings: Settings) -> Iterator[Violation]:
    if settings.registry is None and settings.gcp is None:
        yield (
            "registry is missing",
            "No image could be pushed, so no model could be served.",
            "Write a host with port and path as needed, e.g. localhost:5000, or add a gcp section.",
        )


def reviews_are_safe(settings: Settings) -> Iterator[Violation]:
    if settings.ci is None or settings.ci.review is None:
        return
    gcp, elsewhere = settings.gcp, "Remove review, and set it for a stack for development."
    if settings.ci.approval or settings.ci.tier == "production":
        yield (
            f"ci.review is set, and {'ci.approval is true' if settings.ci.approval else 'ci.tier is production'}",
            "Every branch could run its code there without anyone's approval.",
            elsewhere,
        )
    if gcp and gcp.gateway.public:
        yield (
            "ci.review is set, and gcp.gateway.public is true",
            "Every branch could open its code to the internet, without Cloud Armor or Identity-Aware Proxy.",
            elsewhere[:-1] + " whose gateway is internal (public: false).",
        )
    if gcp and settings.gateway.class_name:
        yield (
            f"ci.review is set, and gateway.className is {settings.gateway.class_name}",
            "Its proxies may run in the namespace of the gateway: that of reviews, in which branches change pods.",
            "Remove className, so that Google's load balancer is the gateway, or remove review.",
        )
    if settings.agent and gcp is None:
        yield (
            "ci.review is set, and so is the agent section without a gcp section",
            "The agent only lets jobs in the stack's own environment in, and no job of a merge request.",
            "Remove review, or the agent section; with a gcp section, reviews use an account of Google's.",
        )
    if gcp and len(settings.review_namespace) > LONGEST_LABEL:
        yield (
            f"namespace is {settings.namespace}, and ci.review is set",
            f"The namespace of reviews, {settings.review_namespace}, would have more than {LONGEST_LABEL} characters.",
            f"Write a namespace of at most {LONGEST_LABEL - len(REVIEW) - 1} characters.",
        )


def gateway_has_a_class(settings: Settings) -> Iterator[Violation]:
    if settings.gateway.class_name is None and settings.gcp is None:
        yield (
            "gateway has no className",
            "Nothing would implement the gateway, and no request would reach a model.",
            "Write one that `kubectl get gatewayclass` shows.",
        )


def grpc_reaches_the_gateway(settings: Settings) -> Iterator[Violation]:
    gcp = settings.gcp
    if gcp and settings.has_googles_gateway and settings.gateway.grpc and not gcp.gateway.domain:
        yield (
            "gateway.grpc is true, and gcp.gateway.domain is missing",
            "Google's load balancer only takes HTTP/2, and so gRPC, from clients that connect with TLS.",
            "Write the domain of a certificate, gcp.gateway.domain, or remove grpc.",
        )


def nodes_have_accelerators(settings: Settings) -> Iterator[Violation]:
    cluster = settings.gcp and settings.gcp.cluster
    wanting = [name for name, model in settings.models.items() if model.gpu]
    if cluster and cluster.mode == "standard" and cluster.existing is None and wanting:
        yield (
            f"models needs accelerators for {', '.join(wanting)}, and the node pool of this stack has none",
            "The pods would stay pending, and the release would fail.",
            "Write mode: autopilot under gcp.cluster, which creates nodes as pods need them, or remove gpu.",
        )


def checks_reach_the_gateway(settings: Settings) -> Iterator[Violation]:
    gcp = settings.gcp
    checked = [name for name, model in settings.models.items() if model.contract.check]
    if gcp is None or settings.gateway.cluster_endpoint or not checked:
        return
    if gcp.gateway.public and gcp.network.existing is None and not gcp.network.nat:
        yield (
            f"models checks versions of {', '.join(checked)} through a public gateway, and gcp.network.nat is false",
            "No pod could reach the gateway, so no version would ever get traffic.",
            "Write nat: true, or contract: {check: false} under each of these models.",
        )
    if gcp.gateway.access == "iap":
        yield (
            f"models checks versions of {', '.join(checked)} through a gateway with access: iap",
            "The check does not sign in, so no version would ever get traffic.",
            "Write contract: {check: false} under each of these models, or gateway.clusterEndpoint.",
        )


def agent_has_one_token(settings: Settings) -> Iterator[Violation]:
    agent, has_token = settings.agent, settings.agent_token is not None
    if agent is None and has_token:
        yield (
            "agentToken is set, and there is no model-serving:agent",
            "The stack file would contain a secret that nothing uses.",
            "Run `pulumi config rm model-serving:agentToken`, or add the section.",
        )
    if agent and agent.register_ and has_token:
        yield (
            "agentToken is set, and model-serving:agent.register is true",
            "The program creates its own token, so the one in the stack file would be an unused secret.",
            "Remove one: `pulumi config rm model-serving:agentToken`, or write register: false.",
        )
    if agent and not agent.register_ and not has_token:
        yield (
            "agentToken is missing, and model-serving:agent.register is false",
            "The agent could not log in to GitLab.",
            "Run `pulumi config set --secret model-serving:agentToken` and paste the token that GitLab showed.",
        )


def context_is_the_agents_or_none(settings: Settings) -> Iterator[Violation]:
    agent = settings.agent
    if agent and settings.gcp and settings.kube_context not in (None, agent.kube_context):
        yield (
            f"kubeContext is {settings.kube_context}, which is not the agent's",
            "If that context is missing, Google's credentials are used, so no one would notice the mistake.",
            f"Write {agent.kube_context}, or remove it to use Google's credentials everywhere.",
        )


def administrator_is_named_when_needed(settings: Settings) -> Iterator[Violation]:
    agent = settings.agent
    if agent is None:
        return
    needed = settings.gcp is None and settings.kube_context == agent.kube_context
    named = agent.administrator_context
    if needed and named in (None, agent.kube_context):
        what = f"{named}, which is" if named else "missing, and model-serving:kubeContext is"
        yield (
            f"agent.administratorContext is {what} the agent's",
            "The agent would have to change its own permissions, which it is not allowed to do.",
            "Write the context of a user who may; `kubectl config get-contexts` lists the contexts.",
        )
    if not needed and agent.administrator_context is not None:
        used = "kubeContext is used for everything." if settings.gcp is None else "Google's credentials are used."
        other = f", or write {agent.kube_context} as model-serving:kubeContext" if settings.gcp is None else ""
        yield (
            f"agent.administratorContext is {agent.administrator_context}, and nothing needs it",
            f"It would be ignored: {used}",
            f"Remove it{other}.",
        )


def agent_has_its_own_namespace(settings: Settings) -> Iterator[Violation]:
    taken = {settings.review_namespace: "reviews"} if settings.has_reviews else {}
    taken[settings.namespace] = "models"
    if settings.agent and (whose := taken.get(settings.agent.namespace)):
        yield (
            f"agent.namespace is {settings.agent.namespace}, which is also the {whose}' namespace",
            "A job could start a pod with the agent's token in it.",
            "Write a namespace that contains nothing else, e.g. gitlab-agent.",
        )


RULES: Final = (
    registry_is_known,
    reviews_are_safe,
    gateway_has_a_class,
    grpc_reaches_the_gateway,
    nodes_have_accelerators,
    checks_reach_the_gateway,
    agent_has_one_token,
    context_is_the_agents_or_none,
    administrator_is_named_when_needed,
    agent_has_its_own_namespace,
)

SECRETS: Final = frozenset({f"{NAMESPACE}:agentToken"})
"""Keys that are encrypted in the stack file. Neither this module nor its messages contain their values."""


def file_of(stack: str) -> str:
    """Path of the stack file, as shown in messages."""
    return f"stacks/Pulumi.{stack}.yaml"


def read(stack: str, values: Mapping[str, str], *, secret: Collection[str] | None = None) -> Settings:
    """Reads a stack's configuration.

    Args:
        stack: the stack's name.
        values: key with its prefix -> value as Pulumi passes it, a text that is JSON for lists and mappings.
        secret: keys that are encrypted in the stack file; None if the caller does not know, in which case secrets in
            plain text are not reported.

    Raises:
        InvalidInput: with every mistake of the stack, and never with the value of a secret.
    """
    file, prefix = file_of(stack), f"{NAMESPACE}:"
    ours = {key: value for key, value in values.items() if key.startswith(prefix)}
    hidden = {f"{prefix}{info.alias}" for info in Settings.model_fields.values()} & set(secret or ()) - SECRETS
    exposed = set() if secret is None else SECRETS & ours.keys() - set(secret)
    problems = [*map(partial(_exposed, file), sorted(exposed)), *map(partial(_hidden, file), sorted(hidden))]
    # Each secret is replaced by a marker, whether it is encrypted or not: from here on nothing can reveal it.
    marked = ours | dict.fromkeys(SECRETS & ours.keys(), '{"secure": ""}')
    own = {key.removeprefix(prefix): _parsed(value) for key, value in marked.items() if key not in hidden}
    try:
        settings = Settings.model_validate(own)
    except ValidationError as error:
        problems += problems_of(error, Settings, file=file, prefix=prefix)
    # An ellipsis is a valid value of no setting, so rules that read a hidden one are skipped.
    marks = {key.removeprefix(prefix): ... for key in hidden}
    valid = valid_part(Settings, own | marks) if problems else settings
    environment = partial(gitlab_agent.environment_is_named, stack=stack)
    rules = (*RULES, *models.RULES, *google_rules.RULES, *google_cluster.RULES, *gitlab_agent.RULES, environment)
    problems += [
        Problem(file=file, what=f"{prefix}{what}", consequence=consequence, remedy=remedy)
        for what, consequence, remedy in violations(valid, rules)
    ]
    if problems:
        raise InvalidInput(problems)
    return settings


def _exposed(file: str, key: str) -> Problem:
    return Problem(
        file=file,
        what=f"{key} is in plain text",
        consequence="Anyone who can read the stack file or its history could use it.",
        remedy=f"Create a new one and run `pulumi config set --secret {key}`; the old one is compromised.",
    )


def _hidden(file: str, key: str) -> Problem:
    return Problem(
        file=file,
        what=f"{key} is encrypted",
        consequence="A merge request could not show what changes, and messages would show the value anyway.",
        remedy=f"Write it in plain text; only {', '.join(sorted(SECRETS))} is a secret.",
    )


def _parsed(value: str) -> Any:
    """Lists and mappings arrive as JSON; a text that only begins like one stays a text and fails its own check."""
    if not value.startswith(("{", "[")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):  # also numbers of more than 4,300 digits, and lists in lists without an end
        return value
