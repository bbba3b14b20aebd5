"""What a stack serves: the models that it names, each with its live releases and their share of the traffic."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from catalog import Catalog, Release
from problems import InvalidInput, Problem
from settings import ALL_TRAFFIC, NAMESPACE, ModelSettings, Settings


@dataclass(frozen=True, kw_only=True)
class LiveVersion:
    """A release that takes part of a model's traffic.

    Attributes:
        weight: percent of the model's requests; 0 is deployed and reached by its version alone.
    """

    release: Release
    weight: int


@dataclass(frozen=True, kw_only=True)
class LiveModel:
    """A model of the stack, its live versions from the oldest to the newest."""

    name: str
    settings: ModelSettings
    versions: tuple[LiveVersion, ...]


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
    return tuple(_live(name, model, catalog) for name, model in sorted(settings.models.items()))


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
    for version in model.versions:
        if version not in known:
            yield Problem(
                file=file,
                what=f"{key}.versions.{version} is not in the folder models/{name}/",
                consequence="There is nothing to serve under that version.",
                remedy=f"Write one of {', '.join(known)}, in quotes: YAML reads a bare 1.10 as the number 1.1.",
            )


def _nearest(name: str, known: Iterable[str], otherwise: str) -> str:
    close = difflib.get_close_matches(name, [*known], n=1)
    return f"Did you mean {close[0]}?" if close else otherwise


def _live(name: str, model: ModelSettings, catalog: Catalog) -> LiveModel:
    weights = model.versions or {catalog.newest(name).version: ALL_TRAFFIC}
    versions = tuple(
        LiveVersion(release=release, weight=weights[release.version])
        for release in catalog.releases(name)
        if release.version in weights
    )
    return LiveModel(name=name, settings=model, versions=versions)
