"""Settings of the GitLab agent, under ``model-serving:agent``, and the rules between them.

Plain Python, like all settings. Also the groups that GitLab assigns to a job inside the cluster, and the content of the
agent's configuration file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import AfterValidator, Field

from model_serving import yaml_text
from model_serving.catalog import contents
from model_serving.problems import Problem
from model_serving.quantities import Cores, Memory, between
from model_serving.sections import (
    Branch,
    Cidr,
    DnsLabel,
    HttpUrl,
    Identifier,
    Namespace,
    Section,
    Violation,
    reachable,
    wrong,
)
from model_serving.stack.pipelines import Tier

KEY: Final = "model-serving:agent"
CHARTS: Final = "https://charts.gitlab.io"
CHART_VERSION: Final = "2.29.0"
"""Version of GitLab's chart whose keys this project sets. 2.6.2 has the same keys."""
MOST_TOKENS: Final = 2
"""GitLab refuses a third active token, https://docs.gitlab.com/user/clusters/agent/work_with_agent/."""
DEPLOYER: Final = "deploy"
"""ServiceAccount that jobs act as with ``accessAs: impersonate``."""
TIERS: Final[tuple[Tier, ...]] = ("production", "staging", "testing", "development", "other")
_FIXED_VALUES: Final = frozenset(
    {"affinity", "config", "podSecurityContext", "rbac", "replicas", "resources", "securityContext", "serviceAccount"}
)
_PATH: Final = ("./", "../", "/")
"""Prefixes of a chart reference that is the path of a folder or an archive."""
_SLUG: Final = r"[a-z][a-z0-9]*(-[a-z0-9]+)*"
_LONGEST_SLUG: Final = 24


def _different_names(tokens: list[str]) -> list[str]:
    if len(set(tokens)) < len(tokens):
        raise wrong(
            f"is {', '.join(tokens)}, twice the same name",
            "Two tokens with one name are one token, and the old one would be revoked before the new one is in use.",
            "Write another name for the new token.",
        )
    return tokens


def _no_address(path: str) -> str:
    # https://docs.gitlab.com/user/reserved_names/#rules-for-usernames-project-and-group-names-and-slugs
    if path.endswith((".git", ".atom")):
        raise ValueError("whose end no path in GitLab has")
    return path


def _not_ours(values: dict[str, Any]) -> dict[str, Any]:
    if ours := sorted(_FIXED_VALUES & values.keys()):
        raise wrong(
            f"has {', '.join(ours)}",
            "The agent's token, permissions and restrictions would differ from those that this project tests.",
            f"Remove it; the settings of {KEY} determine it.",
        )
    return values


ProjectPath = Annotated[
    str, Field(pattern=r"^[a-zA-Z0-9_.][a-zA-Z0-9_.-]*(/[a-zA-Z0-9_.][a-zA-Z0-9_.-]*)+$"), AfterValidator(_no_address)
]
Slug = Annotated[str, Field(pattern=f"^{_SLUG}$", max_length=_LONGEST_SLUG)]
"""An environment name that GitLab uses unchanged. Any other name becomes a slug with a random suffix."""
TokenName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=40)]
AccessAs = Literal["ci_job", "impersonate", "agent"]


class ChartSettings(Section):
    """Source of the Helm chart."""

    reference: str = Field(
        "gitlab-agent",
        pattern=r"^([a-zA-Z0-9][a-zA-Z0-9._-]*|oci://[^\s/@]+(/[^\s/@]+)+|\.{0,2}/[^\n]+)$",
        examples=["gitlab-agent", "oci://registry.example.com/charts/gitlab-agent", "./charts/gitlab-agent"],
        description="Name of the chart in its repository, an OCI reference, or the path of a folder or an archive.",
    )
    repository: Annotated[str, Field(pattern=r"^https?://\S+$"), AfterValidator(reachable)] | None = Field(
        None,
        examples=["https://charts.example.com"],
        description=f"Address of a Helm repository. Without it, a chart referenced by name comes from {CHARTS}.",
    )
    version: str | None = Field(
        None,
        pattern=r"^[v0-9*^~<>=!][^@\n]*$",
        examples=[CHART_VERSION],
        description=f"Version of the chart. Defaults to {CHART_VERSION} for GitLab's repository; a chart at a path has "
        "its own version.",
    )

    @property
    def is_local(self) -> bool:
        return self.reference.startswith(_PATH)

    @property
    def address(self) -> str | None:
        """Address of the Helm repository; None for a chart that is not in one."""
        if self.is_local or self.reference.startswith("oci://"):
            return None
        return self.repository or CHARTS

    @property
    def pinned_version(self) -> str | None:
        """Version to install; None for a path, which has only one version."""
        return self.version or (None if self.is_local else CHART_VERSION)


class JobProject(Section):
    """A further project whose jobs may deploy."""

    path: ProjectPath = Field(examples=["acme/model-serving"], description="Path of the project in GitLab.")
    id: Identifier = Field(description="ID of the project (Settings, General).")


class AgentSettings(Section):
    """The GitLab agent: jobs reach the cluster through it, without a network route and without Google credentials."""

    name: DnsLabel = Field(examples=["dev"], description="Name of the agent in its GitLab project.")
    project: ProjectPath = Field(
        examples=["acme/model-serving"],
        description="Path of the project that holds the agent and its configuration file; its jobs may deploy.",
    )
    project_id: Identifier = Field(
        json_schema_extra={
            "consequence": "No job could be told apart from another project's, so none could be allowed.",
            "remedy": "Write the ID that GitLab shows under Settings, General, without quotes.",
        },
        description="ID of that project.",
    )
    group_ids: list[Identifier] = Field(
        default_factory=list,
        description="IDs of all groups above the projects, including the outermost. GitLab sends them with each "
        "request of a job; with accessAs ci_job, every request fails with 403 if a group is not listed.",
    )
    projects: list[JobProject] = Field(
        default_factory=list, description="Further projects whose jobs may deploy through this agent."
    )
    environment: Slug | None = Field(
        None,
        examples=["dev"],
        json_schema_extra={
            "consequence": "GitLab would shorten it to a name with a random suffix, which no binding could match.",
            "remedy": "Write at most 24 lower-case letters, digits and single hyphens, starting with a letter.",
        },
        description="Environment of the jobs that may deploy. Defaults to the stack's name.",
    )
    access_as: AccessAs = Field(
        "ci_job",
        description="Identity of a job inside the cluster: ci_job, the job itself, by project and environment "
        "(Premium); impersonate, one ServiceAccount (Premium, fewest permissions for the agent); agent, "
        "the agent itself (Free).",
    )
    register_: bool = Field(
        True,
        alias="register",
        description="Register the agent and create its tokens; needs GITLAB_TOKEN of a Maintainer, scope api. If "
        "false, the agent already exists, and its token is model-serving:agentToken.",
    )
    tokens: Annotated[list[TokenName], AfterValidator(_different_names)] = Field(
        default_factory=lambda: ["first"],
        min_length=1,
        max_length=MOST_TOKENS,
        json_schema_extra={
            "consequence": "The agent would have no token, or more than GitLab allows.",
            "remedy": "Write one name, or two during a rotation, the new one last.",
        },
        description="Names of the agent's tokens; the last one is in use. To rotate: add a new name, then remove the "
        "old one.",
    )
    configuration: Literal["checked", "written", "elsewhere"] = Field(
        "checked",
        description="How the file .gitlab/agents/<name>/config.yaml is managed: checked in this checkout (`python -m "
        "model_serving agent` writes it), written to the default branch by a commit of the program, or "
        "elsewhere, by somebody else.",
    )
    branch: Branch = Field("main", examples=["main"], description="Default branch, for configuration: written.")
    gitlab: HttpUrl = Field(
        "https://gitlab.com",
        examples=["https://gitlab.example.com"],
        description="Address of the GitLab instance, without a trailing slash.",
    )
    kas: Annotated[str, Field(pattern=r"^(wss|grpcs)://[^/\s:]+(:\d+)?(/\S*)?$"), AfterValidator(reachable)] = Field(
        "wss://kas.gitlab.com",
        examples=["wss://kas.gitlab.com", "wss://gitlab.example.com/-/kubernetes-agent/"],
        description="Address that the agent connects to. Without encryption, its token could be read in transit.",
    )
    kas_ranges: list[Cidr] = Field(
        default_factory=lambda: ["0.0.0.0/0"],
        min_length=1,
        examples=["172.16.0.0/24"],
        description="Addresses of the KAS. A NetworkPolicy cannot match host names, so for GitLab.com this means any "
        "address.",
    )
    api_server_ranges: list[Cidr] = Field(
        default_factory=lambda: ["0.0.0.0/0"],
        min_length=1,
        examples=["172.16.0.2/32"],
        description="Addresses behind the Service kubernetes: `kubectl get endpointslices --namespace default`.",
    )
    api_server_port: int = Field(443, ge=1, le=65535, description="Port behind the Service kubernetes.")
    namespace: Namespace = Field(
        "gitlab-agent", examples=["gitlab-agent"], description="Kubernetes namespace used only for the agent."
    )
    replicas: int = Field(
        2,
        ge=2,
        le=10,
        json_schema_extra={
            "consequence": "Jobs would be cut off whenever the only pod is moved.",
            "remedy": "Write 2 or more.",
        },
        description="Number of agent pods.",
    )
    cpu: Cores = Field("50m", examples=["50m"], description="CPU request of an agent pod, in cores.")
    memory: Annotated[Memory, between("32Mi", "64Gi")] = Field(
        "128Mi", examples=["128Mi"], description="Memory request and limit of an agent pod."
    )
    chart: ChartSettings = Field(default_factory=ChartSettings, description="The Helm chart to install.")
    values: Annotated[dict[str, Any], AfterValidator(_not_ours)] = Field(
        default_factory=dict, description="Further values of the chart, e.g. image or nodeSelector. No secrets."
    )
    administrator_context: str | None = Field(
        None,
        min_length=1,
        description="Kube context for what the agent must not touch: namespaces, permissions, the agent itself. For a "
        "stack without a gcp section whose kubeContext is the agent's.",
    )

    @property
    def kube_context(self) -> str:
        """Kube context that GitLab provides to jobs."""
        return f"{self.project}:{self.name}"

    @property
    def configuration_path(self) -> str:
        """Path of the agent's configuration file in the project's default branch."""
        return f".gitlab/agents/{self.name}/config.yaml"

    @property
    def mounted_token(self) -> str:
        """Name of the token in use."""
        return self.tokens[-1]

    @property
    def all_projects(self) -> Mapping[str, int]:
        """Path to ID of every project whose jobs may deploy, the agent's own first."""
        return {self.project: self.project_id, **{each.path: each.id for each in self.projects}}

    def groups_that_deploy(self, environment: str) -> list[str]:
        """Groups of an environment's jobs, one per project."""
        return [f"gitlab:project_env:{number}:{environment}" for number in self.all_projects.values()]

    def groups_sent(self, environment: str, tier: Tier | None) -> list[str]:
        """All groups that GitLab sends with a request of such a job; one that may not be impersonated causes a 403."""
        tiers = [tier] if tier else TIERS
        projects = self.all_projects.values()
        return [
            "gitlab:ci_job",
            *(f"gitlab:project:{number}" for number in projects),
            *self.groups_that_deploy(environment),
            *(f"gitlab:project_env_tier:{number}:{each}" for number in projects for each in tiers),
            *(f"gitlab:group:{number}" for number in self.group_ids),
            *(f"gitlab:group_env_tier:{number}:{each}" for number in self.group_ids for each in tiers),
        ]

    def configuration_content(self, environment: str, serving_namespace: str) -> dict[str, Any]:
        """Required content of the agent's configuration file.

        The agent's own project has an entry too: without one, GitLab allows all of its jobs without a filter.
        """
        names = {
            "ci_job": {"ci_job": {}},
            "impersonate": {"impersonate": {"username": f"system:serviceaccount:{self.namespace}:{DEPLOYER}"}},
            "agent": {"agent": {}},
        }
        entries = [
            {
                "id": path,
                "default_namespace": serving_namespace,
                "environments": [environment],
                "protected_branches_only": True,
                "access_as": names[self.access_as],
            }
            for path in self.all_projects
        ]
        return {"ci_access": {"projects": entries}}

    def configuration_text(self, stack: str, environment: str, serving_namespace: str) -> str:
        """Text of the agent's configuration file."""
        content = yaml.safe_dump(self.configuration_content(environment, serving_namespace), sort_keys=False)
        command = f"python -m model_serving agent --stack {stack}"
        return f"# Generated from {_file(stack)} by `{command}`: change it there.\n{content}"


def environment_of(agent: AgentSettings, stack: str) -> str:
    """Environment whose jobs deploy a stack."""
    return agent.environment or stack


def chart_has_one_source_and_version(chart: ChartSettings) -> Iterator[Violation]:
    if chart.repository is not None and chart.reference.startswith(("oci://", *_PATH)):
        yield (
            f"repository is set, and reference is {chart.reference}",
            "Helm would use only one of them, which may not be the one that a reader expects.",
            "Remove repository, or write the chart's name as reference.",
        )
    if chart.version is None and (chart.repository is not None or chart.reference.startswith("oci://")):
        yield (
            "version is missing, and the chart is not from GitLab's own repository",
            "Each update would install the newest version.",
            f"Write the version, e.g. {CHART_VERSION}.",
        )


def projects_are_named_once(agent: AgentSettings) -> Iterator[Violation]:
    numbers = [str(number) for number in (agent.project_id, *(each.id for each in agent.projects))]
    # GitLab takes a path in any case.
    paths = [path.lower() for path in (agent.project, *(each.path for each in agent.projects))]
    if twice := [each for part in (numbers, paths) for each in part if part.count(each) > 1]:
        yield (
            f"projects names the project {twice[0]} twice",
            "The agent's own project is always included, and GitLab ignores a second entry for a project.",
            "Remove one of the two.",
        )


def elsewhere_registered_agent_has_one_token(agent: AgentSettings) -> Iterator[Violation]:
    if not agent.register_ and len(agent.tokens) > 1:
        yield (
            f"tokens is {', '.join(agent.tokens)}, and {KEY}.register is false",
            "There is only one model-serving:agentToken, so both names would be the same token.",
            "Write one name, and a new one whenever model-serving:agentToken changes.",
        )


def groups_are_listed(agent: AgentSettings) -> Iterator[Violation]:
    above = max(path.count("/") for path in agent.all_projects)
    # One level may be a personal namespace, which is not a group; anything deeper is in groups.
    if agent.access_as == "ci_job" and above > 1 and len({*agent.group_ids}) < above:
        yield (
            f"groupIds has {len({*agent.group_ids})} of the {above} groups above the projects",
            "GitLab sends all of them with each request of a job, and the cluster would refuse every request with 403.",
            "Write the ID of each group, which GitLab shows on the group's page.",
        )


def environment_is_named(agent: AgentSettings, *, stack: str) -> Iterator[Violation]:
    if agent.environment is None and not (len(stack) <= _LONGEST_SLUG and re.fullmatch(_SLUG, stack)):
        yield (
            f"environment is missing, and the stack is called {stack}",
            "GitLab would shorten it to a name with a random suffix, which no binding could match.",
            "Write the environment of the stack's jobs, at most 24 lower-case letters, digits and single hyphens.",
        )


RULES: Final = (
    chart_has_one_source_and_version,
    projects_are_named_once,
    elsewhere_registered_agent_has_one_token,
    groups_are_listed,
)


def configuration_problems(agent: AgentSettings, *, stack: str, serving_namespace: str) -> Iterator[Problem]:
    """Differences between the agent's file in this checkout and the stack, with ``configuration: checked``."""
    if agent.configuration != "checked":
        return
    wanted = agent.configuration_content(environment_of(agent, stack), serving_namespace)
    path = Path(agent.configuration_path)
    try:
        found = yaml_text.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        what, consequence = (
            "it does not exist",
            "GitLab would allow every job of the agent's project to use the agent, from any branch.",
        )
    except (OSError, ValueError) as error:
        what = f"it cannot be read: {error}"
        consequence = "GitLab would ignore the whole file and allow every job of the agent's project to use the agent."
    else:
        if found == wanted:
            return
        what = f"it differs from {_file(stack)}: {'; '.join(_differences(found, wanted))}"
        consequence = "GitLab would allow other jobs than the stack does, or none."
    yield Problem(
        file=agent.configuration_path,
        what=what,
        consequence=consequence,
        remedy=f"Run `python -m model_serving agent --stack {stack}`, which writes it, "
        "and commit it to the default branch.",
    )


def chart_problems(agent: AgentSettings, *, stack: str) -> Iterator[Problem]:
    """A chart at a path that does not exist, which Helm would find out in the middle of an update."""
    if agent.chart.is_local and not contents.exists(Path(agent.chart.reference)):
        yield Problem(
            file=_file(stack),
            what=f"{KEY}.chart.reference is {agent.chart.reference}, which does not exist",
            consequence="The agent could not be installed, after everything before it has been changed.",
            remedy="Write the path of a chart's folder or archive, relative to the project, or the chart's name.",
        )


def _differences(found: object, wanted: object) -> Sequence[str]:
    before, after = (yaml.safe_dump(each, sort_keys=False).splitlines() for each in (found, wanted))
    lines = [line for line in difflib.ndiff(before, after) if line[:1] in "+-"]
    return [f"{'missing' if line[0] == '+' else 'unexpected'}: {line[2:].strip()}" for line in lines]


def _file(stack: str) -> str:
    return f"stacks/Pulumi.{stack}.yaml"
