"""What a stack says of Google Cloud: the keys under ``model-serving:gcp`` and the rules between them.

Plain Python: neither Pulumi nor its Google SDK is imported, so a stack without this section pays nothing for it.
A rule that needs two keys is checked at the later one, so that every mistake is reported at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, ip_network
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from model_serving.sections import Section, wrong

LONGEST_NAME: Final = 20
"""Characters. The longest name made from it, ``<name>-training``, is an account id, which may have 30."""


def _range(value: str) -> str:
    try:
        parsed = ip_network(value)
    except ValueError as error:
        raise wrong(
            f"is {value}, which is no range: {error}",
            "Google would refuse the subnet after half of the platform exists.",
            "Write the first address and the length of the range, e.g. 10.0.0.0/22.",
        ) from None
    if not isinstance(parsed, IPv4Network) or parsed.is_global:
        raise wrong(
            f"is {value}, which is not a private IPv4 range",
            "Hosts on the internet that have these addresses could not be reached from the cluster.",
            "Write a part of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10.",
        )
    return value


Range = Annotated[str, AfterValidator(_range)]
"""A private IPv4 range, e.g. ``10.0.0.0/22``."""
ResourceName = Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$", max_length=63)]
BucketName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$")]
KeyName = Annotated[str, Field(pattern=r"^projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+$")]
Email = Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")]
Domain = Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}$", max_length=253)]
Identifier = Annotated[int, Field(gt=0)]
"""A number that GitLab or GitHub gives once and never again, unlike a name."""


class Adoptable(Section):
    """A part that can be there already. What exists is used and never changed, so the keys that shape it must go."""

    @model_validator(mode="after")
    def _nothing_shapes_what_exists(self) -> Self:
        if getattr(self, "existing", None) is None:
            return self
        fields = type(self).model_fields
        shaping = [
            str(fields[name].alias) for name in fields if name in self.model_fields_set and name not in self._kept()
        ]
        if shaping:
            raise wrong(
                f"has existing and also {', '.join(shaping)}",
                "What exists is used as it is, so the other keys would do nothing.",
                f"Remove {', '.join(shaping)}, or remove existing to have it made by this program.",
            )
        return self

    @classmethod
    def _kept(cls) -> frozenset[str]:
        """Fields that say something about what exists as well."""
        return frozenset({"existing"})


class ServiceSettings(Section):
    """Google's APIs."""

    enable: bool = Field(
        True,
        description="Enable the APIs that are used. Write false where another team does, e.g. a project factory.",
    )


class ExistingNetwork(Section):
    """A network that is there already, in the same project."""

    network: ResourceName = Field(description="Name of the VPC network.")
    subnetwork: ResourceName = Field(description="Name of the subnet for the nodes, in the region of the stack.")
    pods_range: ResourceName = Field(description="Name of the subnet's secondary range for pods.")
    services_range: ResourceName = Field(description="Name of the subnet's secondary range for Services.")


_LONGEST_PREFIX: Final = {"nodes": 26, "pods": 21, "services": 27, "proxies": 26}
"""Bits. Nodes: Google keeps 4 addresses, a surge upgrade needs spare ones. Pods: a Standard node takes a /24, so a /21
is 8 nodes. Services and proxies: https://cloud.google.com/kubernetes-engine/docs/concepts/alias-ips and
https://cloud.google.com/load-balancing/docs/proxy-only-subnets."""


class NetworkSettings(Adoptable):
    """Where the nodes are and which addresses they have."""

    model_config = ConfigDict(validate_default=True)

    existing: ExistingNetwork | None = Field(
        None, description="A network to use as it is. Without it a network of this stack's own is made."
    )
    nodes: Range = Field("10.0.0.0/22", examples=["10.0.0.0/22"], description="Addresses of the nodes: 1,020 here.")
    pods: Range = Field("10.16.0.0/14", examples=["10.16.0.0/14"], description="Addresses of pods, a /24 per node.")
    services: Range = Field("10.32.0.0/20", examples=["10.32.0.0/20"], description="Addresses of Services.")
    proxies: Range = Field(
        "10.0.8.0/23",
        examples=["10.0.8.0/23"],
        description="Addresses of the internal gateway's proxies. In a network that exists already: the range of its "
        "proxy-only subnet, from which the pods accept requests. A public gateway does without.",
    )
    nat: bool = Field(
        True,
        description="Let nodes and pods call out to the internet, e.g. for the GitLab agent. Nobody can call in.",
    )

    @classmethod
    def _kept(cls) -> frozenset[str]:
        return frozenset({"existing", "proxies"})

    @field_validator("nodes", "pods", "services", "proxies")
    @classmethod
    def _fits(cls, value: str, info: ValidationInfo) -> str:
        own, name = ip_network(value), str(info.field_name)
        if own.prefixlen > _LONGEST_PREFIX[name]:
            raise wrong(
                f"is {value}, which has {own.num_addresses} addresses",
                "The range cannot grow later, and the platform would stop where it ends.",
                f"Write a range of /{_LONGEST_PREFIX[name]} or larger, e.g. {cls.model_fields[name].default}.",
            )
        for other in ("nodes", "pods", "services", "proxies"):
            if other in info.data and other != name and own.overlaps(ip_network(info.data[other])):
                raise wrong(
                    f"is {value}, which overlaps with {other}, {info.data[other]}",
                    "An address would have two owners, and Google refuses the subnet.",
                    "Write ranges that share no address.",
                )
        return value


class NodePoolSettings(Section):
    """The one pool of nodes of a Standard cluster."""

    machine_type: str = Field(
        "e2-standard-4",
        pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)+$",
        examples=["e2-standard-4"],
        description="What a node is. A change replaces the pool, node by node.",
    )
    spot: bool = Field(False, description="Nodes that cost a third and may be taken away at 30 seconds' notice.")
    minimum_nodes: int = Field(1, ge=0, le=1000, description="Nodes of the whole pool that are kept in any case.")
    maximum_nodes: int = Field(6, ge=1, le=1000, description="Nodes of the whole pool at most; bounds what it costs.")

    @field_validator("maximum_nodes")
    @classmethod
    def _at_least_the_minimum(cls, value: int, info: ValidationInfo) -> int:
        minimum = info.data.get("minimum_nodes", 0)
        if value < minimum:
            raise wrong(
                f"is {value}, less than minimumNodes, {minimum}",
                "Google refuses such a pool after the cluster was made.",
                f"Write {minimum} or more.",
            )
        return value


_WEEKDAYS: Final = "MO|TU|WE|TH|FR|SA|SU"
_ROLLING_DAYS: Final = 32
_LEAST_HOURS: Final = 48
"""GKE: 48 hours of maintenance in any 32 days, https://cloud.google.com/kubernetes-engine/docs/concepts/maintenance-windows-and-exclusions."""
_LEAST_WINDOW: Final = timedelta(hours=4)
Moment = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")]


def _moment(value: str) -> datetime:
    return datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


class MaintenanceSettings(Section):
    """When Google may upgrade the cluster."""

    model_config = ConfigDict(validate_default=True)

    start: Moment = Field(
        "2026-01-03T01:00:00Z", examples=["2026-01-03T01:00:00Z"], description="Begin of the first window, in UTC."
    )
    end: Moment = Field(
        "2026-01-03T07:00:00Z",
        examples=["2026-01-03T07:00:00Z"],
        description="End of the first window, in UTC, at least 4 hours later.",
    )
    recurrence: str = Field(
        "FREQ=WEEKLY;BYDAY=SA,SU",
        pattern=rf"^FREQ=(DAILY|WEEKLY;BYDAY=({_WEEKDAYS})(,({_WEEKDAYS}))*)$",
        examples=["FREQ=DAILY", "FREQ=WEEKLY;BYDAY=SA,SU"],
        description="When the window comes again, as an RFC 5545 rule by days.",
    )

    @field_validator("start")
    @classmethod
    def _exists(cls, value: str) -> str:
        try:
            _moment(value)
        except ValueError as error:
            raise wrong(
                f"is {value}, which is no moment: {error}", "Google refuses it.", "Write e.g. 2026-01-03T01:00:00Z."
            ) from None
        return value

    @field_validator("end")
    @classmethod
    def _long_enough(cls, value: str, info: ValidationInfo) -> str:
        cls._exists(value)
        start = info.data.get("start")
        if start is not None and not _LEAST_WINDOW <= _moment(value) - _moment(start) <= timedelta(days=1):
            raise wrong(
                f"is {value}, with start {start}",
                "GKE takes windows of 4 to 24 hours alone and would refuse the cluster.",
                "Write an end that is 4 to 24 hours after the start.",
            )
        return value

    @field_validator("recurrence")
    @classmethod
    def _often_enough(cls, value: str, info: ValidationInfo) -> str:
        if not {"start", "end"} <= info.data.keys():
            return value
        hours = (_moment(info.data["end"]) - _moment(info.data["start"])) / timedelta(hours=1)
        days = _ROLLING_DAYS if value == "FREQ=DAILY" else _ROLLING_DAYS // 7 * len(set(value.split("=")[2].split(",")))
        if hours * days < _LEAST_HOURS:
            raise wrong(
                f"is {value}, which makes {hours * days:g} hours in 32 days",
                "GKE asks for 48 and would refuse the cluster.",
                "Write longer windows, or more days, e.g. FREQ=WEEKLY;BYDAY=SA,SU with windows of 6 hours.",
            )
        return value


class ClusterSettings(Adoptable):
    """The Kubernetes cluster."""

    existing: ResourceName | None = Field(
        None,
        description="A cluster to use as it is, in the stack's region or zone. It must have its DNS endpoint, the "
        "Gateway API and Workload Identity enabled. Without it a cluster is made.",
    )
    mode: Literal["autopilot", "standard"] = Field(
        "autopilot",
        description="Who looks after the nodes: Google, who charges what pods request, or this stack's pool.",
        json_schema_extra={
            "consequence": "There is no such kind of cluster.",
            "remedy": "Write autopilot or standard.",
        },
    )
    node_pool: NodePoolSettings | None = Field(
        None, description="The pool of a Standard cluster. An Autopilot cluster has none."
    )
    release_channel: Literal["rapid", "regular", "stable"] = Field(
        "regular",
        description="How soon Kubernetes versions arrive.",
        json_schema_extra={
            "consequence": "GKE would refuse the cluster.",
            "remedy": "Write rapid, regular or stable.",
        },
    )
    maintenance: MaintenanceSettings = Field(
        default_factory=MaintenanceSettings, description="When Google may upgrade the cluster."
    )
    binary_authorization: bool = Field(
        False,
        description="Run images of this stack's registry alone, besides Google's own and allowedImages. "
        "The policy belongs to the project: one stack in a project may set it.",
    )
    allowed_images: list[str] = Field(
        default_factory=list,
        examples=["registry.gitlab.com/gitlab-org/cluster-integration/gitlab-agent/*"],
        description="Patterns of further images that binaryAuthorization lets run.",
    )
    encryption_key: KeyName | None = Field(
        None,
        examples=["projects/P/locations/REGION/keyRings/RING/cryptoKeys/KEY"],
        description="Cloud KMS key, in the stack's region, that encrypts Kubernetes Secrets in the cluster's database.",
    )
    fleet: bool = Field(False, description="Register the cluster in the project's fleet.")
    security_posture: Literal["basic", "disabled"] = Field(
        "basic",
        description="Google's checks of the workloads' configuration, at no charge.",
        json_schema_extra={"consequence": "GKE would refuse the cluster.", "remedy": "Write basic or disabled."},
    )

    @field_validator("node_pool")
    @classmethod
    def _standard_has_the_pool(cls, value: NodePoolSettings | None, info: ValidationInfo) -> NodePoolSettings | None:
        if value is not None and info.data.get("mode") == "autopilot":
            raise wrong(
                "is set in an Autopilot cluster",
                "Google makes the nodes there, so the pool would never exist.",
                "Remove nodePool, or write mode: standard.",
            )
        return value

    @field_validator("allowed_images")
    @classmethod
    def _with_a_policy(cls, value: list[str], info: ValidationInfo) -> list[str]:
        if value and not info.data.get("binary_authorization", True):
            raise wrong(
                "is set without binaryAuthorization",
                "Any image runs, so the list would do nothing.",
                "Write binaryAuthorization: true, or remove allowedImages.",
            )
        return value


class RegistrySettings(Adoptable):
    """Where images are kept."""

    existing: ResourceName | None = Field(
        None, description="A Docker repository of Artifact Registry in the stack's region, to use as it is."
    )
    keep_versions: int = Field(
        10, ge=1, le=1000, description="Newest images of each model that are kept even if they have lost their tag."
    )
    untagged_days: int = Field(
        30, ge=1, le=3650, description="Days after which an image without a tag is deleted. A released one has its tag."
    )
    scanning: bool = Field(True, description="Look for known vulnerabilities in each image, at a charge per image.")


class StorageSettings(Adoptable):
    """Where training data and training outputs are: the DVC remote."""

    existing: BucketName | None = Field(None, description="A bucket to use as it is.")
    bucket: BucketName | None = Field(
        None, description="Name of the bucket, unique in all of Google. Without it, <project>-<name>-dvc."
    )
    location: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9-]+$",
        examples=["EU", "europe-west1"],
        description="Region or multi-region. Without it the stack's region.",
    )
    noncurrent_days: int = Field(
        30, ge=1, le=3650, description="Days for which an overwritten or deleted object can be brought back."
    )


class GitLabSettings(Section):
    """A GitLab whose jobs may act in this project, without a key."""

    issuer: Annotated[str, Field(pattern=r"^https://[^\s]+[^/\s]$")] = Field(
        "https://gitlab.com",
        examples=["https://gitlab.example.com"],
        description="Address of the GitLab, without a slash at the end.",
    )
    project_id: Identifier = Field(
        description="Number of this repository in GitLab (Settings, General).",
        json_schema_extra={
            "consequence": "Any project of that GitLab could act here.",
            "remedy": "Write the number that GitLab shows under Settings, General, without quotes.",
        },
    )
    model_project_ids: list[Identifier] = Field(
        default_factory=list, description="Numbers of the repositories that train models; their jobs act as training."
    )
    branch: str = Field("main", min_length=1, pattern=r"^[\w./-]+$", description="Protected branch that is rolled out.")
    keys: str | None = Field(
        None,
        pattern=r"^\s*\{",
        description="The GitLab's public keys (/oauth/discovery/keys, a JSON text), if Google cannot reach it.",
    )

    @field_validator("model_project_ids")
    @classmethod
    def _one_duty(cls, value: list[int], info: ValidationInfo) -> list[int]:
        return _not_both(value, "projectId", info.data.get("project_id"))


class GitHubSettings(Section):
    """Repositories on GitHub whose jobs may act in this project, without a key."""

    repository_id: Identifier = Field(
        description="Number of this repository.",
        json_schema_extra={
            "consequence": "Any repository of the owner could act here.",
            "remedy": "Write the number that `gh api repos/OWNER/NAME --jq .id` prints, without quotes.",
        },
    )
    owner_id: Identifier = Field(
        description="Number of the repository's owner.",
        json_schema_extra={
            "consequence": "Google refuses GitHub as an issuer if no owner is named.",
            "remedy": "Write the number that `gh api repos/OWNER/NAME --jq .owner.id` prints, without quotes.",
        },
    )
    model_repository_ids: list[Identifier] = Field(
        default_factory=list, description="Numbers of the repositories that train models; their jobs act as training."
    )
    branch: str = Field("main", min_length=1, pattern=r"^[\w./-]+$", description="Protected branch that is rolled out.")

    @field_validator("model_repository_ids")
    @classmethod
    def _one_duty(cls, value: list[int], info: ValidationInfo) -> list[int]:
        return _not_both(value, "repositoryId", info.data.get("repository_id"))


def _not_both(others: list[int], key: str, own: int | None) -> list[int]:
    if own in others:
        raise wrong(
            f"has {own}, which is also {key}",
            "Its jobs would have two duties, and none of them could be told apart.",
            f"Remove {own} from the list.",
        )
    return others


class IdentitySettings(Section):
    """Who may act in the project, besides people."""

    gitlab: GitLabSettings | None = Field(None, description="Jobs in GitLab that act without a key.")
    github: GitHubSettings | None = Field(None, description="Jobs in GitHub Actions that act without a key.")
    pool: Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$", min_length=4, max_length=32)] | None = Field(
        None,
        description="Id of the workload identity pool. Without it the stack's name in Google. "
        "Google keeps the id of a deleted pool for 30 days; another id is the way out.",
    )
    key_for_ci: bool = Field(
        False,
        description="Make keys of the accounts plan, apply and training, for a CI system that has no OIDC tokens. "
        "A key is valid until somebody remembers to delete it.",
    )


class EdgeSettings(Section):
    """Who reaches the models from where."""

    public: bool = Field(False, description="Reachable from the internet. Else from the network of the cluster alone.")
    domain: Domain | None = Field(
        None,
        validate_default=True,
        examples=["models.example.com"],
        description="Name of the gateway. With it the gateway has a certificate and speaks HTTPS alone.",
    )
    requests_per_minute: int = Field(
        600, ge=1, le=1_000_000, description="What one client address may ask of a public gateway; more gets 429."
    )
    allowed_ranges: list[Annotated[str, Field(pattern=r"^[0-9a-fA-F.:]+/\d{1,3}$")]] = Field(
        default_factory=list,
        max_length=10,
        examples=["203.0.113.0/24"],
        description="Client addresses that a public gateway lets in, at most 10 ranges. Without it everybody.",
    )

    @field_validator("domain")
    @classmethod
    def _public_has_one(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("public"):
            raise wrong(
                "is missing, and public is true",
                "No certificate could be made, and requests would cross the internet in plain text.",
                "Write a domain that you own, or public: false.",
            )
        return value

    @field_validator("requests_per_minute", "allowed_ranges")
    @classmethod
    def _for_the_public(cls, value: Any, info: ValidationInfo) -> Any:
        if value and info.data.get("public") is False:
            raise wrong(
                "is set, and public is false",
                "An internal gateway has no Cloud Armor in front, so it would do nothing.",
                "Remove it, or write public: true.",
            )
        return value


class AlertSettings(Section):
    """When somebody is told."""

    error_ratio: float = Field(0.05, gt=0, lt=1, description="Part of a version's requests that fail, over 5 minutes.")
    latency_seconds: float = Field(
        1.0,
        gt=0,
        le=7.5,
        description="99th percentile of a version's answers, over 5 minutes, as the server measures it.",
        json_schema_extra={
            "consequence": "The server's histogram ends at 10 seconds, so the alert could never be told from its end.",
            "remedy": "Write more than 0 and at most 7.5.",
        },
    )
    not_ready_seconds: int = Field(
        300, ge=60, le=86400, multiple_of=30, description="For how long a version may have no ready pod."
    )


class ObservabilitySettings(Section):
    """What is watched and who is told."""

    enabled: bool = Field(True, description="Collect the servers' metrics, draw the dashboard, raise alerts.")
    emails: list[Email] = Field(
        default_factory=list,
        examples=["team@example.com"],
        description="Who is told of an alert. Without any, alerts show in the console alone.",
    )
    alerts: AlertSettings = Field(default_factory=AlertSettings, description="When an alert is raised.")

    @field_validator("emails")
    @classmethod
    def _told_apart(cls, value: list[str]) -> list[str]:
        if len(set(names(value))) < len(value):
            raise wrong(
                f"is {', '.join(value)}, and two of them are alike",
                "Both would have one name in the stack, and one would replace the other.",
                "Write each address once.",
            )
        return value


class StateSettings(Section):
    """Where the state of this stack is; `make init-gcp` made it and prints these two lines."""

    bucket: BucketName = Field(description="Bucket of PULUMI_BACKEND_URL, without gs://.")
    key: KeyName = Field(
        examples=["projects/P/locations/REGION/keyRings/RING/cryptoKeys/KEY"],
        description="Key of the stack's secrets provider, without gcpkms://.",
    )


class GcpSettings(Section):
    """The platform on Google Cloud. A stack without this section declares none of it."""

    project: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$")] = Field(
        description="Id of the project, not its name or number. It must exist and have billing.",
        json_schema_extra={
            "consequence": "There would be nothing to make the platform in.",
            "remedy": "Write the id that `gcloud projects list` shows in its first column.",
        },
    )
    region: Annotated[str, Field(pattern=r"^[a-z]+-[a-z]+\d+$")] = Field(
        examples=["europe-west1"], description="Where everything is, unless a key says otherwise."
    )
    zone: Annotated[str, Field(pattern=r"^[a-z]+-[a-z]+\d+-[a-z]$")] | None = Field(
        None,
        examples=["europe-west1-b"],
        description="The one zone of a Standard cluster that shall not be regional: cheaper, and gone when it is gone.",
    )
    name: Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])$", min_length=4, max_length=LONGEST_NAME)] = Field(
        "model-serving",
        description="What every name in the project begins with. Two stacks in one project need two.",
    )
    deletion_protection: bool = Field(
        True,
        description="Refuse to delete the cluster, the registry and the DVC bucket, whoever asks. "
        "To delete them: write false, `pulumi up`, then destroy.",
    )
    services: ServiceSettings = Field(default_factory=ServiceSettings, description="Google's APIs.")
    network: NetworkSettings = Field(default_factory=NetworkSettings, description="Where the nodes are.")
    cluster: ClusterSettings = Field(
        default_factory=ClusterSettings, validate_default=True, description="The Kubernetes cluster."
    )
    registry: RegistrySettings = Field(default_factory=RegistrySettings, description="Where images are kept.")
    storage: StorageSettings = Field(default_factory=StorageSettings, description="The DVC remote.")
    identity: IdentitySettings = Field(default_factory=IdentitySettings, description="Who may act in the project.")
    gateway: EdgeSettings = Field(default_factory=EdgeSettings, description="Who reaches the models from where.")
    observability: ObservabilitySettings = Field(
        default_factory=ObservabilitySettings, description="What is watched and who is told."
    )
    state: StateSettings | None = Field(
        None,
        validate_default=True,
        description="Where the stack's state is, so that pipelines are let in. `make init-gcp` prints it.",
    )

    @field_validator("zone")
    @classmethod
    def _in_the_region(cls, value: str | None, info: ValidationInfo) -> str | None:
        region = info.data.get("region")
        if value is not None and region is not None and value.rpartition("-")[0] != region:
            raise wrong(
                f"is {value}, which is not in {region}",
                "The cluster would be far from its network, which Google refuses.",
                f"Write a zone of the region, e.g. {region}-b, or change region.",
            )
        return value

    @field_validator("cluster")
    @classmethod
    def _in_place(cls, value: ClusterSettings, info: ValidationInfo) -> ClusterSettings:
        zone, region = info.data.get("zone"), info.data.get("region")
        if zone is not None and value.existing is None and value.mode == "autopilot":
            raise wrong(
                f"is an Autopilot cluster, and zone is {zone}",
                "Autopilot clusters are regional, so the zone would do nothing.",
                "Remove zone, or write mode: standard under cluster.",
            )
        if region is not None and value.encryption_key and value.encryption_key.split("/")[3] != region:
            raise wrong(
                f"has the encryptionKey {value.encryption_key}, which is not in {region}",
                "GKE takes keys of its own region alone and would refuse the cluster.",
                f"Name a key in {region}.",
            )
        return value

    @field_validator("state")
    @classmethod
    def _pipelines_need_it(cls, value: StateSettings | None, info: ValidationInfo) -> StateSettings | None:
        identity = info.data.get("identity")
        if value is None and identity is not None and (identity.gitlab or identity.github or identity.key_for_ci):
            raise wrong(
                "is missing, and identity lets pipelines in",
                "A pipeline could log in, but not read the state, and every job of it would fail.",
                "Write the two lines that `make init-gcp` prints.",
            )
        return value

    @property
    def location(self) -> str:
        """Where the cluster is: its zone if it has but one, else the region."""
        return self.zone or self.region

    @property
    def bucket(self) -> str:
        """Name of the DVC remote's bucket."""
        return self.storage.existing or self.storage.bucket or f"{self.project}-{self.name}-dvc"

    @property
    def image_registry(self) -> str:
        """Where images are pushed to, known before it exists: host, project and repository, without a scheme."""
        return f"{self.region}-docker.pkg.dev/{self.project}/{self.registry.existing or self.name}"

    def slug(self, *parts: str) -> str:
        """A name in the project, e.g. ``model-serving-nodes``."""
        return "-".join([self.name, *parts])


def names(values: Iterable[str]) -> list[str]:
    """Short, stable names for what a list holds, e.g. ``team-example-com`` for an address."""
    return [re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-") for value in values]
