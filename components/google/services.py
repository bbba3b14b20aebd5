"""Google's APIs: enabled before anything needs them, and never disabled."""

from collections.abc import Mapping, Sequence
from typing import Final

import pulumi_gcp as gcp
from pulumi import (
    ComponentResource,
    ResourceOptions,
    ResourceTransformationArgs,
    ResourceTransformationResult,
)

from model_serving.stack.google import GcpSettings

ALWAYS: Final = (
    "artifactregistry",
    "cloudkms",
    "cloudresourcemanager",
    "compute",
    "container",
    "iam",
    "iamcredentials",
    "monitoring",
    "storage",
    "sts",
)
"""APIs that every platform uses. `make init-gcp` enables serviceusage, which enables the others."""

APIS_OF: Final[Mapping[str, Sequence[str]]] = {
    "artifactregistry/repository": ("artifactregistry", "containerscanning"),
    "artifactregistry/repositoryIamMember": ("artifactregistry",),
    "binaryauthorization/policy": ("binaryauthorization",),
    **dict.fromkeys(
        (
            *("certificatemanager/certificate", "certificatemanager/certificateMap"),
            *("certificatemanager/certificateMapEntry", "certificatemanager/dnsAuthorization"),
        ),
        ("certificatemanager",),
    ),
    **dict.fromkeys(
        (
            *("compute/address", "compute/globalAddress", "compute/network", "compute/router", "compute/routerNat"),
            *("compute/sSLPolicy", "compute/securityPolicy", "compute/subnetwork"),
        ),
        ("compute",),
    ),
    "container/cluster": ("binaryauthorization", "cloudkms", "compute", "container", "gkehub", "monitoring"),
    "container/nodePool": ("compute", "container"),
    "iam/workloadIdentityPool": ("iam",),
    "iam/workloadIdentityPoolProvider": ("iam",),
    "kms/cryptoKeyIAMMember": ("cloudkms",),
    "monitoring/alertPolicy": ("monitoring",),
    "monitoring/dashboard": ("monitoring",),
    "monitoring/notificationChannel": ("monitoring",),
    "projects/iAMCustomRole": ("iam",),
    "projects/iAMMember": ("cloudresourcemanager",),
    # The agent of this API's service.
    "projects/serviceIdentity": ("container",),
    "serviceaccount/account": ("iam",),
    "serviceaccount/iAMMember": ("iam",),
    "serviceaccount/key": ("iam",),
    "storage/bucket": ("storage",),
    "storage/bucketIAMMember": ("storage",),
}
"""Type of a resource, without ``gcp:`` and its class -> all APIs that it may need; those in use are enabled."""


class Services(ComponentResource):
    """The APIs that the stack uses.

    It never disables one: others in the project may have started to use it and would lose what they created.
    A newly enabled API may answer 403 for some minutes; the only remedy is to run `up` again.
    """

    def __init__(self, name: str, settings: GcpSettings, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:Services", name, None, opts)
        self._services = {
            api: gcp.projects.Service(
                f"{name}-{api}",
                project=settings.project,
                service=f"{api}.googleapis.com",
                disable_on_destroy=False,
                opts=ResourceOptions(parent=self),
            )
            for api in (_apis(settings) if settings.services.enable else ())
        }
        self.register_outputs({})

    def before_use(self, args: ResourceTransformationArgs) -> ResourceTransformationResult | None:
        """Makes a resource wait for its APIs; a transformation, because a component's depends_on skips its children."""
        provider, _, rest = args.type_.partition(":")
        apis = APIS_OF.get(rest.partition(":")[0], ()) if provider == "gcp" else ()
        if not (services := [self._services[api] for api in apis if api in self._services]):
            return None
        after = ResourceOptions(depends_on=services)
        return ResourceTransformationResult(args.props, ResourceOptions.merge(args.opts, after))


def _apis(settings: GcpSettings) -> list[str]:
    optional = {
        "binaryauthorization": settings.cluster.binary_authorization,
        "certificatemanager": settings.gateway.domain is not None,
        "containerscanning": settings.registry.scanning and settings.registry.existing is None,
        "gkehub": settings.cluster.fleet,
        "iap": settings.gateway.access == "iap",
    }
    return sorted([*ALWAYS, *(api for api, wanted in optional.items() if wanted)])
