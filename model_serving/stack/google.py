"""Settings of the platform on Google Cloud, under ``model-serving:gcp``, and the rules between them.

Plain Python without Pulumi and its Google SDK: a stack without this section does not load them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from model_serving.sections import Branch, Cidr, DnsName, Identifier, Section, Violation, reachable, wrong
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
    refused_bucket,
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


def gitlab_projects_have_one_duty(gitlab: GitLabSettings) -> Iterator[Violation]:
    yield from _one_duty("modelProjectIds", gitlab.model_project_ids, "projectId", gitlab.project_id)


def github_repositories_have_one_duty(github: GitHubSettings) -> Iterator[Violation]:
    yield from _one_duty("modelRepositoryIds", github.model_repository_ids, "repositoryId", github.repository_id)


def _one_duty(key: str, others: list[int], own_key: str, own: int) -> Iterator[Violation]:
    if own in others:
        yield (
            f"{key} has {own}, which is also {own_key}",
            "Its jobs would have two duties that could not be told apart.",
            f"Remove {own} from the list.",
        )


def public_gateway_has_a_domain(edge: EdgeSettings) -> Iterator[Violation]:
    if edge.public and edge.domain is None:
        yield (
            "domain is missing, and public is true",
            "There would be no certificate, and requests would cross the internet in plain text.",
            "Write a domain that you own, or public: false.",
        )


def public_gateway_says_who_may_ask(edge: EdgeSettings) -> Iterator[Violation]:
    if edge.public and edge.access is None:
        yield (
            "access is missing, and public is true",
            "Everyone on the internet could ask the models, without anyone having decided that.",
            "Write access: iap for people who sign in, access: ranges for addresses in allowedRanges, or access: open "
            "for everyone.",
        )
    if edge.access == "ranges" and (not edge.allowed_ranges or _has_everyone(edge.allowed_ranges)):
        yield (
            f"access is ranges, and allowedRanges is {', '.join(edge.allowed_ranges) or 'empty'}",
            "Everyone on the internet could ask the models.",
            "Write the addresses of your clients under allowedRanges, or access: open.",
        )
    if edge.access == "open" and edge.allowed_ranges:
        yield (
            "access is open, and allowedRanges is set",
            "The two contradict each other.",
            "Write access: ranges, or remove allowedRanges.",
        )
    if (edge.access == "iap") != (edge.iap is not None):
        is_set = edge.iap is not None
        yield (
            f"iap is {'set' if is_set else 'missing'}, and access is {edge.access or 'missing'}",
            "It would have no effect." if is_set else "GKE turns Identity-Aware Proxy on only with an OAuth client.",
            "Remove it, or write access: iap." if is_set else "Write clientId and secretName under iap.",
        )


def _has_everyone(ranges: Iterable[str]) -> bool:
    networks = [*map(ip_network, ranges)]
    # Two halves are everyone, too.
    v4 = [*collapse_addresses(each for each in networks if isinstance(each, IPv4Network))]
    v6 = [*collapse_addresses(each for each in networks if isinstance(each, IPv6Network))]
    return IPv4Network("0.0.0.0/0") in v4 or IPv6Network("::/0") in v6


def internal_gateway_has_no_limits(edge: EdgeSettings) -> Iterator[Violation]:
    limits = {
        "requestsPerMinute": "requests_per_minute" in edge.model_fields_set,
        "allowedRanges": edge.allowed_ranges,
        "access": edge.access,
    }
    for key, is_set in limits.items():
        if is_set and not edge.public:
            yield (
                f"{key} is set, and public is false",
                "An internal gateway has neither Cloud Armor nor Identity-Aware Proxy, so it would have no effect.",
                "Remove it, or write public: true.",
            )


def zone_fits_the_cluster(gcp: GcpSettings) -> Iterator[Violation]:
    if gcp.zone is None:
        return
    if gcp.zone.rpartition("-")[0] != gcp.region:
        yield (
            f"zone is {gcp.zone}, which is not in {gcp.region}",
            "The cluster would be in another region than its network, which Google refuses.",
            f"Write a zone of the region, e.g. {gcp.region}-b, or change region.",
        )
    elif gcp.cluster.existing is None and gcp.cluster.mode == "autopilot":
        yield (
            f"cluster is an Autopilot cluster, and zone is {gcp.zone}",
            "Autopilot clusters are regional, so the zone would have no effect.",
            "Remove zone, or write mode: standard under cluster.",
        )


def ranges_have_room_for_the_pool(gcp: GcpSettings) -> Iterator[Violation]:
    pool, network = gcp.cluster.node_pool, gcp.network
    if pool is None or network.existing is not None:
        return
    # A node of a Standard cluster takes a /24 of the pods' range; Google keeps 4 addresses of a subnet.
    room = {
        "pods": 2 ** (24 - ip_network(network.pods).prefixlen),
        "nodes": ip_network(network.nodes).num_addresses - 4,
    }
    for key, nodes in room.items():
        if pool.maximum_nodes > nodes:
            yield (
                f"cluster.nodePool.maximumNodes is {pool.maximum_nodes}, and network.{key} has room for {nodes} nodes",
                "The pool would stop growing there, and pods would stay pending.",
                f"Write {nodes} or less, or a larger range.",
            )


def encryption_key_is_in_the_region(gcp: GcpSettings) -> Iterator[Violation]:
    key = gcp.cluster.encryption_key
    if key and key.split("/")[3] != gcp.region:
        yield (
            f"cluster.encryptionKey is {key}, which is not in {gcp.region}",
            "GKE only accepts keys from its own region and would refuse the cluster.",
            f"Write a key in {gcp.region}.",
        )


def bucket_has_a_name_that_google_takes(gcp: GcpSettings) -> Iterator[Violation]:
    own = gcp.storage.existing or gcp.storage.bucket
    if own is None and (reason := refused_bucket(gcp.bucket)):
        yield (
            f"storage.bucket is missing, and the default would be {gcp.bucket}, {reason}",
            "Google refuses such a name for a bucket.",
            "Write bucket under storage, or another name.",
        )


def pipelines_can_read_the_state(gcp: GcpSettings) -> Iterator[Violation]:
    if gcp.state is None and (gcp.identity.gitlab or gcp.identity.github or gcp.identity.key_for_ci):
        yield (
            "state is missing, and identity lets pipelines in",
            "A pipeline could log in but not read the state, so each of its jobs would fail.",
            "Write the two lines that `make init-gcp` prints.",
        )


RULES: Final = (
    gitlab_projects_have_one_duty,
    github_repositories_have_one_duty,
    public_gateway_has_a_domain,
    public_gateway_says_who_may_ask,
    internal_gateway_has_no_limits,
    zone_fits_the_cluster,
    ranges_have_room_for_the_pool,
    encryption_key_is_in_the_region,
    bucket_has_a_name_that_google_takes,
    pipelines_can_read_the_state,
)
