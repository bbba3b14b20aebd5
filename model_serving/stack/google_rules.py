"""The rules between the settings under ``model-serving:gcp``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import Final

from model_serving.sections import Violation
from model_serving.stack.google import EdgeSettings, GcpSettings, GitHubSettings, GitLabSettings
from model_serving.stack.google_names import refused_bucket


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
