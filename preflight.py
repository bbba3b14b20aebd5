"""Looks at what a stack points to, before anything is changed: its kube context and its registry."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

from problems import InvalidInput, Problem
from settings import NAMESPACE, Settings

REGISTRY_TIMEOUT_SECONDS: Final = 5
_LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]")


def check(settings: Settings, *, file: str) -> None:
    """Checks a stack against its surroundings.

    Args:
        settings: the stack's.
        file: how messages name the stack file.

    Raises:
        InvalidInput: if the kube context does not exist or the registry does not answer.
    """
    if problems := [*_kube_context(settings, file), *_registry(settings, file)]:
        raise InvalidInput(problems)


def registry_url(registry: str) -> str:
    """Base address of a registry's API. This machine's own registry has no certificate, any other must have one."""
    host = registry.partition("/")[0]
    scheme = "http" if host.rpartition(":")[0] in _LOCAL_HOSTS or host in _LOCAL_HOSTS else "https"
    return f"{scheme}://{host}/v2/"


def kubeconfig_path(settings: Settings) -> Path:
    """The kubeconfig that the Kubernetes provider reads, found as kubectl does."""
    if settings.kubeconfig:
        return Path(settings.kubeconfig)
    # KUBECONFIG may be a list of files, which kubectl merges; the first is where it would write.
    named = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    return Path(named) if named else Path.home() / ".kube" / "config"


def _kube_context(settings: Settings, file: str) -> Iterator[Problem]:
    path = kubeconfig_path(settings)
    try:
        content = yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader)
        names = [context["name"] for context in content.get("contexts") or []]
    except FileNotFoundError:
        yield Problem(
            file=file,
            what=f"{NAMESPACE}:kubeconfig is {settings.kubeconfig or 'not set'} and {path} does not exist",
            consequence="There is no cluster to deploy to.",
            remedy=f"Run `make up`, which starts the local cluster, or set {NAMESPACE}:kubeconfig to an existing file.",
        )
        return
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        yield Problem(
            file=str(path),
            what=f"it cannot be read as a kubeconfig: {' '.join(str(error).split())}",
            consequence="There is no cluster to deploy to.",
            remedy="Mend the file, or name another one in the stack.",
        )
        return
    wanted = settings.kube_context or content.get("current-context")
    if wanted not in names:
        yield Problem(
            file=file,
            what=f"{NAMESPACE}:kubeContext is {wanted}, which {path} does not have",
            consequence="There is no cluster to deploy to.",
            remedy=f"Write one of its contexts: {', '.join(names) or 'it has none'}.",
        )


def _registry(settings: Settings, file: str) -> Iterator[Problem]:
    if settings.registry is None:
        return
    try:
        urllib.request.urlopen(registry_url(settings.registry), timeout=REGISTRY_TIMEOUT_SECONDS).close()  # noqa: S310
    except urllib.error.HTTPError:
        return  # It answers. Whether it lets us in is a matter of the push, which knows the credentials.
    except OSError as error:
        yield Problem(
            file=file,
            what=f"{NAMESPACE}:registry is {settings.registry}, which does not answer: {error}",
            consequence="No image could be pushed, so no model could be released.",
            remedy=f"Start it (`make up` starts the local one), or set {NAMESPACE}:registry to another.",
        )
