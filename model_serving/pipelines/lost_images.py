"""Images that a state has and the registry has no more: somebody cleared up there, or a disk was lost.

Pulumi looks at nothing that has not changed, and the pods would ask for them in vain. A refresh would not help: version
0.0.22 of the provider leaves in the state what a registry says it does not know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from model_serving.images.registry import AT_ONCE, Registry

TYPE: Final = "docker-build:index:Image"


@dataclass(frozen=True, kw_only=True)
class LostImage:
    """An image that has to be built again.

    Attributes:
        urn: of its resource.
        reference: ``<registry>/<name>:<tag>``.
        digest: by which the state has it.
    """

    urn: str
    reference: str
    digest: str

    def __str__(self) -> str:
        return f"{self.reference} is not in the registry any more: it is built again"


def find(deployment: Mapping[str, Any]) -> list[LostImage]:
    """Those of a state of which the registry says that it does not have them.

    Args:
        deployment: the state, as `pulumi stack export` has it.
    """
    images = [*_images(deployment)]
    # One client for each registry: it asks Docker for its account once.
    client = cache(Registry)

    def is_lost(image: LostImage) -> bool:
        registry, _, name = image.reference.partition("/")
        return client(registry).is_without(name.rpartition(":")[0], image.digest)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [image for image, lost in zip(images, pool.map(is_lost, images), strict=True) if lost]


def _images(deployment: Mapping[str, Any]) -> Iterator[LostImage]:
    for resource in deployment.get("resources") or []:
        outputs = resource.get("outputs") or {}
        # One that is to be deleted is no longer run by anything.
        if resource["type"] == TYPE and outputs.get("digest") and not resource.get("delete"):
            yield LostImage(urn=resource["urn"], reference=outputs["tags"][0], digest=outputs["digest"])
