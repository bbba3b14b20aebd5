"""What the last update of the stack left behind for this one."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

import pulumi

from model_serving.images import builds
from model_serving.images.builds import Plan
from model_serving.problems import Failure
from model_serving.stack.inputs import Inputs

ATTEMPTS: Final = 20
PAUSE_SECONDS: Final = 0.05
IMAGES: Final = "images"
"""Output of the stack: names of the images that it has built itself."""


def names() -> frozenset[str]:
    """Names of the images that an earlier update declared; asked for first, while the engine writes nothing yet.

    From the outputs, because all resources together take the engine half a second to hand out. They are a little behind
    after an update that was killed: then an image of the state is found in the registry, and the state lets go of it.
    """
    stack = f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"
    return frozenset(_outputs(stack).get(IMAGES) or ())


def plan(stack: Inputs) -> Plan:
    """What becomes of the images of a stack's releases.

    Raises:
        RunError: if a release was changed after it was published, or the registry cannot be used.
    """
    releases, images, known = stack.releases, stack.settings.images, names()
    try:
        found = builds.look_up(
            releases, images, known=known, registry=stack.settings.image_registry, has_portal=stack.settings.has_portal
        )
    except Failure as error:
        raise pulumi.RunError(f"nothing was changed.\n\n{error}\n") from None
    planned = builds.plan(releases, images, known=known, found=found, has_portal=stack.settings.has_portal)
    if planned.refused:
        raise pulumi.RunError("\n\n".join(["nothing was changed.", *map(str, planned.refused)]) + "\n")
    return planned


def remember(names: Iterable[str]) -> None:
    """Names the images that this update declares to the next one."""
    pulumi.export(IMAGES, sorted(names))


def _outputs(stack: str) -> dict[str, Any]:
    """Outputs of a stack, whose state the engine may be writing at this moment: a file is not replaced in one go."""
    for _ in range(ATTEMPTS - 1):
        try:
            return _ask(stack)
        except Exception as error:
            # Pulumi has no class of its own for it. Seen once in some dozen first updates: "checkpoint: EOF".
            if "failed to load checkpoint" not in str(error):
                raise
        time.sleep(PAUSE_SECONDS)
    return _ask(stack)


def _ask(stack: str) -> dict[str, Any]:
    told: dict[str, Any] = pulumi.runtime.invoke("pulumi:pulumi:readStackOutputs", {"name": stack}).value["outputs"]
    return told
