"""Google's SDK as this program uses it: whole to whoever checks types, light to whoever runs the program.

A module of the SDK loads whole: for eight kinds of Compute Engine, Python makes the classes of all of it. For what this
program uses that is 1.3 s of a processor, of which Compute Engine takes 0.8 s (two cores, 2026-11-23); a preview of an
empty program takes 1.2 s. A resource needs little of it: its type, how its names are spelt, which outputs are read and
which are secret. So ``gcp`` is the SDK while types are checked, and has classes of that size when the program runs.

The engine gets the same from them as from the SDK's own: tests/unit/test_google.py compares both, and the stand-in of
the engine tests knows every property from the SDK. Whatever LIGHT does not name is the SDK's, slower and no different.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pulumi
from pulumi import Output, ResourceOptions

if TYPE_CHECKING:
    import pulumi_gcp as gcp

__all__ = ["gcp"]


@dataclass(frozen=True)
class Kind:
    """What a light class has to know.

    Attributes:
        outputs: what Google decides and this program reads, as Python spells it. Inputs can be read anyway.
        labelled: whether it takes labels, and so has the two secret outputs that Google's provider makes of them.
        secret: other secret outputs, as the engine spells them.
    """

    outputs: tuple[str, ...] = ()
    labelled: bool = False
    secret: tuple[str, ...] = ()


LIGHT: Final[Mapping[str, Mapping[str, Kind]]] = {
    "artifactregistry": {"Repository": Kind(labelled=True), "RepositoryIamMember": Kind()},
    "binaryauthorization": {"Policy": Kind()},
    "certificatemanager": {
        "Certificate": Kind(labelled=True),
        "CertificateMap": Kind(labelled=True),
        "CertificateMapEntry": Kind(labelled=True),
        "DnsAuthorization": Kind(("dns_resource_records",), labelled=True),
    },
    "compute": {
        "Address": Kind(("address",), labelled=True),
        "GlobalAddress": Kind(("address",), labelled=True),
        "Network": Kind(),
        "Router": Kind(),
        "RouterNat": Kind(),
        "SSLPolicy": Kind(),
        "SecurityPolicy": Kind(labelled=True),
        "Subnetwork": Kind(),
    },
    "container": {"Cluster": Kind(labelled=True), "NodePool": Kind()},
    "iam": {"WorkloadIdentityPool": Kind(("name",)), "WorkloadIdentityPoolProvider": Kind(("name",))},
    "kms": {"CryptoKeyIAMMember": Kind()},
    "monitoring": {"AlertPolicy": Kind(), "Dashboard": Kind(), "NotificationChannel": Kind()},
    "projects": {
        "IAMCustomRole": Kind(),
        "IAMMember": Kind(),
        "Service": Kind(),
        "ServiceIdentity": Kind(("member",)),
    },
    "serviceaccount": {
        "Account": Kind(("email", "member", "name")),
        "IAMMember": Kind(),
        "Key": Kind(("private_key",), secret=("privateKey",)),
    },
    "storage": {"Bucket": Kind(labelled=True), "BucketIAMMember": Kind()},
}
"""Module -> class -> what it has to know."""

FREE: Final = frozenset(
    {
        *("attribute_mapping", "ca_pools", "keepers", "label_extractors", "labels", "metadata", "resource_labels"),
        *("resource_manager_tags", "sysctls", "user_labels"),
    }
)
"""Properties whose keys are the user's own and stay as they are."""


def camel(name: str) -> str:
    """``ip_cidr_range`` as the engine spells it: ``ipCidrRange``."""
    head, *rest = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in rest)


def spelt(value: Any) -> Any:
    """An input with its keys as the engine spells them."""
    match value:
        case dict():
            return {camel(key): below if key in FREE else spelt(below) for key, below in value.items()}
        case list() | tuple():
            return [spelt(each) for each in value]
        case _:
            return value


class LightResource(pulumi.CustomResource):
    """A resource without the SDK's knowledge of its properties: Google's provider checks them in each preview.

    Outputs are as the engine gives them: blocks are mappings, with keys as the engine spells them.
    """

    token: str
    kind: Kind

    def __init__(self, resource_name: str, opts: ResourceOptions | None = None, **inputs: Any) -> None:
        outputs = dict.fromkeys(map(camel, self.kind.outputs))
        labels = ("effectiveLabels", "pulumiLabels") if self.kind.labelled else ()
        # No version of the plugin, as the SDK's classes have: the platform's own provider has it.
        own = ResourceOptions(additional_secret_outputs=[*labels, *self.kind.secret])
        super().__init__(self.token, resource_name, outputs | spelt(inputs), ResourceOptions.merge(own, opts))

    def __getattr__(self, name: str) -> Output[Any]:
        try:
            found: Output[Any] = self.__dict__[camel(name)]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no output {name} here: components/google.py") from None
        return found


class _Module:
    """A module of the SDK, which is loaded once something is taken from it that is not light."""

    def __init__(self, name: str) -> None:
        self._name = name
        for kind in LIGHT[name]:
            token = f"gcp:{name}/{kind[0].lower()}{kind[1:]}:{kind}"
            setattr(self, kind, type(kind, (LightResource,), {"token": token, "kind": LIGHT[name][kind]}))

    def __getattr__(self, name: str) -> Any:
        import pulumi_gcp  # noqa: PLC0415 - only when it is needed

        return getattr(getattr(pulumi_gcp, self._name), name)


class _Sdk:
    def __init__(self) -> None:
        for name in LIGHT:
            setattr(self, name, _Module(name))

    def __getattr__(self, name: str) -> Any:
        import pulumi_gcp  # noqa: PLC0415

        return getattr(pulumi_gcp, name)


if not TYPE_CHECKING:
    gcp = _Sdk()
