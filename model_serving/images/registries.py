"""Asks a registry for an image that may be there already, with the account that Docker has for it."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

REGISTRY_TIMEOUT_SECONDS: Final = 5
_LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]")
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
DIGEST_HEADER: Final = "Docker-Content-Digest"
HELPER_SECONDS: Final = 10
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, kw_only=True)
class Found:
    """An image in a registry.

    Attributes:
        digest: of what the tag points to, by which it can be pulled for ever.
        labels: of the image; those of its first platform where it has several.
    """

    digest: str
    labels: Mapping[str, str] = field(default_factory=dict)


def registry_url(registry: str) -> str:
    """Base address of a registry's API. This machine's own registry has no certificate, any other must have one."""
    host = registry.partition("/")[0]
    scheme = "http" if host.rpartition(":")[0] in _LOCAL_HOSTS or host in _LOCAL_HOSTS else "https"
    return f"{scheme}://{host}/v2/"


def find(reference: str) -> Found | None:
    """Looks for an image.

    Args:
        reference: image with its tag, ``<registry>/<name>:<tag>``.

    Returns:
        None if it is not there, or if the registry does not let this account look.

    Raises:
        OSError: if the registry does not answer, or answers that something is wrong with it.
    """
    host, base, tag = _place(reference)
    try:
        manifest, headers = ask(f"{base}/manifests/{tag}", host)
        digest = headers.get(DIGEST_HEADER, "")
        if children := manifest.get("manifests"):
            manifest, _ = ask(f"{base}/manifests/{children[0]['digest']}", host)
        image, _ = ask(f"{base}/blobs/{manifest['config']['digest']}", host)
    except urllib.error.HTTPError as error:
        if error.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
            return None
        raise
    return Found(digest=digest, labels=image.get("config", {}).get("Labels") or {})


def is_without(reference: str, digest: str) -> bool:
    """Whether a registry says that it does not have an image; one that cannot be asked does not say so.

    Args:
        reference: image with its tag, ``<registry>/<name>:<tag>``.
        digest: of the image.
    """
    host, base, _ = _place(reference)
    try:
        ask(f"{base}/manifests/{digest}", host, method="HEAD")
    except OSError as error:
        return isinstance(error, urllib.error.HTTPError) and error.code == HTTPStatus.NOT_FOUND
    return False


def _place(reference: str) -> tuple[str, str, str]:
    """The registry's host, the address of the repository in its API, and the tag of an image."""
    name, _, tag = reference.rpartition(":")
    host, _, repository = name.partition("/")
    return host, f"{registry_url(host)}{repository}", tag


def ask(url: str, host: str, method: str = "GET") -> tuple[dict[str, Any], Mapping[str, str]]:
    """Asks a registry's API, with the account that Docker has for it if it wants one.

    Returns:
        The answer's content and headers; of anything but a GET the headers alone.

    Raises:
        OSError: if the registry does not answer, or refuses.
    """
    try:
        return _read(url, method=method)
    except urllib.error.HTTPError as error:
        authorization = (
            _authorization(error.headers.get("WWW-Authenticate", ""), host)
            if error.code == HTTPStatus.UNAUTHORIZED
            else None
        )
        if authorization is None:
            raise
    return _read(url, authorization, method)


def _read(url: str, authorization: str | None = None, method: str = "GET") -> tuple[dict[str, Any], Mapping[str, str]]:
    request = urllib.request.Request(url, headers={"Accept": MANIFESTS}, method=method)  # noqa: S310 - see registry_url
    if authorization:
        # Not passed on to the storage that a registry may redirect to, which has its own.
        request.add_unredirected_header("Authorization", authorization)
    with urllib.request.urlopen(request, timeout=REGISTRY_TIMEOUT_SECONDS) as response:  # noqa: S310
        content: dict[str, Any] = json.load(response) if method == "GET" else {}
        return content, response.headers


def _authorization(challenge: str, host: str) -> str | None:
    """What to show to a registry that asks who we are, https://distribution.github.io/distribution/spec/auth/token/."""
    account = _account(host)
    scheme, _, rest = challenge.partition(" ")
    parameters = dict(_CHALLENGE.findall(rest))
    if scheme.lower() == "basic":
        return account
    realm = parameters.pop("realm", "")
    if not realm.startswith("https://"):
        return None
    return f"Bearer {_token(f'{realm}?{urllib.parse.urlencode(parameters)}', account)}"


@lru_cache
def _token(url: str, account: str | None) -> str:
    content, _ = _read(url, account)
    return str(content.get("token") or content.get("access_token"))


@lru_cache
def _account(host: str) -> str | None:
    """Docker's own account for a registry, as the header that shows it; None if it has none."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        configuration = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    helper = configuration.get("credHelpers", {}).get(host) or configuration.get("credsStore")
    if helper:
        return _from_helper(helper, host)
    entries = configuration.get("auths", {})
    entry = entries.get(host) or entries.get(f"https://{host}") or {}
    return f"Basic {entry['auth']}" if entry.get("auth") else None


def _from_helper(helper: str, host: str) -> str | None:
    """https://docs.docker.com/reference/cli/docker/login/#credential-helper-protocol."""
    try:
        told = subprocess.run(
            [f"docker-credential-{helper}", "get"],
            input=host,
            text=True,
            capture_output=True,
            timeout=HELPER_SECONDS,
            check=True,
        ).stdout
        account = json.loads(told)
        return "Basic " + base64.b64encode(f"{account['Username']}:{account['Secret']}".encode()).decode()
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, binascii.Error):
        return None
