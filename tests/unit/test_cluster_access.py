"""What a refresh has to read in the cluster is what its reader may read there."""

from __future__ import annotations

import pytest

from components.google.identity import PERMISSIONS
from tests.manifests import manifests

# Google's SDK marks modules as deprecated that it loads itself.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

BY_NAME = {("", "secrets")}
"""Granted one by one, see AgentAccess."""


def plural(kind: str) -> str:
    name = kind.lower()
    return f"{name[:-1]}ies" if name.endswith("policy") else f"{name}s"


@pytest.mark.parametrize("variant", ["public", "with an agent", "with reviews", "with each kind of traffic"])
def test_a_reader_of_the_cluster_may_read_every_kind_of_it(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = {
        (each["apiVersion"].rpartition("/")[0], plural(each["kind"])) for each in manifests(variant, monkeypatch)
    }
    readable = {(group, kind) for group, kinds in PERMISSIONS["cluster"].items() for kind in kinds}
    assert declared - readable - BY_NAME == set()


def test_only_who_checks_for_drift_reads_the_agents_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = manifests("with an agent", monkeypatch)
    (role,) = (
        each for each in declared if each["kind"] == "Role" and each["metadata"]["name"] == "gitlab-agent-verify"
    )
    assert role["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["agent-token-first", "agent-token-second"],
            "verbs": ["get"],
        }
    ]
    bound = [
        (each["metadata"]["name"], subject["name"])
        for each in declared
        if each["kind"].endswith("RoleBinding")
        for subject in each["subjects"]
        if subject["kind"] == "User"
    ]
    account = "model-serving-{}@my-models-dev.iam.gserviceaccount.com"
    assert sorted(bound) == [
        ("gitlab-agent-verify", account.format("verify")),
        ("model-serving-access-plan", account.format("plan")),
        ("model-serving-access-verify", account.format("verify")),
    ]
