"""The platform on Google Cloud: its parts, put together as a stack's ``gcp`` section says.

Imported only for a stack with that section, as are the classes of components/google.py, through which it meets the SDK.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi_gcp as gcp
from pulumi import ComponentResource, Input, Output, Resource, ResourceOptions

from components.google.cluster import Cluster, ClusterAccess, ClusterAccessArgs, ClusterArgs, Maintenance, NodePool
from components.google.edge import (
    Edge,
    EdgeArgs,
    GatewayPolicy,
    GatewayPolicyArgs,
    ServicePolicies,
    ServicePoliciesArgs,
)
from components.google.identity import (
    APPLY,
    CERTIFICATE,
    FEDERATION,
    FLEET,
    NODES,
    OWN_BUCKET,
    OWN_REGISTRY,
    PLAN,
    POLICY,
    PUBLIC,
    TRAINING,
    GitHub,
    GitLab,
    Identity,
    IdentityArgs,
)
from components.google.network import ExistingNetwork, Network, NetworkArgs
from components.google.observability import (
    SCRAPER_NAMESPACES,
    Alerts,
    Collection,
    CollectionArgs,
    Observability,
    ObservabilityArgs,
)
from components.google.registry import Registry, RegistryArgs
from components.google.services import Services, ServicesArgs
from components.google.storage import StateAccess, StateAccessArgs, Storage, StorageArgs
from model_serving.stack.google import (
    GcpSettings,
    GitHubSettings,
    GitLabSettings,
    names,
)
from model_serving.stack.google_cluster import NetworkSettings, NodePoolSettings


@dataclass(frozen=True, kw_only=True)
class PlatformArgs:
    """A platform.

    Attributes:
        settings: the stack's ``gcp`` section, checked.
        namespace: Kubernetes namespace of the model servers, which the dashboard and the alerts name.
    """

    settings: GcpSettings
    namespace: str


class Platform(ComponentResource):
    """Everything in Google Cloud, from the APIs to the alerts.

    What it has inside the cluster is declared by ``equip`` and ``equip_service``, once there is a way in.
    """

    def __init__(self, name: str, args: PlatformArgs, opts: ResourceOptions | None = None) -> None:
        google = ResourceOptions(providers=[_provider(args.settings)])
        super().__init__("model-serving:index:Platform", name, None, ResourceOptions.merge(opts, google))
        self._settings = args.settings
        services = self._services()
        self._child = ResourceOptions(parent=self, transformations=[services.before_use])
        self.identity = self._identity()
        self.storage = self._storage()
        self._state_access()
        self.registry = self._registry()
        network = self._network()
        self.cluster = self._cluster(network)
        self.edge = self._edge(network)
        self._observability(args.namespace)
        self.scraper_namespaces: Sequence[str] = SCRAPER_NAMESPACES if args.settings.observability.enabled else ()
        self.register_outputs({})

    @property
    def outputs(self) -> dict[str, Any]:
        """What people and pipelines need of it, for the outputs of the stack."""
        return {
            "registry": self.registry.url,
            "dvcRemote": self.storage.url,
            "accounts": dict(self.identity.emails),
            "identityProviders": self.identity.providers,
            "keys": self.identity.keys,
            "address": self.edge.address,
            "dnsRecords": self.edge.dns_records,
        }

    def equip(self, namespace: Input[str], gateway: Input[str], opts: ResourceOptions) -> None:
        """Declares what belongs to the platform inside the cluster.

        Args:
            namespace: of the model servers and the gateway.
            gateway: name of the Gateway.
            opts: with the provider of the cluster.
        """
        ClusterAccess("access", ClusterAccessArgs(viewers={PLAN: self.identity.emails[PLAN]}), opts)
        if self._settings.observability.enabled:
            Collection("collection", CollectionArgs(namespace=namespace), opts)
        if self.edge.ssl_policy is not None:
            policy = GatewayPolicyArgs(namespace=namespace, gateway=gateway, ssl_policy=self.edge.ssl_policy)
            GatewayPolicy("gateway", policy, opts)

    def equip_service(
        self, name: str, *, namespace: Input[str], ready_path: str, drain_seconds: int, opts: ResourceOptions
    ) -> Resource:
        """Declares how Google's load balancer treats one Service; whoever routes to it should depend on what returns.

        Args:
            name: of the Service.
            namespace: of the Service.
            ready_path: what answers 200 exactly when the server can serve.
            drain_seconds: for how long a leaving pod goes on serving.
            opts: with the provider of the cluster.
        """
        policies = ServicePoliciesArgs(
            namespace=namespace,
            service=name,
            ready_path=ready_path,
            drain_seconds=drain_seconds,
            security_policy=self.edge.security_policy,
        )
        return ServicePolicies(name, policies, opts)

    def _services(self) -> Services:
        settings = self._settings
        further = {
            "binaryauthorization": settings.cluster.binary_authorization,
            "certificatemanager": settings.gateway.domain is not None,
            "containerscanning": settings.registry.scanning and settings.registry.existing is None,
            "gkehub": settings.cluster.fleet,
        }
        apis = [api for api, wanted in further.items() if wanted]
        args = ServicesArgs(project=settings.project, further=apis, enable=settings.services.enable)
        return Services("services", args, ResourceOptions(parent=self))

    def _identity(self) -> Identity:
        settings, trusted = self._settings, self._settings.identity
        needs = {
            CERTIFICATE: settings.gateway.domain is not None,
            FEDERATION: trusted.gitlab is not None or trusted.github is not None,
            FLEET: settings.cluster.fleet,
            OWN_BUCKET: settings.storage.existing is None,
            OWN_REGISTRY: settings.registry.existing is None,
            POLICY: settings.cluster.binary_authorization,
            PUBLIC: settings.gateway.public,
        }
        args = IdentityArgs(
            project=settings.project,
            name=settings.name,
            pool=trusted.pool or settings.name,
            gitlab=_gitlab(trusted.gitlab),
            github=_github(trusted.github),
            key_for_ci=trusted.key_for_ci,
            needs=frozenset(need for need, there in needs.items() if there),
        )
        return Identity("identity", args, self._child)

    def _storage(self) -> Storage:
        settings = self._settings
        args = StorageArgs(
            project=settings.project,
            bucket=settings.bucket,
            location=settings.storage.location or settings.region,
            noncurrent_days=settings.storage.noncurrent_days,
            writers={TRAINING: self.identity.members[TRAINING]},
            deletion_protection=settings.deletion_protection,
            exists=settings.storage.existing is not None,
        )
        return Storage("storage", args, self._child)

    def _state_access(self) -> None:
        if state := self._settings.state:
            members = self.identity.members
            readers, writers = {PLAN: members[PLAN]}, {APPLY: members[APPLY]}
            args = StateAccessArgs(bucket=state.bucket, key=state.key, readers=readers, writers=writers)
            StateAccess("state", args, self._child)

    def _registry(self) -> Registry:
        settings, members = self._settings, self.identity.members
        args = RegistryArgs(
            project=settings.project,
            location=settings.region,
            repository=settings.registry.existing or settings.name,
            keep_versions=settings.registry.keep_versions,
            untagged_days=settings.registry.untagged_days,
            scanning=settings.registry.scanning,
            readers={NODES: members[NODES]},
            writers={APPLY: members[APPLY]},
            deletion_protection=settings.deletion_protection,
            exists=settings.registry.existing is not None,
        )
        return Registry("registry", args, self._child)

    def _network(self) -> Network:
        settings = self._settings
        args = NetworkArgs(
            project=settings.project,
            region=settings.region,
            name=settings.name,
            nodes=settings.network.nodes,
            pods=settings.network.pods,
            services=settings.network.services,
            # A public gateway's proxies are in Google's own network.
            proxies=None if settings.gateway.public else settings.network.proxies,
            nat=settings.network.nat,
            existing=_existing(settings.network),
        )
        return Network("network", args, self._child)

    def _cluster(self, network: Network) -> Cluster:
        settings, wanted = self._settings, self._settings.cluster
        ours: Input[str] = Output.concat(self.registry.url, "/**")
        args = ClusterArgs(
            project=settings.project,
            name=wanted.existing or settings.name,
            location=settings.location,
            network=network.network,
            subnetwork=network.subnetwork,
            pods_range=network.pods_range,
            services_range=network.services_range,
            node_account=self.identity.emails[NODES],
            node_pool=_pool(wanted.node_pool or NodePoolSettings()) if wanted.mode == "standard" else None,
            release_channel=wanted.release_channel,
            maintenance=Maintenance(
                start=wanted.maintenance.start,
                end=wanted.maintenance.end,
                recurrence=wanted.maintenance.recurrence,
            ),
            deletion_protection=settings.deletion_protection,
            security_posture=wanted.security_posture,
            allowed_images=[ours, *wanted.allowed_images] if wanted.binary_authorization else None,
            encryption_key=wanted.encryption_key,
            fleet=wanted.fleet,
            after=network.ready,
            exists=wanted.existing is not None,
        )
        return Cluster("cluster", args, self._child)

    def _edge(self, network: Network) -> Edge:
        settings, wanted = self._settings, self._settings.gateway
        args = EdgeArgs(
            project=settings.project,
            region=settings.region,
            name=settings.name,
            subnetwork=network.subnetwork,
            proxies=settings.network.proxies,
            public=wanted.public,
            domain=wanted.domain,
            requests_per_minute=wanted.requests_per_minute,
            allowed_ranges=wanted.allowed_ranges,
            after=network.ready,
        )
        return Edge("edge", args, self._child)

    def _observability(self, namespace: str) -> None:
        settings, wanted = self._settings, self._settings.observability
        if not wanted.enabled:
            return
        args = ObservabilityArgs(
            project=settings.project,
            name=settings.name,
            cluster=self.cluster.name,
            namespace=namespace,
            emails=dict(zip(names(wanted.emails), wanted.emails, strict=True)),
            alerts=Alerts(
                error_ratio=wanted.alerts.error_ratio,
                latency_seconds=wanted.alerts.latency_seconds,
                not_ready_seconds=wanted.alerts.not_ready_seconds,
            ),
        )
        Observability("observability", args, self._child)


def _provider(settings: GcpSettings) -> gcp.Provider:
    labels = {"managed-by": "pulumi", "platform": settings.name}
    return gcp.Provider("google", project=settings.project, region=settings.region, default_labels=labels)


def _gitlab(settings: GitLabSettings | None) -> GitLab | None:
    if settings is None:
        return None
    return GitLab(
        issuer=settings.issuer,
        project_id=settings.project_id,
        model_project_ids=settings.model_project_ids,
        branch=settings.branch,
        keys=settings.keys,
    )


def _github(settings: GitHubSettings | None) -> GitHub | None:
    if settings is None:
        return None
    return GitHub(
        repository_id=settings.repository_id,
        owner_id=settings.owner_id,
        model_repository_ids=settings.model_repository_ids,
        branch=settings.branch,
    )


def _existing(settings: NetworkSettings) -> ExistingNetwork | None:
    if settings.existing is None:
        return None
    return ExistingNetwork(**settings.existing.model_dump())


def _pool(settings: NodePoolSettings) -> NodePool:
    return NodePool(
        machine_type=settings.machine_type,
        spot=settings.spot,
        minimum=settings.minimum_nodes,
        maximum=settings.maximum_nodes,
    )
