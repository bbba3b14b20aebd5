"""The GitLab agent: the components of a stack's ``agent`` section."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from pulumi import ComponentResource, Input, Output, ResourceOptions

from components.gitlab_agent.access import AgentAccess, AgentAccessArgs
from components.gitlab_agent.release import AgentRelease, AgentReleaseArgs
from components.serving.namespace import ServingNamespace
from model_serving.stack.gitlab_agent import AgentSettings, environment_of
from model_serving.stack.pipelines import Tier
from model_serving.stack.settings import Settings


@dataclass(frozen=True, kw_only=True)
class AgentArgs:
    """An agent.

    Attributes:
        settings: the stack's ``agent`` section.
        stack: the stack's name; also its environment in GitLab, unless the section names another.
        serving_namespace: name of the models' namespace, to which jobs deploy.
        namespace: the same, once it exists.
        tier: of the environment; None allows any.
        token: of an agent that was registered elsewhere.
        verifier: user of the cluster who checks the stack for drift, and therefore reads the agent's tokens.
    """

    settings: AgentSettings
    stack: str
    serving_namespace: str
    namespace: Input[str]
    tier: Tier | None = None
    token: Input[str] | None = None
    verifier: Input[str] | None = None

    @classmethod
    def of(
        cls,
        agent: AgentSettings,
        settings: Settings,
        *,
        stack: str,
        namespace: Input[str],
        token: Input[str] | None,
        verifier: Input[str] | None,
    ) -> Self:
        """The agent of a stack with these settings."""
        return cls(
            settings=agent,
            stack=stack,
            serving_namespace=settings.namespace,
            namespace=namespace,
            tier=settings.ci.tier if settings.ci else None,
            token=token,
            verifier=verifier,
        )


class Agent(ComponentResource):
    """An agent, from its registration in GitLab to the rights of jobs in the cluster.

    It needs an administrator's provider: the agent never manages its own release, RBAC or tokens.
    """

    def __init__(self, name: str, args: AgentArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:Agent", name, None, opts)
        settings, child = args.settings, ResourceOptions(parent=self)
        tokens = self._tokens(name, args)
        own = ServingNamespace(name, settings.namespace, child)
        rights = AgentAccessArgs(
            settings=settings,
            environment=environment_of(settings, args.stack),
            tier=args.tier,
            namespace=own.name,
            serving_namespace=args.namespace,
            verifier=args.verifier,
        )
        access = AgentAccess(name, rights, child)
        AgentRelease(name, AgentReleaseArgs(settings=settings, namespace=own.name, access=access, tokens=tokens), child)
        self.kube_context = settings.kube_context
        self.register_outputs({"kubeContext": self.kube_context})

    def _tokens(self, name: str, args: AgentArgs) -> Mapping[str, Input[str]]:
        """Token name -> value."""
        settings, written = args.settings, args.settings.configuration == "written"
        given = {settings.mounted_token: Output.secret(args.token)} if args.token else {}
        if not (settings.register_ or written):
            return given
        # GitLab's SDK takes a second to load: only for stacks that manage something in GitLab.
        from components.gitlab_agent.registration import AgentRegistration  # noqa: PLC0415

        environment = environment_of(settings, args.stack)
        content = settings.configuration_text(args.stack, environment, args.serving_namespace) if written else None
        return given | AgentRegistration(name, settings, content, ResourceOptions(parent=self)).tokens
