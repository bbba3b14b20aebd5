"""Refuses to publish other content under a version that was published before: a release never changes."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Final

from preflight import REGISTRY_TIMEOUT_SECONDS, registry_url

MANIFESTS: Final = ", ".join(
    f"application/vnd.{kind}"
    for kind in (
        "oci.image.manifest.v1+json",
        "oci.image.index.v1+json",
        "docker.distribution.manifest.v2+json",
        "docker.distribution.manifest.list.v2+json",
    )
)
"""Accept header that lets a registry answer with a manifest as it was pushed; without it, some translate it."""


class AlreadyPublished(Exception):
    """A version exists with other content."""


def refuse_other_content(
    reference: str, content_hash: str, *, label: str, previous: Mapping[str, str] | None = None
) -> None:
    """Compares a release with what was published under its version, if anything was.

    Args:
        reference: image with its tag, ``<registry>/<model>:<version>``.
        content_hash: hash of the release's folder.
        label: label that holds the hash of the folder in a published image.
        previous: labels as the stack's state has them; without them the registry is asked.

    Raises:
        AlreadyPublished: if the version was published with other content.
    """
    labels = previous if previous is not None else _labels(reference)
    if (published := labels.get(label)) and published != content_hash:
        model, _, version = reference.rpartition("/")[2].partition(":")
        raise AlreadyPublished(
            f"models/{model}/{version} was changed after it was published.\n"
            f"  Who asks for version {version} would get another model than yesterday.\n"
            f"  Undo the change (git checkout models/{model}/{version}), or release it under a new version."
        )


def _labels(reference: str) -> Mapping[str, str]:
    """Labels of an image in its registry; none if it is not there or the registry wants to know who asks.

    A registry with accounts is expected to refuse a second push of a tag by itself, as Artifact Registry does here.
    """
    name, _, tag = reference.rpartition(":")
    host, _, repository = name.partition("/")
    base = f"{registry_url(host)}{repository}"
    try:
        manifest = _get(f"{base}/manifests/{tag}")
        if children := manifest.get("manifests"):
            manifest = _get(f"{base}/manifests/{children[0]['digest']}")
        return _get(f"{base}/blobs/{manifest['config']['digest']}").get("config", {}).get("Labels") or {}
    except urllib.error.HTTPError as error:
        if error.code in (401, 403, 404):
            return {}
        raise


def _get(url: str) -> dict[str, Any]:
    request = urllib.request.Request(url, headers={"Accept": MANIFESTS})  # noqa: S310 - registry_url sets the scheme
    with urllib.request.urlopen(request, timeout=REGISTRY_TIMEOUT_SECONDS) as response:  # noqa: S310
        content: dict[str, Any] = json.load(response)
    return content
