"""What becomes of a stack's images: built, run as they were published, or refused.

A release never changes, and one that is in the registry is not built again: a rollback runs what ran before, byte for
byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from model_serving.catalog import Release
from model_serving.images import artefacts, portal, runtimes
from model_serving.images.settings import ImageSettings
from model_serving.problems import Failure

if TYPE_CHECKING:
    from model_serving.images.registry import Image, Registry

DOCKERFILE: Final = Path("server/model.Dockerfile")
RUNTIME: Final = "runtime"
"""Repository of the images of runtimes."""
REVIEWS: Final = "review"
"""Path below a stack's registry of the images of reviews, from which no stack runs anything."""
CONTENT_LABEL: Final = "model-serving.content-hash"
"""Label of a model image: the hash of the release folder that it was built from."""
AT_ONCE: Final = 8


class AlreadyPublished(Failure):
    """A release's folder was changed after its version was published."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__(
            f"{folder} was changed after it was published.\n"
            f"  Who asks for version {Path(folder).name} would get another model than yesterday.\n"
            f"  Undo the change (git checkout {folder}), or release it under a new version."
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What becomes of each image, by its name in the registry, e.g. ``iris:1.0`` or ``runtime:<tag>``.

    Attributes:
        declared: those that are resources of the stack, built if they are not there yet -> name that it remembers.
        reused: those that are in the registry and that the stack does not remember -> digest.
        refused: those that were published with other content.
    """

    declared: dict[str, str] = field(default_factory=dict)
    reused: dict[str, str] = field(default_factory=dict)
    refused: list[AlreadyPublished] = field(default_factory=list)


def plan(
    releases: Sequence[Release],
    images: ImageSettings,
    *,
    known: Collection[str],
    found: Mapping[str, Image],
    has_portal: bool = False,
) -> Plan:
    """Plans the images of releases, of the runtimes under those that are declared, and of the portal.

    An image that the stack remembers stays declared, or the state would let go of it. One whose base, runtime or
    Dockerfile is another one today is not remembered, and run as it was published: declared, it would be built again,
    and a registry with immutable tags refuses that.

    Args:
        releases: those that will be served.
        images: how images are built; decides their runtimes.
        known: names that the stack remembers, of the images that it has built itself.
        found: name in the registry -> image, of those that are in it.
        has_portal: whether the stack has a portal.
    """
    names, made = _remembered(releases, images, has_portal=has_portal), Plan()

    def place(name: str, published: Image | None) -> None:
        if published and names[name] not in known:
            made.reused[name] = published.digest
        else:
            made.declared[name] = names[name]

    for release in releases:
        name, runtime = image_of(release), runtime_image(runtimes.tag_of(release, images))
        published = found.get(name)
        content = published.labels.get(CONTENT_LABEL) if published else None
        if content and content != release.content_hash:
            made.refused.append(AlreadyPublished(release.folder))
            continue
        # An image without the label is not this project's: it is not run, and does not hinder a build.
        place(name, published if content else None)
        if name in made.declared:
            place(runtime, found.get(runtime))
    if has_portal:
        name = portal.image_name(images)
        place(name, found.get(name))
    return made


def look_up(
    releases: Sequence[Release],
    images: ImageSettings,
    *,
    known: Collection[str],
    registry: str,
    has_portal: bool = False,
) -> dict[str, Image]:
    """The images that are in a registry, of those that the stack does not remember: name in the registry -> image.

    A registry that does not answer has none: what is missing is built, and the push tells what is wrong.

    Raises:
        Unusable: if what answers is no registry, or the account for it has run out.
    """
    wanted = _remembered(releases, images, has_portal=has_portal)
    names = [name for name, remembered in wanted.items() if remembered not in known]
    if not names:
        return {}
    # Imported here: an update of a stack that has built all of its images does not wait for requests.
    from model_serving.images.registry import Registry  # noqa: PLC0415

    client = Registry(registry)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return {name: image for name, image in zip(names, pool.map(partial(find, client), names), strict=True) if image}


def find(client: Registry, name: str) -> Image | None:
    """An image of a registry; None as well if the registry does not answer, see `look_up`.

    Raises:
        Unusable: if what answers is no registry, or the account for it has run out.
    """
    from model_serving.images.registry import Unusable  # noqa: PLC0415 - as above

    try:
        return client.find(*name.split(":"))
    except Unusable:
        raise
    except OSError:
        return None


def refuse_other_content(
    reference: str, content_hash: str, *, folder: str, previous: Mapping[str, str] | None = None
) -> None:
    """Compares a release with what was published under its version, if anything was.

    A registry with accounts that does not let this one in is expected to refuse a second push of a tag by itself, as
    Artifact Registry does here.

    Args:
        reference: image with its tag, ``<registry>/<model>:<version>``.
        content_hash: hash of the release's folder.
        folder: of the release.
        previous: labels as the stack's state has them; without them the registry is asked.

    Raises:
        AlreadyPublished: if the version was published with other content.
        OSError: if the registry does not answer.
    """
    if previous is None:
        registry, _, name = reference.partition("/")
        from model_serving.images.registry import Registry  # noqa: PLC0415 - as above

        image = Registry(registry).find(*name.rsplit(":", 1))
        previous = image.labels if image else {}
    if previous.get(CONTENT_LABEL, content_hash) != content_hash:
        raise AlreadyPublished(folder)


def image_of(release: Release) -> str:
    """Name in the registry of the image of a release."""
    return f"{release.repository}:{release.version}"


def runtime_image(tag: str) -> str:
    """Name in the registry of the image of a runtime."""
    return f"{RUNTIME}:{tag}"


def runtime_resource(tag: str) -> str:
    """Name of the resource that builds a runtime."""
    return f"{RUNTIME}-{tag}"


def dockerfile_of(release: Release) -> Path:
    """What the image of a release is built by."""
    return artefacts.DOCKERFILE if release.pointers else DOCKERFILE


def _remembered(releases: Sequence[Release], images: ImageSettings, *, has_portal: bool) -> dict[str, str]:
    """Name in the registry -> name that the stack remembers, with what the image is built by and on."""
    names = {}
    for release in releases:
        tag = runtimes.tag_of(release, images)
        names[image_of(release)] = f"{release.label}@{_recipe(dockerfile_of(release), tag)}"
        names[runtime_image(tag)] = f"{runtime_resource(tag)}@{_recipe(runtimes.DOCKERFILE, tag)}"
    if has_portal:
        tag = portal.tag_of(images)
        names[portal.image_name(images)] = f"{portal.REPOSITORY}@{_recipe(portal.DOCKERFILE, tag)}"
    return names


def _recipe(dockerfile: Path, runtime: str) -> str:
    # The place of the Dockerfile is an input of the resource: an image that was declared with another would be built.
    return hashlib.sha256(f"{dockerfile}\n".encode() + dockerfile.read_bytes() + runtime.encode()).hexdigest()[:12]
