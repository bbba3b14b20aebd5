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


IMAGES = {
    "images.base": "python:3.11-slim-bookworm",
    "images.builder": "model-serving",
    "images.wheels": ".state/wheels",
    "kubeconfig": ".state/kubeconfig",
    "kubeContext": "model-serving-local",
}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(
            ("images.base", value)
            for value in ("", " ", "Python:3.11", "https://python:3.11", "python 3.11", "python:3.11\nRUN x", "a//b:1")
        ),
        *(("images.builder", value) for value in ("", "my builder", "-x")),
        *((key, "") for key in ("images.wheels", "kubeconfig", "kubeContext")),
    ],
)
def test_what_docker_or_kubectl_would_misread_is_refused(key: str, value: str) -> None:
    (message,) = (each for each in refusals(**stack_with(key, value)) if f"model-serving:{key} is " in each)
    assert f"Write for example {IMAGES[key]}" in message


@pytest.mark.parametrize(
    "value",
    [
        "python:3.11-slim-bookworm",
        "localhost:5000/base/python:3.11-bookworm",
        "europe-west1-docker.pkg.dev/acme/a__b/python@sha256:" + "0" * 64,
        "ghcr.io/acme/python:3.11@sha256:" + "0" * 64,
    ],
)
def test_references_of_images_pass(value: str) -> None:
    assert refusals(**stack_with("images.base", value)) == []


@pytest.mark.parametrize("path", ["a//b", "a/", ".a", "a_.b", "a:v1", "A"])
def test_a_registry_whose_path_no_image_can_have_is_refused(path: str) -> None:
    assert "Write a host with port and path" in refusal("registry", f"localhost:5000/{path}")


@pytest.mark.parametrize(
    ("key", "value", "example"),
    [
        *(("artefacts.remote", value, "gs://my-models-dvc") for value in ("gs://UPPER/a", "gs://ab", "s3://u:p@b/a")),
        *(
            ("ci.backend", value, "gs://my-models-dev-pulumi-state")
            for value in ("gs:///a", "gs://UPPER", "https://u:p@b", "file://")
        ),
    ],
)
def test_a_bucket_that_cannot_exist_is_refused(key: str, value: str, example: str) -> None:
    stack = stack_with(key, value)
    if "ci" in stack:
        stack["ci"]["order"] = 1
    (message,) = refusals(**stack)
    assert f"{key} is" in message
    assert f"Write for example {example}" in message


def test_a_long_wrong_value_is_shortened() -> None:
    assert len(refusal_text("models", "[" * 100_000)) < 1000


def refusal_text(key: str, value: Any) -> str:
    (message,) = refusals(**stack_with(key, value))
    return message


@pytest.mark.parametrize("value", ["[" * 100_000, f"[{'1' * 5000}]"])
def test_a_text_that_only_begins_like_a_list_is_a_text(value: str) -> None:
    assert "valid dictionary" in refusal_text("models", value)


def test_a_section_without_content_is_told_in_plain_words() -> None:
    assert refusal_text("models.iris", None).endswith("Input should be a valid dictionary, e.g. {}.")
