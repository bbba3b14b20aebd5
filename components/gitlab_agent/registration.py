"""The agent in GitLab: its registration, its tokens and its configuration file."""

from __future__ import annotations

import pulumi_gitlab as gitlab
from pulumi import ComponentResource, Output, ResourceOptions

from model_serving.stack.gitlab_agent import AgentSettings


class AgentRegistration(ComponentResource):
    """The agent, its tokens and its configuration file.

    It does not manage the project, above all its protected branches: write access to the file decides who may deploy.
    Changes here need GITLAB_TOKEN of a Maintainer. ``content`` is that of the file, if the program writes it.
    """

    def __init__(
        self, name: str, settings: AgentSettings, content: str | None, opts: ResourceOptions | None = None
    ) -> None:
        # Without the early check, an update that changes nothing in GitLab needs no token for GitLab.
        address = f"{settings.gitlab}/api/v4/"
        provider = gitlab.Provider("gitlab", base_url=address, early_auth_check=False)
        own = ResourceOptions(providers=[provider])
        super().__init__("model-serving:index:AgentRegistration", name, None, ResourceOptions.merge(opts, own))
        # By number, which stays when the project's path changes.
        self._project = str(settings.project_id)
        if content:
            self._file(name, settings, content)
        self.tokens: dict[str, Output[str]] = self._tokens(name, settings) if settings.register_ else {}
        """Name -> secret value, which GitLab shows once."""
        self.register_outputs({})

    def _tokens(self, name: str, settings: AgentSettings) -> dict[str, Output[str]]:
        child = ResourceOptions(parent=self)
        agent = gitlab.ClusterAgent(name, project=self._project, name=settings.name, opts=child)
        return {key: self._token(f"{name}-{key}", agent, key) for key in settings.tokens}

    def _token(self, name: str, agent: gitlab.ClusterAgent, key: str) -> Output[str]:
        token = gitlab.ClusterAgentToken(
            name,
            project=self._project,
            agent_id=agent.agent_id,
            name=key,
            description="Made by Pulumi; to change it, see docs/agent.md.",
            opts=ResourceOptions(parent=self),
        ).token
        # The engine marks it as a secret, but too late for the values derived from it in the program.
        return Output.secret(token)

    def _file(self, name: str, settings: AgentSettings, content: str) -> None:
        gitlab.RepositoryFile(
            name,
            project=self._project,
            branch=settings.branch,
            file_path=settings.configuration_path,
            content=content,
            encoding="text",
            commit_message=f"Say who may use the agent {settings.name}",
            # The stack decides its content, so an existing file is adopted.
            overwrite_on_create=True,
            opts=ResourceOptions(parent=self),
        )
