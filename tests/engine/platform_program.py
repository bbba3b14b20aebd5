"""Every cloud component in one program, for as long as a stack has no file of its own in stacks/.

The tests put it in the place of ``__main__.py``. The three variants have between them every optional part.
"""

from __future__ import annotations

from typing import Any

import pulumi
import pulumi_gcp as gcp
import pulumi_kubernetes as kubernetes

from components.cluster import Cluster, ClusterAccess, ClusterAccessArgs, ClusterArgs, Maintenance, NodePool
from components.edge import Edge, EdgeArgs, ServicePolicies, ServicePoliciesArgs
from components.identity import (
    CERTIFICATE,
    FEDERATION,
    OWN_BUCKET,
    OWN_REGISTRY,
    POLICY,
    PUBLIC,
    GitHub,
    GitLab,
    Identity,
    IdentityArgs,
)
from components.namespace import ServingNamespace, ServingNamespaceArgs
from components.network import Network, NetworkArgs
from components.observability import Alerts, Collection, CollectionArgs, Observability, ObservabilityArgs
from components.registry import Registry, RegistryArgs
from components.services import Services, ServicesArgs
from components.storage import StateAccess, StateAccessArgs, Storage, StorageArgs

PROJECT, REGION, KEY = (
    "acme-models",
    "europe-west1",
    "projects/acme-models/locations/europe-west1/keyRings/r/cryptoKeys/k",
)
STACK = pulumi.get_stack()
PRODUCTION, STAGING = STACK == "production", STACK == "staging"
ALLOWED_IMAGES = [f"{REGION}-docker.pkg.dev/{PROJECT}/*"]

google = gcp.Provider("google", project=PROJECT, region=REGION)
services = Services(
    "services",
    ServicesArgs(project=PROJECT, further=["certificatemanager", "binaryauthorization"]),
    pulumi.ResourceOptions(providers=[google]),
)
on_google = pulumi.ResourceOptions(providers=[google], transformations=[services.before_use])
network = Network(
    "network",
    NetworkArgs(
        project=PROJECT,
        region=REGION,
        name=STACK,
        nodes="10.0.0.0/22",
        pods="10.16.0.0/14",
        services="10.32.0.0/20",
        proxies=None if PRODUCTION else "10.0.8.0/23",
    ),
    on_google,
)
needs = {OWN_BUCKET, OWN_REGISTRY, FEDERATION, *((PUBLIC, CERTIFICATE, POLICY) if PRODUCTION else ())}
identity = Identity(
    "identity",
    IdentityArgs(
        project=PROJECT,
        name=STACK,
        pool=f"{STACK}-pipelines",
        gitlab=GitLab(issuer="https://gitlab.com", project_id=1, model_project_ids=[2]),
        github=GitHub(repository_id=3, owner_id=4) if STAGING else None,
        key_for_ci=PRODUCTION,
        needs=frozenset(needs),
    ),
    on_google,
)
registry = Registry(
    "registry",
    RegistryArgs(
        project=PROJECT,
        location=REGION,
        repository=STACK,
        keep_versions=10,
        untagged_days=30,
        scanning=True,
        readers={"nodes": identity.members["nodes"]},
        writers={"apply": identity.members["apply"]},
    ),
    on_google,
)
storage = Storage(
    "data",
    StorageArgs(
        project=PROJECT,
        bucket=f"{PROJECT}-{STACK}-data",
        location=REGION,
        noncurrent_days=30,
        writers={"training": identity.members["training"]},
    ),
    on_google,
)
StateAccess(
    "state",
    StateAccessArgs(
        bucket=f"{PROJECT}-state",
        key=KEY,
        readers={"plan": identity.members["plan"]},
        writers={"apply": identity.members["apply"]},
    ),
    on_google,
)
cluster = Cluster(
    "cluster",
    ClusterArgs(
        project=PROJECT,
        name=STACK,
        location=REGION,
        network=network.network,
        subnetwork=network.subnetwork,
        pods_range=network.pods_range,
        services_range=network.services_range,
        node_account=identity.emails["nodes"],
        node_pool=NodePool(machine_type="e2-standard-4", spot=False, minimum=1, maximum=3) if STAGING else None,
        maintenance=Maintenance(start="2026-01-03T01:00:00Z", end="2026-01-03T07:00:00Z", recurrence="FREQ=DAILY"),
        deletion_protection=pulumi.Config().get_bool("protected") or False,
        allowed_images=ALLOWED_IMAGES if PRODUCTION else None,
        encryption_key=KEY if PRODUCTION else None,
        after=network.ready,
    ),
    on_google,
)
edge = Edge(
    "edge",
    EdgeArgs(
        project=PROJECT,
        region=REGION,
        name=STACK,
        subnetwork=network.subnetwork,
        proxies="10.0.8.0/23",
        public=PRODUCTION,
        domain="models.example.com" if PRODUCTION else None,
        after=network.ready,
    ),
    on_google,
)
Observability(
    "watch",
    ObservabilityArgs(
        project=PROJECT,
        name=STACK,
        cluster=cluster.name,
        namespace="models",
        emails={"team": "team@example.com"},
        alerts=Alerts(error_ratio=0.01, latency_seconds=1.0, not_ready_seconds=300),
    ),
    on_google,
)
in_cluster = pulumi.ResourceOptions(
    providers=[kubernetes.Provider("cluster", kubeconfig=cluster.kubeconfig, cluster_identifier=STACK)]
)
ClusterAccess("access", ClusterAccessArgs(viewers={"plan": identity.emails["plan"]}), in_cluster)
namespace = ServingNamespace("models", ServingNamespaceArgs(namespace="models"), in_cluster)
Collection("metrics", CollectionArgs(namespace=namespace.name), in_cluster)
ServicePolicies(
    "iris",
    ServicePoliciesArgs(namespace=namespace.name, service="iris", ready_path="/ready", drain_seconds=10),
    in_cluster,
)
outputs: dict[str, Any] = {
    "registry": registry.url,
    "storage": storage.url,
    "providers": identity.providers,
    "keys": identity.keys,
    "address": edge.address,
}
for key, value in outputs.items():
    pulumi.export(key, value)
