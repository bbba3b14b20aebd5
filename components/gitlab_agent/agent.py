"""The GitLab agent: its parts, put together as a stack's ``agent`` section says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from pulumi import ComponentResource, Input, Output, ResourceOptions

from components.gitlab_agent.access import AgentAccess, AgentAccessArgs
from components.gitlab_agent.release import AgentRelease, AgentReleaseArgs, Destination, HelmChart
from components.serving.namespace import ServingNamespace, ServingNamespaceArgs
from model_serving.stack.gitlab_agent import DEPLOYER, AgentSettings, environment_of
from model_serving.stack.pipelines import Tier
from model_serving.stack.settings import Settings

ACCOUNT: Final = "gitlab-agent"
TLS_PORT: Final = 443


@dataclass(frozen=True, kw_only=True)
class AgentArgs:
    """An agent.

    Attributes:
        settings: the stack's ``agent`` section, checked.
        stack: the stack's name, which its environment in GitLab has, too, unless the section names another.
        tier: of the environment; None if nobody says, and then it may be any.
        serving_namespace: of the models, in which jobs deploy; its name.
        namespace: the same once it is there.
        tokens: name to value of those that were made elsewhere.
    """

    settings: AgentSettings
    stack: str
    serving_namespace: str
    namespace: Input[str]
    tier: Tier | None = None
    tokens: Mapping[str, Input[str]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, agent: AgentSettings, settings: Settings, *, stack: str, namespace: Input[str], token: Input[str] | None
    ) -> AgentArgs:
        """The agent of a stack.

        Args:
            agent: the stack's ``agent`` section.
            settings: the whole stack's.
            stack: its name.
            namespace: of the models, once it is there.
            token: made elsewhere, if one was.
        """
        return cls(
            settings=agent,
            stack=stack,
            serving_namespace=settings.namespace,
            namespace=namespace,
            tier=settings.ci.tier if settings.ci else None,
            tokens={agent.mounted_token: token} if token else {},
        )


class Agent(ComponentResource):
    """From the registration in GitLab to what a job may do in the cluster.

    It is made and changed by somebody who may do more than it may: it does not saw off the branch that it sits on.
    """

    def __init__(self, name: str, args: AgentArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:Agent", name, None, opts)
        tokens = self._tokens(name, args)
        own = ServingNamespace(
            name, ServingNamespaceArgs(namespace=args.settings.namespace), ResourceOptions(parent=self)
        )
        access = self._access(name, args, own)
        self._release(name, args, own, access, tokens)
        self.kube_context = args.settings.kube_context
        self.register_outputs({"kubeContext": self.kube_context})

    def _tokens(self, name: str, args: AgentArgs) -> Mapping[str, Input[str]]:
        given = {key: Output.secret(token) for key, token in args.tokens.items()}
        if args.settings.register_ or args.settings.configuration == "written":
            return {**given, **self._registered(name, args)}
        return given

    def _registered(self, name: str, args: AgentArgs) -> Mapping[str, Output[str]]:
        # GitLab's SDK loads all of itself, which takes a second: only for stacks that do something in GitLab.
        from components.gitlab_agent.registration import AgentRegistration, AgentRegistrationArgs, ConfigurationFile  # noqa: PLC0415

        settings = args.settings
        content = settings.configuration_text(args.stack, environment_of(settings, args.stack), args.serving_namespace)
        file = ConfigurationFile(branch=settings.branch, path=settings.configuration_path, content=content)
        registration = AgentRegistrationArgs(
            address=settings.gitlab,
            project_id=settings.project_id,
            name=settings.name,
            tokens=settings.tokens if settings.register_ else (),
            configuration=file if settings.configuration == "written" else None,
        )
        return AgentRegistration(name, registration, ResourceOptions(parent=self)).tokens

    def _access(self, name: str, args: AgentArgs, own: ServingNamespace) -> AgentAccess:
        settings, environment = args.settings, environment_of(args.settings, args.stack)
        access = AgentAccessArgs(
            namespace=own.name,
            serving_namespace=args.namespace,
            account=ACCOUNT,
            access_as=settings.access_as,
            deployer=DEPLOYER,
            groups_that_deploy=settings.groups_that_deploy(environment),
            groups_sent=settings.groups_sent(environment, args.tier),
        )
        return AgentAccess(name, access, ResourceOptions(parent=self))

    def _release(
        self,
        name: str,
        args: AgentArgs,
        own: ServingNamespace,
        access: AgentAccess,
        tokens: Mapping[str, Input[str]],
    ) -> None:
        settings, chart = args.settings, args.settings.chart
        release = AgentReleaseArgs(
            namespace=own.name,
            account=access.account,
            tokens=tokens,
            mounted_token=settings.mounted_token,
            chart=HelmChart(reference=chart.reference, repository=chart.address, version=chart.pinned_version),
            kas=settings.kas,
            destinations=[
                Destination(ranges=settings.kas_ranges, port=urlsplit(settings.kas).port or TLS_PORT),
                Destination(ranges=settings.api_server_ranges, port=settings.api_server_port),
            ],
            replicas=settings.replicas,
            cpu=settings.cpu,
            memory=settings.memory,
            values=settings.values,
            after=[access],
        )
        AgentRelease(name, release, ResourceOptions(parent=self))
