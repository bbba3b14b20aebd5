"""Released models: a release, all releases by model, and the order of versions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import semver

from model_serving.catalog import contents
from model_serving.catalog.pointers import Pointer


@dataclass(frozen=True, kw_only=True)
class Release:
    """One version of one model, as published; its folder never changes again.

    Attributes:
        name: the model's, a DNS label.
        version: name of the folder, e.g. ``1.0`` or ``v0.0.10``; also the tag of its image.
        folder: content of the model image, except for what contents.IGNORED names.
        implementation: MLServer class that serves it, e.g. ``mlserver_sklearn.SKLearnModel``.
        lock: packages that it was trained with and is served with; shared by all models if a release has none.
        request: an inference request that it must be able to answer, if released with one.
        response: the expected outputs, if released with them.
        describes_inputs: whether its settings describe its inputs.
        pointers: large files that are in a remote; its image contains the files themselves.
    """

    name: str
    version: str
    folder: Path
    implementation: str
    lock: Path
    request: Path | None
    response: Path | None
    describes_inputs: bool = False
    pointers: tuple[Pointer, ...] = ()

    @property
    def can_be_asked(self) -> bool:
        """Whether there is a request that it must answer, or one can be generated from its inputs."""
        return self.request is not None or self.describes_inputs

    @property
    def slug(self) -> str:
        """The version as a part of a DNS label: 1.0 is 1-0, v0.0.10 is v0-0-10."""
        return re.sub(r"[^a-z0-9]+", "-", self.version.lower()).strip("-")

    @property
    def label(self) -> str:
        """``<name>-<slug>``, the name of the Kubernetes objects that serve it; unique to the release."""
        return f"{self.name}-{self.slug}"

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the folder's paths and bytes: equal for the same release.

        Computed on first use, because a repository has many releases and a stack serves few.
        """
        total = hashlib.sha256()
        for path in sorted(contents.files(self.folder), key=lambda path: path.relative_to(self.folder).as_posix()):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            # One line per file, like sha256sum: the end of a file cannot be taken for the beginning of the next one.
            total.update(f"{digest}  {path.relative_to(self.folder).as_posix()!r}\n".encode())
        return total.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """All releases by the model's name, newest last."""

    by_name: Mapping[str, tuple[Release, ...]]

    def names(self) -> tuple[str, ...]:
        return tuple(self.by_name)

    def releases(self, name: str) -> tuple[Release, ...]:
        return self.by_name[name]

    def newest(self, name: str) -> Release:
        return self.by_name[name][-1]

    def get(self, name: str, version: str) -> Release:
        for release in self.by_name[name]:
            if release.version == version:
                return release
        raise KeyError(version)


def order(version: str) -> semver.Version | None:
    """Semantic order of a version: v0.0.10 after v0.0.9, 1.0.0-rc1 before 1.0; None if it has none."""
    try:
        return semver.Version.parse(version.removeprefix("v"), optional_minor_and_patch=True)
    except ValueError:
        return None
