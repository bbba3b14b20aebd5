"""The Gateway of each of Google's classes, as GKE and the Gateway API take it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from components.google.platform import Platform
from components.serving.gateway import Gateway, GatewayArgs
from model_serving.stack import settings
from tests.unit.conftest import Recorder, mocked
from tests.unit.test_gcp_components import DEPLOYMENT, CloudRecorder

Declare = Callable[[Callable[[], object]], Recorder]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SAME = {"namespaces": {"from": "Same"}}
HTTP = {"name": "http", "protocol": "HTTP", "port": 80, "allowedRoutes": SAME}
HTTPS = {"name": "https", "protocol": "HTTPS", "port": 443, "allowedRoutes": SAME}
REGIONAL = {"mode": "Terminate", "options": {"networking.gke.io/cert-manager-certs": "model-serving"}}
CERTIFICATE_MAP = {"networking.gke.io/certmap": "model-serving"}


@pytest.fixture
def recorder() -> Iterator[CloudRecorder]:
    with mocked(CloudRecorder()) as recorder:
        yield recorder


@pytest.mark.parametrize(
    ("section", "class_name", "listener", "annotations"),
    [
        pytest.param({}, "gke-l7-rilb", HTTP, {}, id="internal"),
        pytest.param({"domain": "m.acme.example"}, "gke-l7-rilb", HTTPS | {"tls": REGIONAL}, {}, id="internal-domain"),
        pytest.param(
            {"domain": "m.acme.example", "public": True, "access": "open"},
            "gke-l7-global-external-managed",
            HTTPS,  # and no tls, see _listener
            CERTIFICATE_MAP,
            id="public",
        ),
    ],
)
def test_each_class_gets_its_certificate_in_its_own_way(
    declare: Declare, section: dict[str, Any], class_name: str, listener: dict[str, Any], annotations: dict[str, str]
) -> None:
    gcp = {"project": "acme-models", "region": "europe-west1", "gateway": section}
    chosen = settings.read("dev", {"model-serving:gcp": json.dumps(gcp)})
    assert chosen.gcp is not None

    def program() -> None:
        assert chosen.gcp is not None
        platform = Platform("platform", chosen.gcp, "models", DEPLOYMENT)
        Gateway("gateway", GatewayArgs.of(chosen, "models", platform))

    (made,) = (each for each in declare(program).of_kind("Gateway").values() if "spec" in each)
    assert made["spec"] == {
        "gatewayClassName": class_name,
        "listeners": [listener],
        "addresses": [{"type": "NamedAddress", "value": "model-serving"}],
    }
    given = made["metadata"]["annotations"]
    assert {key: value for key, value in given.items() if not key.startswith("pulumi.com/")} == annotations
