"""How large an image is in a registry, and what of it another image does not have already."""

from __future__ import annotations

from typing import Final

from model_serving.images import registries
from model_serving.images.registries import registry_url

KIBIBYTE: Final = 1024


def blobs(reference: str) -> dict[str, int]:
    """Everything that was pushed for an image, ``<registry>/<name>:<tag>``: digest or place -> bytes."""
    name, _, tag = reference.rpartition(":")
    host, _, repository = name.partition("/")
    return _blobs_of_manifest(f"{registry_url(host)}{repository}/manifests", host, tag)


def new_kibibytes(image: str, *before: str) -> float:
    """What of an image is in none of those that were there before."""
    known = {digest for reference in before for digest in blobs(reference)}
    return sum(size for digest, size in blobs(image).items() if digest not in known) / KIBIBYTE


def all_kibibytes(image: str) -> float:
    return sum(blobs(image).values()) / KIBIBYTE


def _blobs_of_manifest(base: str, host: str, reference: str) -> dict[str, int]:
    manifest, headers = registries.ask(f"{base}/{reference}", host)
    found = {headers[registries.DIGEST_HEADER]: int(headers["Content-Length"])}
    for child in manifest.get("manifests", []):
        found |= _blobs_of_manifest(base, host, child["digest"])
    for blob in [*manifest.get("layers", []), *([manifest["config"]] if "config" in manifest else [])]:
        found[blob["digest"]] = blob["size"]
    return found
