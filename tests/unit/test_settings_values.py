"""Values that would fail in the middle of an update, or mean something else than they say, are refused before it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from model_serving.problems import InvalidInput
from model_serving.quantities import amount
from model_serving.stack import models, settings
from model_serving.stack.resources import request_bytes

GCP: dict[str, Any] = {"project": "my-project", "region": "europe-west1"}
AGENT: dict[str, Any] = {"name": "dev", "project": "acme/serving", "projectId": 1, "groupIds": [1]}
STACK: dict[str, Any] = {
    "registry": "localhost:5000",
    "gateway": {"className": "contour"},
    "gcp": GCP,
    "agent": AGENT,
    "models": {"iris": {}},
}
RANGES = (
    "gateway.clientRanges.0",
    "gcp.gateway.allowedRanges.0",
    "gcp.network.nodes",
    "gcp.network.pods",
    "gcp.network.services",
    "gcp.network.proxies",
    "agent.kasRanges.0",
    "agent.apiServerRanges.0",
)
ADDRESSES = {
    "gateway.endpoint": "http://",
    "gateway.clusterEndpoint": "http://",
    "registry": "",
    "gcp.identity.gitlab.issuer": "https://",
    "agent.gitlab": "https://",
    "agent.kas": "wss://",
    "agent.chart.repository": "https://",
}


def stack_with(key: str, value: Any) -> dict[str, Any]:
    """A stack in which one setting has a value, and a list that value alone."""
    stack: dict[str, Any] = json.loads(json.dumps(STACK))
    if key.startswith("gcp.gateway."):
        stack["gcp"]["gateway"] = {"public": True, "access": "ranges", "domain": "models.example.com"}
    if key.startswith("gcp.identity."):
        stack["gcp"] |= {"identity": {"gitlab": {"projectId": 1}}, "state": {"bucket": "state", "key": KEY}}
    *sections, name = key.removesuffix(".0").split(".")
    inside = stack
    for section in sections:
        inside = inside.setdefault(section, {})
    if name == "repository":
        inside["version"] = "1"
    inside[name] = [value] if key.endswith(".0") else value
    return stack


KEY = "projects/p/locations/europe-west1/keyRings/r/cryptoKeys/k"


def refusals(**stack: Any) -> list[str]:
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in stack.items()}
    try:
        settings.read("local", {f"model-serving:{key}": text for key, text in texts.items()})
    except InvalidInput as error:
        # What the agent's settings ask of the rest of the stack is none of these tests' business.
        return [str(problem) for problem in error.problems if "administratorContext" not in problem.what]
    return []


def refusal(key: str, value: Any) -> str:
    (message,) = refusals(**stack_with(key, value))
    assert message.startswith("stacks/Pulumi.local.yaml: model-serving:")
    assert f"{key} is {json.dumps(value)}" in message or f"{key} is {value}" in message
    assert len(message.splitlines()) == 3
    assert "Value error" not in message
    return message


@pytest.mark.parametrize("key", RANGES)
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("10.0.0.0/99", "which is not a range of addresses"),
        ("999.1.1.1/24", "which is not a range of addresses"),
        ("10.0.0.1/24", "which is an address inside the range 10.0.0.0/24"),
        ("10.0.0.0/08", "which is written 10.0.0.0/8"),
        ("10.0.0.0", ""),
        ("10.0.0.0/255.255.0.0", ""),
    ],
)
def test_what_is_no_range_of_addresses_is_refused(key: str, value: str, reason: str) -> None:
    assert reason in refusal(key, value)


@pytest.mark.parametrize("value", ["10.0.0.0/24", "0.0.0.0/0", "192.0.2.7/32", "2001:db8::/32"])
def test_ranges_of_both_kinds_pass(value: str) -> None:
    assert refusals(**stack_with("gateway.clientRanges.0", value)) == []


@pytest.mark.parametrize("key", ADDRESSES)
@pytest.mark.parametrize(
    "host",
    [
        "example.com:99999",
        "example.com:0",
        "10.0.0.999",
        "10.0.0",
        "-example.com",
        f"{'a' * 64}.com",
    ],
)
def test_what_nothing_could_connect_to_is_refused(key: str, host: str) -> None:
    refusal(key, ADDRESSES[key] + host)


@pytest.mark.parametrize("key", ADDRESSES)
@pytest.mark.parametrize("host", ["example.com", "example.com:65535", "10.0.0.9:80", "localhost"])
def test_names_and_addresses_with_a_port_pass(key: str, host: str) -> None:
    assert refusals(**stack_with(key, ADDRESSES[key] + host)) == []


def test_an_address_of_the_second_kind_passes() -> None:
    assert refusals(**stack_with("gateway.endpoint", "http://[2001:db8::1]:8080")) == []


@pytest.mark.parametrize("key", ["models.iris.resources.memory", "agent.memory", "models.iris.requestSize"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("512m", "which is 0.512 bytes, because m is a thousandth"),
        ("512", "which is not between"),
        ("0", "which is not between"),
        ("512Ti", "which is not between"),
        ("512K", ""),
        ("512MB", ""),
        ("-1Gi", ""),
    ],
)
def test_memory_that_means_something_else_is_refused(key: str, value: str, reason: str) -> None:
    message = refusal(key, value)
    assert reason in message
    assert "Write for example" in message


@pytest.mark.parametrize("key", ["models.iris.resources.cpu", "agent.cpu"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("4Gi", "which is an amount of memory"),
        ("4k", "which is an amount of memory"),
        ("0", "which is not between 1m and 1000"),
        ("0.0001", "which is not between 1m and 1000"),
        ("5000", "which is not between 1m and 1000"),
        ("4 cores", ""),
    ],
)
def test_cores_that_mean_something_else_are_refused(key: str, value: str, reason: str) -> None:
    message = refusal(key, value)
    assert reason in message
    assert "Write for example" in message


def test_memory_in_which_no_model_server_fits_is_refused() -> None:
    assert "which is not between 128Mi and 16Ti" in refusal("models.iris.resources.memory", "64Mi")


@pytest.mark.parametrize(
    ("text", "number"), [("16Mi", 16 << 20), ("0.5Gi", 1 << 29), ("16M", 16_000_000), ("4096", 4096)]
)
def test_the_size_of_a_request_is_in_bytes(text: str, number: int) -> None:
    stack = {"registry": "r", "gateway": '{"className": "c"}', "models": json.dumps({"iris": {"requestSize": text}})}
    read = settings.read("local", {f"model-serving:{key}": value for key, value in stack.items()})
    assert request_bytes(read.models["iris"], "32Gi") == number


@pytest.mark.parametrize(
    ("memory", "workers", "mebibytes"),
    [("512Mi", 0, 8), ("128Mi", 0, 2), ("1Gi", 0, 16), ("1Gi", 1, 8), ("64Gi", 0, 16)],
)
def test_the_size_of_a_request_follows_from_the_memory_of_a_process(memory: str, workers: int, mebibytes: int) -> None:
    assert request_bytes(models.ModelSettings(workers=workers), memory) == mebibytes << 20


def test_limits_of_requests_have_defaults() -> None:
    assert (models.ModelSettings().waiting, models.ModelSettings().answer_seconds) == (100, 30)


@pytest.mark.parametrize(("key", "value"), [("answerSeconds", 0), ("answerSeconds", 291), ("waiting", 0)])
def test_limits_of_requests_have_limits(key: str, value: int) -> None:
    refusal(f"models.iris.{key}", value)


def test_what_is_no_quantity_has_no_amount() -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        amount("512Mi\n")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("MLSERVER_HTTP_PORT", "Remove it"),
        ("mlserver_http_port", "Remove it"),
        ("MLSERVER_HOST", "Remove it"),
        ("MLSERVER_ROOT_PATH", "Remove it"),
        ("MLSERVER_METRICS_ENDPOINT", "Remove it"),
        ("MLSERVER_LOAD_MODELS_AT_STARTUP", "Remove it"),
        ("MLSERVER_KAFKA_ENABLED", "Remove it"),
        ("PATH", "Remove it"),
        ("MLSERVER_PARALLEL_WORKERS", "Write workers beside"),
        ("MLSERVER_MODEL_URI", "model-settings.json"),
        ("MLSERVER_MODEL_REPOSITORY_ROOT", "model-settings.json"),
        ("MODEL_SERVING_REQUEST_BYTES", "Write requestSize, answerSeconds or waiting"),
        ("MY VARIABLE", "Write letters, digits"),
        (" A", "Write letters, digits"),
        ("1A", "Write letters, digits"),
        ("A=B", "Write letters, digits"),
        ("", "Write letters, digits"),
    ],
)
def test_variables_that_are_not_the_stacks_are_refused(name: str, remedy: str) -> None:
    (message,) = refusals(**STACK | {"models": {"iris": {"environment": {name: "1"}}}})
    assert f"models.iris.environment.{name} is not" in message
    assert remedy in message


@pytest.mark.parametrize("name", ["MLSERVER_DEBUG", "MLSERVER_CACHE_ENABLED", "OMP_NUM_THREADS", "my.own-variable"])
def test_other_variables_pass(name: str) -> None:
    assert refusals(**STACK | {"models": {"iris": {"environment": {name: "1"}}}}) == []


@pytest.mark.parametrize("key", ["namespace", "agent.namespace"])
@pytest.mark.parametrize(
    "name", ["default", "kube-system", "kube-public", "gke-managed-system", "gmp-system", "istio-system"]
)
def test_a_namespace_of_the_clusters_own_is_refused(key: str, name: str) -> None:
    assert "Write a namespace that contains nothing else" in refusal(key, name)


@pytest.mark.parametrize("name", ["a..b", "a-.b", "a.", "A", "a b"])
def test_a_priority_that_kubernetes_would_refuse_is_refused(name: str) -> None:
    assert "Write for example models-high" in refusal("models.iris.priority", name)


@pytest.mark.parametrize("name", ["My Class", "a..b", ""])
def test_a_gateway_class_that_cannot_exist_is_refused(name: str) -> None:
    assert "Write for example istio" in refusal("gateway.className", name)


def test_every_such_mistake_is_told_at_once() -> None:
    iris = {
        "resources": {"cpu": "4Gi", "memory": "512m"},
        "environment": {"MLSERVER_HTTP_PORT": "1", "A B": "2"},
        "answerSeconds": 0,
    }
    gateway = {"className": "contour", "clientRanges": ["10.0.0.0/99", "999.1.1.1/24"], "endpoint": "http://a:99999"}
    messages = refusals(**STACK | {"namespace": "default", "gateway": gateway, "models": {"iris": iris}})
    assert len(messages) == 9
