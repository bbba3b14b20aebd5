"""The images of a registry: which there are, of what they consist, and how one is removed.

By the API that every registry has, https://distribution.github.io/distribution/spec/api/. It can neither remove a tag
alone nor list what has lost its tag.
"""

from __future__ import annotations

import urllib.error
import urllib.parse
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from model_serving.images import registries
from model_serving.images.registries import registry_url

AT_ONCE: Final = 8
PAGE: Final = 1000


class RegistryError(Exception):
    """The registry did not do what it was asked, in three parts: what, consequence, remedy."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image under one of its tags.

    Attributes:
        repository: without the registry and its path, e.g. ``iris-dtc``.
        digest: of what the tag points to.
        labels: those of its first platform where it has several.
        layers: digests, from the base upwards.
        blobs: everything that it consists of but manifests: digest -> bytes, compressed.
        parts: digests of the manifests below this one, where it has several platforms.
    """

    repository: str
    tag: str
    digest: str
    labels: Mapping[str, str] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    blobs: Mapping[str, int] = field(default_factory=dict)
    parts: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}"

    @property
    def size(self) -> int:
        """Bytes, of which other images may have a part."""
        return sum(self.blobs.values())

    def is_built_on(self, base: Image) -> bool:
        """Whether all layers of the other one are at the bottom of this one."""
        return bool(base.layers) and self.layers[: len(base.layers)] == base.layers


class ImageRegistry:
    """A registry, or the part of one below a path.

    Args:
        registry: host, port and path without a scheme, e.g. ``localhost:5000``.
    """

    def __init__(self, registry: str) -> None:
        self._name = registry
        self._host, _, path = registry.partition("/")
        self._path = f"{path.rstrip('/')}/" if path else ""

    def repositories(self) -> list[str] | None:
        """Those that there are; None if the registry keeps that to itself.

        Raises:
            RegistryError: if it does not answer.
        """
        try:
            pages = [*self._pages(f"_catalog?n={PAGE}")]
        except urllib.error.HTTPError as error:
            # Registries say it in many ways that this account may not know, or that they have no such list.
            if error.code < HTTPStatus.INTERNAL_SERVER_ERROR or error.code == HTTPStatus.NOT_IMPLEMENTED:
                return None
            raise self._refusal(error, "could not list its repositories") from None
        except OSError as error:
            raise self._refusal(error, "could not list its repositories") from None
        names = [name for page in pages for name in page.get("repositories") or []]
        return [name.removeprefix(self._path) for name in names if name.startswith(self._path)]

    def images(self, repositories: list[str]) -> list[Image]:
        """Every image that has a tag.

        Raises:
            RegistryError: if not all of them can be read.
        """
        with ThreadPoolExecutor(AT_ONCE) as pool:
            listed = pool.map(self._tags, repositories)
            names = [(name, tag) for name, tags in zip(repositories, listed, strict=True) for tag in tags]
            found = pool.map(lambda name: self._image(*name), names)
            return [image for image in found if image]

    def delete(self, repository: str, digest: str) -> None:
        """Removes a manifest with every tag that points to it; it is fine if it is gone already.

        Raises:
            RegistryError: if the registry refuses.
        """
        what = f"did not remove {repository}@{digest}"
        consequence = "What was removed before it is gone, everything else is as it was."
        try:
            registries.ask(self._url(f"{self._path}{repository}/manifests/{digest}"), self._host, method="DELETE")
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.NOT_FOUND:
                raise self._refusal(error, what, consequence) from None
        except OSError as error:
            raise self._refusal(error, what, consequence) from None

    def _tags(self, repository: str) -> list[str]:
        try:
            pages = [*self._pages(f"{self._path}{repository}/tags/list?n={PAGE}")]
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                return []
            raise self._refusal(error, f"could not list the tags of {repository}") from None
        except (OSError, ValueError) as error:
            raise self._refusal(error, f"could not list the tags of {repository}") from None
        return [tag for page in pages for tag in page.get("tags") or []]

    def _image(self, repository: str, tag: str) -> Image | None:
        """None if it went in the meantime."""
        try:
            return self._read(repository, tag)
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                return None
            raise self._refusal(error, f"could not show {repository}:{tag}") from None
        except (OSError, ValueError, KeyError) as error:
            raise self._refusal(error, f"could not show {repository}:{tag}") from None

    def _read(self, repository: str, tag: str) -> Image:
        top, headers = self._manifest(repository, tag)
        digest = headers[registries.DIGEST_HEADER]
        parts = [each["digest"] for each in top.get("manifests") or []]
        manifests = [*self._parts(repository, parts)] if parts else [top]
        labels: Mapping[str, str] = {}
        if manifests:
            address = f"{self._path}{repository}/blobs/{manifests[0]['config']['digest']}"
            image, _ = registries.ask(self._url(address), self._host)
            labels = image.get("config", {}).get("Labels") or {}
        blobs = [blob for manifest in manifests for blob in (manifest["config"], *manifest["layers"])]
        return Image(
            repository=repository,
            tag=tag,
            digest=digest,
            labels=labels,
            layers=tuple(layer["digest"] for layer in manifests[0]["layers"]) if manifests else (),
            blobs={blob["digest"]: blob["size"] for blob in blobs},
            parts=tuple(parts),
        )

    def _parts(self, repository: str, digests: list[str]) -> Iterator[dict[str, Any]]:
        for digest in digests:
            try:
                yield self._manifest(repository, digest)[0]
            except urllib.error.HTTPError as error:
                # Removed by a run that was interrupted before it came to the manifest above.
                if error.code != HTTPStatus.NOT_FOUND:
                    raise

    def _manifest(self, repository: str, reference: str) -> tuple[dict[str, Any], Mapping[str, str]]:
        return registries.ask(self._url(f"{self._path}{repository}/manifests/{reference}"), self._host)

    def _pages(self, path: str) -> Iterator[dict[str, Any]]:
        url = self._url(path)
        while url:
            content, headers = registries.ask(url, self._host)
            yield content
            # Within the registry, wherever the link leads: the account is shown to it alone.
            following = headers.get("Link", "").partition("<")[2].partition(">")[0]
            parts = urllib.parse.urlsplit(following)
            url = urllib.parse.urljoin(url, f"{parts.path}?{parts.query}") if following else ""

    def _url(self, path: str) -> str:
        return f"{registry_url(self._host)}{path}"

    def _refusal(
        self, error: Exception, what: str, consequence: str = "Not all images are known, so nothing was removed."
    ) -> RegistryError:
        code = error.code if isinstance(error, urllib.error.HTTPError) else 0
        return RegistryError(f"the registry {self._name} {what}: {error}\n  {consequence}\n  {self._remedy(code)}")

    def _remedy(self, code: int) -> str:
        if code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return f"Run `docker login {self._host}` with an account that may read and delete there."
        if code == HTTPStatus.METHOD_NOT_ALLOWED:
            return "Allow it in the registry's configuration (storage.delete.enabled), or use its provider's clean-up."
        return "See that it runs and can be reached from here, then run the same again."
