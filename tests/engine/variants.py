"""The stacks on Google Cloud in every variant that settings offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Final

from pulumi.runtime.proto import provider_pb2

from tests.engine.gcp_standin import Google
from tests.engine.harness import Project
from tests.engine.provider import merged, write

KEY: Final = "projects/my-models-dev/locations/europe-west1/keyRings/gke/cryptoKeys/database"
STATE: Final = {
    "bucket": "my-models-dev-pulumi-state",
    "key": "projects/my-models-dev/locations/europe-west1/keyRings/pulumi/cryptoKeys/stack-secrets",
}
STANDARD: Final = {"mode": "standard"}
EXISTING_NETWORK: Final = {
    "network": "shared",
    "subnetwork": "nodes",
    "podsRange": "pods",
    "servicesRange": "services",
}
EXISTING: Final = {
    "network": {"existing": EXISTING_NETWORK, "proxies": "10.9.0.0/23"},
    "cluster": {"existing": "shared"},
    "registry": {"existing": "images"},
    "storage": {"existing": "acme-dvc"},
}
PIPELINES: Final = {
    "state": STATE,
    "identity": {
        "gitlab": {"projectId": 11, "modelProjectIds": [12]},
        "github": {"repositoryId": 21, "ownerId": 22},
        "keyForCi": True,
    },
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A stack as it is committed, with a fragment of a stack file over it.

    Attributes:
        gcp: fragment of ``model-serving:gcp``.
        ci: fragment of ``model-serving:ci``.
        grpc: whether the models can be asked over gRPC as well.
        resources: number of resources at Google.
        doors: names of the resources through which the internet comes in.
        existing: types and inputs of what is at Google before the stack.
    """

    resources: int
    stack: str = "dev"
    gcp: Mapping[str, Any] = field(default_factory=dict)
    ci: Mapping[str, Any] = field(default_factory=dict)
    grpc: bool = False
    doors: frozenset[str] = frozenset()
    existing: Sequence[tuple[str, Mapping[str, Any]]] = ()

    def lay_over(self, project: Project) -> None:
        """Writes the fragment into the project's settings, and makes what is there already."""
        if self.gcp:
            project.set_settings("gcp", self.gcp, over=True)
            # One model shows what a variant does to each of them.
            project.set_settings("models", {"iris-dtc": {}})
        if self.ci:
            project.set_settings("ci", self.ci, over=True)
        if self.grpc:
            project.set_settings("gateway", {"grpc": True})
        google = Google(project.cloud.folder, None, project.environment)
        google.config = {"project": "my-models-dev", "region": "europe-west1"}
        for number, (token, inputs) in enumerate(self.existing):
            urn = f"urn:pulumi:elsewhere::elsewhere::gcp:{token}::existing-{number}"
            google.Create(provider_pb2.CreateRequest(urn=urn, properties=write(inputs)), None)


THERE: Final[Sequence[tuple[str, Mapping[str, Any]]]] = (
    *(
        ("projects/service:Service", {"service": f"{api}.googleapis.com"})
        for api in ("artifactregistry", "compute", "container")
    ),
    ("compute/network:Network", {"name": "shared", "autoCreateSubnetworks": False}),
    ("compute/subnetwork:Subnetwork", {"name": "nodes", "network": "shared", "region": "europe-west1"}),
    ("container/cluster:Cluster", {"name": "shared", "location": "europe-west1", "network": "shared"}),
    (
        "artifactregistry/repository:Repository",
        {"repositoryId": "images", "location": "europe-west1", "format": "DOCKER"},
    ),
    ("storage/bucket:Bucket", {"name": "acme-dvc", "location": "europe-west1"}),
)

ALONE: Final[Mapping[str, Variant]] = {
    "dev": Variant(resources=56),
    "staging": Variant(stack="staging", resources=56),
    "production": Variant(stack="production", resources=56),
    "public": Variant(
        gcp={
            "gateway": {
                "public": True,
                "access": "ranges",
                "domain": "models.example.com",
                "allowedRanges": ["203.0.113.0/24"],
            }
        },
        grpc=True,
        resources=66,
        doors=frozenset({"edge", "gateway"}),
    ),
    "internal-with-domain": Variant(gcp={"gateway": {"domain": "models.example.com"}}, resources=62),
    "standard-regional": Variant(gcp={"cluster": STANDARD | {"nodePool": {"minimumNodes": 0}}}, resources=57),
    "standard-zonal": Variant(gcp={"cluster": STANDARD, "zone": "europe-west1-b"}, resources=57),
    "encrypted": Variant(gcp={"cluster": {"encryptionKey": KEY}}, resources=58),
    "fleet": Variant(gcp={"cluster": {"fleet": True}}, resources=58),
    "binary-authorization": Variant(
        gcp={"cluster": {"binaryAuthorization": True, "allowedImages": ["registry.gitlab.com/agent/*"]}}, resources=59
    ),
    "pipelines": Variant(gcp=PIPELINES, ci={"review": {}}, resources=86),
    "existing": Variant(gcp=EXISTING | {"services": {"enable": False}}, resources=35, existing=THERE),
}


def _together(*names: str) -> Variant:
    """What each of the variants of dev adds to it, in one stack."""
    parts = [ALONE[name] for name in names]
    return Variant(
        gcp=reduce(merged, (part.gcp for part in parts)),
        ci=reduce(merged, (part.ci for part in parts)),
        grpc=any(part.grpc for part in parts),
        resources=ALONE["dev"].resources + sum(part.resources - ALONE["dev"].resources for part in parts),
        doors=frozenset().union(*(part.doors for part in parts)),
    )


TOGETHER: Final[Mapping[str, Variant]] = {
    " ".join(names): _together(*names)
    for names in (
        ("public", "standard-regional", "encrypted", "binary-authorization"),
        ("pipelines", "internal-with-domain", "standard-zonal", "fleet"),
    )
}
"""Every variant of dev, in two stacks."""
VARIANTS: Final[Mapping[str, Variant]] = {**ALONE, **TOGETHER}
