"""Looks at what a stack points to, before anything is changed: its kube context and its registry."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from model_serving import yaml_text
from model_serving.catalog import contents
from model_serving.images.docker_config import REGISTRY_TIMEOUT_SECONDS, registry_url
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
        # Not expanduser of Path, which raises an error if there is no such user.
        return [Path(os.path.expanduser(settings.kubeconfig))]  # noqa: PTH111
    named = [Path(name) for name in os.environ.get("KUBECONFIG", "").split(os.pathsep) if name]
    return named or [Path.home() / ".kube" / "config"]


def has_context(settings: Settings) -> bool:
    """Whether this machine has the kube context that the stack names; false as well if there is no kubeconfig."""
    try:
        names, _ = _contexts(kubeconfig_paths(settings))
    except ValueError:
        return False
    return settings.kube_context in names


def _contexts(paths: Iterable[Path]) -> tuple[list[str], str | None]:
    """The contexts of kubeconfigs, and the current one.

    Raises:
        ValueError: if one of those that exist is not a kubeconfig; the message says why.
    """
    names, current = [], None
    for path in paths:
        if not contents.exists(path):
            continue
        try:
            content = yaml_text.parse(path.read_bytes(), yaml.CSafeLoader)
            names += [str(context["name"]) for context in content.get("contexts") or []]
            current = current or str(content.get("current-context") or "") or None
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from None
        except (AttributeError, KeyError, TypeError):
            raise ValueError(f"{path} is {'not a kubeconfig' if content else 'empty'}") from None
    return names, current


def _kube_context(settings: Settings, file: str) -> Iterator[Problem]:
    paths = [path for path in kubeconfig_paths(settings) if contents.exists(path)]
    shown = ", ".join(map(str, paths or kubeconfig_paths(settings)))
    consequence = "There is no cluster to deploy to."
    if not paths:
        yield Problem(
            file=file,
            what=f"{NAMESPACE}:kubeconfig is {settings.kubeconfig or 'not set'} and {shown} does not exist",
            consequence=consequence,
            remedy=f"Run `make up`, which starts the local cluster, or set {NAMESPACE}:kubeconfig to an existing file.",
        )
        return
    try:
        names, current = _contexts(paths)
    except ValueError as error:
        yield Problem(
            file=file,
            what=f"the kubeconfig {error}",
            consequence=consequence,
            remedy=f"Correct that file, or set {NAMESPACE}:kubeconfig to another.",
        )
        return
    wanted = settings.kube_context or current
    if wanted not in names:
        what = (
            f"is {wanted}, which {shown} does not have" if wanted else f"is not set, and {shown} has no current context"
        )
        yield Problem(
            file=file,
            what=f"{NAMESPACE}:kubeContext {what}",
            consequence=consequence,
            remedy=f"Write one of its contexts: {', '.join(names) or 'it has none'}.",
        )


def _registry(settings: Settings, file: str) -> Iterator[Problem]:
    if settings.registry is None:
        return
    url = registry_url(settings.registry)
    try:
        with urllib.request.urlopen(url, timeout=REGISTRY_TIMEOUT_SECONDS) as answer:  # noqa: S310
            if answer.headers.get_content_type() != "text/html":
                return
            reason = f"which is no registry: {answer.url} is a page, perhaps a proxy's or a login's"
    except urllib.error.HTTPError:
        return  # It answers. Whether it lets us in is a matter of the push, which knows the credentials.
    # The second: what answers there does not speak HTTP.
    except (OSError, http.client.HTTPException) as error:
        reason = f"which does not answer: {error}"
    yield Problem(
        file=file,
        what=f"{NAMESPACE}:registry is {settings.registry}, {reason}",
        consequence="No image could be pushed, so no model could be released.",
        remedy=f"Start it (`make up` starts the local one), or set {NAMESPACE}:registry to another.",
    )
