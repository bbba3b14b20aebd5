"""Images that are in a state but no longer in the registry, because they were cleaned up or a disk was lost.

Pulumi checks nothing that has not changed, and the pods would fail to pull. A refresh does not help: version 0.0.22 of
the provider keeps an image in the state even if the registry does not have it.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Final, NamedTuple

from model_serving.images.registry import AT_ONCE, Registry

TYPE: Final = "docker-build:index:Image"


class LostImage(NamedTuple):
    """An image that has to be rebuilt: URN, ``<registry>/<name>:<tag>`` and digest in the state."""

    urn: str
    reference: str
    digest: str

    def __str__(self) -> str:
        return f"{self.reference} is no longer in the registry and will be rebuilt"


def find(deployment: Mapping[str, Any]) -> list[LostImage]:
    """The images of a state, as in `pulumi stack export`, that the registry says it does not have."""
    images = [
        LostImage(urn=resource["urn"], reference=outputs["tags"][0], digest=outputs["digest"])
        for resource in deployment.get("resources") or []
        # Nothing runs an image that is pending deletion.
        if resource["type"] == TYPE and not resource.get("delete")
        if (outputs := resource.get("outputs") or {}).get("digest")
    ]
    # One client per registry: it asks Docker for its account once.
    client = cache(Registry)

    def is_lost(image: LostImage) -> bool:
        registry, _, name = image.reference.partition("/")
        return client(registry).is_without(name.rpartition(":")[0], image.digest)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [image for image, lost in zip(images, pool.map(is_lost, images), strict=True) if lost]
