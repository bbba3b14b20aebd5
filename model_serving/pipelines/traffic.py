"""Traffic shares of the models' versions, read from the HTTPRoutes of a stack."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import semver

from model_serving.catalog.releases import order
from model_serving.pipelines.changes import Change, ModelChange, Server, Share
from model_serving.pipelines.costs import DEPLOYMENT, quantity
from model_serving.pipelines.values import UNKNOWN, Inputs, Resource, at, mappings, text_of

HTTP_ROUTE: Final = re.compile(r"kubernetes:gateway\.networking\.k8s\.io/[^:]+:HTTPRoute")
_PATH: Final = re.compile(r"/mlapi/v2/models/([^/]+)(?:/versions/([^/]+))?")
"""The paths of components/serving/route.py: of a model, and of one of its versions."""
_MODEL_LABEL: Final = "app.kubernetes.io/name"
_VERSION_LABEL: Final = "app.kubernetes.io/version"


def models(
    resources: Sequence[Resource], changes: Iterable[tuple[Resource, Change]]
) -> tuple[tuple[ModelChange, ...], int]:
    """The models that change, and the number of the others; from all resources of the stack, and their changes."""
    routes = [each for each in resources if HTTP_ROUTE.fullmatch(each.token)]
    before, after = shares(each.old for each in routes), shares(each.new for each in routes)
    servers = _servers(changes)
    found = []
    for name in sorted({*before, *after}):
        sides = before.get(name, ()), after.get(name, ())
        old, new = ({share.version for share in side} for side in sides)
        changed = tuple(server for server in servers[name] if server.version in old & new)
        found.append(ModelChange(name=name, before=sides[0], after=sides[1], servers=changed))
    different = tuple(each for each in found if each.moves_traffic or each.servers)
    return different, len(found) - len(different)


def shares(routes: Iterable[Inputs | None]) -> dict[str, tuple[Share, ...]]:
    """Model -> its versions, oldest first."""
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
    """Sort key of versions; invalid ones come first."""
    parsed = order(version)
    return parsed is not None, parsed or semver.Version(0), version


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """A rule of an HTTPRoute: Services with weights, and Services that get copies of the requests.

    The version is the one requested by path or header; None if the weights decide.
    """

    model: str
    version: str | None
    by_header: bool
    backends: Sequence[tuple[str, float]]
    copies: Sequence[str]


def _rules(route: Inputs) -> Iterator[_Rule]:
    for rule in mappings(route, "spec", "rules"):
        for match in mappings(rule, "matches"):
            if found := _PATH.fullmatch(str(at(match, ("path", "value")))):
                header = next((str(each.get("value")) for each in mappings(match, "headers")), None)
                yield _Rule(
                    model=found[1],
                    version=header or found[2],
                    by_header=header is not None,
                    backends=[(_name(each), _weight(each)) for each in mappings(rule, "backendRefs")],
                    copies=[
                        _name(at(each, ("requestMirror", "backendRef")))
                        for each in mappings(rule, "filters")
                        if each.get("type") == "RequestMirror"
                    ],
                )


def _name(reference: Inputs | None) -> str:
    return text_of(at(reference, ("name",)) or "")


def _weight(reference: Inputs) -> float:
    weight = reference.get("weight")
    return 1.0 if weight is None else quantity(weight)


def _shares(rule: _Rule, versions: Mapping[str, str], answering: set[str]) -> tuple[Share, ...]:
    names = [versions.get(service, service) for service, _ in rule.backends]
    if any(service == UNKNOWN for service, _ in rule.backends) and len(answering) == len(names):
        # The program lists the backends oldest first.
        names = sorted(answering, key=older_first)
    total = sum(weight for _, weight in rule.backends) or 1.0
    found = [
        Share(version=version, percent=round(100 * weight / total, 1))
        for version, (_, weight) in zip(names, rule.backends, strict=True)
    ]
    found += [Share(version=versions.get(service, service), percent=0, shadow=True) for service in rule.copies]
    return tuple(sorted(found, key=lambda share: older_first(share.version)))


def _servers(changes: Iterable[tuple[Resource, Change]]) -> defaultdict[str, list[Server]]:
    """Model -> changes of its pods."""
    found: defaultdict[str, list[Server]] = defaultdict(list)
    for resource, change in changes:
        is_server = (change.token, change.component) == (DEPLOYMENT, "ModelServer")
        differences = tuple(each for each in change.differences if not each.path.startswith("metadata."))
        if is_server and change.operation in ("update", "replace") and differences:
            inputs = resource.new or resource.old
            model, version = (at(inputs, ("metadata", "labels", key)) for key in (_MODEL_LABEL, _VERSION_LABEL))
            server = Server(version=text_of(version or change.name), differences=differences)
            found[text_of(model or "")].append(server)
    return found
