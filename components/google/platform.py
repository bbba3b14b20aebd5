"""The platform on Google Cloud: the components of a stack's ``gcp`` section.

Imported only for a stack with that section, because Google's SDK takes long to load.
"""

from collections.abc import Sequence
from typing import Any

import pulumi_gcp as gcp
from pulumi import ComponentResource, Input, Output, Resource, ResourceOptions

from components.google.cluster import Cluster, ClusterAccess, ClusterArgs
from components.google.edge import Edge, GatewayPolicy, ServicePolicies
from components.google.identity import NODES, READING_DUTIES, VERIFY, Deployment, Identity
from components.google.network import Network
from components.google.observability import SCRAPER_NAMESPACES, Collection, Observability, ObservabilityArgs
from components.google.registry import Registry
from components.google.reviews import Reviews
from components.google.services import Services
from components.google.storage import StateAccess, Storage
from model_serving.stack.google import GcpSettings
from model_serving.stack.settings import Settings


class Platform(ComponentResource):
    """Everything in Google Cloud, from the APIs to the alerts.

    ``equip`` and ``equip_service`` declare its parts inside the cluster, once a provider can reach it. ``namespace`` is
    that of the model servers, for the queries of the dashboard and the alerts. ``deployment`` is the environment whose
    jobs may update the stack.
    """

    def __init__(
        self,
        name: str,
        settings: GcpSettings,
        namespace: str,
        deployment: Deployment,
        opts: ResourceOptions | None = None,
    ) -> None:
        google = ResourceOptions(providers=[_provider(settings)])
        super().__init__("model-serving:index:Platform", name, None, ResourceOptions.merge(opts, google))
        self._settings = settings
        services = Services("services", settings, ResourceOptions(parent=self))
        child = ResourceOptions(parent=self, transformations=[services.before_use])
        self.identity = Identity("identity", settings, deployment, child)
        members = self.identity.members
        self.storage = Storage("storage", settings, members, child)
        if settings.state:
            StateAccess("state", settings.state, members, child)
        self.registry = Registry("registry", settings, members, child)
        network = Network("network", settings, child)
        cluster = ClusterArgs(
            settings=settings,
            network=network,
            node_account=self.identity.emails[NODES],
            admitted=self.registry.admitted,
        )
        self.cluster = Cluster("cluster", cluster, child)
        self.edge = Edge("edge", settings, network, child)
        self.scraper_namespaces: Sequence[str] = ()
        if settings.observability.enabled:
            watched = ObservabilityArgs(settings=settings, cluster=self.cluster.name, namespace=namespace)
            Observability("observability", watched, child)
            self.scraper_namespaces = SCRAPER_NAMESPACES
        self.register_outputs({})

    @property
    def outputs(self) -> dict[str, Any]:
        """Outputs of the stack, for people and pipelines."""
        return {
            "registry": self.registry.url,
            "dvcRemote": self.storage.url,
            "accounts": dict(self.identity.emails),
            "identityProviders": self.identity.providers,
            "keys": self.identity.keys,
            "address": self.edge.address,
            "dnsRecords": self.edge.dns_records,
        }

    @property
    def verifier(self) -> Output[str]:
        """Who checks the stack for drift: a user of the cluster."""
        return self.identity.emails[VERIFY]

    def equip(self, settings: Settings, namespace: Input[str], gateway: Input[str], opts: ResourceOptions) -> None:
        """Declares the platform's parts inside the cluster: for the models and their Gateway, and for reviews."""
        ClusterAccess("access", {duty: self.identity.emails[duty] for duty in READING_DUTIES}, opts)
        if self._settings.observability.enabled:
            Collection("collection", namespace, opts)
        if self.edge.ssl_policy is not None:
            GatewayPolicy("gateway", opts, namespace=namespace, gateway=gateway, ssl_policy=self.edge.ssl_policy)
        if settings.has_reviews:
            Reviews("reviews", settings, self, opts)

    def equip_service(
        self,
        name: str,
        *,
        namespace: Input[str],
        ready_path: str,
        ready_port: int | None = None,
        drain_seconds: int,
        answer_seconds: int,
        opts: ResourceOptions,
    ) -> Resource:
        """Declares the load balancer's policies for one Service; a route to the Service should depend on them."""
        return ServicePolicies(
            name,
            opts,
            namespace=namespace,
            ready_path=ready_path,
            ready_port=ready_port,
            drain_seconds=drain_seconds,
            answer_seconds=answer_seconds,
            security_policy=self.edge.security_policy,
            iap=self._settings.gateway.iap,
        )


def _provider(settings: GcpSettings) -> gcp.Provider:
    labels = {"managed-by": "pulumi", "platform": settings.name}
    return gcp.Provider("google", project=settings.project, region=settings.region, default_labels=labels)
