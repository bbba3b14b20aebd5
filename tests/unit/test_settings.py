"""Every mistake in a stack file, with its message."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from model_serving.problems import InvalidInput
from model_serving.sections import Violation, sections_in, violations
from model_serving.stack import settings

GCP: dict[str, Any] = {"project": "my-project", "region": "europe-west1"}
GOOGLES: dict[str, Any] = {"gcp": GCP, "gateway": None}
"""A stack on Google Cloud with Google's own gateway."""
AGENT: dict[str, Any] = {"name": "dev", "project": "group/models", "projectId": 11, "groupIds": [1]}


def read(**values: Any) -> settings.Settings:
    whole = {"registry": "localhost:5000", "gateway": {"className": "contour"}} | values
    given = {key: value for key, value in whole.items() if value is not None}
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in given.items()}
    return settings.read("local", {f"model-serving:{key}": text for key, text in texts.items()})


def refusal(**values: Any) -> str:
    with pytest.raises(InvalidInput) as refused:
        read(**values)
    (problem,) = refused.value.problems
    return str(problem)


def test_a_stack_needs_no_more_than_a_registry_and_a_gateway_class() -> None:
    stack = read(models={"iris-dtc": {}})
    assert stack.models["iris-dtc"].replicas == 1
    assert stack.namespace == "models"


@pytest.mark.parametrize("sections", [{}, GOOGLES, {**GOOGLES, "agent": AGENT}], ids=["own", "Google", "agent"])
def test_a_stack_for_development_may_serve_reviews(sections: dict[str, Any]) -> None:
    assert read(ci={"order": 1, "review": {}}, **sections).has_reviews


def test_large_files_are_in_the_platforms_dvc_bucket_unless_the_stack_says_where() -> None:
    gcp = {"project": "my-models-dev", "region": "europe-west1"}
    assert read().remote is None
    assert read(gcp=gcp).remote == "gs://my-models-dev-model-serving-dvc"
    assert read(gcp=gcp, artefacts={"remote": "gs://models/releases"}).remote == "gs://models/releases"
    assert read(artefacts={"remote": "file:///srv/models"}).remote == "file:///srv/models"


def test_keys_of_other_projects_are_left_alone() -> None:
    own = {"model-serving:registry": "r", "model-serving:gateway": '{"className": "contour"}'}
    assert settings.read("local", {"gcp:project": "p", **own}).registry == "r"


def test_message_names_file_key_value_consequence_and_remedy() -> None:
    assert refusal(models={"iris-dtc": {"replicas": 0}}) == (
        "stacks/Pulumi.local.yaml: model-serving:models.iris-dtc.replicas is 0\n"
        "  The route would have no endpoint, and every request would get 503.\n"
        "  Write 1 or more, or remove the model to stop serving it."
    )


@pytest.mark.parametrize(
    ("values", "what", "remedy"),
    [
        ({"registri": "x"}, "unknown setting model-serving:registri", "Did you mean registry?"),
        ({"models": {"a": {"replica": 2}}}, "unknown setting model-serving:models.a.replica", "Did you mean replicas?"),
        (
            {"gateway": {"class_name": "x"}},
            "unknown setting model-serving:gateway.class_name",
            "Did you mean className?",
        ),
        (
            {"images": {"zzz": 1}},
            "unknown setting model-serving:images.zzz",
            "Known here: base, builder, compression, wheels.",
        ),
        ({"registry": "https://r"}, 'registry is "https://r"', "Write a host with port and path"),
        ({"artefacts": {}}, "artefacts.remote is missing", "gs://my-models-dvc/releases"),
        ({"artefacts": {"remote": "ftp://b"}}, 'artefacts.remote is "ftp://b"', "gs://my-models-dvc/releases"),
        ({"models": {"a": {"versions": {"1": 50}}}}, "weights that add up to 50", "add up to 100"),
        ({"models": {"a": {"versions": {"1": 101}}}}, "models.a.versions.1 is 101", "less than or equal to 100"),
        ({"models": {"a": {"resources": {"cpu": "much"}}}}, 'resources.cpu is "much"', "Write for example 500m or 2"),
        ({"models": {"a": {"environment": {"A": 1}}}}, "environment.A is 1", "valid string"),
        (
            {"models": {"a": {"environment": {"MLSERVER_PARALLEL_WORKERS": "4"}}}},
            "environment.MLSERVER_PARALLEL_WORKERS is not for a stack to set",
            "Write workers beside environment instead.",
        ),
        (
            {"models": {"a": {"versions": {"1": 100}, "shadow": "1"}}},
            "shadow is 1, which has a weight in versions as well",
            "Remove it from versions, or remove shadow.",
        ),
        (
            {"models": {"a": {"replicas": 3, "autoscaling": {"maximum": 5}}}},
            "autoscaling is set together with replicas",
            "Remove replicas; autoscaling.minimum sets",
        ),
        (
            {"models": {"a": {"autoscaling": {"minimum": 3, "maximum": 2}}}},
            "autoscaling.maximum is 2, and minimum is 3",
            "Write 3 or more, or a lower minimum.",
        ),
        ({"models": {"a": {"autoscaling": {}}}}, "autoscaling.maximum is missing", "Write for example 10."),
        ({"models": {"a": {"gpu": {"type": "nvidia-l4", "count": 3}}}}, "gpu.count is 3", "1, 2, 4, 8 or 16"),
        ({"models": {"a": {"gpu": {"count": 1}}}}, "gpu.type is missing", "Write for example nvidia-l4"),
        (
            {"models": {"a": {"priority": "system-node-critical"}}},
            "priority is system-node-critical",
            "Write a PriorityClass of your own",
        ),
        ({"ci": {"order": 1, "review": {"hours": 0}}}, "ci.review.hours is 0", "Write 1 to 720"),
        (
            {
                "ci": {"order": 1, "review": {}},
                "gcp": GCP | {"gateway": {"public": True, "access": "open", "domain": "models.example.com"}},
                "gateway": None,
            },
            "ci.review is set, and gcp.gateway.public is true",
            "whose gateway is internal",
        ),
        (
            {"ci": {"order": 1, "review": {}, "approval": True}},
            "ci.review is set, and ci.approval is true",
            "without anyone's approval",
        ),
        (
            {"ci": {"order": 1, "review": {}, "tier": "production"}, **GOOGLES},
            "ci.review is set, and ci.tier is production",
            "for a stack for development",
        ),
        (
            {"ci": {"order": 1, "review": {}}, "gcp": GCP, "gateway": {"className": "istio"}},
            "ci.review is set, and gateway.className is istio",
            "Remove className",
        ),
        (
            {"ci": {"order": 1, "review": {}}, "agent": AGENT},
            "ci.review is set, and so is the agent section without a gcp section",
            "with a gcp section, reviews use an account of Google's",
        ),
        (
            {"ci": {"order": 1, "review": {}}, **GOOGLES, "agent": AGENT | {"namespace": "models-review"}},
            "agent.namespace is models-review, which is also the reviews' namespace",
            "Write a namespace that contains nothing else",
        ),
        (
            {"ci": {"order": 1, "review": {}}, **GOOGLES, "namespace": "m" * 57},
            f"namespace is {'m' * 57}, and ci.review is set",
            "Write a namespace of at most 56 characters",
        ),
        ({"models": {"a": {"keepWarm": -1}}}, "keepWarm is -1", "greater than or equal to 0"),
        (
            {"gateway": {"className": "contour", "clusterEndpoint": "10.0.0.5"}},
            'clusterEndpoint is "10.0.0.5"',
            "Write scheme, host and port",
        ),
        (
            {
                "models": {"a": {"gpu": {"type": "nvidia-l4"}}},
                "gcp": {"project": "my-project", "region": "europe-west1", "cluster": {"mode": "standard"}},
            },
            "models needs accelerators for a, and the node pool of this stack has none",
            "Write mode: autopilot under gcp.cluster",
        ),
        (
            {
                "models": {"a": {}, "b": {"contract": {"check": False}}},
                "gcp": {
                    "project": "my-project",
                    "region": "europe-west1",
                    "network": {"nat": False},
                    "gateway": {"public": True, "access": "open", "domain": "models.example.com"},
                },
            },
            "models checks versions of a through a public gateway",
            "Write nat: true, or contract: {check: false}",
        ),
        (
            {
                "models": {"a": {}},
                "gcp": {
                    "project": "my-project",
                    "region": "europe-west1",
                    "gateway": {
                        "public": True,
                        "access": "iap",
                        "iap": {"clientId": "1-a.apps.googleusercontent.com", "secretName": "iap"},
                        "domain": "models.example.com",
                    },
                },
            },
            "models checks versions of a through a gateway with access: iap",
            "or gateway.clusterEndpoint",
        ),
        (
            {"gcp": {"project": "my-project", "region": "europe-west1"}, "gateway": {"grpc": True}},
            "gateway.grpc is true, and gcp.gateway.domain is missing",
            "Write the domain of a certificate, gcp.gateway.domain, or remove grpc.",
        ),
        *(
            (
                {"gateway": {"className": "contour", "allowedOrigins": [origin]}},
                f'gateway.allowedOrigins.0 is "{origin}"',
                "Write scheme and host, and the port if it is not the default, e.g. https://app.example.com.",
            )
            for origin in ("*", "app.example.com", "https://app.example.com/", "https://App.example.com")
        ),
        (
            {"gateway": {"className": "contour", "allowedOrigins": ["https://app.example.com:443"]}},
            "which browsers write https://app.example.com",
            "Write scheme and host",
        ),
        (
            {"models": {"a": {"environment": {"MLSERVER_CORS_SETTINGS": "{}"}}}},
            "environment.MLSERVER_CORS_SETTINGS is not for a stack to set",
            "Write allowedOrigins under model-serving:gateway",
        ),
        ({"models": ["a"]}, 'models is ["a"]', "valid dictionary"),
        ({"models": "{a: b"}, 'models is "{a: b"', "valid dictionary"),
        ({"namespace": "Models"}, 'namespace is "Models"', "Write for example models"),
        (
            {"gateway": {"className": "contour", "endpoint": "127.0.0.1"}},
            'endpoint is "127.0.0.1"',
            "Write scheme, host and port",
        ),
        (
            {"gateway": {"className": "contour", "clientRanges": ["all"]}},
            'clientRanges.0 is "all"',
            "Write ranges such as 10.0.0.0/24.",
        ),
    ],
)
def test_each_mistake_is_refused_with_its_remedy(values: dict[str, Any], what: str, remedy: str) -> None:
    message = refusal(**values)
    assert what in message
    assert remedy in message


@pytest.mark.parametrize(
    ("gateway", "google"), [({"className": "istio"}, {}), ({}, {"domain": "models.acme.internal.example"})]
)
def test_grpc_is_for_googles_gateway_with_a_certificate_and_for_any_other(gateway: Any, google: Any) -> None:
    gcp = {"project": "my-project", "region": "europe-west1", "gateway": google}
    assert read(gcp=gcp, gateway=gateway | {"grpc": True}).gateway.grpc


def test_a_missing_registry_and_a_gateway_without_a_class_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"model-serving:registry is missing\n.*\n  Write a host") as refused:
        settings.read("local", {})
    assert "model-serving:gateway has no className" in str(refused.value)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(InvalidInput) as refused:
        read(namespace="Models", registri="x", models={"a": {"replicas": 0}, "b": {"drainSeconds": -1}})
    assert len(refused.value.problems) == 4


def whats(**values: Any) -> list[str]:
    with pytest.raises(InvalidInput) as refused:
        read(**values)
    return [problem.what.removeprefix("model-serving:") for problem in refused.value.problems]


def test_an_invalid_setting_hides_no_rule_that_does_not_read_it() -> None:
    gcp = {"project": "P", "region": "europe-west1", "gateway": {"public": True}, "cluster": {"nodePool": {}}}
    models = {
        "a": {"replicas": 0, "versions": {"1": 100}, "shadow": "1"},
        "b": {"autoscaling": {"minimum": 3, "maximum": 2, "cpuPercent": 0}},
    }
    assert whats(gcp=gcp, models=models, agent={"namespace": "models"}, namespace="models", scraperNamespaces=1) == [
        'gcp.project is "P"',
        'scraperNamespaces is "1"',
        "agent.name is missing",
        "agent.project is missing",
        "agent.projectId is missing",
        "models.a.replicas is 0",
        "models.b.autoscaling.cpuPercent is 0",
        "agent.namespace is models, which is also the models' namespace",
        "gcp.cluster.nodePool is set in an Autopilot cluster",
        "gcp.gateway.domain is missing, and public is true",
        "gcp.gateway.access is missing, and public is true",
        "models.a.shadow is 1, which has a weight in versions as well",
        "models.b.autoscaling.maximum is 2, and minimum is 3",
    ]


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"models": {"a": {"replicas": "x", "autoscaling": {"maximum": 5}}}}, 'models.a.replicas is "x"'),
        ({"models": {"a": {"replika": 3, "autoscaling": {"maximum": 5}}}}, "unknown setting model-serving:models.a"),
        ({"gcp": [], "registry": None, "gateway": {}}, "gcp is []"),
        ({"gateway": {"className": ""}}, 'gateway.className is ""'),
        ({"gcp": {"project": "p", "region": "europe-west1"}, "gateway": {}, "registry": None}, 'gcp.project is "p"'),
        (
            {"agent": {"name": "dev", "project": "a/b", "projectId": 0, "projects": [{"path": "c/d", "id": 1}] * 2}},
            "agent.projectId is 0",
        ),
    ],
)
def test_a_rule_that_reads_an_invalid_setting_reports_nothing(values: dict[str, Any], what: str) -> None:
    (said,) = whats(**values)
    assert what in said


def test_a_mistake_of_a_rule_is_not_taken_for_an_invalid_setting() -> None:
    def misspelt(section: settings.Settings) -> Iterator[Violation]:
        yield section.registri, "…", "…"  # type: ignore[attr-defined]

    with pytest.raises(AttributeError, match="registri"):
        [*violations(read(), [misspelt])]


def test_an_encrypted_setting_is_reported_once() -> None:
    own = {"model-serving:registry": "r", "model-serving:gateway": '{"className": "contour"}'}
    with pytest.raises(InvalidInput) as refused:
        settings.read("local", own, secret=["model-serving:registry"])
    assert [problem.what for problem in refused.value.problems] == ["model-serving:registry is encrypted"]


def test_every_setting_says_what_it_is_for() -> None:
    sections: list[type[BaseModel]] = [settings.Settings]
    while sections:
        section = sections.pop()
        for name, info in section.model_fields.items():
            assert info.description, f"{section.__name__}.{name}"
            sections += sections_in(info.annotation)
