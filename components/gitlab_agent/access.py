"""What the agent and the jobs behind it may do in the cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import pulumi_kubernetes as kubernetes
from pulumi import ComponentResource, Input, Output, ResourceOptions

RBAC: Final = "rbac.authorization.k8s.io"
READ: Final = ("get", "list", "watch")
WRITE: Final = (*READ, "create", "update", "patch", "delete")
DEPLOYED: Final[Mapping[str, Sequence[str]]] = {
    "": ("configmaps", "services"),
    "apps": ("deployments",),
    "autoscaling": ("horizontalpodautoscalers",),
    "batch": ("jobs",),
    "gateway.networking.k8s.io": ("gateways", "httproutes"),
    "networking.gke.io": ("gcpbackendpolicies", "healthcheckpolicies"),
    "networking.k8s.io": ("networkpolicies",),
    "policy": ("poddisruptionbudgets",),
}
"""API group to the kinds that a deployment of models makes in their namespace: what components/ declares there."""
WATCHED: Final[Mapping[str, Sequence[str]]] = {
    "": ("endpoints", "events", "persistentvolumeclaims", "pods"),
    "apps": ("replicasets",),
    "discovery.k8s.io": ("endpointslices",),
}
"""What the Kubernetes provider looks at besides, to tell when a Deployment is ready and why it is not."""
EXTRAS: Final = (
    "id",
    "config_project_id",
    "project_id",
    "ci_pipeline_id",
    "ci_job_id",
    "username",
    "environment_slug",
    "environment_tier",
)
"""What GitLab tells of a job besides its name and groups, https://docs.gitlab.com/user/clusters/agent/ci_cd_workflow/.
Each needs a right of its own: `userextras/*` matches none of them."""


@dataclass(frozen=True, kw_only=True)
class AgentAccessArgs:
    """Rights of one agent.

    Attributes:
        namespace: of the agent.
        serving_namespace: of the models, in which jobs deploy.
        account: name of the agent's ServiceAccount.
        access_as: who a job is: ci_job, itself; impersonate, the ServiceAccount ``deployer``; agent, the agent.
        deployer: name of a ServiceAccount in the agent's namespace; for impersonate alone.
        groups_that_deploy: what GitLab calls the jobs that may deploy; for ci_job alone.
        groups_sent: every group that GitLab names with a request of such a job; for ci_job alone.
    """

    namespace: Input[str]
    serving_namespace: Input[str]
    account: str
    access_as: Literal["ci_job", "impersonate", "agent"]
    deployer: str = "deploy"
    groups_that_deploy: Sequence[str] = ()
    groups_sent: Sequence[str] = ()


class AgentAccess(ComponentResource):
    """The agent's ServiceAccount, and Roles that end at two namespaces: its own and that of the models.

    Nobody gets a ClusterRole here, with one exception: Kubernetes knows no narrower right to act as a job, whose name
    is new each time, than one for the whole cluster; it is narrowed to the groups that GitLab sends.
    """

    def __init__(self, name: str, args: AgentAccessArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:AgentAccess", name, None, opts)
        self.account: Output[str] = self._account(name, args.account, args.namespace)
        agent = _account(self.account, args.namespace)
        self._own_affairs(name, args, agent)
        deployers = {"ci_job": self._jobs, "impersonate": self._deployer, "agent": self._agent_itself}
        self._let_deploy(f"{name}-deploy", args, deployers[args.access_as](name, args, agent))
        self.register_outputs({"account": self.account})

    def _account(self, name: str, account: str, namespace: Input[str]) -> Output[str]:
        return kubernetes.core.v1.ServiceAccount(
            name,
            metadata={"name": account, "namespace": namespace},
            # The chart mounts a token that lasts an hour instead.
            automount_service_account_token=False,
            opts=ResourceOptions(parent=self),
        ).metadata.name

    def _own_affairs(self, name: str, args: AgentAccessArgs, agent: dict[str, Any]) -> None:
        rules = [
            {"api_groups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
            {"api_groups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
        ]
        self._grant(name, args.namespace, args.account, rules, [agent])

    def _let_deploy(self, name: str, args: AgentAccessArgs, subjects: Sequence[dict[str, Any]]) -> None:
        rules: list[dict[str, Any]] = [
            *({"api_groups": [group], "resources": kinds, "verbs": WRITE} for group, kinds in DEPLOYED.items()),
            *({"api_groups": [group], "resources": kinds, "verbs": READ} for group, kinds in WATCHED.items()),
            # The namespace that the Role is in, and no other; its labels say which pods are let in, so no changes.
            {"api_groups": [""], "resources": ["namespaces"], "verbs": ["get"]},
        ]
        self._grant(name, args.serving_namespace, "gitlab-agent-deploy", rules, subjects)

    def _jobs(self, name: str, args: AgentAccessArgs, agent: dict[str, Any]) -> list[dict[str, Any]]:
        """Each job is itself: the agent may name any job, but no group that GitLab does not give to these jobs."""
        role = kubernetes.rbac.v1.ClusterRole(
            f"{name}-impersonate",
            metadata={"name": Output.concat(args.namespace, "-impersonate")},
            rules=[
                {"api_groups": [""], "resources": ["users"], "verbs": ["impersonate"]},
                {
                    "api_groups": [""],
                    "resources": ["groups"],
                    "verbs": ["impersonate"],
                    "resource_names": [*args.groups_sent],
                },
                {
                    "api_groups": ["authentication.k8s.io"],
                    "resources": [f"userextras/agent.gitlab.com/{key}" for key in EXTRAS],
                    "verbs": ["impersonate"],
                },
            ],
            opts=ResourceOptions(parent=self),
        )
        kubernetes.rbac.v1.ClusterRoleBinding(
            f"{name}-impersonate",
            metadata={"name": role.metadata.name},
            role_ref={"api_group": RBAC, "kind": "ClusterRole", "name": role.metadata.name},
            subjects=[agent],
            opts=ResourceOptions(parent=self),
        )
        return [{"api_group": RBAC, "kind": "Group", "name": group} for group in args.groups_that_deploy]

    def _deployer(self, name: str, args: AgentAccessArgs, agent: dict[str, Any]) -> list[dict[str, Any]]:
        """All jobs are one ServiceAccount. It is not in the models' namespace, where a pod could be started with it."""
        account = self._account(f"{name}-deployer", args.deployer, args.namespace)
        rule = {
            "api_groups": [""],
            "resources": ["serviceaccounts"],
            "verbs": ["impersonate"],
            "resource_names": [account],
        }
        self._grant(f"{name}-impersonate", args.namespace, "gitlab-agent-impersonate", [rule], [agent])
        return [_account(account, args.namespace)]

    def _agent_itself(self, name: str, args: AgentAccessArgs, agent: dict[str, Any]) -> list[dict[str, Any]]:
        return [agent]

    def _grant(
        self,
        name: str,
        namespace: Input[str],
        title: str,
        rules: Sequence[Mapping[str, Any]],
        subjects: Sequence[Mapping[str, Any]],
    ) -> None:
        role = kubernetes.rbac.v1.Role(
            name,
            metadata={"name": title, "namespace": namespace},
            rules=[dict(rule) for rule in rules],
            opts=ResourceOptions(parent=self),
        )
        kubernetes.rbac.v1.RoleBinding(
            name,
            metadata={"name": title, "namespace": namespace},
            role_ref={"api_group": RBAC, "kind": "Role", "name": role.metadata.name},
            subjects=[dict(subject) for subject in subjects],
            opts=ResourceOptions(parent=self),
        )


def _account(name: Input[str], namespace: Input[str]) -> dict[str, Any]:
    return {"kind": "ServiceAccount", "name": name, "namespace": namespace}
