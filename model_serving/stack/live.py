"""What a stack serves: the models that it names, each with its live releases and their share of the traffic."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from model_serving.catalog import Catalog, Release, object_name
from model_serving.problems import InvalidInput, Problem
from model_serving.quantities import amount
from model_serving.stack import resources
from model_serving.stack.gateway import GatewaySettings
from model_serving.stack.models import ALL_TRAFFIC, LONGEST_ROUTE, ModelSettings
from model_serving.stack.settings import NAMESPACE, Settings

NOT_MIRRORING: Final[Mapping[str, str]] = dict.fromkeys(
    ("gke-l7-gxlb", "gke-l7-gxlb-mc"),
    "Google's classic load balancer copies no requests",
)
"""Gateway classes that ignore or refuse a RequestMirror filter, and why. Those that can: Contour, and Google's other
classes (gke-l7-rilb, gke-l7-regional-external-managed, gke-l7-global-external-managed). Sources:
https://cloud.google.com/kubernetes-engine/docs/how-to/gatewayclass-capabilities and
https://cloud.google.com/load-balancing/docs/features; Gateway API's conformance reports tell of many others."""


@dataclass(frozen=True, kw_only=True)
class LiveVersion:
    """A release that is deployed.

    Attributes:
        weight: percent of the model's requests; 0 is deployed and reached by its version alone.
        shadow: whether it gets a copy of the requests, and answers none of them.
        resources: what each of its pods is given.
    """

    release: Release
    weight: int
    shadow: bool
    resources: resources.PodResources


@dataclass(frozen=True, kw_only=True)
class LiveModel:
    """A model of the stack, its live versions from the oldest to the newest."""

    name: str
    settings: ModelSettings
    versions: tuple[LiveVersion, ...]

    @property
    def object_name(self) -> str:
        """Name of its objects in Kubernetes."""
        return object_name(self.name)


def resolve(settings: Settings, catalog: Catalog, *, file: str) -> tuple[LiveModel, ...]:
    """Finds the releases that a stack names.

    Args:
        settings: the stack's.
        catalog: the released models.
        file: how messages name the stack file.

    Raises:
        InvalidInput: with every model and version that is not in the catalog.
    """
    problems = [
        problem for name, model in settings.models.items() for problem in _unknown(name, model, catalog, file=file)
    ]
    if problems:
        raise InvalidInput(problems)
    models = tuple(_live(name, model, catalog) for name, model in sorted(settings.models.items()))
    problems = [problem for model in models for problem in _unroutable(model, settings.gateway, file=file)]
    problems += [problem for model in models for problem in _overfull(model, file=file)]
    if settings.remote is None:
        problems += [problem for model in models for problem in _unfetchable(model, file=file)]
    if problems:
        raise InvalidInput(problems)
    return models


def weights(model: ModelSettings, releases: Sequence[Release]) -> dict[str, int]:
    """Version -> percent of the traffic: what the stack says, else all of it to the newest full release.

    A pre-release or a shadow never takes traffic for being the newest.
    """
    if model.versions:
        return model.versions
    followed = [release.version for release in _followed(model, releases)]
    return {followed[-1]: ALL_TRAFFIC} if followed else {}


def _followed(model: ModelSettings, releases: Sequence[Release]) -> Sequence[Release]:
    return [release for release in releases if not release.is_prerelease and release.version != model.shadow]


def _unknown(name: str, model: ModelSettings, catalog: Catalog, *, file: str) -> Iterator[Problem]:
    key = f"{NAMESPACE}:models.{name}"
    if name not in catalog.names():
        yield Problem(
            file=file,
            what=f"{key} is not in the folder models/",
            consequence="There is nothing to serve under that name.",
            remedy=_nearest(name, catalog.names(), "Add a release of it, or remove the model from the stack."),
        )
        return
    known = [release.version for release in catalog.releases(name)]
    named = {version: f"versions.{version}" for version in model.versions}
    if model.shadow is not None:
        named[model.shadow] = f"shadow {model.shadow}"
    for version, place in named.items():
        if version not in known:
            yield Problem(
                file=file,
                what=f"{key}.{place} is not in the folder models/{name}/",
                consequence="There is nothing to serve under that version.",
                remedy=f"Write one of {', '.join(known)}, in quotes: YAML reads a bare 1.10 as the number 1.1.",
            )


def _nearest(name: str, known: Iterable[str], otherwise: str) -> str:
    close = difflib.get_close_matches(name, [*known], n=1)
    return f"Did you mean {close[0]}?" if close else otherwise


def _unroutable(model: LiveModel, gateway: GatewaySettings, *, file: str) -> Iterator[Problem]:
    """What the deployed versions ask of a route that it cannot do."""
    key = f"{NAMESPACE}:models.{model.name}"
    reason = NOT_MIRRORING.get(gateway.class_name or "")
    if model.settings.shadow is not None and reason:
        yield Problem(
            file=file,
            what=f"{key}.shadow is {model.settings.shadow}, and the gateway is of the class {gateway.class_name}",
            consequence=f"It would never get a request: {reason}.",
            remedy="Remove shadow, or choose another class, e.g. gke-l7-global-external-managed.",
        )
    if not any(version.weight for version in model.versions):
        yield Problem(
            file=file,
            what=f"{key} names no version, and each of its releases is a pre-release or its shadow",
            consequence="Nobody would answer the clients.",
            remedy='Name one, e.g. versions: {"1.1.0-rc.1": 100}, or release a version without -.',
        )
    if len(model.versions) > LONGEST_ROUTE:
        yield Problem(
            file=file,
            what=f"{key} has {len(model.versions)} versions at once",
            consequence=f"Kubernetes would refuse the route, which has room for {LONGEST_ROUTE}.",
            remedy="Write fewer under versions, or a lower keepWarm.",
        )


def _overfull(model: LiveModel, *, file: str) -> Iterator[Problem]:
    """Pods that a request of an allowed size would end."""
    for version in model.versions:
        memory, least = version.resources.memory, resources.least_memory(model.settings)
        if amount(memory) < least:
            yield Problem(
                file=file,
                what=f"{NAMESPACE}:models.{model.name}.requestSize is {model.settings.request_size}, and a pod of "
                f"{version.release.version} has {memory} of memory for {1 + model.settings.workers} processes",
                consequence=f"Reading JSON takes {resources.LEAST_GROWTH} times its size, so one request could end the "
                "pod, and with it the answers to others.",
                remedy=f"Write a lower requestSize, or {least >> 20}Mi or more as resources.memory.",
            )


def _unfetchable(model: LiveModel, *, file: str) -> Iterator[Problem]:
    """The deployed versions whose large files are somewhere else."""
    for version in model.versions:
        if version.release.pointers:
            files = ", ".join(pointer.path for pointer in version.release.pointers)
            title = f"{model.name} {version.release.version}"
            yield Problem(
                file=file,
                what=f"{NAMESPACE}:artefacts is missing, and {title} has pointers in the place of {files}",
                consequence="Nobody could tell where the files are, and the image could not be built.",
                remedy="Write artefacts: {remote: gs://…}, which artefacts.remote of the model's release.yaml tells.",
            )


def _live(name: str, model: ModelSettings, catalog: Catalog) -> LiveModel:
    releases = catalog.releases(name)
    shares = weights(model, releases)
    deployed = {*shares, *_warm(model, shares, releases), *([model.shadow] if model.shadow else [])}
    versions = tuple(
        LiveVersion(
            release=release,
            weight=shares.get(release.version, 0),
            shadow=release.version == model.shadow,
            resources=resources.resources_of(release, model),
        )
        for release in releases
        if release.version in deployed
    )
    return LiveModel(name=name, settings=model, versions=versions)


def _warm(model: ModelSettings, shares: Mapping[str, int], releases: Sequence[Release]) -> Sequence[str]:
    """The full releases before the newest one that has traffic, as many as stay deployed without any."""
    newest = max((place for place, release in enumerate(releases) if shares.get(release.version)), default=0)
    before = [release.version for release in _followed(model, releases[:newest])]
    return before[max(0, len(before) - model.keep_warm) :]
