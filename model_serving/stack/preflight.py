"""Looks at what a stack points to, before anything is changed: its kube context and its registry."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from model_serving.images.registries import REGISTRY_TIMEOUT_SECONDS, registry_url
from model_serving.problems import InvalidInput, Problem
from model_serving.stack.settings import NAMESPACE, Settings


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


def kubeconfig_paths(settings: Settings) -> list[Path]:
    """The kubeconfigs that the Kubernetes provider reads, found as kubectl does, which merges several."""
    if settings.kubeconfig:
        return [Path(settings.kubeconfig)]
    named = [Path(name) for name in os.environ.get("KUBECONFIG", "").split(os.pathsep) if name]
    return named or [Path.home() / ".kube" / "config"]


def has_context(settings: Settings) -> bool:
    """Whether this machine has the kube context that the stack names; false as well if there is no kubeconfig."""
    paths = [path for path in kubeconfig_paths(settings) if path.exists()]
    try:
        contents = [yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader) for path in paths]
        return settings.kube_context in _contexts(contents)
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError):
        return False


def _contexts(kubeconfigs: Iterable[Any]) -> list[str]:
    return [context["name"] for content in kubeconfigs for context in content.get("contexts") or []]


def _kube_context(settings: Settings, file: str) -> Iterator[Problem]:
    paths = [path for path in kubeconfig_paths(settings) if path.exists()]
    shown = ", ".join(map(str, paths or kubeconfig_paths(settings)))
    if not paths:
        yield Problem(
            file=file,
            what=f"{NAMESPACE}:kubeconfig is {settings.kubeconfig or 'not set'} and {shown} does not exist",
            consequence="There is no cluster to deploy to.",
            remedy=f"Run `make up`, which starts the local cluster, or set {NAMESPACE}:kubeconfig to an existing file.",
        )
        return
    try:
        contents = [yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader) for path in paths]
        names = _contexts(contents)
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        yield Problem(
            file=shown,
            what=f"it cannot be read as a kubeconfig: {' '.join(str(error).split())}",
            consequence="There is no cluster to deploy to.",
            remedy="Mend the file, or name another one in the stack.",
        )
        return
    current = next((name for content in contents if (name := content.get("current-context"))), None)
    wanted = settings.kube_context or current
    if wanted not in names:
        yield Problem(
            file=file,
            what=f"{NAMESPACE}:kubeContext is {wanted}, which {shown} does not have",
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
