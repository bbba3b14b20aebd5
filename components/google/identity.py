"""Identities: one service account per duty, what each may do in the project, and who may act as one without a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi_gcp as gcp
from pulumi import ComponentResource, Input, Output, ResourceOptions

PLAN: Final = "plan"
APPLY: Final = "apply"
NODES: Final = "nodes"
SERVING: Final = "serving"
TRAINING: Final = "training"

DUTIES: Final[Mapping[str, str]] = {
    PLAN: "Previews the stack in merge requests; reads",
    APPLY: "Updates the stack from the protected branch",
    NODES: "What the nodes of the cluster run as",
    SERVING: "What a model server acts as if a model ever needs Google; has no role",
    TRAINING: "Trains models: reads and writes the DVC remote",
}
"""Duty -> what its account is for, as the console shows it."""

CI_DUTIES: Final = (PLAN, APPLY, TRAINING)

CERTIFICATE: Final = "certificate"
FEDERATION: Final = "federation"
PUBLIC: Final = "public"
POLICY: Final = "policy"
OWN_BUCKET: Final = "own bucket"
OWN_REGISTRY: Final = "own registry"
FLEET: Final = "fleet"
"""What a stack may have or not, as far as a role depends on it."""

READER: Final = "reader"
"""Name of the custom role of this program, see READER_PERMISSIONS."""

# Every binding on the project, each with the reason why nothing narrower will do. docs/gcp.md has the same rows, and a
# test compares the two. An empty need means that every stack needs it.
PROJECT_ROLES: Final[Mapping[str, Sequence[tuple[str, str]]]] = {
    PLAN: (
        # Refreshing and previewing reads every resource; these have no policy of their own below the project.
        ("roles/certificatemanager.viewer", CERTIFICATE),
        ("roles/compute.networkViewer", ""),
        # container.clusters.connect, for the DNS endpoint. GKE has no policy on a single cluster; what may be read
        # inside is a matter of the cluster's own roles, see ClusterAccess.
        ("roles/container.clusterViewer", ""),
        ("roles/iam.serviceAccountViewer", ""),
        ("roles/iam.workloadIdentityPoolViewer", FEDERATION),
        ("roles/monitoring.viewer", ""),
        ("roles/serviceusage.serviceUsageViewer", ""),
    ),
    APPLY: (
        # What makes a resource must be allowed where the resource is not yet: in the project.
        ("roles/artifactregistry.admin", OWN_REGISTRY),
        ("roles/binaryauthorization.policyEditor", POLICY),
        # The owner and not the editor: an editor of Certificate Manager cannot delete.
        ("roles/certificatemanager.owner", CERTIFICATE),
        ("roles/compute.networkAdmin", ""),
        # Cloud Armor: a network administrator may use a security policy, but not make one.
        ("roles/compute.securityAdmin", PUBLIC),
        # The administrator and not the developer: only it may give others access inside the cluster.
        ("roles/container.admin", ""),
        ("roles/gkehub.editor", FLEET),
        ("roles/iam.roleAdmin", ""),
        ("roles/iam.serviceAccountAdmin", ""),
        ("roles/iam.workloadIdentityPoolAdmin", FEDERATION),
        ("roles/monitoring.editor", ""),
        ("roles/serviceusage.serviceUsageAdmin", ""),
        ("roles/storage.admin", OWN_BUCKET),
    ),
    NODES: (
        # Logs and metrics of a node are written to the project, and nowhere else.
        # https://cloud.google.com/kubernetes-engine/docs/how-to/service-accounts
        ("roles/container.defaultNodeServiceAccount", ""),
    ),
    SERVING: (),
    TRAINING: (),
}
PROJECT_ADMIN: Final = "roles/resourcemanager.projectIamAdmin"
"""Lets apply grant the roles of plan and nodes, and by its condition no other: not its own, so that it cannot rise."""

READER_PERMISSIONS: Final = (
    # What a refresh asks, and no predefined role has without far more: who may do what, and a few that lack a viewer.
    "artifactregistry.repositories.get",
    "artifactregistry.repositories.getIamPolicy",
    "binaryauthorization.policy.get",
    "cloudkms.cryptoKeys.getIamPolicy",
    "compute.securityPolicies.get",
    "iam.roles.get",
    "iam.serviceAccounts.getIamPolicy",
    "resourcemanager.projects.get",
    "resourcemanager.projects.getIamPolicy",
    "storage.buckets.get",
    "storage.buckets.getIamPolicy",
)

GITHUB_ISSUER: Final = "https://token.actions.githubusercontent.com"


@dataclass(frozen=True, kw_only=True)
class GitLab:
    """A GitLab whose jobs may act here.

    Attributes:
        issuer: its address, without a slash at the end.
        project_id: number of the repository of this program.
        model_project_ids: numbers of the repositories that train models.
        branch: protected branch that is rolled out.
        keys: its public keys as JSON, if Google cannot reach it.
    """

    issuer: str
    project_id: int
    model_project_ids: Sequence[int] = ()
    branch: str = "main"
    keys: str | None = None

    @property
    def condition(self) -> str:
        return _one_of("assertion.project_id", [self.project_id, *self.model_project_ids])

    @property
    def mapping(self) -> dict[str, str]:
        # A merge request from the protected branch carries that branch's name and protection, so its source is asked
        # first. GitLab's claims are all texts, even true.
        # https://docs.gitlab.com/ci/secrets/id_token_authentication/
        rolled_out = (
            f"assertion.ref == {_text(self.branch)} && assertion.ref_type == 'branch' "
            "&& assertion.ref_protected == 'true'"
        )
        return {
            # Not sub, which has the branch in it: Google takes 127 bytes.
            "google.subject": "assertion.project_id",
            "attribute.duty": _duty(
                own=f"assertion.project_id == '{self.project_id}'",
                previews="assertion.pipeline_source == 'merge_request_event'",
                rolls_out=rolled_out,
            ),
        }


@dataclass(frozen=True, kw_only=True)
class GitHub:
    """Repositories on GitHub whose jobs may act here.

    Attributes:
        repository_id: number of the repository of this program.
        owner_id: number of its owner.
        model_repository_ids: numbers of the repositories that train models.
        branch: protected branch that is rolled out.
    """

    repository_id: int
    owner_id: int
    model_repository_ids: Sequence[int] = ()
    branch: str = "main"

    @property
    def condition(self) -> str:
        owner = f"assertion.repository_owner_id == '{self.owner_id}'"
        return f"{owner} && {_one_of('assertion.repository_id', [self.repository_id, *self.model_repository_ids])}"

    @property
    def mapping(self) -> dict[str, str]:
        # By name of the event: pull_request_target, workflow_run and issue_comment run on the branch as well, and
        # strangers can start them.
        rolled_out = (
            f"assertion.ref == {_text('refs/heads/' + self.branch)} && assertion.ref_protected == 'true' "
            "&& assertion.event_name in ['push', 'workflow_dispatch', 'schedule']"
        )
        return {
            "google.subject": "assertion.repository_id",
            "attribute.duty": _duty(
                own=f"assertion.repository_id == '{self.repository_id}'",
                previews="assertion.event_name == 'pull_request'",
                rolls_out=rolled_out,
            ),
        }


@dataclass(frozen=True, kw_only=True)
class IdentityArgs:
    """The identities of a project.

    Attributes:
        name: what names in Google begin with, at most 20 characters.
        pool: id of the workload identity pool.
        gitlab: jobs in GitLab that act without a key.
        github: jobs in GitHub Actions that act without a key.
        key_for_ci: whether keys of the accounts of pipelines are made, for a CI system without OIDC tokens.
        needs: what the stack has, as far as roles depend on it, e.g. ``public``.
    """

    project: str
    name: str
    pool: str
    gitlab: GitLab | None = None
    github: GitHub | None = None
    key_for_ci: bool = False
    needs: frozenset[str] = frozenset()


class Identity(ComponentResource):
    """A service account per duty, its roles in the project, and the trust in GitLab's and GitHub's tokens.

    What an account may do on one bucket, repository or key is declared with that, not here. Accounts that exist
    besides these, people among them, are left alone: no grant of this program takes one away from somebody else.
    """

    def __init__(self, name: str, args: IdentityArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:Identity", name, None, opts)
        self._accounts = {duty: self._account(name, args, duty) for duty in DUTIES}
        self.members: Mapping[str, Output[str]] = {duty: made.member for duty, made in self._accounts.items()}
        self.emails: Mapping[str, Output[str]] = {duty: made.email for duty, made in self._accounts.items()}
        reader = self._reader(name, args)
        self._grant_on_project(name, args, reader)
        self._let_apply_use_nodes(name)
        self.providers: dict[str, Output[str]] = self._federate(name, args)
        """gitlab or github -> name of the provider, which a job gives as the audience of its token."""
        self.keys: Output[dict[str, str]] = self._keys(name) if args.key_for_ci else Output.secret({})
        """Duty -> key file, base64; empty unless keys are asked for."""
        self.register_outputs({"emails": self.emails, "providers": self.providers})

    def _account(self, name: str, args: IdentityArgs, duty: str) -> gcp.serviceaccount.Account:
        return gcp.serviceaccount.Account(
            f"{name}-{duty}",
            project=args.project,
            account_id=f"{args.name}-{duty}",
            display_name=f"{args.name} {duty}",
            description=DUTIES[duty],
            opts=ResourceOptions(parent=self),
        )

    def _reader(self, name: str, args: IdentityArgs) -> Output[str]:
        # Google takes letters, digits, dots and underscores here, and keeps the id of a deleted role for 37 days.
        role = gcp.projects.IAMCustomRole(
            f"{name}-{READER}",
            project=args.project,
            role_id=f"{args.name.replace('-', '_')}_{READER}",
            title=f"{args.name} {READER}",
            description="Reads who may do what, for previews",
            permissions=[*READER_PERMISSIONS],
            opts=ResourceOptions(parent=self),
        )
        return Output.concat(f"projects/{args.project}/roles/", role.role_id)

    def _grant_on_project(self, name: str, args: IdentityArgs, reader: Output[str]) -> None:
        for duty, roles in PROJECT_ROLES.items():
            for role, need in roles:
                if not need or need in args.needs:
                    self._project_role(f"{name}-{duty}-{role.partition('/')[2]}", args, duty, role)
        # apply reads with it what plan reads: it may not set policies on keys, so it must see that they are right.
        for duty in (PLAN, APPLY):
            self._project_role(f"{name}-{duty}-{READER}", args, duty, reader)
        self._let_apply_grant(name, args, reader)

    def _project_role(
        self,
        name: str,
        args: IdentityArgs,
        duty: str,
        role: Input[str],
        condition: gcp.projects.IAMMemberConditionArgsDict | None = None,
    ) -> None:
        gcp.projects.IAMMember(
            name,
            project=args.project,
            role=role,
            member=self.members[duty],
            condition=condition,
            opts=ResourceOptions(parent=self),
        )

    def _let_apply_grant(self, name: str, args: IdentityArgs, reader: Output[str]) -> None:
        grantable = sorted(
            role for duty in (PLAN, NODES) for role, need in PROJECT_ROLES[duty] if not need or need in args.needs
        )
        listed = Output.concat(", ".join(_text(role) for role in grantable), ", '", reader, "'")
        self._project_role(
            f"{name}-apply-grants",
            args,
            APPLY,
            PROJECT_ADMIN,
            {
                "title": "Roles of plan and nodes",
                "description": "May grant these roles and no others, in particular none of its own",
                # https://cloud.google.com/iam/docs/setting-limits-on-granting-roles
                "expression": Output.concat(
                    "api.getAttribute('iam.googleapis.com/modifiedGrantsByRole', []).hasOnly([", listed, "])"
                ),
            },
        )

    def _let_apply_use_nodes(self, name: str) -> None:
        """Who makes a cluster must be allowed to act as what its nodes run as."""
        gcp.serviceaccount.IAMMember(
            f"{name}-{APPLY}-uses-{NODES}",
            service_account_id=self._accounts[NODES].name,
            role="roles/iam.serviceAccountUser",
            member=self.members[APPLY],
            opts=ResourceOptions(parent=self),
        )

    def _federate(self, name: str, args: IdentityArgs) -> dict[str, Output[str]]:
        if args.gitlab is None and args.github is None:
            return {}
        # A deleted pool keeps its id for 30 days and cannot be had back through Google's provider
        # (https://github.com/pulumi/pulumi-gcp/issues/1149), so it stays when the stack goes.
        stays = ResourceOptions(parent=self, retain_on_delete=True)
        pool = gcp.iam.WorkloadIdentityPool(
            name,
            project=args.project,
            workload_identity_pool_id=args.pool,
            display_name=args.name,
            description="Pipelines that act without a key",
            opts=stays,
        )
        providers = {}
        if args.gitlab:
            oidc: gcp.iam.WorkloadIdentityPoolProviderOidcArgsDict = {"issuer_uri": args.gitlab.issuer}
            if args.gitlab.keys:
                oidc["jwks_json"] = args.gitlab.keys
            providers["gitlab"] = self._trust(f"{name}-gitlab", args, pool, args.gitlab, oidc)
        if args.github:
            providers["github"] = self._trust(f"{name}-github", args, pool, args.github, {"issuer_uri": GITHUB_ISSUER})
        for duty in CI_DUTIES:
            gcp.serviceaccount.IAMMember(
                f"{name}-jobs-{duty}",
                service_account_id=self._accounts[duty].name,
                role="roles/iam.workloadIdentityUser",
                member=Output.concat("principalSet://iam.googleapis.com/", pool.name, f"/attribute.duty/{duty}"),
                opts=ResourceOptions(parent=self),
            )
        return providers

    def _trust(
        self,
        name: str,
        args: IdentityArgs,
        pool: gcp.iam.WorkloadIdentityPool,
        trusted: GitLab | GitHub,
        oidc: gcp.iam.WorkloadIdentityPoolProviderOidcArgsDict,
    ) -> Output[str]:
        return gcp.iam.WorkloadIdentityPoolProvider(
            name,
            project=args.project,
            # Not the pool's id in Pulumi, which Google's provider takes for a name:
            # https://github.com/pulumi/pulumi-gcp/issues/1080
            workload_identity_pool_id=pool.workload_identity_pool_id,
            workload_identity_pool_provider_id=name.rpartition("-")[2],
            attribute_mapping=trusted.mapping,
            # By numbers: a name can be given up, and then be had by somebody else.
            attribute_condition=trusted.condition,
            oidc=oidc,
            opts=ResourceOptions(parent=self, retain_on_delete=True),
        ).name

    def _keys(self, name: str) -> Output[dict[str, str]]:
        keys = {
            duty: gcp.serviceaccount.Key(
                f"{name}-{duty}",
                service_account_id=self._accounts[duty].name,
                opts=ResourceOptions(parent=self, additional_secret_outputs=["privateKey"]),
            )
            for duty in CI_DUTIES
        }
        return Output.secret(Output.all(**{duty: key.private_key for duty, key in keys.items()}))


def _one_of(claim: str, numbers: Sequence[int]) -> str:
    return f"{claim} in [{', '.join(_text(str(number)) for number in numbers)}]"


def _duty(*, own: str, previews: str, rolls_out: str) -> str:
    """An expression that gives a job its one duty: a job of a model's repository trains, whatever it claims besides.

    A job that has none of the duties gets a token, and nobody whom it could act as.
    """
    return f"!({own}) ? '{TRAINING}' : ({previews}) ? '{PLAN}' : ({rolls_out}) ? '{APPLY}' : 'none'"


def _text(value: str) -> str:
    """A text in Google's expression language. Settings let no quote and no backslash through."""
    return f"'{value}'"
