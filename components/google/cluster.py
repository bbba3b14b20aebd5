"""The Kubernetes cluster on Google Cloud, how to reach it, and who may look inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import pulumi
import pulumi_gcp as gcp
from pulumi import ComponentResource, Input, Output, Resource, ResourceOptions

from components.manifest import Manifest

RBAC: Final = "rbac.authorization.k8s.io/v1"
CLOUD_PLATFORM: Final = "https://www.googleapis.com/auth/cloud-platform"
"""The scope of the nodes: the widest, because what they may do is a matter of their account's roles."""


@dataclass(frozen=True, kw_only=True)
class NodePool:
    """The nodes of a Standard cluster.

    Attributes:
        machine_type: what a node is.
        spot: whether nodes cost less and may be taken away at any time.
        minimum: nodes of the whole pool that are kept.
        maximum: nodes of the whole pool at most.
    """

    machine_type: str
    spot: bool
    minimum: int
    maximum: int


@dataclass(frozen=True, kw_only=True)
class Maintenance:
    """When Google may upgrade the cluster.

    Attributes:
        start: begin of the first window, RFC 3339.
        end: end of the first window.
        recurrence: RFC 5545 rule.
    """

    start: str
    end: str
    recurrence: str


@dataclass(frozen=True, kw_only=True)
class ClusterArgs:
    """A cluster.

    Attributes:
        name: its name in Google, at most 40 characters.
        location: region, or the zone of a Standard cluster that has but one.
        network: id of the VPC network.
        subnetwork: id of the nodes' subnet.
        pods_range: name of the subnet's range for pods.
        services_range: name of the subnet's range for Services.
        node_account: email of the service account that nodes run as.
        node_pool: the nodes of a Standard cluster; None is Autopilot.
        release_channel: rapid, regular or stable.
        maintenance: when Google may upgrade.
        deletion_protection: whether Google's provider refuses to delete the cluster.
        security_posture: basic or disabled.
        allowed_images: patterns of the images that Binary Authorization lets run; None runs any.
        encryption_key: Cloud KMS key of the cluster's database; None leaves it to Google's own.
        fleet: whether the cluster joins the project's fleet.
        after: what must be there before, though no argument names it.
        exists: whether the cluster is there already; then it is looked up, and nothing is declared.
    """

    project: str
    name: str
    location: str
    network: Input[str]
    subnetwork: Input[str]
    pods_range: str
    services_range: str
    node_account: Input[str]
    maintenance: Maintenance
    node_pool: NodePool | None = None
    release_channel: Literal["rapid", "regular", "stable"] = "regular"
    deletion_protection: bool = True
    security_posture: Literal["basic", "disabled"] = "basic"
    allowed_images: Sequence[Input[str]] | None = None
    encryption_key: str | None = None
    fleet: bool = False
    after: Sequence[Resource] = ()
    exists: bool = False


class Cluster(ComponentResource):
    """A private cluster: nodes without public addresses, a control plane behind Google's front door alone.

    It has no password, no client certificate and no token: whoever calls shows who they are through Google's own
    login, and is let in by IAM.
    """

    def __init__(self, name: str, args: ClusterArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:Cluster", name, None, opts)
        self.name = args.name
        if args.exists:
            endpoint = _endpoint_of_existing(self, args)
        else:
            cluster = self._cluster(name, args)
            endpoint = cluster.control_plane_endpoints_config.apply(_endpoint)
            if args.node_pool:
                # Through the pool as well: without nodes no pod of anybody's starts.
                pool = self._pool(name, args, args.node_pool, cluster)
                endpoint = Output.all(endpoint, pool.id).apply(lambda values: str(values[0]))
        self.kubeconfig: Output[str] = Output.json_dumps(endpoint.apply(lambda host: _kubeconfig(args.name, str(host))))
        """A kubeconfig without any secret; needs gke-gcloud-auth-plugin on PATH."""
        self.register_outputs({"kubeconfig": self.kubeconfig})

    def _cluster(self, name: str, args: ClusterArgs) -> gcp.container.Cluster:
        before = [*args.after]
        if args.encryption_key:
            before.append(self._let_google_encrypt(name, args, args.encryption_key))
        if args.allowed_images is not None:
            before.append(self._admit(name, args, args.allowed_images))
        return gcp.container.Cluster(
            name,
            name=args.name,
            project=args.project,
            location=args.location,
            network=args.network,
            subnetwork=args.subnetwork,
            **_kind(args),
            ip_allocation_policy={
                "cluster_secondary_range_name": args.pods_range,
                "services_secondary_range_name": args.services_range,
            },
            private_cluster_config={"enable_private_nodes": True},
            # By name alone: Google's front door asks IAM before anything reaches the control plane, which has no
            # address of its own. An empty master_authorized_networks_config would open the addresses again:
            # https://github.com/terraform-google-modules/terraform-google-kubernetes-engine/issues/2216
            control_plane_endpoints_config={
                "dns_endpoint_config": {"allow_external_traffic": True},
                "ip_endpoints_config": {"enabled": False},
            },
            workload_identity_config={"workload_pool": f"{args.project}.svc.id.goog"},
            gateway_api_config={"channel": "CHANNEL_STANDARD"},
            release_channel={"channel": args.release_channel.upper()},
            maintenance_policy={
                "recurring_window": {
                    "start_time": args.maintenance.start,
                    "end_time": args.maintenance.end,
                    "recurrence": args.maintenance.recurrence,
                }
            },
            monitoring_config={
                # DEPLOYMENT and POD: the state of Deployments as metrics, on which the alerts rest.
                "enable_components": ["SYSTEM_COMPONENTS", "DEPLOYMENT", "POD"],
                "managed_prometheus": {"enabled": True},
            },
            security_posture_config={"mode": args.security_posture.upper()},
            binary_authorization=(
                {"evaluation_mode": "PROJECT_SINGLETON_POLICY_ENFORCE"} if args.allowed_images is not None else None
            ),
            database_encryption=(
                {"state": "ENCRYPTED", "key_name": args.encryption_key} if args.encryption_key else None
            ),
            fleet={"project": args.project} if args.fleet else None,
            # Not Pulumi's own protect: it refuses the cluster alone, and a destroy goes on with all that does not need
            # it, 59 of 76 resources (Pulumi 3.259, seen 2026-11-22). The provider's refusal stops the destroy.
            deletion_protection=args.deletion_protection,
            opts=ResourceOptions(
                parent=self,
                depends_on=before,
                # Only the pool that is removed at once has these, see _standard.
                ignore_changes=["nodeConfig"] if args.node_pool else None,
            ),
        )

    def _pool(
        self, name: str, args: ClusterArgs, pool: NodePool, cluster: gcp.container.Cluster
    ) -> gcp.container.NodePool:
        return gcp.container.NodePool(
            name,
            # No name: Pulumi makes one, so that a changed pool is there before the old one goes.
            project=args.project,
            location=args.location,
            cluster=cluster.name,
            autoscaling={
                "total_min_node_count": pool.minimum,
                "total_max_node_count": pool.maximum,
                "location_policy": "ANY" if pool.spot else "BALANCED",
            },
            # The autoscaler's business.
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

    def _let_google_encrypt(self, name: str, args: ClusterArgs, key: str) -> Resource:
        """GKE's own account in the project is who uses the key."""
        agent = gcp.projects.ServiceIdentity(
            f"{name}-agent",
            project=args.project,
            service="container.googleapis.com",
            opts=ResourceOptions(parent=self),
        )
        return gcp.kms.CryptoKeyIAMMember(
            f"{name}-agent",
            crypto_key_id=key,
            role="roles/cloudkms.cryptoKeyEncrypterDecrypter",
            member=agent.member,
            opts=ResourceOptions(parent=self),
        )

    def _admit(self, name: str, args: ClusterArgs, images: Sequence[Input[str]]) -> Resource:
        return gcp.binaryauthorization.Policy(
            name,
            project=args.project,
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


def _kind(args: ClusterArgs) -> dict[str, Any]:
    return _standard(args) if args.node_pool else _autopilot(args)


def _autopilot(args: ClusterArgs) -> dict[str, Any]:
    return {
        "enable_autopilot": True,
        # Not node_config, which replaces an Autopilot cluster at every update:
        # https://github.com/pulumi/pulumi-gcp/issues/2247
        "cluster_autoscaling": {
            "auto_provisioning_defaults": {"service_account": args.node_account, "oauth_scopes": [CLOUD_PLATFORM]}
        },
    }


def _standard(args: ClusterArgs) -> dict[str, Any]:
    return {
        # A cluster must be born with a pool. It goes at once, but would run as the project's default account until
        # then, as which nobody here may act.
        "remove_default_node_pool": True,
        "initial_node_count": 1,
        "node_config": {"service_account": args.node_account, "oauth_scopes": [CLOUD_PLATFORM]},
        # Enforces network policies, as Autopilot does.
        "datapath_provider": "ADVANCED_DATAPATH",
        "enable_shielded_nodes": True,
    }


def _endpoint(config: gcp.container.outputs.ClusterControlPlaneEndpointsConfig) -> str:
    return str(config.dns_endpoint_config.endpoint if config.dns_endpoint_config else "")


def _endpoint_of_existing(parent: ComponentResource, args: ClusterArgs) -> Output[str]:
    found = gcp.container.get_cluster_output(
        name=args.name,
        location=args.location,
        project=args.project,
        opts=pulumi.InvokeOutputOptions(parent=parent, depends_on=[*args.after]),
    )

    def endpoint(configs: Sequence[Any]) -> str:
        host = configs[0].dns_endpoint_configs[0].endpoint if configs and configs[0].dns_endpoint_configs else ""
        if not host:
            raise pulumi.RunError(
                f"the cluster {args.name} in {args.location} has no DNS endpoint.\n"
                "  The program could not reach it: its addresses are inside of Google's network, or change.\n"
                f"  Run `gcloud container clusters update {args.name} --location {args.location} "
                f"--project {args.project} --enable-dns-access`."
            )
        return str(host)

    return found.control_plane_endpoints_configs.apply(endpoint)


def _kubeconfig(name: str, host: str) -> dict[str, Any]:
    """Says how to log in, never with what: the plugin asks Google for a token whenever the old one has run out."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        # No certificate authority: the name has a public certificate, and the cluster's own would not match.
        # https://github.com/fluxcd/flux2/issues/5896
        "clusters": [{"name": name, "cluster": {"server": f"https://{host}"}}],
        "users": [
            {
                "name": name,
                "user": {
                    "exec": {
                        "apiVersion": "client.authentication.k8s.io/v1beta1",
                        "command": "gke-gcloud-auth-plugin",
                        "installHint": "Install it with `gcloud components install gke-gcloud-auth-plugin`.",
                        "interactiveMode": "Never",
                        "provideClusterInfo": True,
                    }
                },
            }
        ],
    }


@dataclass(frozen=True, kw_only=True)
class ClusterAccessArgs:
    """Who may look inside a cluster.

    Attributes:
        viewers: short name -> email of an account that previews.
    """

    viewers: Mapping[str, Input[str]]


class ClusterAccess(ComponentResource):
    """Reading what this program declares in the cluster, for previews; IAM lets its readers no further than the door.

    It grants no reading of Secrets: whoever releases something that keeps its state in them, says so beside it.
    Whoever updates the stack is an administrator of the cluster by IAM already.
    """

    def __init__(self, name: str, args: ClusterAccessArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:ClusterAccess", name, None, opts)
        role = self._role(name)
        for key, email in args.viewers.items():
            self._bind(f"{name}-{key}", role, email)
        self.register_outputs({})

    def _role(self, name: str) -> Manifest:
        readable = {
            "": ["namespaces", "services", "configmaps", "serviceaccounts", "pods", "events"],
            "apps": ["deployments", "replicasets"],
            "discovery.k8s.io": ["endpointslices"],
            "gateway.networking.k8s.io": ["gateways", "httproutes"],
            "monitoring.googleapis.com": ["podmonitorings"],
            "networking.gke.io": ["gcpbackendpolicies", "gcpgatewaypolicies", "healthcheckpolicies"],
            "networking.k8s.io": ["networkpolicies"],
            "policy": ["poddisruptionbudgets"],
            "rbac.authorization.k8s.io": ["clusterroles", "clusterrolebindings", "roles", "rolebindings"],
        }
        return Manifest(
            name,
            RBAC,
            "ClusterRole",
            metadata={"name": "model-serving-preview"},
            rules=[
                {"apiGroups": [group], "resources": kinds, "verbs": ["get", "list", "watch"]}
                for group, kinds in readable.items()
            ],
            opts=ResourceOptions(parent=self),
        )

    def _bind(self, name: str, role: Manifest, email: Input[str]) -> None:
        Manifest(
            name,
            RBAC,
            "ClusterRoleBinding",
            metadata={"name": f"model-serving-{name}"},
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role.metadata["name"]},
            # GKE calls a service account by its address. https://cloud.google.com/kubernetes-engine/docs/how-to/role-based-access-control
            subjects=[{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": email}],
            opts=ResourceOptions(parent=self),
        )
