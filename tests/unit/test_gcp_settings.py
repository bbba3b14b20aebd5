"""Every mistake in a stack's gcp section, and what each stack of this repository says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from model_serving.problems import InvalidInput
from model_serving.sections import Section
from model_serving.stack import settings
from model_serving.stack.google import GcpSettings
from model_serving.stack.google_names import LONGEST_NAME

STACKS = ("dev", "staging", "production")
PUBLIC = {"public": True, "domain": "models.example.com"}
IAP = {"clientId": "1-a.apps.googleusercontent.com", "secretName": "iap-client"}
STATE = {"bucket": "acme-state", "key": "projects/p/locations/europe-west1/keyRings/r/cryptoKeys/k"}


def read(**sections: Any) -> GcpSettings:
    content = {"project": "acme-models", "region": "europe-west1"} | sections
    gcp = settings.read("dev", {"model-serving:gcp": json.dumps(content)}).gcp
    assert gcp is not None
    return gcp


def refused(**sections: Any) -> dict[str, str]:
    """Place -> what is said there."""
    with pytest.raises(InvalidInput) as error:
        read(**sections)
    places = [re.search(r"model-serving:gcp\.(\S+)", problem.what) for problem in error.value.problems]
    return {place[1]: str(problem) for place, problem in zip(places, error.value.problems, strict=True) if place}


def test_a_stack_needs_no_more_than_project_and_region() -> None:
    gcp = read()
    assert gcp.bucket == "acme-models-model-serving-dvc"
    assert gcp.image_registry == "europe-west1-docker.pkg.dev/acme-models/model-serving"
    assert gcp.location == "europe-west1"
    assert gcp.deletion_protection
    assert not gcp.gateway.public
    assert not gcp.identity.key_for_ci


@pytest.mark.parametrize(
    ("place", "remedy", "sections"),
    [
        ("zone", "Write a zone of the region, e.g. europe-west1-b", {"zone": "us-east1-b"}),
        ("cluster", "Remove zone, or write mode: standard", {"zone": "europe-west1-b"}),
        ("cluster.nodePool", "Remove nodePool, or write mode: standard", {"cluster": {"nodePool": {}}}),
        (
            "cluster.nodePool.maximumNodes",
            "Write 4 or more",
            {"cluster": {"mode": "standard", "nodePool": {"minimumNodes": 4, "maximumNodes": 3}}},
        ),
        ("cluster.allowedImages", "Write binaryAuthorization: true", {"cluster": {"allowedImages": ["x/*"]}}),
        (
            "cluster.encryptionKey",
            "Write a key in europe-west1",
            {"cluster": {"encryptionKey": "projects/p/locations/us-east1/keyRings/r/cryptoKeys/k"}},
        ),
        (
            "cluster.existing",
            "remove existing to have it made",
            {"cluster": {"existing": "theirs", "releaseChannel": "rapid"}},
        ),
        (
            "registry.existing",
            "remove existing to have it made",
            {"registry": {"existing": "theirs", "keepVersions": 3}},
        ),
        ("storage.existing", "remove existing to have it made", {"storage": {"existing": "theirs", "location": "EU"}}),
        (
            "cluster.maintenance.end",
            "Write an end that is 4 to 24 hours after",
            {"cluster": {"maintenance": {"end": "2026-01-03T02:00:00Z"}}},
        ),
        (
            "cluster.maintenance.recurrence",
            "Write longer windows, or more days",
            {"cluster": {"maintenance": {"recurrence": "FREQ=WEEKLY;BYDAY=SU"}}},
        ),
        (
            "cluster.maintenance.start",
            "Write e.g. 2026-01-03T01:00:00Z",
            {"cluster": {"maintenance": {"start": "2026-02-30T01:00:00Z"}}},
        ),
        ("network.pods", "Write ranges that share no address", {"network": {"nodes": "10.16.4.0/22"}}),
        ("network.services", "Write ranges that share no address", {"network": {"services": "10.16.0.0/20"}}),
        ("network.nodes", "Write a part of 10.0.0.0/8", {"network": {"nodes": "8.8.8.0/24"}}),
        ("network.nodes", "Write for example 10.0.0.0/22", {"network": {"nodes": "10.0.0.1/22"}}),
        ("network.pods", "Write a range of /21 or larger", {"network": {"pods": "10.16.0.0/24"}}),
        ("network.proxies", "Write a range of /26 or larger", {"network": {"proxies": "10.0.8.0/28"}}),
        (
            "gateway.domain",
            "Write a domain that you own, or public: false",
            {"gateway": {"public": True, "access": "open"}},
        ),
        (
            "gateway.access",
            "Write access: iap for people who sign in, access: ranges for addresses in allowedRanges, or access: open",
            {"gateway": {**PUBLIC}},
        ),
        ("gateway.access", "Write the addresses of your clients", {"gateway": {**PUBLIC, "access": "ranges"}}),
        (
            "gateway.access",
            "or access: open",
            {"gateway": {**PUBLIC, "access": "ranges", "allowedRanges": ["203.0.113.0/24", "0.0.0.0/0"]}},
        ),
        (
            "gateway.access",
            "Write access: ranges, or remove allowedRanges",
            {"gateway": {**PUBLIC, "access": "open", "allowedRanges": ["203.0.113.0/24"]}},
        ),
        ("gateway.access", "or write public: true", {"gateway": {"access": "open"}}),
        ("gateway.iap", "Write clientId and secretName under iap", {"gateway": {**PUBLIC, "access": "iap"}}),
        ("gateway.iap", "or write access: iap", {"gateway": {**PUBLIC, "access": "open", "iap": IAP}}),
        ("gateway.allowedRanges", "or write public: true", {"gateway": {"allowedRanges": ["203.0.113.0/24"]}}),
        ("state", "`make init-gcp` prints", {"identity": {"gitlab": {"projectId": 1}}}),
        (
            "identity.gitlab.modelProjectIds",
            "Remove 1 from the list",
            {"identity": {"gitlab": {"projectId": 1, "modelProjectIds": [1]}}, "state": STATE},
        ),
        (
            "identity.github.modelRepositoryIds",
            "Remove 1 from the list",
            {"identity": {"github": {"repositoryId": 1, "ownerId": 2, "modelRepositoryIds": [1]}}, "state": STATE},
        ),
        ("observability.emails", "Write each address once", {"observability": {"emails": ["a.b@c.de", "a-b@c.de"]}}),
    ],
)
def test_a_rule_between_keys_says_what_to_write(place: str, remedy: str, sections: dict[str, Any]) -> None:
    (said,) = (text for where, text in refused(**sections).items() if where == place)
    assert remedy in said
    assert len(said.splitlines()) == 3  # what, consequence and remedy


@pytest.mark.parametrize(
    ("place", "sections"),
    [
        ("project", {"project": "My Project"}),
        ("region", {"region": "europe-west1-b"}),
        ("name", {"name": "a-name-of-many-letters"}),
        ("storage.bucket", {"storage": {"bucket": "Upper"}}),
        ("identity.gitlab.projectId", {"identity": {"gitlab": {}}, "state": STATE}),
        ("identity.gitlab.branch", {"identity": {"gitlab": {"projectId": 1, "branch": "x' || true"}}, "state": STATE}),
        (
            "identity.gitlab.issuer",
            {"identity": {"gitlab": {"projectId": 1, "issuer": "https://g.io/"}}, "state": STATE},
        ),
        ("identity.github.ownerId", {"identity": {"github": {"repositoryId": 1}}, "state": STATE}),
        ("gateway.domain", {"gateway": {"domain": "localhost"}}),
        ("observability.emails.0", {"observability": {"emails": ["nobody"]}}),
        ("observability.alerts.errorRatio", {"observability": {"alerts": {"errorRatio": 5}}}),
        ("observability.alerts.latencySeconds", {"observability": {"alerts": {"latencySeconds": 60}}}),
        ("cluster.mode", {"cluster": {"mode": "serverless"}}),
        ("clusters", {"clusters": {}}),
    ],
)
def test_a_wrong_value_is_refused_at_its_place(place: str, sections: dict[str, Any]) -> None:
    assert list(refused(**sections)) == [place]


def test_reading_a_stack_loads_neither_pulumi_nor_its_sdk_of_google() -> None:
    program = (
        "import sys, model_serving.stack.settings; sys.exit(any(name.startswith('pulumi') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_all_mistakes_are_told_at_once() -> None:
    mistakes = refused(
        zone="us-east1-b",
        network={"nodes": "10.16.0.0/22", "services": "8.8.8.0/24"},
        cluster={"nodePool": {}},
        gateway={"public": True},
        identity={"gitlab": {"projectId": 1}},
    )
    assert list(mistakes) == [
        *("network.services", "zone", "state", "network.pods", "cluster.nodePool", "gateway.domain", "gateway.access")
    ]


def test_a_network_that_exists_may_say_its_proxies() -> None:
    existing = {"network": "n", "subnetwork": "s", "podsRange": "p", "servicesRange": "v"}
    assert read(network={"existing": existing, "proxies": "10.9.0.0/23"}).network.proxies == "10.9.0.0/23"
    assert "nodes" in refused(network={"existing": existing, "nodes": "10.0.0.0/22"})["network.existing"]


def test_defaults_do_not_count_in_a_network_that_exists() -> None:
    existing = {"network": "n", "subnetwork": "s", "podsRange": "p", "servicesRange": "v"}
    assert read(network={"existing": existing, "proxies": "10.0.0.0/23"}).network.nodes == "10.0.0.0/22"


def test_names_in_google_fit_the_shortest_limit() -> None:
    assert len("x" * LONGEST_NAME + "-training") <= 30  # https://cloud.google.com/iam/docs/service-accounts-create


def sections_below(section: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield section
    for info in section.model_fields.values():
        for candidate in (info.annotation, *getattr(info.annotation, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                yield from sections_below(candidate)


def test_every_key_says_what_it_is_for() -> None:
    sections = [*sections_below(GcpSettings)]
    assert len(sections) == 17
    for section in sections:
        assert issubclass(section, Section)
        for name, info in section.model_fields.items():
            assert info.description, f"{section.__name__}.{name}"
            assert info.description.endswith("."), f"{section.__name__}.{name}"


def stack_file(stack: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(Path(f"stacks/Pulumi.{stack}.yaml").read_text(encoding="utf-8"))["config"]
    return config


@pytest.mark.parametrize("stack", STACKS)
def test_each_stack_is_right_as_it_stands(stack: str) -> None:
    assert read(**stack_file(stack)["model-serving:gcp"]).project == f"my-models-{stack}"


@pytest.mark.parametrize("stack", STACKS)
def test_each_stack_marks_what_a_newcomer_must_change(stack: str) -> None:
    lines = Path(f"stacks/Pulumi.{stack}.yaml").read_text(encoding="utf-8").splitlines()
    for key in ("project:", "region:"):
        (place,) = (at for at, line in enumerate(lines) if line.strip().startswith(key))
        assert "CHANGE" in lines[place - 1]


def test_no_stack_trusts_a_repository_that_is_only_an_example() -> None:
    for stack in STACKS:
        assert "identity" not in stack_file(stack)["model-serving:gcp"]


def test_stacks_serve_the_same_models_and_production_pins_two_of_each() -> None:
    dev, staging, production = (stack_file(stack)["model-serving:models"] for stack in STACKS)
    assert set(dev) == set(staging) == set(production)
    assert not any("versions" in model for model in dev.values())
    assert all("versions" in model for model in staging.values())
    assert all("versions" in model and model["replicas"] >= 2 for model in production.values())
    assert read(**stack_file("production")["model-serving:gcp"]).deletion_protection
