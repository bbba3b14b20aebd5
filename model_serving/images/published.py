"""What was published before: a release never changes, and one that is in the registry is not built again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from model_serving.images.registry import Image, Registry

AT_ONCE: Final = 8


class AlreadyPublished(Exception):
    """A version exists with other content."""


def refuse_other_content(
    reference: str, content_hash: str, *, label: str, previous: Mapping[str, str] | None = None
) -> None:
    """Compares a release with what was published under its version, if anything was.

    A registry with accounts that does not let this one in is expected to refuse a second push of a tag by itself, as
    Artifact Registry does here.

    Args:
        reference: image with its tag, ``<registry>/<model>:<version>``.
        content_hash: hash of the release's folder.
        label: label that holds the hash of the folder in a published image.
        previous: labels as the stack's state has them; without them the registry is asked.

    Raises:
        AlreadyPublished: if the version was published with other content.
    """
    found = _find(reference) if previous is None else None
    labels = found.labels if found else previous or {}
    if (published := labels.get(label)) and published != content_hash:
        model, _, version = reference.rpartition("/")[2].partition(":")
        raise AlreadyPublished(
            f"models/{model}/{version} was changed after it was published.\n"
            f"  Who asks for version {version} would get another model than yesterday.\n"
            f"  Undo the change (git checkout models/{model}/{version}), or release it under a new version."
        )


def images(references: Iterable[str]) -> dict[str, Image]:
    """Those of some images that are in the registry.

    A registry that cannot be asked has none: what is missing is built, and the push tells what is wrong.
    """
    wanted = [*references]
    if not wanted:
        return {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(_find_if_it_answers, wanted)
        return {reference: image for reference, image in zip(wanted, found, strict=True) if image}


def _find(reference: str) -> Image | None:
    registry, _, name = reference.partition("/")
    return Registry(registry).find(*name.rsplit(":", 1))


def _find_if_it_answers(reference: str) -> Image | None:
    try:
        return _find(reference)
    except OSError:
        return None
