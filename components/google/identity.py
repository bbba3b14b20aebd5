"""Identities: a service account per duty, its roles in the project, and the jobs that may act as it without a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pulumi_gcp as gcp
import yaml
from pulumi import ComponentResource, Input, Output, ResourceOptions

from model_serving.stack.google import REVIEW, GcpSettings, GitHubSettings, GitLabSettings

if TYPE_CHECKING:
    from model_serving.stack.settings import Settings

PLAN: Final = "plan"
VERIFY: Final = "verify"
APPLY: Final = "apply"
NODES: Final = "nodes"
SERVING: Final = "serving"
TRAINING: Final = "training"

DUTIES: Final[Mapping[str, str]] = {
    PLAN: "Previews the stack in merge requests; reads",
    VERIFY: "Previews the protected branch and checks it for drift; reads",
    APPLY: "Updates the stack from its environment",
    NODES: "What the nodes of the cluster run as",
    SERVING: "What a model server acts as if a model ever needs Google; has no role",
    TRAINING: "Trains models: reads and writes the DVC remote",
    REVIEW: "Serves what merge requests add, in a namespace and from a repository of their own",
}
"""Duty -> description of its account in the console. Only a stack with reviews has the last."""

CI_DUTIES: Final = (PLAN, VERIFY, APPLY, TRAINING)
"""One for each job, by its token; reviews are a second one of the jobs that read."""
READING_DUTIES: Final = (PLAN, VERIFY)

READER: Final = "reader"
"""Name of this program's custom role, see permissions.yaml. *apply* has it too, to read what it may not change."""

PERMISSIONS: Final = yaml.safe_load(Path(__file__).with_name("permissions.yaml").read_text(encoding="utf-8"))
PROJECT_ROLES: Final[Mapping[str, Sequence[tuple[str, str]]]] = {
    duty: [(granted["role"], granted.get("for", "")) for granted in grants]
    for duty, grants in PERMISSIONS["project"].items()
}
"""Duty -> its roles on the project, each with the part of a stack that needs it, see `_roles`; "" is every stack."""
GITHUB_ISSUER: Final = "https://token.actions.githubusercontent.com"


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """The environment of GitLab or GitHub in which jobs update the stack.

    Attributes:
        environment: name, which is that of the stack.
        approval: whether someone has to approve each deployment.
        reviews: whether jobs serve what merge requests add.
    """

    environment: str
    approval: bool
    reviews: bool = False

    @classmethod
    def of(cls, settings: Settings, stack: str) -> Deployment:
        """That of a stack with these settings."""
        approval = settings.ci is not None and settings.ci.approval
        return cls(environment=stack, approval=approval, reviews=settings.has_reviews)


class Identity(ComponentResource):
    """A service account per duty, its roles in the project, and the trust in tokens of GitLab and GitHub.

    Only a person with the role Owner can create or change what is declared here: *apply* has no role that administers
    identities, because it could give itself any other with one. Grants on one bucket, repository or key are declared
    beside it. No grant of this program removes another member.
    """

    def __init__(
        self, name: str, settings: GcpSettings, deployment: Deployment, opts: ResourceOptions | None = None
    ) -> None:
        super().__init__("model-serving:index:Identity", name, None, opts)
        self._duties = [duty for duty in DUTIES if duty != REVIEW or deployment.reviews]
        self._accounts = {duty: self._account(name, settings, duty) for duty in self._duties}
        self.members: Mapping[str, Output[str]] = {duty: account.member for duty, account in self._accounts.items()}
        self.emails: Mapping[str, Output[str]] = {duty: account.email for duty, account in self._accounts.items()}
        self._grant_on_project(name, settings, deployment)
        self._let_apply_use_nodes(name)
        self.providers: dict[str, Output[str]] = self._federate(name, settings, deployment)
        """gitlab or github -> name of the provider, the audience of a job's token."""
        self.keys: Output[dict[str, str]] = Output.secret(self._keys(name) if settings.identity.key_for_ci else {})
        """Duty -> key file, base64; empty without keyForCi."""
        self.register_outputs({"emails": self.emails, "providers": self.providers})

    def _account(self, name: str, settings: GcpSettings, duty: str) -> gcp.serviceaccount.Account:
        return gcp.serviceaccount.Account(
            f"{name}-{duty}",
            project=settings.project,
            account_id=f"{settings.name}-{duty}",
            display_name=f"{settings.name} {duty}",
            description=DUTIES[duty],
            opts=ResourceOptions(parent=self),
        )

    def _grant_on_project(self, name: str, settings: GcpSettings, deployment: Deployment) -> None:
        for duty in self._duties:
            for role in _roles(settings, duty, deployment):
                self._project_role(f"{name}-{duty}-{role.partition('/')[2]}", settings, duty, role)
        reader = self._reader(name, settings)
        for duty in (*READING_DUTIES, APPLY):
            self._project_role(f"{name}-{duty}-{READER}", settings, duty, reader)

    def _project_role(self, name: str, settings: GcpSettings, duty: str, role: Input[str]) -> None:
        gcp.projects.IAMMember(
            name, project=settings.project, role=role, member=self.members[duty], opts=ResourceOptions(parent=self)
        )

    def _reader(self, name: str, settings: GcpSettings) -> Output[str]:
        # Google allows letters, digits, dots and underscores here, and keeps the ID of a deleted role for 37 days.
        role = gcp.projects.IAMCustomRole(
            f"{name}-{READER}",
            project=settings.project,
            role_id=f"{settings.name.replace('-', '_')}_{READER}",
            title=f"{settings.name} {READER}",
            description="Reads who may do what, for previews",
            permissions=PERMISSIONS["reader"],
            opts=ResourceOptions(parent=self),
        )
        return Output.concat(f"projects/{settings.project}/roles/", role.role_id)

    def _act_as(self, name: str, duty: str, *, role: str, member: Input[str]) -> None:
        gcp.serviceaccount.IAMMember(
            name,
            service_account_id=self._accounts[duty].name,
            role=role,
            member=member,
            opts=ResourceOptions(parent=self),
        )

    def _let_apply_use_nodes(self, name: str) -> None:
        """Creating a cluster needs permission to act as the account of its nodes."""
        member = self.members[APPLY]
        self._act_as(f"{name}-{APPLY}-uses-{NODES}", NODES, role="roles/iam.serviceAccountUser", member=member)

    def _federate(self, name: str, settings: GcpSettings, deployment: Deployment) -> dict[str, Output[str]]:
        trusted: dict[str, Trust] = {}
        if settings.identity.gitlab:
            trusted["gitlab"] = trust_gitlab(settings.identity.gitlab, deployment)
        if settings.identity.github:
            trusted["github"] = trust_github(settings.identity.github, deployment)
        if not trusted:
            return {}
        pool = gcp.iam.WorkloadIdentityPool(
            name,
            project=settings.project,
            workload_identity_pool_id=settings.identity.pool or settings.name,
            display_name=settings.name,
            description="Pipelines that act without a key",
            # It outlives the stack, because a deleted pool keeps its ID for 30 days and the provider cannot restore it:
            # https://github.com/pulumi/pulumi-gcp/issues/1149
            opts=ResourceOptions(parent=self, retain_on_delete=True),
        )
        role = "roles/iam.workloadIdentityUser"
        for duty in CI_DUTIES:
            jobs = Output.concat("principalSet://iam.googleapis.com/", pool.name, f"/attribute.duty/{duty}")
            self._act_as(f"{name}-jobs-{duty}", duty, role=role, member=jobs)
            # No claim tells a review from a preview in a way that a branch, which writes its own jobs, could not copy.
            if deployment.reviews and duty in READING_DUTIES:
                self._act_as(f"{name}-jobs-{duty}-{REVIEW}", REVIEW, role=role, member=jobs)
        return {host: self._trust(f"{name}-{host}", settings, pool, trust) for host, trust in trusted.items()}

    def _trust(self, name: str, settings: GcpSettings, pool: gcp.iam.WorkloadIdentityPool, trust: Trust) -> Output[str]:
        oidc: gcp.iam.WorkloadIdentityPoolProviderOidcArgsDict = {"issuer_uri": trust.issuer}
        if trust.keys:
            oidc["jwks_json"] = trust.keys
        return gcp.iam.WorkloadIdentityPoolProvider(
            name,
            project=settings.project,
            # Not the pool's Pulumi ID, which Google's provider takes for a name:
            # https://github.com/pulumi/pulumi-gcp/issues/1080
            workload_identity_pool_id=pool.workload_identity_pool_id,
            workload_identity_pool_provider_id=name.rpartition("-")[2],
            attribute_mapping={"google.subject": trust.subject, "attribute.duty": trust.duty},
            attribute_condition=trust.condition,
            oidc=oidc,
            opts=ResourceOptions(parent=self, retain_on_delete=True),
        ).name

    def _keys(self, name: str) -> Output[dict[str, str]]:
        keys = {
            duty: gcp.serviceaccount.Key(
                f"{name}-{duty}",
                service_account_id=self._accounts[duty].name,
                opts=ResourceOptions(parent=self, additional_secret_outputs=["privateKey"]),
            ).private_key
            for duty in (*CI_DUTIES, REVIEW)
            if duty in self._duties
        }
        return Output.all(**keys)


def _roles(settings: GcpSettings, duty: str, deployment: Deployment) -> list[str]:
    """The roles on the project that a duty needs in this stack."""
    identity = settings.identity
    needed = {
        "": True,
        "certificate": settings.gateway.domain is not None,
        "federation": identity.gitlab is not None or identity.github is not None,
        "fleet": settings.cluster.fleet,
        "own bucket": settings.storage.existing is None,
        "own registry": settings.registry.existing is None or deployment.reviews,
        "policy": settings.cluster.binary_authorization,
        "public": settings.gateway.public,
    }
    return [role for role, need in PROJECT_ROLES[duty] if needed[need]]


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Tokens that Google accepts, by expressions over their claims.

    Attributes:
        condition: true for trusted repositories, by ID: someone else can take over a name that was given up.
        subject: the repository's ID; Google allows 127 bytes, too few for claims with a branch.
        duty: of a job, see _duty.
        keys: public keys as JSON if Google cannot reach the issuer.
    """

    issuer: str
    condition: str
    subject: str
    duty: str
    keys: str | None = None


def trust_gitlab(gitlab: GitLabSettings, deployment: Deployment) -> Trust:
    project, branch = "assertion.project_id", f"assertion.ref == {_text(gitlab.branch)}"
    # An environment's job that only verifies or stops it has the environment in its token, too.
    deploys = f"{_in_environment(deployment)} && assertion.environment_action == 'start'"
    protected = gitlab.protected_environment
    if deployment.approval if protected is None else protected:
        deploys += " && assertion.environment_protected == 'true'"
    return Trust(
        issuer=gitlab.issuer,
        condition=_one_of(project, [gitlab.project_id, *gitlab.model_project_ids]),
        subject=project,
        # A merge request from the protected branch has that branch's name and protection, so its source is checked
        # first. All of GitLab's claims are strings, even true.
        # https://docs.gitlab.com/ci/secrets/id_token_authentication/
        duty=_duty(
            own=f"{project} == '{gitlab.project_id}'",
            previews="assertion.pipeline_source == 'merge_request_event'",
            protected=f"{branch} && assertion.ref_type == 'branch' && assertion.ref_protected == 'true'",
            deploys=deploys,
        ),
        keys=gitlab.keys,
    )


def trust_github(github: GitHubSettings, deployment: Deployment) -> Trust:
    repository, branch = "assertion.repository_id", f"assertion.ref == {_text(f'refs/heads/{github.branch}')}"
    trusted = _one_of(repository, [github.repository_id, *github.model_repository_ids])
    return Trust(
        issuer=GITHUB_ISSUER,
        condition=f"assertion.repository_owner_id == '{github.owner_id}' && {trusted}",
        subject=repository,
        # By event: pull_request_target, workflow_run and issue_comment also run on the branch, and strangers can
        # trigger them.
        duty=_duty(
            own=f"{repository} == '{github.repository_id}'",
            previews="assertion.event_name == 'pull_request'",
            protected=f"{branch} && assertion.ref_protected == 'true' "
            "&& assertion.event_name in ['push', 'workflow_dispatch', 'schedule']",
            # GitHub signs it only after the environment's reviewers have approved the job.
            deploys=_in_environment(deployment),
        ),
    )


def _in_environment(deployment: Deployment) -> str:
    # Only jobs with an environment have the claim, and an expression over a missing one fails.
    return f"has(assertion.environment) && assertion.environment == {_text(deployment.environment)}"


def _one_of(claim: str, numbers: Sequence[int]) -> str:
    return f"{claim} in [{', '.join(_text(str(number)) for number in numbers)}]"


def _duty(*, own: str, previews: str, protected: str, deploys: str) -> str:
    """Expression for a job's only duty: a job of a model's repository trains, whatever else it claims.

    A job without a duty gets a token, but cannot act as any account.
    """
    on_branch = f"({deploys}) ? '{APPLY}' : '{VERIFY}'"
    return f"!({own}) ? '{TRAINING}' : ({previews}) ? '{PLAN}' : !({protected}) ? 'none' : {on_branch}"


def _text(value: str) -> str:
    """A string in Google's expression language. Settings allow neither quotes nor backslashes."""
    return f"'{value}'"
