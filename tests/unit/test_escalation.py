"""No account of docs/gcp.md's table can become more than the table says. The program is held to the table elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

from tests.unit.escalation import (
    ANY_ROLE,
    BECOMES,
    BUILD_ACCOUNT,
    CHANGES_ROLES,
    CHANGES_TRUST,
    DEFAULT_ACCOUNT,
    FOREIGN_ACCOUNT,
    NAMED,
    OWNER,
    PROJECT,
    RUNS_AS,
    RUNS_CODE,
    World,
    known_roles,
)
from tests.unit.gcp_table import Row, documented

OWN = yaml.safe_load(Path("components/google/permissions.yaml").read_text(encoding="utf-8"))
ACCOUNTS = ("plan", "verify", "apply", "nodes", "training", "review")
IN_CLUSTER = ("cluster", "namespace models-review")
"""Kubernetes' own roles: the one only reads; what the other may write is in test_gcp_components.py."""


def world(rows: Iterable[Row], **further: set[str]) -> World:
    """The project of a table; ``further`` are permissions that apply is given on the project besides."""
    grants: dict[str, set[tuple[str, str]]] = {}
    for who, role, on in rows:
        if on not in IN_CLUSTER:
            grants.setdefault(who, set()).add((role, on))
    roles = known_roles() | {"own: reader": frozenset(OWN["reader"])}
    for name, permissions in further.items():
        roles[f"roles/{name}"] = frozenset(permissions)
        grants.setdefault("apply", set()).add((f"roles/{name}", PROJECT))
    trusting = {
        on.removeprefix("account ")
        for who, given in grants.items()
        for role, on in given
        if who.startswith("jobs ") and role == "roles/iam.workloadIdentityUser"
    }
    return World(
        roles=roles, grants={who: frozenset(given) for who, given in grants.items()}, trusting=frozenset(trusting)
    )


@pytest.mark.parametrize("account", ACCOUNTS)
def test_an_account_reaches_nothing_but_itself_and_what_its_clusters_run_as(account: str) -> None:
    reached = world(documented()).reach(account)
    allowed = {account, "nodes"} if account == "apply" else {account}
    assert set(reached) == allowed, "\n".join(reached.values())


@pytest.mark.parametrize("duty", ["plan", "verify", "apply", "train"])
def test_a_job_reaches_the_account_of_its_duty(duty: str) -> None:
    account = "training" if duty == "train" else duty
    reached = set(world(documented()).reach(f"jobs that {duty}"))
    further = {"review"} if duty in ("plan", "verify") else set()
    assert reached - {f"jobs that {duty}", "nodes"} == {account} | further


@pytest.mark.parametrize(
    ("role", "target"),
    [
        ("roles/iam.roleAdmin", OWNER),
        ("roles/iam.serviceAccountAdmin", DEFAULT_ACCOUNT),
        ("roles/iam.workloadIdentityPoolAdmin", FOREIGN_ACCOUNT),
        ("roles/resourcemanager.projectIamAdmin", OWNER),
    ],
)
def test_the_search_finds_what_apply_once_had(role: str, target: str) -> None:
    chain = world({*documented(), ("apply", role, PROJECT)}).reach("apply")[target]
    assert chain.startswith("apply -> ")
    assert chain.endswith(f" -> {target}")


WAYS = {
    **dict.fromkeys(ANY_ROLE | CHANGES_ROLES, OWNER),
    **dict.fromkeys(BECOMES | CHANGES_TRUST, "training"),
    **{permission: accounts[0] for permission, accounts in RUNS_AS.items() if accounts != ("nodes",)},
    "cloudkms.cryptoKeys.setIamPolicy": "any role on cloudkms.cryptoKeys",
    "secretmanager.secrets.setIamPolicy": "any role on secretmanager.secrets",
}


@pytest.mark.parametrize(("permission", "target"), sorted(WAYS.items()))
def test_each_permission_of_a_rule_is_a_way_out_of_the_table(permission: str, target: str) -> None:
    assert target in world(documented(), more={permission}).reach("apply")


@pytest.mark.parametrize("permission", sorted(RUNS_CODE))
def test_running_code_needs_an_account_to_run_it_as(permission: str) -> None:
    rows = {row for row in documented() if row[0] != "apply"}
    act = {"iam.serviceAccounts.actAs"}
    assert DEFAULT_ACCOUNT in world(rows, runs={permission}, acts=act).reach("apply")
    assert "training" not in world(rows, runs={permission}).reach("apply")
    assert set(world(rows, acts=act).reach("apply")) == {"apply"}


def test_permissions_of_two_accounts_add_up() -> None:
    rows = {("apply", "roles/a", "account b"), ("b", "roles/c", PROJECT)}
    two = World(
        roles={"roles/a": frozenset({"iam.serviceAccountKeys.create"}), "roles/c": frozenset(ANY_ROLE)},
        grants={who: frozenset({(role, on)}) for who, role, on in rows},
        trusting=frozenset(),
    )
    assert two.reach("apply")[OWNER].startswith("apply -> iam.serviceAccountKeys.create on account b -> b -> ")
    assert BUILD_ACCOUNT not in two.reach("apply")


def test_a_role_without_known_contents_is_refused() -> None:
    with pytest.raises(KeyError, match="roles/unknown"):
        world({*documented(), ("apply", "roles/unknown", PROJECT)}).reach("apply")


def test_the_contents_of_roles_hold_what_the_rules_read() -> None:
    kept = {permission for permissions in known_roles().values() for permission in permissions}
    assert {p for p in kept if not p.endswith((".delete", ".setIamPolicy"))} <= NAMED
