"""Google's APIs: switched on before anything needs them, and never off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pulumi_gcp as gcp
from pulumi import (
    ComponentResource,
    ResourceOptions,
    ResourceTransformation,
    ResourceTransformationArgs,
    ResourceTransformationResult,
)

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
"""APIs that every platform uses. serviceusage is not among them: without it no API can be enabled, `make init-gcp`."""

_API_OF: Final = {
    "artifactregistry": "artifactregistry",
    "binaryauthorization": "binaryauthorization",
    "certificatemanager": "certificatemanager",
    "compute": "compute",
    "container": "container",
    "iam": "iam",
    "kms": "cloudkms",
    "monitoring": "monitoring",
    "projects": "cloudresourcemanager",
    "serviceaccount": "iam",
    "storage": "storage",
}
"""Module of a resource's type, ``gcp:<module>/…`` -> the API that makes it."""


@dataclass(frozen=True, kw_only=True)
class ServicesArgs:
    """The APIs of a project.

    Attributes:
        project: id of the project.
        further: APIs besides those that every platform uses, without ``.googleapis.com``.
        enable: False if another team enables them; then nothing is declared.
    """

    project: str
    further: Sequence[str] = ()
    enable: bool = True


class Services(ComponentResource):
    """The APIs that are used, enabled.

    It never disables one: others in the project may have begun to use it, and would lose what they made with it.
    An API that was just enabled may answer 403 for some minutes; running `up` again is all that helps.
    """

    def __init__(self, name: str, args: ServicesArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:Services", name, None, opts)
        apis = sorted({*ALWAYS, *args.further}) if args.enable else []
        self._services = {api: self._service(name, args.project, api) for api in apis}
        self.register_outputs({})

    def _service(self, name: str, project: str, api: str) -> gcp.projects.Service:
        return gcp.projects.Service(
            f"{name}-{api}",
            project=project,
            service=f"{api}.googleapis.com",
            disable_on_destroy=False,
            opts=ResourceOptions(parent=self),
        )

    @property
    def before_use(self) -> ResourceTransformation:
        """Lets every resource below wait for the API that makes it. A component's depends_on does not reach down."""

        def wait(args: ResourceTransformationArgs) -> ResourceTransformationResult | None:
            service = self._services.get(_API_OF.get(_module(args.type_), ""))
            if service is None or args.type_ == "gcp:projects/service:Service":
                return None
            after = ResourceOptions(depends_on=[service])
            return ResourceTransformationResult(args.props, ResourceOptions.merge(args.opts, after))

        return wait


def _module(resource_type: str) -> str:
    provider, _, rest = resource_type.partition(":")
    return rest.partition("/")[0] if provider == "gcp" else ""
