"""Builds the folder of a release: settings with the version, the output of training, and the provenance."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from model_serving import catalog
from model_serving.catalog import contents
from model_serving.catalog.requirements import LOCK_COMMAND, LOCK_HELP, locked
from model_serving.catalog.training_versions import PROVENANCE
from model_serving.problems import InvalidInput, Problem
from model_serving.releases.jobs import Subject
from model_serving.releases.project import FILE, Project

VERSION: Final = "$VERSION"
"""Placeholder in the settings."""
VARIES: Final = "pipeline"
"""Key of the provenance that may differ between two runs of one release."""
_OWN: Final = (catalog.SETTINGS, catalog.LOCK, PROVENANCE)
"""Files that training must not write."""


@dataclass(frozen=True, kw_only=True)
class Built:
    """A release in the local folder ``…/<name>/<version>``."""

    name: str
    version: str
    folder: Path
    provenance: dict[str, Any]

    @property
    def title(self) -> str:
        """For people: ``iris-decision-tree v1.0.1``."""
        return f"{self.name} {self.version}"


def problems(root: Path, project: Project) -> Iterator[Problem]:
    """What a repository lacks for a release."""
    if found := [*_problems_of_places(root, project)]:
        yield from found
        return
    yield from _problems_of_settings(root / project.settings, project.settings)
    if not (root / project.lock).is_file():
        yield Problem(
            file=project.lock,
            what="is missing",
            consequence="The packages of the training are unknown, so no image could serve the model faithfully.",
            remedy=f"Lock its requirements: {LOCK_COMMAND} requirements.in --output-file {project.lock} ({LOCK_HELP})",
        )
    yield from _problems_of_build(root, project.build)
    for place, path in enumerate(project.data):
        if not _kept(root, path).exists():
            yield Problem(
                file=FILE,
                what=f"data[{place}] is {path}, which does not exist",
                consequence="The release could not tell which data the model was trained on.",
                remedy="Correct the path, or get the data.",
            )
        else:
            yield from _problems_of_data(root, _kept(root, path))


def _problems_of_data(root: Path, path: Path) -> Iterator[Problem]:
    # Data may be behind links that lead out of the repository: only its hash is released.
    for file, what in contents.unreadable(path):
        yield Problem(
            file=file.relative_to(root).as_posix(),
            what=what,
            consequence="The release could not tell which data the model was trained on.",
            remedy="Get the data, with DVC: dvc pull; or name the files that count under data in release.yaml.",
        )


def build(root: Path, project: Project, subject: Subject, target: Path) -> Built:
    """Builds the folder of a release below a target folder.

    Raises:
        InvalidInput: with everything that is missing.
    """
    if found := [*problems(root, project)]:
        raise InvalidInput(found)
    folder = target / project.name / subject.tag
    # Links, such as those of DVC into its cache, become files.
    shutil.copytree(root / project.build, folder, ignore=shutil.ignore_patterns(*contents.IGNORED))
    # As bytes: whether it is UTF-8 is for the catalog to say.
    settings = (root / project.settings).read_bytes()
    (folder / catalog.SETTINGS).write_bytes(settings.replace(VERSION.encode(), subject.tag.encode()))
    shutil.copyfile(root / project.lock, folder / catalog.LOCK)
    packages = locked((root / project.lock).read_text(encoding="utf-8", errors="replace"))
    provenance = {
        "repository": subject.job.repository,
        "commit": subject.commit,
        "tag": subject.tag,
        "pipeline": subject.job.pipeline,
        "data": _hash(root, project.data) if project.data else None,
        # Without those for which markers choose the version: which one was installed is not known here.
        "packages": {name: next(iter(each.versions)) for name, each in packages.items() if len(each.versions) == 1},
    }
    (folder / PROVENANCE).write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
    return Built(name=project.name, version=subject.tag, folder=folder, provenance=provenance)


def put(folder: Path, target: Path) -> None:
    """Moves a release to its place in a folder of releases, as a whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".release-", dir=target.parent) as beside:
        # Not to the target itself: on another file system, moving is copying, which may be interrupted.
        Path(shutil.move(folder, Path(beside) / target.name)).rename(target)


def in_this_repository(problem: Problem, project: Project, release: str) -> Problem:
    """A problem of the serving side's folder of a release, told with the files of the model's repository."""
    if problem.file == release:
        problem = replace(problem, file=FILE)
    elif not problem.file.startswith(f"{release}/"):
        return problem
    here = {
        f"{release}/{catalog.SETTINGS}": project.settings,
        f"{release}/{catalog.LOCK}": project.lock,
        release: project.build,
        f'"version": "{release.rpartition("/")[2]}"': f'"version": "{VERSION}"',
    }
    return problem.with_names(here)


def _hash(root: Path, paths: Sequence[str]) -> str:
    """Of paths and bytes of the data."""
    total = hashlib.sha256()
    kept = [_kept(root, path) for path in paths]
    for file in sorted({file for path in kept for file in (contents.files(path) if path.is_dir() else [path])}):
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        total.update(f"{digest}  {file.relative_to(root).as_posix()!r}\n".encode())
    return f"sha256:{total.hexdigest()}"


def _kept(root: Path, path: str) -> Path:
    """Data itself, or DVC's pointer to it, which exists whether or not the data was pulled."""
    pointer = root / f"{path}.dvc"
    return pointer if pointer.is_file() else root / path


def _problems_of_places(root: Path, project: Project) -> Iterator[Problem]:
    """Whether what is released is somewhere else, behind a link."""
    for path in (project.build, project.settings, project.lock):
        real = Path(os.path.realpath(root / path))
        if not real.is_relative_to(os.path.realpath(root)):
            yield Problem(
                file=path,
                what=f"is a link to {real}, which is outside",
                consequence="The release would contain files that are not in this repository.",
                remedy="Put the file or folder itself there.",
            )


def _problems_of_settings(path: Path, file: str) -> Iterator[Problem]:
    if not path.is_file():
        yield Problem(
            file=file,
            what="is missing",
            consequence="MLServer would not know how to serve the model.",
            remedy=f'Write MLServer\'s settings of the model, with "version": "{VERSION}" inside "parameters".',
        )
    elif VERSION not in path.read_text(encoding="utf-8", errors="replace"):
        yield Problem(
            file=file,
            what=f"{VERSION} is nowhere in it",
            consequence="All releases would claim to be the same version.",
            remedy=f'Write "version": "{VERSION}" inside "parameters"; the tag replaces it.',
        )


def _problems_of_build(root: Path, build: str) -> Iterator[Problem]:
    folder = root / build
    if not folder.is_dir() or not any(folder.iterdir()):
        yield Problem(
            file=build,
            what="is empty" if folder.is_dir() else "is missing",
            consequence="There is no artefact to release.",
            remedy="Train first; in a pipeline, pass the folder from the training job to this one as an artefact.",
        )
        return
    for name in _OWN:
        if (folder / name).exists():
            yield Problem(
                file=f"{build}/{name}",
                what="is what publishing itself writes",
                consequence="One of the two would be lost.",
                remedy=f"Let training write no {name}.",
            )
    for path in folder.rglob("*"):
        if not path.name.isprintable():
            yield Problem(
                file=build,
                what=f"it holds a file named {path.name!r}",
                consequence="Lists of files and messages could not show it.",
                remedy="Let training give it another name.",
            )
    for path, what in contents.wrong_links(folder, inside=root, copied=True):
        yield Problem(
            file=path.relative_to(root).as_posix(),
            what=what,
            consequence="The release would lack the file, or contain one that is not in this repository.",
            remedy="Put the file itself there. If DVC made the link: dvc pull, or dvc config cache.type copy and then "
            "dvc checkout --relink.",
        )
