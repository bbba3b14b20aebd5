"""Google's APIs: enabled before anything needs them, and never disabled."""

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

_API_OF: Final = {"kms": "cloudkms", "projects": "cloudresourcemanager", "serviceaccount": "iam"}
"""Module of a resource's type, ``gcp:<module>/…`` -> the API that creates it, where the two names differ."""


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
        """Makes a resource wait for its API; a transformation, because a component's depends_on skips its children."""
        provider, _, rest = args.type_.partition(":")
        module = rest.partition("/")[0]
        service = self._services.get(_API_OF.get(module, module)) if provider == "gcp" else None
        if service is None:
            return None
        after = ResourceOptions(depends_on=[service])
        return ResourceTransformationResult(args.props, ResourceOptions.merge(args.opts, after))


def _apis(settings: GcpSettings) -> list[str]:
    optional = {
        "binaryauthorization": settings.cluster.binary_authorization,
        "certificatemanager": settings.gateway.domain is not None,
        "containerscanning": settings.registry.scanning and settings.registry.existing is None,
        "gkehub": settings.cluster.fleet,
    }
    return sorted([*ALWAYS, *(api for api, wanted in optional.items() if wanted)])
