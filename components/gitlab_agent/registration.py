"""The agent in GitLab: that it exists, how it logs in, and what it may be used for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi_gitlab as gitlab
from pulumi import ComponentResource, Output, ResourceOptions


@dataclass(frozen=True, kw_only=True)
class ConfigurationFile:
    """The file in the agent's project that says who may use it.

    Attributes:
        branch: the project's default branch; GitLab reads no other.
        path: of the file in the project.
        content: the whole file.
    """

    branch: str
    path: str
    content: str


@dataclass(frozen=True, kw_only=True)
class AgentRegistrationArgs:
    """An agent of one project.

    Attributes:
        address: of the GitLab, without a slash at the end.
        project_id: number of the project, which stays when its path changes.
        name: of the agent in the project.
        tokens: names of the tokens to have; none if they are made elsewhere, and then the agent is, too.
        configuration: the agent's file, if the program writes it.
    """

    address: str
    project_id: int
    name: str
    tokens: Sequence[str]
    configuration: ConfigurationFile | None = None


class AgentRegistration(ComponentResource):
    """The agent, a token for each name, and its file.

    It leaves the project alone, its protected branches above all: who may write the file decides who may deploy.
    Whoever runs it needs GITLAB_TOKEN of a Maintainer when something changes here, and else nothing.
    """

    def __init__(self, name: str, args: AgentRegistrationArgs, opts: ResourceOptions | None = None) -> None:
        own = ResourceOptions(providers=[_provider(args)])
        super().__init__("model-serving:index:AgentRegistration", name, None, ResourceOptions.merge(opts, own))
        if args.configuration:
            self._file(name, args, args.configuration)
        self.tokens: Mapping[str, Output[str]] = self._tokens(name, args) if args.tokens else {}
        """Name to value, a secret that GitLab shows once."""
        self.register_outputs({})

    def _tokens(self, name: str, args: AgentRegistrationArgs) -> dict[str, Output[str]]:
        agent = gitlab.ClusterAgent(
            name, project=str(args.project_id), name=args.name, opts=ResourceOptions(parent=self)
        )
        return {key: self._token(f"{name}-{key}", args, agent, key) for key in args.tokens}

    def _token(self, name: str, args: AgentRegistrationArgs, agent: gitlab.ClusterAgent, key: str) -> Output[str]:
        made = gitlab.ClusterAgentToken(
            name,
            project=str(args.project_id),
            agent_id=agent.agent_id,
            name=key,
            description="Made by Pulumi; to change it, see docs/agent.md.",
            opts=ResourceOptions(parent=self),
        )
        # The SDK leaves marking it to the engine; what is made of it in between must be marked, too.
        return Output.secret(made.token)

    def _file(self, name: str, args: AgentRegistrationArgs, file: ConfigurationFile) -> None:
        gitlab.RepositoryFile(
            name,
            project=str(args.project_id),
            branch=file.branch,
            file_path=file.path,
            content=file.content,
            encoding="text",
            commit_message=f"Say who may use the agent {args.name}",
            # The stack says what is in it, so it takes up a file that is there already.
            overwrite_on_create=True,
            opts=ResourceOptions(parent=self),
        )


def _provider(args: AgentRegistrationArgs) -> gitlab.Provider:
    # Without the early check, an update that changes nothing in GitLab needs no token of GitLab's.
    return gitlab.Provider("gitlab", base_url=f"{args.address}/api/v4/", early_auth_check=False)
