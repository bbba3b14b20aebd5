"""What Docker knows about a registry: the address of its API, and the account for it in Docker's configuration."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

REGISTRY_TIMEOUT_SECONDS: Final = 5
HELPER_SECONDS: Final = 10
DOCKER_HUB: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
DOCKER_HUB_KEY: Final = "https://index.docker.io/v1/"
"""Name of Docker Hub in Docker's configuration."""
IDENTITY_TOKEN: Final = "<token>"  # noqa: S105 - a helper's user name
"""User name with which a credential helper says that the secret is an identity token."""
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, kw_only=True)
class Account:
    """An account at a registry; both are empty if Docker has none.

    Attributes:
        basic: user name and password, encoded for basic authentication.
        identity_token: OAuth 2 refresh token, which takes the place of a password.
    """

    basic: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


def registry_url(registry: str) -> str:
    """Base address of a registry's API. This machine's own registry has no certificate, any other must have one."""
    host = registry.partition("/")[0]
    if host in DOCKER_HUB:
        host = "registry-1.docker.io"
    scheme = "http" if urlsplit(f"//{host}").hostname in _LOOPBACK else "https"
    return f"{scheme}://{host}/v2/"


def may_see_secrets(url: str) -> bool:
    """Whether a password may be sent to an address: it is encrypted on its way, or does not leave this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)


def account(host: str) -> Account:
    """Docker's account for a registry: from the registry's own helper, else the general one, else the file itself."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        config: Mapping[str, Any] = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return Account()
    hosts = DOCKER_HUB if host in DOCKER_HUB else {host}
    key = DOCKER_HUB_KEY if host in DOCKER_HUB else host
    if helper := config.get("credHelpers", {}).get(key, config.get("credsStore")):
        return _from_helper(helper, key)
    auths: Mapping[str, Mapping[str, str]] = config.get("auths", {})
    entry = auths.get(key) or next((entry for name, entry in auths.items() if _host(name) in hosts), {})
    return Account(basic=entry.get("auth", ""), identity_token=entry.get("identitytoken", ""))


def _host(key: str) -> str:
    """The host in a key of ``auths``, which may be an address with a scheme and a path."""
    return key.rpartition("://")[2].partition("/")[0]


def _from_helper(helper: str, key: str) -> Account:
    """https://docs.docker.com/reference/cli/docker/login/#credential-helper-protocol."""
    command = [f"docker-credential-{helper}", "get"]
    try:
        done = subprocess.run(command, input=key.encode(), capture_output=True, timeout=HELPER_SECONDS, check=True)
        login = json.loads(done.stdout)
        name, secret = login["Username"], login["Secret"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return Account()
    if name == IDENTITY_TOKEN:
        return Account(identity_token=secret)
    return Account(basic=base64.b64encode(f"{name}:{secret}".encode()).decode())
