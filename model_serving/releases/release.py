"""Makes the folder of a release: settings with the version, what training left, and where it all comes from."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from model_serving import catalog
from model_serving.catalog import contents
from model_serving.catalog.requirements import locked
from model_serving.catalog.training_versions import PROVENANCE
from model_serving.problems import InvalidInput, Problem
from model_serving.releases.jobs import Subject
from model_serving.releases.project import FILE, Project

VERSION: Final = "$VERSION"
"""What the version takes the place of."""
VARIES: Final = "pipeline"
"""Key of the provenance that may differ between two runs of one release."""
_OWN: Final = (catalog.SETTINGS, catalog.LOCK, PROVENANCE)
"""Files that are not training's to leave."""


@dataclass(frozen=True, kw_only=True)
class Built:
    """A release that is a folder of this machine.

    Attributes:
        name: the model's.
        version: the tag.
        folder: ``…/<name>/<version>``.
        provenance: what is in the file of that name.
    """

    name: str
    version: str
    folder: Path
    provenance: Mapping[str, Any]

    @property
    def title(self) -> str:
        """For people: ``iris-decision-tree v1.0.1``."""
        return f"{self.name} {self.version}"


def problems(root: Path, project: Project) -> Sequence[Problem]:
    """What a repository lacks for a release."""
    return [
        *_problems_of_settings(root, project),
        *_problems_of_lock(root, project),
        *_problems_of_build(root, project),
        *_problems_of_data(root, project),
    ]


def build(root: Path, project: Project, subject: Subject, target: Path) -> Built:
    """Makes the folder of a release.

    Args:
        root: of the model's repository.
        project: what it says of itself.
        subject: tag and commit.
        target: folder of this machine that gets ``<name>/<version>``.

    Raises:
        InvalidInput: with everything that is missing.
    """
    if found := problems(root, project):
        raise InvalidInput(found)
    folder = target / project.name / subject.tag
    # What is a link here, as DVC makes them into its cache, is a file there.
    shutil.copytree(root / project.build, folder, ignore=shutil.ignore_patterns(*contents.IGNORED))
    settings = (root / project.settings).read_text(encoding="utf-8")
    (folder / catalog.SETTINGS).write_text(settings.replace(VERSION, subject.tag), encoding="utf-8")
    shutil.copyfile(root / project.lock, folder / catalog.LOCK)
    provenance = _provenance(root, project, subject)
    (folder / PROVENANCE).write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
    return Built(name=project.name, version=subject.tag, folder=folder, provenance=provenance)


def in_this_repository(problem: Problem, project: Project, release: str) -> Problem:
    """A problem of the serving side with the file that a person would correct here.

    Args:
        problem: of a file of the release.
        project: what this repository says of itself.
        release: folder of the release there, e.g. ``models/iris-decision-tree/v1.0.1``.
    """
    if not problem.file.startswith(f"{release}/"):
        return problem
    name = problem.file.removeprefix(f"{release}/")
    here = {catalog.SETTINGS: project.settings, catalog.LOCK: project.lock}
    return replace(problem, file=here.get(name, f"{project.build}/{name}"))


def _provenance(root: Path, project: Project, subject: Subject) -> dict[str, Any]:
    return {
        "repository": subject.job.repository,
        "commit": subject.commit,
        "tag": subject.tag,
        "pipeline": subject.job.pipeline,
        "data": _hash(root, project.data) if project.data else None,
        "packages": _versions((root / project.lock).read_text(encoding="utf-8")),
    }


def _versions(lock: str) -> dict[str, str]:
    """Of the locked packages, save those whose version markers choose: which one it was is not told here."""
    return {
        name: version
        for name, package in locked(lock).items()
        if len(package.versions) == 1
        for version in package.versions
    }


def _hash(root: Path, paths: Sequence[str]) -> str:
    """Of paths and bytes of the data."""
    total = hashlib.sha256()
    for file in sorted({file for path in paths for file in _files(_kept(root, path))}):
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        total.update(f"{digest}  {file.relative_to(root).as_posix()!r}\n".encode())
    return f"sha256:{total.hexdigest()}"


def _kept(root: Path, path: str) -> Path:
    """Data itself, or DVC's pointer to it, which is there whether or not the data was pulled."""
    pointer = root / f"{path}.dvc"
    return pointer if pointer.is_file() else root / path


def _files(path: Path) -> Iterator[Path]:
    """Of a folder all that is not hidden; a file itself."""
    return contents.files(path) if path.is_dir() else iter([path])


def _problems_of_settings(root: Path, project: Project) -> Iterator[Problem]:
    path = root / project.settings
    if not path.is_file():
        yield Problem(
            file=project.settings,
            what="is missing",
            consequence="MLServer would not know how to serve the model.",
            remedy=f'Write MLServer\'s settings of the model, with "version": "{VERSION}" inside "parameters".',
        )
    elif VERSION not in path.read_text(encoding="utf-8", errors="replace"):
        yield Problem(
            file=project.settings,
            what=f"{VERSION} is nowhere in it",
            consequence="Every release would say that it is the same version.",
            remedy=f'Write "version": "{VERSION}" inside "parameters"; the tag takes its place.',
        )


def _problems_of_lock(root: Path, project: Project) -> Iterator[Problem]:
    if not (root / project.lock).is_file():
        yield Problem(
            file=project.lock,
            what="is missing",
            consequence="What the model was trained with is unknown, so no image could serve it faithfully.",
            remedy=f"Lock its requirements: uv pip compile --generate-hashes requirements.in -o {project.lock}",
        )


def _problems_of_build(root: Path, project: Project) -> Iterator[Problem]:
    folder = root / project.build
    if not folder.is_dir() or not any(folder.iterdir()):
        yield Problem(
            file=project.build,
            what="is empty" if folder.is_dir() else "is missing",
            consequence="There is no artefact to release.",
            remedy="Train first; in a pipeline, hand the folder from the training's job to this one as an artefact.",
        )
        return
    for name in _OWN:
        if (folder / name).exists():
            yield Problem(
                file=f"{project.build}/{name}",
                what="is what publishing itself writes",
                consequence="One of the two would be lost.",
                remedy=f"Let training write no {name}.",
            )
    for path in folder.rglob("*"):
        if not path.name.isprintable():
            yield Problem(
                file=project.build,
                what=f"it holds a file named {path.name!r}",
                consequence="Neither a list of files nor a message could show it.",
                remedy="Let training give it another name.",
            )
        if path.is_symlink() and not path.exists():
            yield Problem(
                file=path.relative_to(root).as_posix(),
                what="is a link to nothing",
                consequence="The release would lack the file.",
                remedy="Train again, or pull it: dvc pull.",
            )


def _problems_of_data(root: Path, project: Project) -> Iterator[Problem]:
    for place, path in enumerate(project.data):
        if not _kept(root, path).exists():
            yield Problem(
                file=FILE,
                what=f"data[{place}] is {path}, which points to nothing",
                consequence="The release could not say what the model has learnt from.",
                remedy="Correct the path, or get the data.",
            )
