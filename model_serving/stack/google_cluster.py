"""Settings of the network and the cluster, under ``model-serving:gcp``, and the rules between them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from itertools import combinations
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, Field

from model_serving.sections import Section, Violation, wrong
from model_serving.stack.google_names import ImagePattern, KeyName, MachineType, Range, ResourceName, between

_WEEKDAYS: Final = "MO|TU|WE|TH|FR|SA|SU"
_ROLLING_DAYS: Final = 32
_LEAST_HOURS: Final = 48
"""GKE: 48 hours of maintenance in any 32 days, https://cloud.google.com/kubernetes-engine/docs/concepts/maintenance-windows-and-exclusions."""
_LEAST_WINDOW: Final = timedelta(hours=4)


def _time(value: str) -> datetime:
    return datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def _existing_time(value: str) -> str:
    try:
        _time(value)
    except ValueError as error:
        raise wrong(
            f"is {value}, which is not a time: {error}", "Google would refuse it.", "Write e.g. 2026-01-03T01:00:00Z."
        ) from None
    return value


Time = Annotated[str, Field(pattern=r"^[0-9T:Z-]{20}$"), AfterValidator(_existing_time)]


class Adoptable(Section):
    """A part that may already exist. It is then used and never changed, so most other settings do not apply."""

    kept: ClassVar[frozenset[str]] = frozenset()
    """Fields that also apply to an existing part."""
    existing: object = None


class ExistingNetwork(Section):
    """An existing network in the same project."""

    network: ResourceName = Field(examples=["default"], description="Name of the VPC network.")
    subnetwork: ResourceName = Field(
        examples=["nodes"], description="Name of the subnet for the nodes, in the region of the stack."
    )
    pods_range: ResourceName = Field(examples=["pods"], description="Name of the subnet's secondary range for pods.")
    services_range: ResourceName = Field(
        examples=["services"], description="Name of the subnet's secondary range for Services."
    )


class NetworkSettings(Adoptable):
    """The network of the nodes and its address ranges."""

    kept = frozenset({"proxies"})

    # Sizes. Nodes: Google reserves 4 addresses, and a surge upgrade needs spare ones. Pods: a Standard node takes a
    # /24, so a /21 is 8 nodes. The largest sizes, Services and proxies:
    # https://cloud.google.com/kubernetes-engine/docs/concepts/alias-ips and
    # https://cloud.google.com/load-balancing/docs/proxy-only-subnets
    existing: ExistingNetwork | None = Field(
        None, description="An existing network to use unchanged. Without it, the stack creates its own network."
    )
    nodes: Annotated[Range, between(8, 26, "10.0.0.0/22")] = Field(
        "10.0.0.0/22", examples=["10.0.0.0/22"], description="Addresses of the nodes; the default has 1,020."
    )
    pods: Annotated[Range, between(9, 21, "10.16.0.0/14")] = Field(
        "10.16.0.0/14", examples=["10.16.0.0/14"], description="Addresses of pods, a /24 per node."
    )
    services: Annotated[Range, between(16, 27, "10.32.0.0/20")] = Field(
        "10.32.0.0/20", examples=["10.32.0.0/20"], description="Addresses of Services."
    )
    proxies: Annotated[Range, between(8, 26, "10.0.8.0/23")] = Field(
        "10.0.8.0/23",
        examples=["10.0.8.0/23"],
        description="Addresses of the internal gateway's proxies. In an existing network: the range of its proxy-only "
        "subnet, from which the pods accept requests. Unused with a public gateway.",
    )
    nat: bool = Field(
        True,
        description="Allow outbound connections from nodes and pods to the internet, e.g. for the GitLab agent. "
        "Inbound connections remain impossible.",
    )


class NodePoolSettings(Section):
    """The node pool of a Standard cluster."""

    machine_type: MachineType = Field(
        "e2-standard-4",
        examples=["e2-standard-4"],
        description="Machine type of the nodes. A change updates the pool: GKE replaces its nodes one after another.",
    )
    spot: bool = Field(
        False, description="Use spot nodes, which cost a third and can be reclaimed at 30 seconds' notice."
    )
    minimum_nodes: int = Field(1, ge=0, le=1000, description="Minimum number of nodes in the whole pool.")
    maximum_nodes: int = Field(
        6, ge=1, le=1000, description="Maximum number of nodes in the whole pool; limits the cost."
    )


class MaintenanceSettings(Section):
    """Maintenance windows, in which Google may upgrade the cluster."""

    start: Time = Field(
        "2026-01-03T01:00:00Z", examples=["2026-01-03T01:00:00Z"], description="Start of the first window, in UTC."
    )
    end: Time = Field(
        "2026-01-03T07:00:00Z",
        examples=["2026-01-03T07:00:00Z"],
        description="End of the first window, in UTC, at least 4 hours after its start.",
    )
    recurrence: str = Field(
        "FREQ=WEEKLY;BYDAY=SA,SU",
        pattern=rf"^FREQ=(DAILY|WEEKLY;BYDAY=({_WEEKDAYS})(,({_WEEKDAYS}))*)$",
        examples=["FREQ=DAILY", "FREQ=WEEKLY;BYDAY=SA,SU"],
        description="Recurrence of the window, as an RFC 5545 rule by days.",
    )


class ClusterSettings(Adoptable):
    """The Kubernetes cluster."""

    existing: Annotated[ResourceName, Field(max_length=40)] | None = Field(
        None,
        examples=["models"],
        description="An existing cluster to use unchanged, in the stack's region or zone. Its DNS endpoint, the "
        "Gateway API and Workload Identity must be enabled. Without it, a cluster is created.",
    )
    mode: Literal["autopilot", "standard"] = Field(
        "autopilot",
        json_schema_extra={"consequence": "GKE has no such mode.", "remedy": "Write autopilot or standard."},
        description="Node management: autopilot, by Google, which bills what pods request; or standard, with this "
        "stack's node pool.",
    )
    node_pool: NodePoolSettings | None = Field(
        None, description="The node pool of a Standard cluster. An Autopilot cluster has none."
    )
    release_channel: Literal["rapid", "regular", "stable"] = Field(
        "regular",
        json_schema_extra={"consequence": "GKE would refuse the cluster.", "remedy": "Write rapid, regular or stable."},
        description="GKE release channel: how soon Kubernetes versions arrive.",
    )
    maintenance: MaintenanceSettings = Field(
        default_factory=MaintenanceSettings, description="When Google may upgrade the cluster."
    )
    binary_authorization: bool = Field(
        False,
        description="Run only images from this stack's registry, Google's own images and allowedImages. The policy "
        "belongs to the project: only one stack in a project may set it.",
    )
    allowed_images: list[ImagePattern] = Field(
        default_factory=list,
        examples=["registry.gitlab.com/gitlab-org/cluster-integration/gitlab-agent/*"],
        description="Patterns of further images that binaryAuthorization allows.",
    )
    encryption_key: KeyName | None = Field(
        None,
        examples=["projects/P/locations/REGION/keyRings/RING/cryptoKeys/KEY"],
        description="Cloud KMS key, in the stack's region, that encrypts Kubernetes Secrets in the cluster's database.",
    )
    fleet: bool = Field(False, description="Register the cluster in the project's fleet.")
    security_posture: Literal["basic", "disabled"] = Field(
        "basic",
        json_schema_extra={"consequence": "GKE would refuse the cluster.", "remedy": "Write basic or disabled."},
        description="Google's free checks of the workloads' configuration.",
    )


def existing_parts_stay_unchanged(part: Adoptable) -> Iterator[Violation]:
    fields = type(part).model_fields
    given = part.model_fields_set - part.kept - {"existing"}
    if part.existing is not None and given:
        keys = ", ".join(str(info.alias) for name, info in fields.items() if name in given)
        yield (
            f"existing is set together with {keys}",
            "An existing resource is used unchanged, so the other settings would have no effect.",
            f"Remove {keys}, or remove existing to have it made by this program.",
        )


def ranges_share_no_address(network: NetworkSettings) -> Iterator[Violation]:
    if network.existing is not None:
        return
    ranges = [(key, str(value)) for key, value in network if key in ("nodes", "pods", "services", "proxies")]
    for (other, others), (key, value) in combinations(ranges, 2):
        if ip_network(value).overlaps(ip_network(others)):
            yield (
                f"{key} is {value}, which overlaps with {other}, {others}",
                "An address would have two owners, and Google refuses the subnet.",
                "Write ranges that share no address.",
            )


def pool_reaches_its_minimum(pool: NodePoolSettings) -> Iterator[Violation]:
    if pool.maximum_nodes < pool.minimum_nodes:
        yield (
            f"maximumNodes is {pool.maximum_nodes}, less than minimumNodes, {pool.minimum_nodes}",
            "Google refuses such a pool after the cluster has been created.",
            f"Write {pool.minimum_nodes} or more.",
        )


def maintenance_is_long_enough(maintenance: MaintenanceSettings) -> Iterator[Violation]:
    window = _time(maintenance.end) - _time(maintenance.start)
    if not _LEAST_WINDOW <= window <= timedelta(days=1):
        yield (
            f"end is {maintenance.end}, with start {maintenance.start}",
            "GKE only accepts windows of 4 to 24 hours and would refuse the cluster.",
            "Write an end that is 4 to 24 hours after the start.",
        )
        return
    weekdays = maintenance.recurrence.partition("BYDAY=")[2]
    days = _ROLLING_DAYS // 7 * len(set(weekdays.split(","))) if weekdays else _ROLLING_DAYS
    hours = days * (window / timedelta(hours=1))
    if hours < _LEAST_HOURS:
        yield (
            f"recurrence is {maintenance.recurrence}, which makes {hours:g} hours in {_ROLLING_DAYS} days",
            f"GKE requires {_LEAST_HOURS} and would refuse the cluster.",
            "Write longer windows, or more days, e.g. FREQ=WEEKLY;BYDAY=SA,SU with windows of 6 hours.",
        )


def autopilot_has_no_pool(cluster: ClusterSettings) -> Iterator[Violation]:
    if cluster.node_pool is not None and cluster.mode == "autopilot":
        yield (
            "nodePool is set in an Autopilot cluster",
            "Google manages the nodes there, so the pool would never exist.",
            "Remove nodePool, or write mode: standard.",
        )


def allowed_images_need_a_policy(cluster: ClusterSettings) -> Iterator[Violation]:
    if cluster.allowed_images and not cluster.binary_authorization:
        yield (
            "allowedImages is set without binaryAuthorization",
            "All images may run, so the list would have no effect.",
            "Write binaryAuthorization: true, or remove allowedImages.",
        )


RULES: Final = (
    existing_parts_stay_unchanged,
    ranges_share_no_address,
    pool_reaches_its_minimum,
    maintenance_is_long_enough,
    autopilot_has_no_pool,
    allowed_images_need_a_policy,
)
