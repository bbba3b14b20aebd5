"""A client of image registries: finds, lists and removes images.

It uses the API that every registry has, https://distribution.github.io/distribution/spec/api/, which can neither remove
only a tag nor list what has lost its tag.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import requests

from model_serving.images import docker_config
from model_serving.images.docker_config import REGISTRY_TIMEOUT_SECONDS
from model_serving.problems import Failure

MANIFESTS: Final = (
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json"
)
"""Accept header that lets a registry answer with a manifest as it was pushed; without it, some translate it."""
AT_ONCE: Final = 8
PAGE: Final = 1000
CLIENT: Final = "model-serving"
NOTHING_CHANGED: Final = "What it has is not known, and nothing in it was changed."
_REFUSED: Final = "the account that Docker has for it is refused: it is wrong, or its token has run out"
_PARAMETER: Final = re.compile(r'(\w+)="([^"]*)"')


class RegistryError(Failure, OSError):
    """A registry did not do what it was asked, in three parts: what, consequence, remedy.

    Attributes:
        status: HTTP status that it refused with; 0 if it did not answer, or not as the API says.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Unusable(RegistryError):
    """What answers is no registry, or does not take the account that Docker has: a push would fail the same way."""


class _WrongAnswer(OSError):
    pass


class _WrongAccount(OSError):
    pass


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image under one of its tags.

    Attributes:
        repository: below the registry's path, e.g. ``iris-dtc``.
        tag: or the digest that it was asked for by.
        digest: of the manifest that the tag points to, by which it can be pulled for ever.
        labels: those of its first platform where it has several.
        layers: digests, from the base upwards.
        blobs: configurations and layers: digest -> bytes, compressed.
        manifests: that there are: digest -> bytes.
        parts: digests of the manifests below this one, where it has several platforms.
    """

    repository: str
    tag: str
    digest: str
    labels: Mapping[str, str] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    blobs: Mapping[str, int] = field(default_factory=dict)
    manifests: Mapping[str, int] = field(default_factory=dict)
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


class _Session(requests.Session):
    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Leaves the account out of a redirect: the storage that it leads to has its own in the address."""
        prepared_request.headers.pop("Authorization", None)


class Registry:
    """A registry, or the part of one below a path.

    It shows the account that Docker has for it when it is asked for one.

    Args:
        registry: host, port and path without a scheme, e.g. ``localhost:5000``.
    """

    def __init__(self, registry: str) -> None:
        self._name = registry
        self._host, _, path = registry.partition("/")
        self._path = f"{path.rstrip('/')}/" if path else ""
        self._url = docker_config.registry_url(registry)
        self._base = f"{self._url}{self._path}"
        self._session = _Session()
        self._session.headers.update({"Accept": MANIFESTS, "User-Agent": CLIENT})
        # The machine's certificates, as Docker and buildx use them, which may include those of a company.
        trusted = ssl.get_default_verify_paths()
        self._session.verify = trusted.cafile or trusted.capath or True
        self._authorizations: dict[tuple[str, str], str] = {}

    def find(self, repository: str, tag: str) -> Image | None:
        """Looks for an image that can be run; None as well if the registry does not let this account look.

        Raises:
            Unusable: if what answers is no registry, or the account has run out.
            RegistryError: if the registry does not answer, or answers that something is wrong with it.
        """
        try:
            image = self.image(repository, tag)
        except Unusable:
            raise
        except RegistryError as error:
            if error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                return None
            raise
        is_whole = image and image.blobs and image.manifests.keys() >= {*image.parts[:1]}
        return image if is_whole else None

    def image(self, repository: str, reference: str) -> Image | None:
        """Reads an image by its tag or digest; None if it is not there.

        Raises:
            RegistryError: if it cannot be read.
        """
        place = f"{self._base}{repository}"
        with self._failing(f"could not show {repository}:{reference}"):
            top = self._ask("GET", f"{place}/manifests/{reference}")
            if top is None:
                return None
            digest = top.headers.get("Docker-Content-Digest") or f"sha256:{hashlib.sha256(top.content).hexdigest()}"
            parts = tuple(part["digest"] for part in _json(top).get("manifests") or ())
            below = {part: self._ask("GET", f"{place}/manifests/{part}") for part in parts}
            # A part may be gone: removed by a run that was interrupted before it came to the manifest above.
            answers = {digest: top} | {part: answer for part, answer in below.items() if answer is not None}
            images = [content for content in map(_json, answers.values()) if "config" in content]
            first = self._ask("GET", f"{place}/blobs/{images[0]['config']['digest']}") if images else None
            process = _json(first).get("config") if first is not None else None
            return Image(
                repository=repository,
                tag=reference,
                digest=digest,
                labels=(process or {}).get("Labels") or {},
                layers=tuple(layer["digest"] for layer in images[0]["layers"]) if images else (),
                blobs={blob["digest"]: blob["size"] for each in images for blob in (each["config"], *each["layers"])},
                manifests={name: len(answer.content) for name, answer in answers.items()},
                parts=parts,
            )

    def images(self, repositories: Sequence[str]) -> list[Image]:
        """Reads every image that has a tag.

        Raises:
            RegistryError: if not all of them can be read.
        """
        with ThreadPoolExecutor(AT_ONCE) as pool:
            listed = zip(repositories, pool.map(self._tags, repositories), strict=True)
            found = pool.map(lambda name: self.image(*name), [(name, tag) for name, tags in listed for tag in tags])
            return [image for image in found if image]

    def repositories(self) -> list[str] | None:
        """Lists the repositories; None if the registry keeps that to itself.

        Raises:
            RegistryError: if it does not answer.
        """
        try:
            with self._failing("could not list its repositories"):
                pages = [*self._pages(f"{self._url}_catalog")]
        except RegistryError as error:
            # Registries say it in many ways that this account may not know, or that they have no such list.
            if 0 < error.status < HTTPStatus.INTERNAL_SERVER_ERROR or error.status == HTTPStatus.NOT_IMPLEMENTED:
                return None
            raise
        names = [name for page in pages for name in page.get("repositories") or ()]
        return [name.removeprefix(self._path) for name in names if name.startswith(self._path)] if pages else None

    def is_without(self, repository: str, digest: str) -> bool:
        """Whether the registry says that it does not have an image; one that cannot be asked does not say so."""
        try:
            with self._failing("could not be asked"):
                return self._ask("HEAD", f"{self._base}{repository}/manifests/{digest}") is None
        except RegistryError:
            return False

    def delete(self, repository: str, digest: str) -> None:
        """Removes a manifest with every tag that points to it; it is fine if it is gone already.

        Raises:
            RegistryError: if the registry refuses.
        """
        consequence = "What was removed before it is gone, everything else is as it was."
        with self._failing(f"did not remove {repository}@{digest}", consequence):
            self._ask("DELETE", f"{self._base}{repository}/manifests/{digest}")

    def _tags(self, repository: str) -> list[str]:
        with self._failing(f"could not list the tags of {repository}"):
            return [
                tag for page in self._pages(f"{self._base}{repository}/tags/list") for tag in page.get("tags") or ()
            ]

    def _pages(self, url: str) -> Iterator[dict[str, Any]]:
        link: str | None = f"{url}?n={PAGE}"
        asked: set[str] = set()
        while link:
            # Within the registry, wherever a link leads: the account is shown to nobody else.
            parts = urlsplit(urljoin(url, link))
            url = f"{self._url.removesuffix('/v2/')}{parts.path}?{parts.query}"
            if url in asked:
                raise _WrongAnswer("the next page of its list is one that was there already")
            asked.add(url)
            answer = self._ask("GET", url)
            if answer is None:
                return
            yield _json(answer)
            link = answer.links.get("next", {}).get("url")

    def _ask(self, method: str, url: str) -> requests.Response | None:
        """Asks with the account that Docker has, if the registry wants one; None if there is no such thing."""
        # A token is for a repository and for what is done with it.
        scope = (method, url.rsplit("/", 2)[0])
        answer = self._send(method, url, self._authorizations.get(scope))
        # What another host asks for after a redirect is not the registry's account.
        if answer.status_code == HTTPStatus.UNAUTHORIZED and not answer.history:
            challenges = answer.raw.headers.getlist("WWW-Authenticate")
            # Asked for anew where a token was refused: it may have expired.
            if authorization := next(filter(None, map(self._authorization, challenges)), None):
                self._authorizations[scope] = authorization
                answer = self._send(method, url, authorization)
                is_refused = answer.status_code == HTTPStatus.UNAUTHORIZED and not answer.history
                if is_refused and authorization.startswith("Basic "):
                    raise _WrongAccount(_REFUSED)
        return None if answer.status_code == HTTPStatus.NOT_FOUND else _checked(answer)

    def _authorization(self, challenge: str) -> str | None:
        """Answers who is asking, https://distribution.github.io/distribution/spec/auth/token/; None without account."""
        scheme, _, rest = challenge.partition(" ")
        basic = f"Basic {self._account.basic}" if self._account.basic else None
        if scheme.lower() == "basic":
            return basic
        parameters = dict(_PARAMETER.findall(rest))
        realm = parameters.pop("realm", "")
        if not docker_config.may_see_secrets(realm):
            return None
        if refresh := self._account.identity_token:
            # https://distribution.github.io/distribution/spec/auth/oauth/
            form = {"grant_type": "refresh_token", "client_id": CLIENT, "refresh_token": refresh}
            answer = self._send("POST", realm, data=parameters | form)
        else:
            answer = self._send("GET", realm, basic, params=parameters)
        # With 400, OAuth 2 says that a refresh token is no longer valid.
        refusals: dict[int, str | None] = {HTTPStatus.UNAUTHORIZED: basic or refresh, HTTPStatus.BAD_REQUEST: refresh}
        if refusals.get(answer.status_code):
            raise _WrongAccount(_REFUSED)
        if HTTPStatus.BAD_REQUEST <= answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
            return None
        told = _json(_checked(answer))
        return f"Bearer {told.get('token') or told['access_token']}"

    def _send(self, method: str, url: str, authorization: str | None = None, **options: Any) -> requests.Response:
        def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
            if authorization:
                request.headers["Authorization"] = authorization
            return request

        # As `auth`, or requests would look for an account in a .netrc.
        options |= {"auth": authorize, "timeout": REGISTRY_TIMEOUT_SECONDS}
        # Without encryption there is only loopback, which no proxy has to hear of.
        options["proxies"] = {"http": ""}
        return self._session.request(method, url, allow_redirects=method in ("GET", "HEAD"), **options)

    @cached_property
    def _account(self) -> docker_config.Account:
        return docker_config.account(self._host)

    @contextmanager
    def _failing(self, what: str, consequence: str = NOTHING_CHANGED) -> Iterator[None]:
        try:
            yield
        # Of another type, or missing: what the answer should have.
        except (OSError, LookupError, TypeError, AttributeError, ValueError) as error:
            status = error.response.status_code if isinstance(error, requests.HTTPError) else 0
            if isinstance(error, _WrongAccount):
                status = HTTPStatus.UNAUTHORIZED
            message = f"the registry {self._name} {what}: {_reason(error)}\n  {consequence}\n  {self._remedy(status)}"
            kind = Unusable if isinstance(error, _WrongAccount | _WrongAnswer) else RegistryError
            # "from None": the first exception holds the request with its headers.
            raise kind(message, status) from None

    def _remedy(self, status: int) -> str:
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return f"Run `docker login {self._host}` with an account that may read and delete there."
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            return "Allow it in the registry's configuration (storage.delete.enabled), or use its provider's clean-up."
        return "See that it runs and can be reached from here, then run the same again."


def _checked(answer: requests.Response) -> requests.Response:
    if not answer.ok or answer.is_redirect:
        host = urlsplit(answer.url).netloc
        raise requests.HTTPError(f"{host} answered {answer.status_code} {answer.reason}", response=answer)
    return answer


def _json(answer: requests.Response) -> dict[str, Any]:
    content = None
    with suppress(requests.JSONDecodeError):
        content = answer.json()
    if not isinstance(content, dict):
        raise _WrongAnswer(
            f"{urlsplit(answer.url).netloc} answered with something else, perhaps a proxy's or a login's page"
        )
    return content


def _reason(error: BaseException) -> str:
    """The first cause of an error. What requests says of it has the address, which may hold a signature."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    if isinstance(error, KeyError):
        return f"its answer has no {error}"
    return str(error) if isinstance(error, OSError) else "its answer is not as the API says"
