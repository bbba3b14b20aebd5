"""Values that Kubernetes, Google, GitLab or Docker would refuse or misread, each told with its key and a remedy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_origin

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from model_serving.problems import InvalidInput
from model_serving.sections import sections_in
from model_serving.stack import gitlab_agent, settings
from model_serving.stack.gitlab_agent import AgentSettings
from tests.unit.test_settings_values import ADDRESSES, AGENT, refusal, refusals, stack_with


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
            for value in ("gs:///a", "gs://UPPER", "https://u:p@b", "https://b:99999", "file://")
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


@pytest.mark.parametrize("name", ["my-google", "my-g00gle"])
def test_a_default_bucket_that_google_would_refuse_is_told(name: str) -> None:
    message = refusal_text("gcp.name", name)
    assert f"the default would be my-project-{name}-dvc, which contains google" in message
    assert "Write bucket under storage" in message
    stack = stack_with("gcp.name", name)
    stack["gcp"]["storage"] = {"bucket": "acme-dvc"}
    assert refusals(**stack) == []


@pytest.mark.parametrize("value", ["https://gcr.io/acme/*", "gcr.io//a", "gcr.io/a*", "a b"])
def test_a_pattern_that_no_image_can_match_is_refused(value: str) -> None:
    stack = stack_with("gcp.cluster", {"binaryAuthorization": True, "allowedImages": [value]})
    (message,) = refusals(**stack)
    assert f"allowedImages.0 is {json.dumps(value)}" in message


@pytest.mark.parametrize("value", ["gcr.io/acme/*", "docker.io/a/b:1", "localhost:5000/a/**", "nginx"])
def test_patterns_of_images_pass(value: str) -> None:
    assert refusals(**stack_with("gcp.cluster", {"binaryAuthorization": True, "allowedImages": [value]})) == []


@pytest.mark.parametrize("ranges", [["0.0.0.0/1", "128.0.0.0/1"], ["::/1", "8000::/1"]])
def test_two_halves_of_the_internet_are_everyone(ranges: list[str]) -> None:
    assert "or access: open" in refusal_text("gcp.gateway.allowedRanges", ranges)


@pytest.mark.parametrize("name", ["e2-standard-3", "n1-standard-0", "n2-custom-3-4096", "custom-5-4096"])
def test_a_machine_with_a_number_of_cores_that_none_has_is_refused(name: str) -> None:
    stack = stack_with("gcp.cluster", {"mode": "standard", "nodePool": {"machineType": name}})
    (message,) = refusals(**stack)
    assert "gcloud compute machine-types list" in message


@pytest.mark.parametrize(
    ("network", "nodes", "told"),
    [
        ({"pods": "10.16.0.0/21"}, 9, "network.pods has room for 8 nodes"),
        ({"nodes": "10.0.0.0/26"}, 61, "network.nodes has room for 60 nodes"),
        ({"pods": "10.16.0.0/21"}, 8, None),
        ({"nodes": "10.0.0.0/26"}, 60, None),
    ],
)
def test_a_pool_fits_its_network(network: Any, nodes: int, told: str | None) -> None:
    stack = stack_with("gcp.network", network)
    stack["gcp"]["cluster"] = {"mode": "standard", "nodePool": {"maximumNodes": nodes}}
    messages = refusals(**stack)
    assert len(messages) == (1 if told else 0)
    assert told is None or told in messages[0]


def test_a_range_with_the_address_of_all_hosts_is_refused() -> None:
    assert "which contains 255.255.255.255" in refusal("gcp.network.nodes", "255.255.0.0/16")


@pytest.mark.parametrize("keys", ['{"keys": [1]}', '{"keys": [{}]}'])
def test_keys_with_which_no_token_could_be_checked_are_refused(keys: str) -> None:
    assert "a list `keys`" in refusal_text("gcp.identity.gitlab.keys", keys)


def test_keys_of_gitlab_pass() -> None:
    assert refusals(**stack_with("gcp.identity.gitlab.keys", '{"keys": [{"kty": "RSA", "n": "x", "e": "AQAB"}]}')) == []


@pytest.mark.parametrize("path", ["acme/x.git", "-a/x", "acme/-x", "\u00e4cme/x", "https://gitlab.com/acme/x"])
def test_what_is_no_path_in_gitlab_is_refused(path: str) -> None:
    assert "Write for example acme/model-serving" in refusal("agent.project", path)


@pytest.mark.parametrize(
    "projects",
    [
        [{"path": "acme/serving", "id": 2}],
        [{"path": "Acme/Serving", "id": 2}],
        [{"path": "acme/b", "id": 2}, {"path": "acme/B", "id": 3}],
    ],
)
def test_a_project_is_named_once_whatever_its_number(projects: Any) -> None:
    assert "twice" in refusal_text("agent.projects", projects)


def test_a_group_that_is_listed_twice_counts_once() -> None:
    stack = stack_with("agent.groupIds", [1, 1])
    stack["agent"]["project"] = "acme/team/serving"
    (message,) = refusals(**stack)
    assert "groupIds has 1 of the 2 groups" in message


@pytest.mark.parametrize(
    "reference", ["my chart", "gitlab/gitlab-agent", "oci://", "oci://registry", "C:\\charts", "~/charts", ""]
)
def test_a_chart_that_helm_would_not_find_is_refused(reference: str) -> None:
    assert "Write for example gitlab-agent or oci://" in refusal_text("agent.chart.reference", reference)


@pytest.mark.parametrize("version", ["latest", " ", ""])
def test_a_version_that_helm_does_not_understand_is_refused(version: str) -> None:
    assert "Write for example 2." in refusal("agent.chart.version", version)


@pytest.mark.parametrize("version", ["2.29.0", "v2.29.0", "2.x", "^2.6", ">=2.6 <3", "2.29.0-rc1+build"])
def test_versions_of_helm_pass(version: str) -> None:
    assert refusals(**stack_with("agent.chart.version", version)) == []


def test_a_chart_at_a_path_exists(tmp_path: Path) -> None:
    def told(reference: Path) -> list[str]:
        agent = AgentSettings.model_validate(AGENT | {"chart": {"reference": str(reference)}})
        return [str(each) for each in gitlab_agent.chart_problems(agent, stack="dev")]

    assert told(tmp_path) == []
    (message,) = told(tmp_path / "missing")
    assert "stacks/Pulumi.dev.yaml: model-serving:agent.chart.reference is /" in message
    assert "which does not exist" in message


def test_the_agent_does_not_administer_itself() -> None:
    stack = stack_with("agent.administratorContext", "acme/serving:dev") | {"kubeContext": "acme/serving:dev"}
    del stack["gcp"]
    texts = {f"model-serving:{key}": each if isinstance(each, str) else json.dumps(each) for key, each in stack.items()}
    with pytest.raises(InvalidInput, match=r"administratorContext is acme/serving:dev, which is the agent's"):
        settings.read("dev", texts)


def test_a_type_of_accelerators_fits_a_label() -> None:
    (message,) = refusals(**stack_with("models.iris.gpu", {"type": "a" * 64}))
    assert "Write for example nvidia-l4" in message


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("MLSERVER_DEBUG", "maybe", 'Write "true" or "false".'),
        ("mlserver_cache_enabled", "", 'Write "true" or "false".'),
        ("MLSERVER_CACHE_SIZE", "1.5", "Write a whole number, in quotes."),
    ],
)
def test_a_variable_that_the_server_could_not_read_is_refused(variable: str, value: str, remedy: str) -> None:
    (message,) = refusals(**stack_with("models.iris.environment", {variable: value}))
    assert f"models.iris.environment.{variable} is {json.dumps(value)}" in message
    assert remedy in message


def test_a_variable_with_nul_is_refused() -> None:
    assert "environment.A has the character NUL" in refusal_text("models.iris.environment", {"A": "a\0b"})


@pytest.mark.parametrize(
    ("variable", "value"),
    [("MLSERVER_DEBUG", "True"), ("MLSERVER_CACHE_SIZE", "100"), ("MLSERVER_GRPC_MAX_MESSAGE_LENGTH", "-1"), ("A", "")],
)
def test_variables_that_the_server_can_read_pass(variable: str, value: str) -> None:
    assert refusals(**stack_with("models.iris.environment", {variable: value})) == []


def settings_below(section: type[BaseModel], path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for info in section.model_fields.values():
        yield f"{path}{info.alias}", info
        form = next(sections_in(info.annotation), None)
        if form and get_origin(info.annotation) is not list:
            name = ".iris" if get_origin(info.annotation) is dict else ""
            yield from settings_below(form, f"{path}{info.alias}{name}.")


def test_no_message_shows_a_pattern_instead_of_an_example() -> None:
    for key, info in settings_below(settings.Settings):
        try:
            TypeAdapter(info.rebuild_annotation()).validate_python("!!")
        except ValidationError as error:
            if any(each["type"] == "string_pattern_mismatch" for each in error.errors()):
                assert info.examples or info.json_schema_extra, key


@pytest.mark.parametrize("value", [None, [], 5.5, 10**400], ids=["null", "list", "fraction", "huge"])
def test_all_settings_may_be_wrong_in_the_same_way(value: Any) -> None:
    keys = [key for key, _ in settings_below(settings.Settings) if "." not in key]
    for message in refusals(**dict.fromkeys(keys, value)):
        assert len(message.splitlines()) == 3
        assert "match pattern" not in message
