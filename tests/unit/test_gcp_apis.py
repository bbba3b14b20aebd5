"""No resource in Google is declared before the APIs that make it, whatever a stack's settings are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pulumi
import pytest

from components.google.platform import Platform
from components.google.services import APIS_OF
from model_serving.stack.google import GcpSettings
from tests.engine.gcp_standin import APIS
from tests.unit.conftest import Recorder, mocked
from tests.unit.test_gcp_components import ADOPTED, DEPLOYMENT, EVERYTHING, CloudRecorder

Declare = Callable[[Callable[[], object]], Recorder]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

STANDARD: dict[str, Any] = {"cluster": {"mode": "standard"}}
VARIANTS: dict[str, dict[str, Any]] = {
    "smallest": {},
    "everything": EVERYTHING,
    "everything-existing": ADOPTED,
    "internal-domain": {"gateway": {"domain": "models.acme.example"}},
    "public": {"gateway": EVERYTHING["gateway"]},
    "standard": STANDARD,
    "standard-zonal": STANDARD | {"zone": "europe-west1-b"},
    "fleet": {"cluster": {"fleet": True}},
    "binary-authorization": {"cluster": {"binaryAuthorization": True}},
    "encrypted": {"cluster": {"encryptionKey": EVERYTHING["cluster"]["encryptionKey"]}},
    "pipelines": {"identity": EVERYTHING["identity"], "state": EVERYTHING["state"]},
    "unscanned": {"registry": {"scanning": False}},
    "unwatched": {"observability": {"enabled": False}},
}
# Beyond the API of its own module: what the settings of a resource need.
FURTHER: dict[str, dict[str, Callable[[GcpSettings], bool]]] = {
    "container/cluster": {
        "gkehub": lambda stack: stack.cluster.fleet,
        "binaryauthorization": lambda stack: stack.cluster.binary_authorization,
        "cloudkms": lambda stack: stack.cluster.encryption_key is not None,
        "compute": lambda _: True,
        "monitoring": lambda _: True,
    },
    "artifactregistry/repository": {"containerscanning": lambda stack: stack.registry.scanning},
    "projects/iAMMember": {"cloudresourcemanager": lambda _: True},
    "projects/iAMCustomRole": {"iam": lambda _: True},
    "projects/serviceIdentity": {"container": lambda _: True},
}


@pytest.fixture
def recorder() -> Iterator[CloudRecorder]:
    with mocked(CloudRecorder()) as recorder:
        yield recorder


def needed(kind: str, stack: GcpSettings) -> set[str]:
    own = APIS.get(kind.partition("/")[0], "").partition(".")[0]
    return {own} - {""} | {api for api, wanted in FURTHER.get(kind, {}).items() if wanted(stack)}


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_resource_waits_for_the_apis_that_it_needs(declare: Declare, variant: str) -> None:
    content = {"project": "acme-models", "region": "europe-west1"} | VARIANTS[variant]
    stack = GcpSettings.model_validate(content)
    waits: dict[tuple[str, str], set[str]] = {}

    def note(args: pulumi.ResourceTransformationArgs) -> None:
        # Of the outermost component: the last, which sees what all others have added.
        after = args.opts.depends_on
        assert isinstance(after, list | None)
        kinds = [each for each in after or [] if isinstance(each, pulumi.Resource)]
        services = [each.pulumi_resource_name for each in kinds if each.pulumi_resource_type.endswith(":Service")]
        waits[args.type_, args.name] = {name.removeprefix("services-") for name in services}

    declare(
        lambda: (
            Platform("platform", stack, "models", DEPLOYMENT, pulumi.ResourceOptions(transformations=[note])) and None
        )
    )
    made = {
        (typ.removeprefix("gcp:").partition(":")[0], name): apis
        for (typ, name), apis in waits.items()
        if typ.startswith("gcp:") and not typ.endswith(":Service")
    }
    assert len(made) > 20
    early = {key: missing for key, apis in made.items() if (missing := needed(key[0], stack) - apis)}
    assert early == {}, "declared before the APIs that it needs"
    assert {kind for kind, _ in made} - APIS_OF.keys() == set(), "not in the table of components/google/services.py"


def test_each_kind_in_the_table_is_declared_by_some_stack(declare: Declare) -> None:
    stack = GcpSettings.model_validate({"project": "acme-models", "region": "europe-west1"} | EVERYTHING)
    made = declare(lambda: Platform("platform", stack, "models", DEPLOYMENT) and None).made
    kinds = {typ.removeprefix("gcp:").partition(":")[0] for typ, _ in made if typ.startswith("gcp:")}
    assert APIS_OF.keys() - kinds == {"compute/address"}, "only an internal gateway has it"
