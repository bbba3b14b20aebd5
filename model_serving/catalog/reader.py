"""Reads and checks the folder ``models/<name>/<version>/`` before anything is built or changed.

It checks whether a release can be served, not whether its answers are right: the running model server is asked for
those. The stack determines which releases are live, see model_serving/stack/models.py. Imports neither Pulumi nor
MLServer.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Final

from model_serving.catalog import contents
from model_serving.catalog.release_folder import LOCK, SETTINGS, ReleaseFolder
from model_serving.catalog.releases import NAME_FORM, Catalog, Release, is_name, object_name, order
from model_serving.catalog.report import Report
from model_serving.problems import InvalidInput

_LABEL_LENGTH: Final = 63


def read(folder: Path, *, root: Path | None = None) -> Catalog:
    """All releases in a folder, usually ``models``.

    Args:
        folder: contains a folder per model, which contains a folder per version.
        root: folder to which paths in messages are relative; defaults to the parent of ``folder``.

    Raises:
        InvalidInput: with all problems of all releases.
    """
    report = Report(root or folder.parent)
    models = _folders(folder, "a model", f"{report.shown(folder)}/<name>/<version>/", report, LOCK)
    if not models:
        report.refuse(
            folder,
            "contains no model",
            "There is nothing to serve.",
            f"Add a release: {report.shown(folder)}/<name>/<version>/ with its {SETTINGS} and artefact.",
        )
    catalog = Catalog(by_name={model.name: _model(model, folder / LOCK, report) for model in models})
    _check_names(models, report)
    _check_labels([release for releases in catalog.by_name.values() for release in releases], report)
    if report.problems:
        raise InvalidInput(report.problems)
    return catalog


def _model(folder: Path, shared_lock: Path, report: Report) -> tuple[Release, ...]:
    if not is_name(folder.name):
        report.refuse(
            folder,
            f'the model\'s name is "{folder.name}"',
            "Kubernetes would refuse it as a label, or it would not fit into a URL.",
            f"Rename the folder: {NAME_FORM}.",
        )
    versions = _folders(folder, "a version", f"{report.shown(folder)}/<version>/", report)
    if not versions:
        report.refuse(
            folder,
            "contains no version",
            "A stack that names this model would have nothing to serve.",
            f"Add a release, {report.shown(folder)}/<version>/, or remove the folder.",
        )
    releases = [ReleaseFolder(version, shared_lock, report).release() for version in versions]
    placed = [(place, release) for release in releases if (place := order(release.version)) is not None]
    placed.sort(key=lambda pair: (pair[0], pair[1].version))
    for (place, release), (next_place, other) in pairwise(placed):
        if place == next_place:
            report.refuse(
                folder,
                f"{release.version} and {other.version} are the same version in semantic order",
                "It would be unclear which of them is the newest and takes the traffic.",
                "Remove the one that was never published, or release it under a higher version.",
            )
    return tuple(release for _, release in placed)


def _check_names(models: Iterable[Path], report: Report) -> None:
    first: dict[str, Path] = {}
    for model in models:
        other = first.setdefault(object_name(model.name), model)
        if other is not model:
            report.refuse(
                model,
                f"it and {report.shown(other)} would both have the name {object_name(model.name)} in Kubernetes",
                "Their routes and images would replace each other.",
                "Rename the one that was never published.",
            )


def _check_labels(releases: Iterable[Release], report: Report) -> None:
    first: dict[str, Release] = {}
    for release in releases:
        if (excess := len(release.label) - _LABEL_LENGTH) > 0:
            report.refuse(
                release.folder,
                f"name and version together, {release.label}, have {len(release.label)} characters",
                f"Kubernetes would refuse a Service with that name: it allows at most {_LABEL_LENGTH}.",
                f"Shorten the model's name or the version by {excess} or more.",
            )
        other = first.setdefault(release.label, release)
        if other is not release:
            report.refuse(
                release.folder,
                f"it and {report.shown(other.folder)} would both be served as {release.label}",
                "Their Deployments would have the same name, so only one of them could be live.",
                "Rename the one that was never published, so that they differ in more than . - _ or case.",
            )


def _folders(parent: Path, noun: str, form: str, report: Report, *others: str) -> list[Path]:
    """The folders inside; any other file is refused, because no one would notice that it is not served."""
    found = sorted(parent.iterdir()) if parent.is_dir() else []
    found = [path for path in found if not contents.is_ignored(path.name)]
    links = {path: what for path in found if (what := contents.wrong_link(path, inside=parent))}
    for path, what in links.items():
        report.refuse_link(path, what)
    entries = [path for path in found if path not in links and path.name not in {"README.md", *others}]
    for path in entries:
        if not path.is_dir():
            report.refuse(
                path,
                f"is a file where the folder of {noun} is expected",
                "It would never be served, and no one would notice.",
                f"Move it into a release, {form}, or remove it.",
            )
    return [path for path in entries if path.is_dir()]
