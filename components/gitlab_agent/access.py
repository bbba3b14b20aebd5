"""RBAC of the agent, and of the jobs that deploy through it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pulumi_kubernetes as kubernetes
import yaml
from pulumi import ComponentResource, Input, Output, ResourceOptions

from model_serving.stack.gitlab_agent import DEPLOYER, AgentSettings
from model_serving.stack.pipelines import Tier

ACCOUNT: Final = "gitlab-agent"
RBAC: Final = "rbac.authorization.k8s.io"
READ: Final = ("get", "list", "watch")
WRITE: Final = (*READ, "create", "update", "patch", "delete")
PERMISSIONS: Final = yaml.safe_load(Path(__file__).with_name("permissions.yaml").read_text(encoding="utf-8"))
DEPLOYED: Final[Mapping[str, Sequence[str]]] = PERMISSIONS["deployed"]
WATCHED: Final[Mapping[str, Sequence[str]]] = PERMISSIONS["watched"]
EXTRAS: Final[Sequence[str]] = PERMISSIONS["extras"]


@dataclass(frozen=True, kw_only=True)
class AgentAccessArgs:
    """Rights of one agent.

    Attributes:
        environment: whose jobs may deploy.
        tier: of the environment; None allows any.
        namespace: of the agent.
        serving_namespace: of the models, to which jobs deploy.
        verifier: user who checks the stack for drift; None without a platform that has one.
    """

    settings: AgentSettings
    environment: str
    tier: Tier | None
    namespace: Input[str]
    serving_namespace: Input[str]
    verifier: Input[str] | None = None


class AgentAccess(ComponentResource):
    """The agent's ServiceAccount, and Roles in two namespaces: its own and that of the models.

    There is one ClusterRole: Kubernetes has no narrower permission to impersonate a job, whose name is new each time.
    It is limited to the groups that GitLab sends.
    """

    def __init__(self, name: str, args: AgentAccessArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:AgentAccess", name, None, opts)
        self.account: Output[str] = self._account(name, ACCOUNT, args.namespace)
        agent = _subject(self.account, args.namespace)
        self._let_run(name, args, agent)
        self._let_deploy(f"{name}-deploy", args, self._deployers(name, args, agent))
        if args.verifier:
            self._let_verify(f"{name}-verify", args, args.verifier)
        self.register_outputs({"account": self.account})

    def _account(self, name: str, account: str, namespace: Input[str]) -> Output[str]:
        return kubernetes.core.v1.ServiceAccount(
            name,
            metadata={"name": account, "namespace": namespace},
            # The chart mounts a token that expires after an hour.
            automount_service_account_token=False,
            opts=ResourceOptions(parent=self),
        ).metadata.name

    def _let_run(self, name: str, args: AgentAccessArgs, agent: dict[str, Any]) -> None:
        rules = [
            {"api_groups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
            {"api_groups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
        ]
        self._grant(name, args.namespace, ACCOUNT, rules, [agent])

    def _let_deploy(self, name: str, args: AgentAccessArgs, subjects: Sequence[dict[str, Any]]) -> None:
        rules: list[dict[str, Any]] = [
            *({"api_groups": [group], "resources": kinds, "verbs": WRITE} for group, kinds in DEPLOYED.items()),
            *({"api_groups": [group], "resources": kinds, "verbs": READ} for group, kinds in WATCHED.items()),
            # Only the Role's own namespace. It cannot be changed: its labels decide which pods are admitted.
            {"api_groups": [""], "resources": ["namespaces"], "verbs": ["get"]},
        ]
        self._grant(name, args.serving_namespace, "gitlab-agent-deploy", rules, subjects)

    def _let_verify(self, name: str, args: AgentAccessArgs, verifier: Input[str]) -> None:
        """A refresh also reads the Secrets with the agent's tokens, and no others."""
        tokens = [token_secret(key) for key in args.settings.tokens]
        rule = {"api_groups": [""], "resources": ["secrets"], "resource_names": tokens, "verbs": ["get"]}
        user = {"api_group": RBAC, "kind": "User", "name": verifier}
        self._grant(name, args.namespace, "gitlab-agent-verify", [rule], [user])

    def _deployers(self, name: str, args: AgentAccessArgs, agent: dict[str, Any]) -> list[dict[str, Any]]:
        """Subjects that deploy, as ``accessAs`` sets: the jobs themselves, one ServiceAccount for all, or the agent."""
        match args.settings.access_as:
            case "ci_job":
                self._let_impersonate_jobs(f"{name}-impersonate", args, agent)
                groups = args.settings.groups_that_deploy(args.environment)
                return [{"api_group": RBAC, "kind": "Group", "name": group} for group in groups]
            case "impersonate":
                # Not in the models' namespace, where a pod could be started with it.
                account = self._account(f"{name}-deployer", DEPLOYER, args.namespace)
                rule = _impersonate("", ["serviceaccounts"], [account])
                self._grant(f"{name}-impersonate", args.namespace, "gitlab-agent-impersonate", [rule], [agent])
                return [_subject(account, args.namespace)]
            case "agent":
                return [agent]

    def _let_impersonate_jobs(self, name: str, args: AgentAccessArgs, agent: dict[str, Any]) -> None:
        """The agent may use any job's name, but only the groups that GitLab gives to the jobs that deploy."""
        role = kubernetes.rbac.v1.ClusterRole(
            name,
            metadata={"name": Output.concat(args.namespace, "-impersonate")},
            rules=[
                _impersonate("", ["users"]),
                _impersonate("", ["groups"], args.settings.groups_sent(args.environment, args.tier)),
                _impersonate("authentication.k8s.io", [f"userextras/agent.gitlab.com/{key}" for key in EXTRAS]),
            ],
            opts=ResourceOptions(parent=self),
        )
        kubernetes.rbac.v1.ClusterRoleBinding(
            name,
            metadata={"name": role.metadata.name},
            role_ref={"api_group": RBAC, "kind": "ClusterRole", "name": role.metadata.name},
            subjects=[agent],
            opts=ResourceOptions(parent=self),
        )

    def _grant(
        self,
        name: str,
        namespace: Input[str],
        title: str,
        rules: Sequence[dict[str, Any]],
        subjects: Sequence[dict[str, Any]],
    ) -> None:
        metadata, child = {"name": title, "namespace": namespace}, ResourceOptions(parent=self)
        role = kubernetes.rbac.v1.Role(name, metadata=metadata, rules=[*rules], opts=child)
        kubernetes.rbac.v1.RoleBinding(
            name,
            metadata=metadata,
            role_ref={"api_group": RBAC, "kind": "Role", "name": role.metadata.name},
            subjects=[*subjects],
            opts=child,
        )


def token_secret(token: str) -> str:
    """Name of the Secret with a token: another token is another Secret, which restarts the pods."""
    return f"agent-token-{token}"


def _subject(account: Input[str], namespace: Input[str]) -> dict[str, Any]:
    return {"kind": "ServiceAccount", "name": account, "namespace": namespace}


def _impersonate(group: str, resources: Sequence[str], names: Sequence[Input[str]] = ()) -> dict[str, Any]:
    rule: dict[str, Any] = {"api_groups": [group], "resources": [*resources], "verbs": ["impersonate"]}
    return rule | ({"resource_names": [*names]} if names else {})
