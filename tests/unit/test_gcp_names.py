"""What Google refuses is refused before anything is created, and what it takes is taken."""

from __future__ import annotations

from typing import Any

import pytest

from model_serving.stack.google_names import MACHINE_FAMILIES, MULTI_REGIONS, ZONES
from tests.unit.test_gcp_settings import STATE, read, refused

PUBLIC = {"public": True, "access": "ranges", "domain": "models.acme.example"}
STANDARD = {"mode": "standard"}
BINARY = {"binaryAuthorization": True}


def key(location: str = "europe-west1", ring: str = "r", name: str = "k") -> str:
    return f"projects/acme-models/locations/{location}/keyRings/{ring}/cryptoKeys/{name}"


def gitlab(**section: Any) -> dict[str, Any]:
    return {"identity": {"gitlab": {"projectId": 1} | section}, "state": STATE}


def pool(machine_type: str) -> dict[str, Any]:
    return {"cluster": STANDARD | {"nodePool": {"machineType": machine_type}}}


@pytest.mark.parametrize(
    ("place", "remedy", "sections"),
    [
        ("name", "does not begin with gcp-", {"name": "gcp-models"}),
        ("name", "does not begin with goog", {"name": "google-models"}),
        ("identity.pool", "does not begin with gcp-", {"identity": {"pool": "gcp-pool"}}),
        ("identity.pool", "does not begin with goog", {"identity": {"pool": "googly"}}),
        ("region", "Write e.g. us-east", {"region": "us-east2"}),
        ("region", "add it to ZONES", {"region": "mars-north1"}),
        ("zone", "Write e.g. europe-west1-", {"zone": "europe-west1-a", "cluster": STANDARD}),
        ("storage.location", "add it to MULTI_REGIONS", {"storage": {"location": "Mars"}}),
        ("storage.location", "Write e.g. europe-west1", {"storage": {"location": "europe-west-1"}}),
        ("storage.bucket", "lowercase letters", {"storage": {"bucket": "goog-models"}}),
        ("storage.bucket", "lowercase letters", {"storage": {"bucket": "my-g00gle-models"}}),
        ("storage.bucket", "lowercase letters", {"storage": {"bucket": "192.168.5.4"}}),
        ("storage.existing", "lowercase letters", {"storage": {"existing": "acme..models"}}),
        ("state.bucket", "lowercase letters", {"state": STATE | {"bucket": "acme-.state"}}),
        ("state.key", "Write for example projects/P", {"state": STATE | {"key": key(ring="my ring")}}),
        ("cluster.encryptionKey", "Write for example projects/P", {"cluster": {"encryptionKey": key(name="k:1")}}),
        ("cluster.existing", "at most 40 characters", {"cluster": {"existing": "c" * 41}}),
        ("cluster.nodePool.machineType", "name ~ ^e2-", pool("e2-highgpu-1g")),
        ("cluster.nodePool.machineType", "name ~ ^e2-", pool("e2-standard")),
        ("cluster.nodePool.machineType", "name ~ ^e2-", pool("e2-standard-4-lssd")),
        ("cluster.nodePool.machineType", "name ~ ^a2-", pool("a2-standard-4")),
        ("cluster.nodePool.machineType", "name ~ ^n2-", pool("n2-standard-4g")),
        ("cluster.nodePool.machineType", "name ~ ^c2-", pool("c2-highmem-8")),
        ("cluster.nodePool.machineType", "add it to MACHINE_FAMILIES", pool("m5-large")),
        ("cluster.nodePool.machineType", "Write for example e2-standard-4", pool("m5.large")),
        (
            "cluster.allowedImages.0",
            "Write for example registry.gitlab.com",
            {"cluster": BINARY | {"allowedImages": ["a/*/b"]}},
        ),
        ("network.nodes", "Write a part of 10.0.0.0/8", {"network": {"nodes": "127.0.0.0/22"}}),
        ("network.nodes", "Write a part of 10.0.0.0/8", {"network": {"nodes": "0.0.0.0/8"}}),
        ("network.nodes", "Write a part of 10.0.0.0/8", {"network": {"nodes": "169.254.0.0/22"}}),
        ("network.nodes", "Write a part of 10.0.0.0/8", {"network": {"nodes": "fd00::/64"}}),
        ("network.pods", "Write a range of /9 or smaller", {"network": {"pods": "10.0.0.0/8"}}),
        ("network.services", "Write a range of /16 or smaller", {"network": {"services": "172.16.0.0/12"}}),
        ("gateway.allowedRanges.0", "203.0.113.0/24", {"gateway": PUBLIC | {"allowedRanges": ["1.2.3.4/33"]}}),
        ("gateway.allowedRanges.0", "203.0.113.0/24", {"gateway": PUBLIC | {"allowedRanges": ["::1/129"]}}),
        ("gateway.allowedRanges", "203.0.113.0/24", {"gateway": PUBLIC | {"allowedRanges": "1.2.3.4/33"}}),
        ("gateway.domain", "models.example.com", {"gateway": {"domain": f"{'d' * 64}.example"}}),
        ("gateway.domain", "models.example.com", {"gateway": {"domain": "-models.example"}}),
        ("observability.emails.0", "team@example.com", {"observability": {"emails": ["a b@example.com"]}}),
        ("observability.emails.0", "team@example.com", {"observability": {"emails": ["team@-example.com"]}}),
        ("observability.emails", "team@example.com", {"observability": {"emails": [f"a{n}@b.cd" for n in range(17)]}}),
        ("identity.gitlab.issuer", "https://gitlab.example.com", gitlab(issuer="https://gitlab.acme.example?x=1")),
        ("identity.gitlab.keys", "/oauth/discovery/keys", gitlab(keys='{"issuer": "https://gitlab.com"}')),
        ("identity.gitlab.keys", "/oauth/discovery/keys", gitlab(keys="{keys}")),
        ("identity.gitlab.modelProjectIds", "at most 150 items", gitlab(modelProjectIds=[*range(2, 153)])),
    ],
)
def test_what_google_refuses_is_refused_with_what_to_write(place: str, remedy: str, sections: dict[str, Any]) -> None:
    said = refused(**sections)
    assert list(said) == [place]
    assert remedy in said[place]
    assert len(said[place].splitlines()) == 3


@pytest.mark.parametrize(
    "sections",
    [
        {"name": "models-goog"},
        {"identity": {"pool": "gcpool"}},
        *({"region": region} for region in ZONES),
        {"zone": "us-central1-f", "region": "us-central1", "cluster": STANDARD},
        *({"storage": {"location": location}} for location in (*MULTI_REGIONS, "eu", "us-east1", "EUROPE-WEST1")),
        {"storage": {"bucket": "models.acme.example"}},
        {"state": {"bucket": "acme_state", "key": key("global", "Ring_1", "stack-secrets")}},
        {
            "cluster": BINARY
            | {"allowedImages": ["europe-docker.pkg.dev/acme/*", "gcr.io/acme/**", "docker.io/acme/a:1"]}
        },
        {"network": {"nodes": "100.64.0.0/22"}},
        {"gateway": PUBLIC | {"allowedRanges": ["1.2.3.4/32", "2001:db8::/32"]}},
        {"gateway": {"domain": "models.xn--bcher-kva.xn--p1ai"}},
        {"observability": {"emails": ["first.last+alerts@mail.acme.example"]}},
        gitlab(keys='{"keys": [{"kty": "RSA", "kid": "1", "n": "AQAB", "e": "AQAB"}]}'),
    ],
    ids=str,
)
def test_what_google_takes_is_taken(sections: dict[str, Any]) -> None:
    read(**sections)


@pytest.mark.parametrize(
    "machine_type",
    [
        *("e2-standard-4", "e2-medium", "e2-custom-4-8192", "e2-custom-medium-4096", "n1-standard-96", "custom-4-5120"),
        *("n1-custom-4-5120", "n2-custom-8-81920-ext", "n2d-highcpu-224", "n4-highmem-80", "n4d-standard-96"),
        *("t2d-standard-60", "t2a-standard-48", "c2-standard-60", "c2d-highmem-112", "c3-standard-22-lssd"),
        *("c3-highcpu-192-metal", "c3d-highmem-360-lssd", "c4-standard-288-lssd-metal", "c4a-highcpu-72"),
        *("c4d-standard-384-metal2", "h3-standard-88", "m1-ultramem-160", "m3-megamem-64", "a2-highgpu-1g"),
        *("a2-ultragpu-8g", "a3-megagpu-8g", "a4-highgpu-8g", "g2-standard-12", "g4-standard-48"),
        *("ct5lp-hightpu-4t", "ct6e-standard-8t", "z3-highmem-176"),
    ],
)
def test_types_of_all_families_of_machines_are_taken(machine_type: str) -> None:
    assert read(**pool(machine_type)).cluster.node_pool is not None


def test_zones_are_of_one_form() -> None:
    assert len(ZONES) == 43
    assert {len(letters) for letters in ZONES.values()} == {3, 4}
    assert all(letters == "".join(sorted(set(letters))) and "b" in letters for letters in ZONES.values())
    assert sorted(MACHINE_FAMILIES) == [*MACHINE_FAMILIES], "sorted, so that an entry is found"
