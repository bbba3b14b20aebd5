"""Images that a state has and the registry has no more: somebody cleared up there, or a disk was lost.

Pulumi looks at nothing that has not changed, and the pods would ask for them in vain. A refresh would not help: version
0.0.22 of the provider leaves in the state what a registry says it does not know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from model_serving.images import registries

TYPE: Final = "docker-build:index:Image"
AT_ONCE: Final = 8


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
    if not images:
        return []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        lost = pool.map(lambda image: registries.is_without(image.reference, image.digest), images)
        return [image for image, is_lost in zip(images, lost, strict=True) if is_lost]


def _images(deployment: Mapping[str, Any]) -> Iterator[LostImage]:
    for resource in deployment.get("resources") or []:
        outputs = resource.get("outputs") or {}
        # One that is to be deleted is no longer run by anything.
        if resource["type"] == TYPE and outputs.get("digest") and not resource.get("delete"):
            yield LostImage(urn=resource["urn"], reference=outputs["tags"][0], digest=outputs["digest"])
