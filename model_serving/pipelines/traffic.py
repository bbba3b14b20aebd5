"""Which versions of the models get how much of the traffic, read from the routes that a preview shows."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import semver

from model_serving.pipelines.changes import Change, ModelChange, Server, Share
from model_serving.pipelines.values import UNKNOWN, text_of

HTTP_ROUTE: Final = re.compile(r"kubernetes:gateway\.networking\.k8s\.io/[^:]+:HTTPRoute")
_PATH: Final = re.compile(r"/mlapi/v2/models/([^/]+)(?:/versions/([^/]+))?")
"""The paths of components/route.py: a model's own, and that of one version."""
_MODEL_LABEL: Final = "app.kubernetes.io/name"
_VERSION_LABEL: Final = "app.kubernetes.io/version"
SERVER: Final = "ModelServer"

Inputs = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Route:
    """An HTTPRoute before and after; None where it is not there."""

    old: Inputs | None
    new: Inputs | None


@dataclass(frozen=True, kw_only=True)
class ServerChange:
    """What becomes of the pods of one version, with the labels that say which."""

    change: Change
    labels: Mapping[str, str]


def models(routes: Iterable[Route], servers: Iterable[ServerChange]) -> tuple[tuple[ModelChange, ...], int]:
    """What happens to the models.

    Args:
        routes: all of the stack, those that stay as they are, too.
        servers: changes of the Deployments.

    Returns:
        The models to which something happens, and the number of the others.
    """
    known = [*routes]
    before, after = shares(each.old for each in known), shares(each.new for each in known)
    changed = _changed_servers(servers)
    found = [
        ModelChange(
            name=name,
            before=before.get(name, ()),
            after=after.get(name, ()),
            servers=tuple(each for each in changed[name] if _stays(each, before.get(name, ()), after.get(name, ()))),
        )
        for name in sorted({*before, *after})
    ]
    different = tuple(each for each in found if each.moves_traffic or each.servers)
    return different, len(found) - len(different)


def shares(routes: Iterable[Inputs | None]) -> dict[str, tuple[Share, ...]]:
    """Model -> its versions, from the oldest to the newest."""
    shared: dict[str, _Rule] = {}
    services: defaultdict[str, dict[str, str]] = defaultdict(dict)
    pinned: defaultdict[str, set[str]] = defaultdict(set)
    answering: defaultdict[str, set[str]] = defaultdict(set)
    for route in routes:
        for rule in _rules(route or {}):
            if rule.version is None:
                shared[rule.model] = rule
                continue
            (answering if rule.by_header else pinned)[rule.model].add(rule.version)
            for service, _ in rule.backends:
                services[rule.model][service] = rule.version
    return {model: _shares(rule, services[model], answering[model] or pinned[model]) for model, rule in shared.items()}


def older_first(version: str) -> tuple[bool, semver.Version, str]:
    """Sorts versions as the catalogue does; one that is none stands first."""
    try:
        parsed = semver.Version.parse(version.removeprefix("v"), optional_minor_and_patch=True)
    except ValueError:
        return False, semver.Version(0), version
    return True, parsed, version


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """One rule of an HTTPRoute.

    Attributes:
        version: the one that is asked for, by path or header; None if the weights decide.
        backends: Services with their weights.
        copies: Services that get a copy.
    """

    model: str
    version: str | None
    by_header: bool
    backends: Sequence[tuple[str, float]]
    copies: Sequence[str]


def _rules(route: Inputs) -> Iterator[_Rule]:
    for rule in route.get("spec", {}).get("rules", ()):
        for match in rule.get("matches", ()):
            if found := _PATH.fullmatch(str(match.get("path", {}).get("value", ""))):
                header = next((str(each.get("value")) for each in match.get("headers", ())), None)
                yield _Rule(
                    model=found[1],
                    version=header or found[2],
                    by_header=header is not None,
                    backends=[_backend(each) for each in rule.get("backendRefs", ())],
                    copies=[
                        text_of(each["requestMirror"]["backendRef"].get("name", ""))
                        for each in rule.get("filters", ())
                        if each.get("type") == "RequestMirror"
                    ],
                )


def _backend(reference: Inputs) -> tuple[str, float]:
    return text_of(reference.get("name", "")), float(reference.get("weight", 1))


def _shares(rule: _Rule, versions: Mapping[str, str], answering: set[str]) -> tuple[Share, ...]:
    names = [versions.get(service, service) for service, _ in rule.backends]
    if any(service == UNKNOWN for service, _ in rule.backends) and len(answering) == len(names):
        # The program lists them from the oldest to the newest.
        names = sorted(answering, key=older_first)
    total = sum(weight for _, weight in rule.backends) or 1.0
    found = [
        Share(version=version, percent=round(100 * weight / total, 1))
        for version, (_, weight) in zip(names, rule.backends, strict=True)
    ]
    found += [Share(version=versions.get(service, service), percent=0, shadow=True) for service in rule.copies]
    return tuple(sorted(found, key=lambda share: older_first(share.version)))


def _changed_servers(servers: Iterable[ServerChange]) -> defaultdict[str, list[Server]]:
    found: defaultdict[str, list[Server]] = defaultdict(list)
    for each in servers:
        if each.change.component == SERVER and each.change.operation in ("update", "replace"):
            version = each.labels.get(_VERSION_LABEL, each.change.name)
            differences = tuple(one for one in each.change.differences if not one.path.startswith("metadata."))
            if differences:
                found[each.labels.get(_MODEL_LABEL, "")].append(Server(version=version, differences=differences))
    return found


def _stays(server: Server, before: tuple[Share, ...], after: tuple[Share, ...]) -> bool:
    return all(server.version in {share.version for share in shares} for shares in (before, after))
