"""What a stack says of the GitLab agent: the keys under ``model-serving:agent``.

Plain Python, like every part of the settings: also what GitLab calls a job inside the cluster, and what the agent's own
file in its repository has to say.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import Field, ValidationInfo, field_validator

from model_serving.problems import Problem
from model_serving.sections import Cidr, DnsLabel, HttpUrl, Quantity, Section, wrong
from model_serving.stack.pipelines import Tier

KEY: Final = "model-serving:agent"
CHARTS: Final = "https://charts.gitlab.io"
CHART_VERSION: Final = "2.29.0"
"""Of GitLab's chart, whose keys this project fills in. 2.6.2 has the same."""
MOST_TOKENS: Final = 2
"""GitLab refuses a third active token, https://docs.gitlab.com/user/clusters/agent/work_with_agent/."""
DEPLOYER: Final = "deploy"
"""ServiceAccount that jobs act as where the stack says ``accessAs: impersonate``."""
TIERS: Final[tuple[Tier, ...]] = ("production", "staging", "testing", "development", "other")
_FIXED_VALUES: Final = frozenset(
    {"affinity", "config", "podSecurityContext", "rbac", "replicas", "resources", "securityContext", "serviceAccount"}
)
_PATH: Final = ("./", "../", "/")
"""How the reference of a chart begins that is a folder or an archive."""
_SLUG: Final = r"[a-z][a-z0-9]*(-[a-z0-9]+)*"
_LONGEST_SLUG: Final = 24

ProjectPath = Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)+$")]
Identifier = Annotated[int, Field(gt=0)]
Slug = Annotated[str, Field(pattern=f"^{_SLUG}$", max_length=_LONGEST_SLUG)]
"""Name of an environment that GitLab takes over as it is. Of any other it makes a slug with a random end."""
TokenName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=40)]
AccessAs = Literal["ci_job", "impersonate", "agent"]


class ChartSettings(Section):
    """Where the Helm chart comes from."""

    reference: str = Field(
        "gitlab-agent",
        min_length=1,
        examples=["gitlab-agent", "oci://registry.example.com/charts/gitlab-agent", "./charts/gitlab-agent"],
        description="Name of the chart in its repository, an OCI reference, or the path of a folder or an archive.",
    )
    repository: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = Field(
        None,
        description=f"Address of a Helm repository. Without it, a chart that is named by its name comes from {CHARTS}.",
    )
    version: str | None = Field(
        None,
        validate_default=True,
        min_length=1,
        description=f"Version of the chart. Without it {CHART_VERSION} of GitLab's repository; a path has its own.",
    )

    @field_validator("repository")
    @classmethod
    def _of_a_name(cls, value: str | None, info: ValidationInfo) -> str | None:
        reference = str(info.data.get("reference", ""))
        if value is not None and (reference.startswith(("oci://", *_PATH))):
            raise wrong(
                f"is set, and reference is {reference}",
                "Helm would look for the chart in one place alone, and not in the one that a reader expects.",
                "Remove repository, or write the chart's name as reference.",
            )
        return value

    @field_validator("version")
    @classmethod
    def _pinned(cls, value: str | None, info: ValidationInfo) -> str | None:
        reference, repository = str(info.data.get("reference", "")), info.data.get("repository")
        if value is None and (reference.startswith("oci://") or repository is not None):
            raise wrong(
                "is missing, and the chart is not from GitLab's own repository",
                "Each update would install whatever is newest there.",
                f"Write the version, e.g. {CHART_VERSION}.",
            )
        return value

    @property
    def is_local(self) -> bool:
        return self.reference.startswith(_PATH)

    @property
    def address(self) -> str | None:
        """Of the Helm repository; None for a chart that is in none."""
        if self.is_local or self.reference.startswith("oci://"):
            return None
        return self.repository or CHARTS

    @property
    def pinned_version(self) -> str | None:
        """What to install; None for a path, which is one version."""
        return self.version or (None if self.is_local else CHART_VERSION)


class JobProject(Section):
    """A further project whose jobs may deploy."""

    path: ProjectPath = Field(examples=["acme/model-serving"], description="Path of the project in GitLab.")
    id: Identifier = Field(description="Number of the project (Settings, General).")


class AgentSettings(Section):
    """The GitLab agent, through which jobs reach the cluster without a route to it and without Google's credentials."""

    name: DnsLabel = Field(examples=["dev"], description="Name of the agent in its GitLab project.")
    project: ProjectPath = Field(
        examples=["acme/model-serving"],
        description="Path of the project that has the agent and its configuration file; its jobs may deploy.",
    )
    project_id: Identifier = Field(
        description="Number of that project.",
        json_schema_extra={
            "consequence": "No job could be told from another project's, so none could be let in.",
            "remedy": "Write the number that GitLab shows under Settings, General, without quotes.",
        },
    )
    group_ids: list[Identifier] = Field(
        default_factory=list,
        description="Numbers of all groups above the projects, the outermost too. GitLab names them with each request "
        "of a job, and with accessAs ci_job a group that is not listed is a 403 for every request.",
    )
    projects: list[JobProject] = Field(
        default_factory=list, description="Further projects whose jobs may deploy through this agent."
    )
    environment: Slug | None = Field(
        None,
        examples=["dev"],
        description="Environment of the jobs that may deploy. Without it the stack's name.",
        json_schema_extra={
            "consequence": "GitLab would shorten it to a name with a random end, which no binding could know.",
            "remedy": "Write at most 24 lower-case letters, digits and single hyphens, a letter first.",
        },
    )
    access_as: AccessAs = Field(
        "ci_job",
        description="Who a job is inside the cluster: ci_job, itself, by project and environment (Premium); "
        "impersonate, one ServiceAccount (Premium, narrowest rights of the agent); agent, the agent itself (Free).",
    )
    register_: bool = Field(
        True,
        alias="register",
        description="Register the agent and make its tokens; needs GITLAB_TOKEN of a Maintainer, scope api. Else the "
        "agent is there already, and its token is model-serving:agentToken.",
    )
    tokens: list[TokenName] = Field(
        default_factory=lambda: ["first"],
        min_length=1,
        max_length=MOST_TOKENS,
        description="Names of the agent's tokens; the last one is in use. To change it: add one, then remove the old.",
        json_schema_extra={
            "consequence": "The agent would have no token, or more than GitLab lets it have.",
            "remedy": "Write one name, or two while the token is being changed, the new one last.",
        },
    )
    configuration: Literal["checked", "written", "elsewhere"] = Field(
        "checked",
        description="The file .gitlab/agents/<name>/config.yaml: checked in this checkout "
        "(`python -m model_serving agent` writes "
        "it), written to the default branch by a commit of the program, or somebody else's.",
    )
    branch: str = Field(
        "main", min_length=1, pattern=r"^[\w./-]+$", description="Default branch, for configuration: written."
    )
    gitlab: HttpUrl = Field("https://gitlab.com", description="Address of the GitLab, without a slash at the end.")
    kas: Annotated[str, Field(pattern=r"^(wss|grpcs)://[^/\s:]+(:\d+)?(/\S*)?$")] = Field(
        "wss://kas.gitlab.com",
        examples=["wss://kas.gitlab.com", "wss://gitlab.example.com/-/kubernetes-agent/"],
        description="Address that the agent connects to. Without encryption its token would be readable on the way.",
    )
    kas_ranges: list[Cidr] = Field(
        default_factory=lambda: ["0.0.0.0/0"],
        min_length=1,
        description="Addresses of the KAS. A NetworkPolicy knows no names, so GitLab.com's means anywhere.",
    )
    api_server_ranges: list[Cidr] = Field(
        default_factory=lambda: ["0.0.0.0/0"],
        min_length=1,
        examples=["172.16.0.2/32"],
        description="Addresses behind the Service kubernetes: `kubectl get endpointslices --namespace default`.",
    )
    api_server_port: int = Field(443, ge=1, le=65535, description="Port behind the Service kubernetes.")
    namespace: DnsLabel = Field("gitlab-agent", description="Kubernetes namespace of the agent, and of nothing else.")
    replicas: int = Field(
        2,
        ge=2,
        le=10,
        description="Pods of the agent.",
        json_schema_extra={
            "consequence": "The jobs would be cut off whenever the one pod is moved.",
            "remedy": "Write 2 or more.",
        },
    )
    cpu: Quantity = Field("50m", examples=["50m"], description="Cores reserved for a pod of the agent.")
    memory: Quantity = Field(
        "128Mi", examples=["128Mi"], description="Memory of a pod of the agent, request and limit alike."
    )
    chart: ChartSettings = Field(default_factory=ChartSettings, description="The Helm chart that is installed.")
    values: dict[str, Any] = Field(
        default_factory=dict, description="Further values of the chart, e.g. image or nodeSelector. No secrets."
    )
    administrator_context: str | None = Field(
        None,
        min_length=1,
        description="Kube context for what the agent must not touch, in a stack without a gcp section whose "
        "kubeContext is the agent's: namespaces, rights, the agent itself.",
    )

    @field_validator("tokens")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise wrong(
                f"is {', '.join(value)}, twice the same",
                "Two tokens of one name are one, and the old one would go before the new one is in use.",
                "Write another name for the new token.",
            )
        return value

    @field_validator("projects")
    @classmethod
    def _others(cls, value: list[JobProject], info: ValidationInfo) -> list[JobProject]:
        numbers = [info.data.get("project_id"), *(each.id for each in value)]
        if twice := sorted({number for number in numbers if number is not None and numbers.count(number) > 1}):
            raise wrong(
                f"names the project {twice[0]} twice",
                "The agent's own project is always let in, and a second entry for one project is ignored by GitLab.",
                "Remove one of the two.",
            )
        return value

    @field_validator("values")
    @classmethod
    def _not_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        if ours := sorted(_FIXED_VALUES & value.keys()):
            raise wrong(
                f"has {', '.join(ours)}",
                "The agent's token, rights and restrictions would no longer be what this project's tests prove.",
                f"Remove it; the settings of {KEY} decide it.",
            )
        return value

    @property
    def kube_context(self) -> str:
        """The context that GitLab gives to jobs."""
        return f"{self.project}:{self.name}"

    @property
    def configuration_path(self) -> str:
        """Where GitLab looks for what the agent may be used for, in the project's default branch."""
        return f".gitlab/agents/{self.name}/config.yaml"

    @property
    def mounted_token(self) -> str:
        """Name of the token in use."""
        return self.tokens[-1]

    @property
    def all_projects(self) -> Mapping[str, int]:
        """Path to number of every project whose jobs may deploy, the agent's own first."""
        return {self.project: self.project_id, **{each.path: each.id for each in self.projects}}

    def groups_that_deploy(self, environment: str) -> list[str]:
        """What GitLab calls the jobs of an environment, one group for each project."""
        return [f"gitlab:project_env:{number}:{environment}" for number in self.all_projects.values()]

    def groups_sent(self, environment: str, tier: Tier | None) -> list[str]:
        """Every group that GitLab names with a request of such a job; one that may not be named is a 403."""
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
        """What the agent's file has to say.

        The agent's own project has an entry like any other: without one GitLab lets all of its jobs in, unfiltered.
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
        """The agent's file as it is written."""
        content = yaml.safe_dump(self.configuration_content(environment, serving_namespace), sort_keys=False)
        command = f"python -m model_serving agent --stack {stack}"
        return f"# Made from {_file(stack)} by `{command}`: change it there.\n{content}"


def environment_of(agent: AgentSettings, stack: str) -> str:
    """The environment whose jobs deploy a stack."""
    return agent.environment or stack


def problems(
    agent: AgentSettings,
    *,
    stack: str,
    has_token: bool,
    kube_context: str | None,
    serving_namespace: str,
    has_platform: bool,
) -> Iterator[Problem]:
    """What does not fit together between the agent's section and the rest of its stack.

    Args:
        agent: the section.
        stack: the stack's name.
        has_token: whether ``model-serving:agentToken`` is set.
        kube_context: the stack's.
        serving_namespace: of the models.
        has_platform: whether the stack has a gcp section.
    """
    rules = (
        *_token_problems(agent, has_token=has_token),
        *_context_problems(agent, kube_context, has_platform=has_platform),
        *_place_problems(agent, stack, serving_namespace),
    )
    yield from (
        Problem(file=_file(stack), what=what, consequence=consequence, remedy=remedy)
        for what, consequence, remedy in rules
    )


def _token_problems(agent: AgentSettings, *, has_token: bool) -> Iterator[tuple[str, str, str]]:
    if agent.register_ and has_token:
        yield (
            f"model-serving:agentToken is set, and {KEY}.register is true",
            "The program makes a token of its own, and the one in the stack file would be a secret for nothing.",
            "Remove one: `pulumi config rm model-serving:agentToken`, or write register: false.",
        )
    if not agent.register_ and not has_token:
        yield (
            f"model-serving:agentToken is missing, and {KEY}.register is false",
            "The agent could not log in to GitLab.",
            "Run `pulumi config set --secret model-serving:agentToken` and paste the token that GitLab showed.",
        )
    if not agent.register_ and len(agent.tokens) > 1:
        yield (
            f"{KEY}.tokens is {', '.join(agent.tokens)}, and {KEY}.register is false",
            "There is one model-serving:agentToken, so both names would be the same token.",
            "Write one name, a new one whenever model-serving:agentToken changes.",
        )


def _context_problems(
    agent: AgentSettings, kube_context: str | None, *, has_platform: bool
) -> Iterator[tuple[str, str, str]]:
    ours = agent.kube_context
    if has_platform and kube_context not in (None, ours):
        yield (
            f"model-serving:kubeContext is {kube_context}, which is not the agent's",
            "Where that context is missing, Google's credentials are used, so nobody would notice the mistake.",
            f"Write {ours}, or remove it to use Google's credentials everywhere.",
        )
    if not has_platform and kube_context == ours and agent.administrator_context is None:
        yield (
            f"{KEY}.administratorContext is missing, and model-serving:kubeContext is the agent's",
            "The agent would have to change its own rights, which it has no right to.",
            "Write the context of somebody who may, as `kubectl config get-contexts` shows it.",
        )
    if agent.administrator_context is not None and (has_platform or kube_context != ours):
        yield (
            f"{KEY}.administratorContext is {agent.administrator_context}, and nothing needs it",
            "It would be ignored: "
            + ("Google's credentials are used for that." if has_platform else "kubeContext is used for everything."),
            "Remove it" + ("." if has_platform else f", or write {ours} as model-serving:kubeContext."),
        )


def _place_problems(agent: AgentSettings, stack: str, serving_namespace: str) -> Iterator[tuple[str, str, str]]:
    if agent.namespace == serving_namespace:
        yield (
            f"{KEY}.namespace is {agent.namespace}, which is the models' too",
            "A job that deploys could start a pod with the agent's token in it.",
            "Write a namespace that has nothing else in it, e.g. gitlab-agent.",
        )
    if agent.environment is None and not (len(stack) <= _LONGEST_SLUG and re.fullmatch(_SLUG, stack)):
        yield (
            f"{KEY}.environment is missing, and the stack is called {stack}",
            "GitLab would shorten it to a name with a random end, which no binding could know.",
            "Write the environment of the stack's jobs, at most 24 lower-case letters, digits and single hyphens.",
        )
    above = max(path.count("/") for path in agent.all_projects)
    # One may be a person's own namespace, which is no group; what is deeper lies in groups for certain.
    if agent.access_as == "ci_job" and above > 1 and len(agent.group_ids) < above:
        yield (
            f"{KEY}.groupIds has {len(agent.group_ids)} of the {above} groups above the projects",
            "GitLab names each of them with every request of a job, and the cluster would refuse them all with 403.",
            "Write the number of each, which GitLab shows on the group's page.",
        )


def configuration_problems(agent: AgentSettings, *, stack: str, serving_namespace: str) -> Iterator[Problem]:
    """Compares the agent's file in this checkout with what the stack says, if the stack says that it is here."""
    if agent.configuration != "checked":
        return
    wanted = agent.configuration_content(environment_of(agent, stack), serving_namespace)
    path = Path(agent.configuration_path)
    try:
        found = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        what, consequence = (
            "it does not exist",
            "GitLab would let every job of the agent's project use it, from any branch.",
        )
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        what = f"it cannot be read: {' '.join(str(error).split())}"
        consequence = "GitLab would ignore all of it, and let every job of the agent's project use the agent."
    else:
        if found == wanted:
            return
        what = f"it does not say what {_file(stack)} says: {'; '.join(_differences(found, wanted))}"
        consequence = "GitLab would let other jobs use the agent than the stack says, or none."
    yield Problem(
        file=agent.configuration_path,
        what=what,
        consequence=consequence,
        remedy=f"Run `python -m model_serving agent --stack {stack}`, which writes it, "
        "and commit it to the default branch.",
    )


def _differences(found: object, wanted: object) -> Sequence[str]:
    before, after = (yaml.safe_dump(each, sort_keys=False).splitlines() for each in (found, wanted))
    lines = [line for line in difflib.ndiff(before, after) if line[:1] in "+-"]
    return [f"{'missing' if line[0] == '+' else 'too much'}: {line[2:].strip()}" for line in lines]


def _file(stack: str) -> str:
    return f"stacks/Pulumi.{stack}.yaml"
