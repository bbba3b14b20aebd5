"""The Kubernetes cluster on Google Cloud, its kubeconfig, and read access inside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pulumi
import pulumi_gcp as gcp
from pulumi import ComponentResource, Input, Output, Resource, ResourceOptions

from components.google.cluster_status import require_usable
from components.google.identity import PERMISSIONS
from components.google.network import Network
from components.manifest import Manifest
from model_serving.stack import gke
from model_serving.stack.google import GcpSettings
from model_serving.stack.google_cluster import NodePoolSettings

CLOUD_PLATFORM: Final = "https://www.googleapis.com/auth/cloud-platform"
"""Scope of the nodes: the widest, because the roles of their account limit them."""
RBAC: Final = "rbac.authorization.k8s.io"


@dataclass(frozen=True, kw_only=True)
class ClusterArgs:
    """A cluster.

    Attributes:
        node_account: email of the nodes' service account.
        admitted: URLs of the registries whose images Binary Authorization admits.
    """

    settings: GcpSettings
    network: Network
    node_account: Input[str]
    admitted: Sequence[Input[str]]

    @property
    def name(self) -> str:
        return self.settings.cluster_name.name

    @property
    def node_pool(self) -> NodePoolSettings | None:
        """The nodes of a Standard cluster; None for Autopilot."""
        cluster = self.settings.cluster
        return (cluster.node_pool or NodePoolSettings()) if cluster.mode == "standard" else None


class Cluster(ComponentResource):
    """A private cluster: nodes without public addresses, a control plane reachable only by its DNS endpoint.

    It has no password, client certificate or token: callers log in to Google, and IAM admits them. An existing cluster
    is looked up and not changed.
    """

    def __init__(self, name: str, args: ClusterArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:Cluster", name, None, opts)
        self.name = args.name
        if args.settings.cluster.existing:
            endpoint = self._once_usable(args, _endpoint_of_existing(self, args))
        else:
            cluster = self._cluster(name, args)
            endpoint = self._once_usable(args, cluster.control_plane_endpoints_config.apply(_endpoint), cluster)
            if args.node_pool:
                # Also through the pool: without nodes no pod starts.
                pool = self._pool(name, args, args.node_pool, cluster)
                endpoint = Output.all(endpoint, pool.id).apply(lambda values: str(values[0]))
        self.kubeconfig: Output[str] = Output.json_dumps(
            endpoint.apply(lambda host: gke.kubeconfig(args.name, str(host)))
        )
        """A kubeconfig without secrets; needs gke-gcloud-auth-plugin on PATH."""
        self.register_outputs({"kubeconfig": self.kubeconfig})

    def _cluster(self, name: str, args: ClusterArgs) -> gcp.container.Cluster:
        settings, network, wanted = args.settings, args.network, args.settings.cluster
        before = [*network.ready]
        if wanted.encryption_key:
            before.append(self._let_google_encrypt(name, settings.project, wanted.encryption_key))
        if wanted.binary_authorization:
            before.append(self._admit(name, args))
        return gcp.container.Cluster(
            name,
            name=args.name,
            project=settings.project,
            location=settings.location,
            network=network.network,
            subnetwork=network.subnetwork,
            **(_standard if args.node_pool else _autopilot)(args.node_account),
            ip_allocation_policy={
                "cluster_secondary_range_name": network.pods_range,
                "services_secondary_range_name": network.services_range,
            },
            private_cluster_config={"enable_private_nodes": True},
            # Only by DNS name: IAM checks every request before it reaches the control plane, which has no address of
            # its own. An empty master_authorized_networks_config would open the addresses again:
            # https://github.com/terraform-google-modules/terraform-google-kubernetes-engine/issues/2216
            control_plane_endpoints_config={
                "dns_endpoint_config": {"allow_external_traffic": True},
                "ip_endpoints_config": {"enabled": False},
            },
            workload_identity_config={"workload_pool": f"{settings.project}.svc.id.goog"},
            gateway_api_config={"channel": "CHANNEL_STANDARD"},
            release_channel={"channel": wanted.release_channel.upper()},
            maintenance_policy={
                "recurring_window": {
                    "start_time": wanted.maintenance.start,
                    "end_time": wanted.maintenance.end,
                    "recurrence": wanted.maintenance.recurrence,
                }
            },
            monitoring_config={
                # DEPLOYMENT and POD: metrics of Deployments' state, which the alerts query.
                "enable_components": ["SYSTEM_COMPONENTS", "DEPLOYMENT", "POD"],
                "managed_prometheus": {"enabled": True},
            },
            security_posture_config={"mode": wanted.security_posture.upper()},
            binary_authorization=(
                {"evaluation_mode": "PROJECT_SINGLETON_POLICY_ENFORCE"} if wanted.binary_authorization else None
            ),
            database_encryption=(
                {"state": "ENCRYPTED", "key_name": wanted.encryption_key} if wanted.encryption_key else None
            ),
            fleet={"project": settings.project} if wanted.fleet else None,
            # Not Pulumi's protect, which only refuses the cluster: a destroy still deletes everything that does not
            # need it, 59 of 76 resources (Pulumi 3.259, seen 2026-11-22). The provider's refusal stops the destroy.
            deletion_protection=settings.deletion_protection,
            opts=ResourceOptions(
                parent=self,
                depends_on=before,
                # Only the default pool, which is removed at once, has it, see _standard.
                ignore_changes=["nodeConfig"] if args.node_pool else None,
            ),
        )

    def _pool(
        self, name: str, args: ClusterArgs, pool: NodePoolSettings, cluster: gcp.container.Cluster
    ) -> gcp.container.NodePool:
        return gcp.container.NodePool(
            name,
            # No name: Pulumi generates one, so that the new pool exists before the old one is deleted.
            project=args.settings.project,
            location=args.settings.location,
            cluster=cluster.name,
            autoscaling={
                "total_min_node_count": pool.minimum_nodes,
                "total_max_node_count": pool.maximum_nodes,
                "location_policy": "ANY" if pool.spot else "BALANCED",
            },
            # The autoscaler decides.
            ignore_node_count_changes=True,
            management={"auto_repair": True, "auto_upgrade": True},
            upgrade_settings={"strategy": "SURGE", "max_surge": 1, "max_unavailable": 0},
            node_config={
                "machine_type": pool.machine_type,
                "spot": pool.spot,
                "service_account": args.node_account,
                "oauth_scopes": [CLOUD_PLATFORM],
                "workload_metadata_config": {"mode": "GKE_METADATA"},
                "shielded_instance_config": {"enable_secure_boot": True, "enable_integrity_monitoring": True},
            },
            opts=ResourceOptions(parent=self),
        )

    def _once_usable(self, args: ClusterArgs, endpoint: Output[str], *after: Resource) -> Output[str]:
        """The endpoint, once Google says that the cluster can be used; at once in a preview, which applies nothing."""
        if pulumi.runtime.is_dry_run():
            return endpoint
        cluster = args.settings.cluster_name
        after_it = pulumi.InvokeOutputOptions(parent=self, depends_on=[*after])
        login = gcp.organizations.get_client_config_output(opts=after_it)

        async def look(values: Sequence[str]) -> str:
            host, token = values
            await require_usable(cluster, token, self)
            return host

        # The token is a secret, the endpoint is not.
        return Output.unsecret(Output.all(endpoint, login.access_token).apply(look))

    def _let_google_encrypt(self, name: str, project: str, key: str) -> Resource:
        """GKE's own account in the project uses the key."""
        child = ResourceOptions(parent=self)
        agent = gcp.projects.ServiceIdentity(
            f"{name}-agent", project=project, service="container.googleapis.com", opts=child
        )
        role = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
        return gcp.kms.CryptoKeyIAMMember(
            f"{name}-agent", crypto_key_id=key, role=role, member=agent.member, opts=child
        )

    def _admit(self, name: str, args: ClusterArgs) -> Resource:
        registries = (Output.concat(url, "/**") for url in args.admitted)
        images: list[Input[str]] = [*registries, *args.settings.cluster.allowed_images]
        return gcp.binaryauthorization.Policy(
            name,
            project=args.settings.project,
            description="Images of this project's registry and what GKE itself runs",
            # Google's own list of the images that GKE needs.
            global_policy_evaluation_mode="ENABLE",
            admission_whitelist_patterns=[{"name_pattern": pattern} for pattern in images],
            default_admission_rule={
                "evaluation_mode": "ALWAYS_DENY",
                "enforcement_mode": "ENFORCED_BLOCK_AND_AUDIT_LOG",
            },
            opts=ResourceOptions(parent=self),
        )


def _autopilot(node_account: Input[str]) -> dict[str, Any]:
    return {
        "enable_autopilot": True,
        # Not node_config, which replaces an Autopilot cluster at every update:
        # https://github.com/pulumi/pulumi-gcp/issues/2247
        "cluster_autoscaling": {
            "auto_provisioning_defaults": {"service_account": node_account, "oauth_scopes": [CLOUD_PLATFORM]}
        },
    }


def _standard(node_account: Input[str]) -> dict[str, Any]:
    return {
        # GKE cannot create a cluster without a pool. This one is removed at once; until then it would run as the
        # project's default account, as which no one here may act.
        "remove_default_node_pool": True,
        "initial_node_count": 1,
        "node_config": {"service_account": node_account, "oauth_scopes": [CLOUD_PLATFORM]},
        # Enforces network policies, as Autopilot does.
        "datapath_provider": "ADVANCED_DATAPATH",
        "enable_shielded_nodes": True,
    }


def _endpoint(config: gcp.container.outputs.ClusterControlPlaneEndpointsConfig) -> str:
    return str(config.dns_endpoint_config.endpoint if config.dns_endpoint_config else "")


def _endpoint_of_existing(parent: ComponentResource, args: ClusterArgs) -> Output[str]:
    project, location = args.settings.project, args.settings.location
    found = gcp.container.get_cluster_output(
        name=args.name,
        location=location,
        project=project,
        opts=pulumi.InvokeOutputOptions(parent=parent, depends_on=[*args.network.ready]),
    )

    def endpoint(configs: Sequence[Any]) -> str:
        host = configs[0].dns_endpoint_configs[0].endpoint if configs and configs[0].dns_endpoint_configs else ""
        if not host:
            raise pulumi.RunError(
                f"the cluster {args.name} in {location} has no DNS endpoint.\n"
                "  The program cannot reach it: its addresses are inside Google's network, or change.\n"
                f"  Run `gcloud container clusters update {args.name} --location {location} "
                f"--project {project} --enable-dns-access`."
            )
        return str(host)

    return found.control_plane_endpoints_configs.apply(endpoint)


class ClusterAccess(ComponentResource):
    """Read access for *plan* and *verify* to what this program declares in the cluster; IAM only lets them connect.

    It does not cover Secrets. *apply* needs no grant: IAM makes it an administrator of the cluster. ``readers`` maps a
    duty to the email of its account.
    """

    def __init__(self, name: str, readers: Mapping[str, Input[str]], opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:ClusterAccess", name, None, opts)
        role = Manifest(
            name,
            f"{RBAC}/v1",
            "ClusterRole",
            metadata={"name": "model-serving-preview"},
            rules=[
                {"apiGroups": [group], "resources": kinds, "verbs": ["get", "list", "watch"]}
                for group, kinds in PERMISSIONS["cluster"].items()
            ],
            opts=ResourceOptions(parent=self),
        )
        for duty, email in readers.items():
            Manifest(
                f"{name}-{duty}",
                f"{RBAC}/v1",
                "ClusterRoleBinding",
                metadata={"name": f"model-serving-{name}-{duty}"},
                roleRef={"apiGroup": RBAC, "kind": "ClusterRole", "name": role.metadata["name"]},
                # GKE names a service account by its email.
                # https://cloud.google.com/kubernetes-engine/docs/how-to/role-based-access-control
                subjects=[{"apiGroup": RBAC, "kind": "User", "name": email}],
                opts=ResourceOptions(parent=self),
            )
        self.register_outputs({})
