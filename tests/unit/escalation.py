"""Searches grants of Google Cloud for chains of permissions that lead an account to more than it was given.

The rules are the known ways to act as another account or to get another role: setting policies, changing a custom role,
creating keys and tokens, running code as an account, trusting another issuer. A rule names the permissions that it
needs. The contents of roles are data, see google_roles.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

PROJECT: Final = "project"
OWNER: Final = "any role on the project"
DEFAULT_ACCOUNT: Final = "the default account of Compute Engine, which may be an editor"
BUILD_ACCOUNT: Final = "the account of Cloud Build"
FOREIGN_ACCOUNT: Final = "an account of someone else that trusts another pool"
OUTSIDE: Final = (DEFAULT_ACCOUNT, BUILD_ACCOUNT, FOREIGN_ACCOUNT)
"""Accounts that a project can have besides those of the table."""

Grants = Mapping[str, frozenset[tuple[str, str]]]
"""Account -> its roles, each with what it is granted on."""

ANY_ROLE: Final = frozenset(
    {
        "resourcemanager.projects.setIamPolicy",
        "resourcemanager.folders.setIamPolicy",
        "resourcemanager.organizations.setIamPolicy",
        "privilegedaccessmanager.entitlements.create",
        "privilegedaccessmanager.entitlements.setIamPolicy",
    }
)
CHANGES_ROLES: Final = frozenset({"iam.roles.update"})
BECOMES: Final = frozenset(
    {
        "iam.serviceAccounts.setIamPolicy",
        "iam.serviceAccounts.getAccessToken",
        "iam.serviceAccounts.getOpenIdToken",
        "iam.serviceAccounts.implicitDelegation",
        "iam.serviceAccounts.signBlob",
        "iam.serviceAccounts.signJwt",
        "iam.serviceAccountKeys.create",
        "iam.serviceAccountKeys.upload",
        "iam.serviceAccountApiKeyBindings.create",
        "storage.hmacKeys.create",
    }
)
"""On an account, or on the project for every account in it. An HMAC key counts, though only storage accepts it."""
ACTS_AS: Final = "iam.serviceAccounts.actAs"
RUNS_CODE: Final = frozenset(
    {
        "aiplatform.customJobs.create",
        "appengine.versions.create",
        "batch.jobs.create",
        "cloudbuild.builds.create",
        "cloudfunctions.functions.create",
        "cloudfunctions.functions.update",
        "cloudscheduler.jobs.create",
        "composer.environments.create",
        "compute.instanceTemplates.create",
        "compute.instances.create",
        "compute.instances.setServiceAccount",
        "container.clusters.create",
        "container.clusters.update",
        "dataflow.jobs.create",
        "dataproc.clusters.create",
        "eventarc.triggers.create",
        "notebooks.instances.create",
        "pubsub.subscriptions.create",
        "run.jobs.create",
        "run.services.create",
        "run.services.update",
        "tpu.nodes.create",
        "workflows.workflows.create",
        "workflows.workflows.update",
    }
)
"""With an account that the caller may act as."""
CHANGES_TRUST: Final = frozenset(
    f"iam.googleapis.com/workloadIdentityPool{what}"
    for what in (
        "ManagedIdentities.setAttestationRules",
        "Providers.create",
        "Providers.undelete",
        "Providers.update",
        "s.setAttestationRules",
    )
)
RUNS_AS: Final[Mapping[str, tuple[str, ...]]] = {
    "cloudbuild.builds.create": (BUILD_ACCOUNT,),
    "compute.instances.osAdminLogin": (DEFAULT_ACCOUNT, "nodes"),
    "compute.instances.osLogin": (DEFAULT_ACCOUNT, "nodes"),
    "compute.instances.setMetadata": (DEFAULT_ACCOUNT, "nodes"),
    "compute.projects.setCommonInstanceMetadata": (DEFAULT_ACCOUNT, "nodes"),
    "container.pods.create": ("nodes",),
    "container.pods.exec": ("nodes",),
    "deploymentmanager.deployments.create": (DEFAULT_ACCOUNT,),
}
"""Runs code where an account's token is, without a permission on that account."""
SETS_POLICY: Final = ".setIamPolicy"
NAMED: Final = ANY_ROLE | CHANGES_ROLES | BECOMES | RUNS_CODE | CHANGES_TRUST | {ACTS_AS, *RUNS_AS}


def is_relevant(permission: str) -> bool:
    """Whether a rule reads a permission; the others are left out of google_roles.yaml."""
    return permission in NAMED or permission.endswith((SETS_POLICY, ".delete"))


def known_roles() -> dict[str, frozenset[str]]:
    content = yaml.safe_load(Path(__file__).with_name("google_roles.yaml").read_text())
    return {role: frozenset(permissions) for role, permissions in content["roles"].items()}


@dataclass(frozen=True, kw_only=True)
class World:
    """Everything that a chain can go through.

    Attributes:
        roles: name -> permissions.
        grants: of the accounts in the project.
        trusting: accounts that jobs outside of Google may act as, through a workload identity pool.
    """

    roles: Mapping[str, frozenset[str]]
    grants: Grants
    trusting: frozenset[str]

    def reach(self, start: str) -> dict[str, str]:
        """What an account can become -> the chain that leads there. An unknown role is a KeyError."""
        reached = {start: start}
        while True:
            known = dict(reached)
            for account, chain in known.items():
                # Permissions of different accounts add up: a token of each is at hand.
                for target, step in self._steps(account, frozenset(known)):
                    reached.setdefault(target, f"{chain} -> {step} -> {target}")
            if len(reached) == len(known):
                return reached

    def _steps(self, account: str, together: frozenset[str]) -> Iterator[tuple[str, str]]:
        held = {(p, on) for role, on in self.grants.get(account, ()) for p in self.roles[role]}
        everywhere = {permission for permission, on in held if on == PROJECT}
        of_all = {p for each in together for role, on in self.grants.get(each, ()) for p in self.roles[role]}
        custom = [role for each in together for role, _ in self.grants.get(each, ()) if not role.startswith("roles/")]
        for permission, on in sorted(held):
            kind = permission.removesuffix(SETS_POLICY)
            if permission in ANY_ROLE and on == PROJECT:
                yield OWNER, permission
            elif permission in CHANGES_ROLES and custom:
                yield OWNER, f"{permission} of the role {custom[0]}, which it has"
            elif permission in BECOMES or (permission == ACTS_AS and of_all & RUNS_CODE):
                yield from ((target, f"{permission} on {on}") for target in self._accounts_on(on))
            elif permission in CHANGES_TRUST:
                yield from ((target, permission) for target in (*self.trusting, FOREIGN_ACCOUNT))
            elif permission.endswith(SETS_POLICY) and f"{kind}.delete" not in everywhere:
                # Who may also delete a resource administers it: its policy gives no more.
                yield f"any role on {kind}", permission
            yield from ((target, permission) for target in RUNS_AS.get(permission, ()))

    def _accounts_on(self, on: str) -> Iterator[str]:
        if on == PROJECT:
            yield from (*(who for who in self.grants if not who.startswith("jobs ")), *OUTSIDE)
        elif found := re.fullmatch(r"account (.+)", on):
            yield found[1]
