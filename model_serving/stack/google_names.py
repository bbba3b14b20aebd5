"""Names, places and ranges as Google takes them, so that a wrong one is found before anything is created.

Lists that Google extends now and then have their source and date; a message says where to add a new entry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from difflib import SequenceMatcher
from ipaddress import IPv4Network, ip_address, ip_network
from typing import Annotated, Final

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from model_serving.sections import Cidr, wrong

FILE: Final = "model_serving/stack/google_names.py"
LONGEST_NAME: Final = 20
"""Characters. The longest name derived from it, ``<name>-training``, is an account ID, which may have 30."""

ZONES: Final[Mapping[str, str]] = {
    "africa-south1": "abc",
    **dict.fromkeys(("asia-east1", "asia-east2"), "abc"),
    **dict.fromkeys(("asia-northeast1", "asia-northeast2", "asia-northeast3"), "abc"),
    **dict.fromkeys(("asia-south1", "asia-south2"), "abc"),
    **dict.fromkeys(("asia-southeast1", "asia-southeast2", "asia-southeast3"), "abc"),
    **dict.fromkeys(("australia-southeast1", "australia-southeast2"), "abc"),
    **dict.fromkeys(("europe-central2", "europe-north1", "europe-north2", "europe-southwest1"), "abc"),
    "europe-west1": "bcd",
    **dict.fromkeys(("europe-west2", "europe-west3", "europe-west4", "europe-west6", "europe-west8"), "abc"),
    **dict.fromkeys(("europe-west9", "europe-west10", "europe-west12"), "abc"),
    **dict.fromkeys(("me-central1", "me-central2", "me-west1"), "abc"),
    **dict.fromkeys(("northamerica-northeast1", "northamerica-northeast2", "northamerica-south1"), "abc"),
    **dict.fromkeys(("southamerica-east1", "southamerica-west1"), "abc"),
    "us-central1": "abcf",
    "us-east1": "bcd",
    **dict.fromkeys(("us-east4", "us-east5", "us-south1"), "abc"),
    **dict.fromkeys(("us-west1", "us-west2", "us-west3", "us-west4"), "abc"),
}
"""Region -> letters of its zones, https://cloud.google.com/compute/docs/regions-zones, as of 2026-11."""

MULTI_REGIONS: Final = ("ASIA", "EU", "US", "ASIA1", "EUR4", "EUR5", "EUR7", "EUR8", "NAM4")
"""Of buckets, with predefined pairs of regions, https://cloud.google.com/storage/docs/locations, as of 2026-11."""

_CORES: Final = r"(1|[2468]|[1-9]\d*[02468])"
"""One, or an even number."""
_SIZED: Final = rf"(standard|highmem|highcpu)-{_CORES}"
_CUSTOM: Final = rf"custom-{_CORES}-\d+(-ext)?"
MACHINE_FAMILIES: Final[Mapping[str, str]] = {
    "a2": r"highgpu-\d+g|megagpu-\d+g|ultragpu-\d+g",
    "a3": r"(highgpu|megagpu|ultragpu|edgegpu)-\d+g(-nolssd)?",
    "a4": r"highgpu-\d+g",
    "a4x": r"(highgpu|maxgpu)-\d+g(-metal)?",
    "c2": rf"standard-{_CORES}",
    "c2d": _SIZED,
    "c3": rf"{_SIZED}(-lssd|-metal)?",
    "c3d": rf"{_SIZED}(-lssd)?",
    "c4": rf"{_SIZED}(-lssd)?(-metal)?",
    "c4a": rf"{_SIZED}(-lssd|-metal)?",
    "c4d": rf"{_SIZED}(-lssd|-metal\d?)?",
    "ct4p": r"hightpu-\d+t",
    "ct5l": r"hightpu-\d+t",
    "ct5lp": r"hightpu-\d+t",
    "ct5p": r"hightpu-\d+t",
    "ct6e": r"standard-\d+t",
    "custom": rf"{_CORES}-\d+(-ext)?",  # of n1
    "e2": rf"{_SIZED}|micro|small|medium|custom-(micro|small|medium|{_CORES})-\d+",
    "g1": r"small",
    "g2": rf"standard-{_CORES}|custom-{_CORES}-\d+",
    "g4": r"standard-\d+",
    "h3": r"standard-\d+",
    "h4d": r"(standard|highmem)-\d+(-lssd)?",
    "m1": r"(ultramem|megamem)-\d+",
    "m2": r"(ultramem|megamem|hypermem)-\d+",
    "m3": r"(ultramem|megamem)-\d+",
    "m4": r"(ultramem|megamem|hypermem)-\d+",
    "n1": rf"{_SIZED}|{_CUSTOM}",
    "n2": rf"{_SIZED}|{_CUSTOM}",
    "n2d": rf"{_SIZED}|{_CUSTOM}",
    "n4": rf"{_SIZED}|{_CUSTOM}",
    "n4a": rf"{_SIZED}|{_CUSTOM}",
    "n4d": rf"{_SIZED}|{_CUSTOM}",
    "t2a": rf"standard-{_CORES}",
    "t2d": rf"standard-{_CORES}",
    "tpu7x": r"standard-\d+t",
    "z3": r"highmem-\d+(-highlssd|-standardlssd)?(-metal)?",
}
"""Family of machines -> form of its types, https://cloud.google.com/compute/docs/machine-resource, as of 2026-11."""

PRIVATE_RANGES: Final = tuple(
    map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15", "240.0.0.0/4"))
)
"""Those of https://cloud.google.com/vpc/docs/subnets#valid-ranges that are large enough for a cluster."""

_NO_BUCKET: Final[Mapping[str, str]] = {
    r"^goog": "which begins with goog",
    r"g[o0]{2}gle": "which contains google or looks like it",
    r"^\d+\.\d+\.\d+\.\d+$": "which is an IP address",
    r"\.\.|\.-|-\.": "which has a dot next to a dot or hyphen",
}
"""What a bucket's name may not be, https://cloud.google.com/storage/docs/buckets#naming."""


def _unreserved(name: str) -> str:
    # https://cloud.google.com/iam/docs/reference/rest/v1/projects.locations.workloadIdentityPools/create
    for prefix in ("gcp-", "goog"):
        if name.startswith(prefix):
            raise wrong(
                f"is {name}, which begins with {prefix}",
                "Google reserves this prefix and would refuse what is named after it, such as the identity pool.",
                f"Write a name that does not begin with {prefix}, e.g. model-serving.",
            )
    return name


def refused_bucket(name: str) -> str | None:
    """Why Google refuses a bucket's name; None if it takes it."""
    return next((reason for pattern, reason in _NO_BUCKET.items() if re.search(pattern, name)), None)


def _bucket(name: str) -> str:
    if reason := refused_bucket(name):
        raise wrong(
            f"is {name}, {reason}",
            "Google refuses such a name for a bucket.",
            "Write 3 to 63 lowercase letters, digits and hyphens, e.g. acme-models-dvc.",
        )
    return name


def _region(name: str) -> str:
    if name not in ZONES:
        raise _unknown(name, "regions", [*ZONES], "ZONES")
    return name


def _zone(name: str) -> str:
    zones = [f"{region}-{letter}" for region, letters in ZONES.items() for letter in letters]
    if name not in zones:
        raise _unknown(name, "zones", zones, "ZONES")
    return name


def _storage_location(name: str) -> str:
    known = [*MULTI_REGIONS, *ZONES]
    # Google takes both cases.
    if name.upper() not in map(str.upper, known):
        raise _unknown(name, "locations of buckets", known, "MULTI_REGIONS or ZONES")
    return name


def _machine_type(name: str) -> str:
    family, _, rest = name.partition("-")
    if family not in MACHINE_FAMILIES:
        raise _unknown(name, "machine types", ["e2-standard-4"], "MACHINE_FAMILIES")
    if not re.fullmatch(MACHINE_FAMILIES[family], rest):
        raise wrong(
            f"is {name}, which is not a machine type of the family {family}",
            "Google would refuse the node pool, after it has created the cluster.",
            f"Write one that `gcloud compute machine-types list --filter='name ~ ^{family}-'` shows.",
        )
    return name


def _unknown(name: str, kind: str, known: list[str], table: str) -> PydanticCustomError:
    near = max(known, key=lambda each: SequenceMatcher(None, name, each).find_longest_match().size)
    return wrong(
        f"is {name}, which is not one of Google's {kind}",
        "Google would refuse what is to be created with it.",
        f"Write e.g. {near}. If Google has added {name} since 2026-11, add it to {table} in {FILE}.",
    )


def _private(value: str) -> str:
    parsed = ip_network(value)
    if not isinstance(parsed, IPv4Network) or not any(parsed.subnet_of(each) for each in PRIVATE_RANGES):
        raise wrong(
            f"is {value}, which is not a private IPv4 range",
            "Google would refuse the subnet, or hosts on the internet could not be reached from the cluster.",
            f"Write a part of {', '.join(map(str, PRIVATE_RANGES[:3]))} or {PRIVATE_RANGES[3]}.",
        )
    if ip_address("255.255.255.255") in parsed:
        raise wrong(
            f"is {value}, which contains 255.255.255.255",
            "Google would refuse the subnet: that is the address of every host at once.",
            "Write a smaller range, e.g. 10.0.0.0/22.",
        )
    return value


def between(largest: int, smallest: int, example: str) -> AfterValidator:
    """Checks the size of a range, from the prefix length of the largest to that of the smallest."""

    def check(value: str) -> str:
        network = ip_network(value)
        if network.prefixlen > smallest:
            raise wrong(
                f"is {value}, which has {network.num_addresses} addresses",
                "The range cannot grow later, so the platform could not grow either.",
                f"Write a range of /{smallest} or larger, e.g. {example}.",
            )
        if network.prefixlen < largest:
            raise wrong(
                f"is {value}, which has {network.num_addresses} addresses",
                "GKE would refuse the cluster.",
                f"Write a range of /{largest} or smaller, e.g. {example}.",
            )
        return value

    return AfterValidator(check)


def _key_set(text: str) -> str:
    try:
        keys = json.loads(text).get("keys")
    except (ValueError, AttributeError):
        keys = None
    if not isinstance(keys, list) or not all(isinstance(each, dict) and "kty" in each for each in keys):
        raise wrong(
            "is not a JSON Web Key Set",
            "Google could not check the tokens of GitLab's jobs.",
            "Write what GitLab returns under /oauth/discovery/keys, a JSON text with a list `keys`.",
        )
    return text


ProjectId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$")]
Name = Annotated[
    str,
    Field(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])$", min_length=4, max_length=LONGEST_NAME),
    AfterValidator(_unreserved),
]
"""Prefix of the names of a stack's resources."""
PoolId = Annotated[
    str, Field(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$", min_length=4, max_length=32), AfterValidator(_unreserved)
]
"""ID of a workload identity pool."""
BucketName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$"), AfterValidator(_bucket)]
ResourceName = Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$", max_length=63)]
KeyName = Annotated[
    str,
    Field(
        pattern=r"^projects/[a-z0-9.:-]+/locations/[a-z0-9-]+/keyRings/[a-zA-Z0-9_-]{1,63}/cryptoKeys/[a-zA-Z0-9_-]{1,63}$"
    ),
]
"""Full name of a key in Cloud KMS."""
Region = Annotated[str, Field(pattern=r"^[a-z]+-[a-z]+\d+$"), AfterValidator(_region)]
Zone = Annotated[str, Field(pattern=r"^[a-z]+-[a-z]+\d+-[a-z]$"), AfterValidator(_zone)]
StorageLocation = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$"), AfterValidator(_storage_location)]
MachineType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)+$"), AfterValidator(_machine_type)]
Range = Annotated[Cidr, AfterValidator(_private)]
"""A private IPv4 range, e.g. ``10.0.0.0/22``."""
ImagePattern = Annotated[str, Field(pattern=r"^[a-z0-9][^\s*/]*(/[^\s*/]+)*(/\*{1,2})?$")]
"""Of Binary Authorization: https://cloud.google.com/binary-authorization/docs/configuring-policy-console#exempt_images."""
KeySet = Annotated[str, Field(pattern=r"^\s*\{"), AfterValidator(_key_set)]
Email = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}$"
    ),
]
Domain = Annotated[
    str, Field(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+([a-z]{2,63}|xn--[a-z0-9-]{1,59})$", max_length=253)
]
