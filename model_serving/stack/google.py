"""Settings of the platform on Google Cloud, under ``model-serving:gcp``; google_rules.py has the rules between them.

Plain Python without Pulumi and its Google SDK: a stack without this section does not load them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from model_serving.sections import Branch, Cidr, DnsName, Identifier, Section, reachable, wrong
from model_serving.stack.gke import ClusterName
from model_serving.stack.google_cluster import Adoptable, ClusterSettings, NetworkSettings
from model_serving.stack.google_names import (
    BucketName,
    Domain,
    Email,
    KeyName,
    KeySet,
    Name,
    PoolId,
    ProjectId,
    Region,
    ResourceName,
    StorageLocation,
    Zone,
)

REVIEW: Final = "review"
"""Ends the names of what reviews have of their own."""


def names(values: Iterable[str]) -> list[str]:
    """Short, stable names for the entries of a list, e.g. ``team-example-com`` for an address."""
    return [re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-") for value in values]


def _different_names(addresses: list[str]) -> list[str]:
    if len(set(names(addresses))) < len(addresses):
        raise wrong(
            f"is {', '.join(addresses)}, and two of them are alike",
            "Both would have the same name in the stack, and one would replace the other.",
            "Write each address once.",
        )
    return addresses


ModelRepositories = Annotated[
    list[Identifier],
    # Google allows 4,096 characters for the condition that lists them.
    Field(
        max_length=150,
        description="IDs of the repositories that train models, at most 150; their jobs act as the account training.",
    ),
]
ProtectedBranch = Annotated[Branch, Field(examples=["main"], description="Protected branch that is deployed.")]


class ServiceSettings(Section):
    """Google's APIs."""

    enable: bool = Field(
        True,
        description="Enable the APIs in use. Write false if another team enables them, e.g. with a project factory.",
    )


class RegistrySettings(Adoptable):
    """The image registry."""

    existing: ResourceName | None = Field(
        None,
        examples=["images"],
        description="An existing Docker repository in Artifact Registry, in the stack's region, to use unchanged.",
    )
    keep_versions: int = Field(
        10, ge=1, le=1000, description="Number of newest images per model to keep, even without a tag."
    )
    untagged_days: int = Field(
        30, ge=1, le=3650, description="Days after which an image without a tag is deleted. Released images have tags."
    )
    scanning: bool = Field(True, description="Scan each image for known vulnerabilities; billed per image.")


class StorageSettings(Adoptable):
    """The bucket for training data and training outputs: the DVC remote."""

    existing: BucketName | None = Field(
        None, examples=["acme-models-dvc"], description="An existing bucket to use unchanged."
    )
    bucket: BucketName | None = Field(
        None,
        examples=["acme-models-dvc"],
        description="Name of the bucket, unique across Google Cloud. Defaults to <project>-<name>-dvc.",
    )
    location: StorageLocation | None = Field(
        None,
        examples=["EU", "europe-west1"],
        description="Region or multi-region. Defaults to the stack's region.",
    )
    noncurrent_days: int = Field(
        30, ge=1, le=3650, description="Days for which an overwritten or deleted object can be restored."
    )


class GitLabSettings(Section):
    """A GitLab instance whose jobs may access this project without a key."""

    issuer: Annotated[str, Field(pattern=r"^https://[^\s?#]+[^/\s?#]$"), AfterValidator(reachable)] = Field(
        "https://gitlab.com",
        examples=["https://gitlab.example.com"],
        description="Address of the GitLab instance, without a trailing slash.",
    )
    project_id: Identifier = Field(
        json_schema_extra={
            "consequence": "Any project of that GitLab instance could access this one.",
            "remedy": "Write the ID that GitLab shows under Settings, General, without quotes.",
        },
        description="ID of this repository in GitLab (Settings, General).",
    )
    model_project_ids: ModelRepositories = Field(default_factory=list)
    branch: ProtectedBranch = "main"
    protected_environment: bool | None = Field(
        None,
        description="Let a job update the stack only if GitLab protects its environment, which needs Premium. Defaults "
        "to ci.approval. Write false on GitLab Free.",
    )
    keys: KeySet | None = Field(
        None,
        examples=['\'{"keys": [{"kty": "RSA", …}]}\''],
        description="GitLab's public keys (/oauth/discovery/keys, a JSON text), if Google cannot reach GitLab.",
    )


class GitHubSettings(Section):
    """Repositories on GitHub whose jobs may access this project without a key."""

    repository_id: Identifier = Field(
        json_schema_extra={
            "consequence": "Any repository of the owner could access this project.",
            "remedy": "Write the ID that `gh api repos/OWNER/NAME --jq .id` prints, without quotes.",
        },
        description="ID of this repository.",
    )
    owner_id: Identifier = Field(
        json_schema_extra={
            "consequence": "Google refuses GitHub as an issuer if no owner is set.",
            "remedy": "Write the ID that `gh api repos/OWNER/NAME --jq .owner.id` prints, without quotes.",
        },
        description="ID of the repository's owner.",
    )
    model_repository_ids: ModelRepositories = Field(default_factory=list)
    branch: ProtectedBranch = "main"


class IdentitySettings(Section):
    """Pipelines that may access the project."""

    gitlab: GitLabSettings | None = Field(None, description="GitLab jobs that authenticate without a key.")
    github: GitHubSettings | None = Field(None, description="GitHub Actions jobs that authenticate without a key.")
    pool: PoolId | None = Field(
        None,
        examples=["model-serving"],
        description="ID of the workload identity pool. Defaults to the stack's name in Google Cloud. Google reserves "
        "the ID of a deleted pool for 30 days; until then, use another ID.",
    )
    key_for_ci: bool = Field(
        False,
        description="Create keys for the accounts plan, verify, apply, training and, with ci.review, review, for a CI "
        "system without OIDC tokens. A key is valid until someone deletes it.",
    )


class IapSettings(Section):
    """The OAuth client with which Identity-Aware Proxy asks people to sign in."""

    client_id: str = Field(
        pattern=r"^[\w-]+\.apps\.googleusercontent\.com$",
        examples=["123456789-abc.apps.googleusercontent.com"],
        description="ID of the OAuth client.",
    )
    secret_name: DnsName = Field(
        examples=["iap-client"],
        description="Name of an existing Kubernetes Secret in the models' namespace that contains the client's secret.",
    )


class EdgeSettings(Section):
    """Access to the models from outside the cluster."""

    public: bool = Field(
        False, description="Allow access from the internet, instead of only from the cluster's network."
    )
    access: Literal["iap", "ranges", "open"] | None = Field(
        None,
        examples=["ranges"],
        description="Who may ask a public gateway: `iap`, people and service accounts that sign in with Google and "
        "have the role IAP-secured Web App User; `ranges`, everyone at the addresses in allowedRanges; `open`, "
        "everyone on the internet. The page and the models follow the same rule.",
    )
    iap: IapSettings | None = Field(
        None, description="The OAuth client of Identity-Aware Proxy. Needed for access: iap, and only there."
    )
    domain: Domain | None = Field(
        None,
        examples=["models.example.com"],
        description="Domain name of the gateway. If set, the gateway has a certificate and only serves HTTPS.",
    )
    requests_per_minute: int = Field(
        600,
        ge=1,
        le=1_000_000,
        description="Rate limit of a public gateway per client address; requests above it get 429.",
    )
    allowed_ranges: list[Cidr] = Field(
        default_factory=list,
        max_length=10,
        examples=["203.0.113.0/24"],
        description="Client addresses that may access a public gateway, at most 10 ranges. Needed for access: ranges, "
        "and an additional limit for access: iap.",
    )


class AlertSettings(Section):
    """Alert thresholds."""

    error_ratio: float = Field(0.05, gt=0, lt=1, description="Share of a version's requests that fail, over 5 minutes.")
    latency_seconds: float = Field(
        1.0,
        gt=0,
        le=7.5,
        json_schema_extra={
            "consequence": "The server's histogram ends at 10 seconds, so higher latencies could not be measured.",
            "remedy": "Write more than 0 and at most 7.5.",
        },
        description="99th percentile of a version's latency over 5 minutes, as measured by the server.",
    )
    not_ready_seconds: int = Field(
        300, ge=60, le=86400, multiple_of=30, description="How long a version may have no ready pod."
    )


class ObservabilitySettings(Section):
    """Monitoring and alerts."""

    enabled: bool = Field(True, description="Collect the servers' metrics, create the dashboard and the alerts.")
    emails: Annotated[list[Email], AfterValidator(_different_names)] = Field(
        default_factory=list,
        # Of channels of an alert, https://cloud.google.com/monitoring/quotas#alerting_uptime_checks_limits
        max_length=16,
        examples=["team@example.com"],
        description="Addresses that receive alerts, at most 16. Without any, alerts are only shown in the console.",
    )
    alerts: AlertSettings = Field(default_factory=AlertSettings, description="Alert thresholds.")


class StateSettings(Section):
    """Location of this stack's state, as created and printed by `make init-gcp`."""

    bucket: BucketName = Field(
        examples=["my-models-dev-pulumi-state"], description="Bucket of PULUMI_BACKEND_URL, without gs://."
    )
    key: KeyName = Field(
        examples=["projects/P/locations/REGION/keyRings/RING/cryptoKeys/KEY"],
        description="Key of the stack's secrets provider, without gcpkms://.",
    )


class GcpSettings(Section):
    """The platform on Google Cloud. Without this section, a stack declares no resources there."""

    project: ProjectId = Field(
        json_schema_extra={
            "consequence": "There would be no project for the platform.",
            "remedy": "Write the ID that `gcloud projects list` shows in its first column.",
        },
        description="ID of the project, not its name or number. The project must exist and have billing.",
    )
    region: Region = Field(
        examples=["europe-west1"], description="Region of all resources, unless a setting says otherwise."
    )
    zone: Zone | None = Field(
        None,
        examples=["europe-west1-b"],
        description="Zone for a zonal Standard cluster: cheaper, but unavailable if the zone is.",
    )
    name: Name = Field(
        "model-serving",
        examples=["model-serving"],
        description="Prefix of all names in the project. Two stacks in one project need different names.",
    )
    deletion_protection: bool = Field(
        True,
        description="Refuse to delete the cluster, the registry and the DVC bucket, regardless of the caller. To "
        "delete them: write false, run `pulumi up`, then destroy.",
    )
    services: ServiceSettings = Field(default_factory=ServiceSettings, description="Google's APIs.")
    network: NetworkSettings = Field(default_factory=NetworkSettings, description="The network of the nodes.")
    cluster: ClusterSettings = Field(default_factory=ClusterSettings, description="The Kubernetes cluster.")
    registry: RegistrySettings = Field(default_factory=RegistrySettings, description="The image registry.")
    storage: StorageSettings = Field(default_factory=StorageSettings, description="The DVC remote.")
    identity: IdentitySettings = Field(
        default_factory=IdentitySettings, description="Pipelines that may access the project."
    )
    gateway: EdgeSettings = Field(
        default_factory=EdgeSettings, description="Access to the models from outside the cluster."
    )
    observability: ObservabilitySettings = Field(
        default_factory=ObservabilitySettings, description="Monitoring and alerts."
    )
    state: StateSettings | None = Field(
        None, description="Location of the stack's state, so that pipelines can access it. `make init-gcp` prints it."
    )

    @property
    def location(self) -> str:
        """Location of the cluster: its zone if it is zonal, else the region."""
        return self.zone or self.region

    @property
    def bucket(self) -> str:
        """Name of the DVC remote's bucket."""
        return self.storage.existing or self.storage.bucket or f"{self.project}-{self.name}-dvc"

    @property
    def image_registry(self) -> str:
        """Registry of the images, known before it exists: host, project and repository, without a scheme."""
        return f"{self.region}-docker.pkg.dev/{self.project}/{self.registry.existing or self.name}"

    @property
    def review_registry(self) -> str:
        """Registry of the images of reviews, from which no stack runs anything."""
        return f"{self.region}-docker.pkg.dev/{self.project}/{self.name}-{REVIEW}"

    @property
    def cluster_name(self) -> ClusterName:
        """The cluster, whether the stack creates it or not."""
        name = self.cluster.existing or self.name
        return ClusterName(project=self.project, location=self.location, name=name)
