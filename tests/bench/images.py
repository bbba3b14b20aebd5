"""How large an image is in a registry, and what of it another image does not have already."""

from __future__ import annotations

from typing import Final

from model_serving.images.registry import Registry

KIBIBYTE: Final = 1024


def new_kibibytes(image: str, *before: str) -> float:
    """What of an image is in none of those that were there before."""
    known = {digest for reference in before for digest in _contents(reference)}
    return sum(size for digest, size in _contents(image).items() if digest not in known) / KIBIBYTE


def all_kibibytes(image: str) -> float:
    return new_kibibytes(image)


def _contents(reference: str) -> dict[str, int]:
    """Everything that was pushed for an image, ``<registry>/<name>:<tag>``: digest -> bytes."""
    registry, _, name = reference.partition("/")
    image = Registry(registry).image(*name.rsplit(":", 1))
    return {**image.manifests, **image.blobs} if image else {}
