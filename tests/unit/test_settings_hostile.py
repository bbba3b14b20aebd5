"""Values that Kubernetes, Google, GitLab or Docker would refuse or misread, each told with its key and a remedy."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.test_settings_values import ADDRESSES, refusal, refusals, stack_with


@pytest.mark.parametrize(
    "key",
    [
        "models.iris.replicas",
        "models.iris.drainSeconds",
        "models.iris.versions.1",
        "agent.projectId",
        "agent.groupIds.0",
        "gcp.identity.gitlab.projectId",
        "gcp.identity.gitlab.modelProjectIds.0",
        "gcp.observability.alerts.latencySeconds",
    ],
)
def test_yes_is_not_the_number_1(key: str) -> None:
    assert f"{key} is true" in refusal(key, True)


@pytest.mark.parametrize("key", ["agent.projectId", "gcp.identity.gitlab.projectId"])
def test_an_id_that_no_site_could_have_assigned_is_refused(key: str) -> None:
    refusal(key, 10**30)


@pytest.mark.parametrize("key", [key for key in ADDRESSES if key != "registry"])
@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        ("user@example.com", "which has a user's name in it"),
        ("example.com?a=b", ""),
        ("example.com#a", ""),
        (".".join(["a" * 60] * 5), "is neither a name nor an address"),
        ("\u017f.example.com", "is neither a name nor an address"),
    ],
)
def test_an_address_is_scheme_host_and_port(key: str, rest: str, reason: str) -> None:
    assert reason in refusal(key, ADDRESSES[key] + rest)


def test_a_colon_without_a_port_is_refused() -> None:
    assert "whose port is missing" in refusal("gateway.endpoint", "http://example.com:")


@pytest.mark.parametrize("key", ["agent.branch", "gcp.identity.gitlab.branch"])
@pytest.mark.parametrize("name", ["a..b", "-a", "/a", "a/", "a//b", "a/.b", "a.lock", "refs/heads/main"])
def test_what_is_no_branch_is_refused(key: str, name: str) -> None:
    assert "e.g. main" in refusal(key, name)


@pytest.mark.parametrize("name", ["main", "release/1.x", "2026-11", "team_a/v1.0-rc.1"])
def test_branches_pass(name: str) -> None:
    assert refusals(**stack_with("agent.branch", name)) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("models.iris.resources.memory", "\uff1512Mi"),
        ("models.iris.resources.cpu", "\uff12"),
        ("gcp.cluster.maintenance.start", "\uff12026-01-03T01:00:00Z"),
        ("gcp.network.nodes", "10.0.0.0/\uff122"),
    ],
)
def test_digits_of_other_scripts_are_refused(key: str, value: Any) -> None:
    (message,) = refusals(**stack_with(key, value))
    assert f"model-serving:{key} is " in message
    assert "Write" in message
