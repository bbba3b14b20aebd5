"""Released models: a release, all releases by model, and the order of versions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import semver

from model_serving.catalog import contents
from model_serving.catalog.pointers import Pointer

# What Kubernetes allows as the value of a label; no part of a git branch's name has two dots, or .lock at its end.
# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
_NAME: Final = re.compile(r"(?!.*(\.\.|\.lock$))[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
NAME_FORM: Final = (
    "up to 63 letters, digits, ., _ and -, starting and ending with a letter or digit, no two dots in a row, "
    "no .lock at the end"
)
"""For people: the names that a model may have."""
# A DNS label that starts with a letter, as Kubernetes requires for the name of a Service.
# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#rfc-1035-label-names
_LABEL: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_DATE: Final = re.compile(r"(v?)(\d+)[-._](\d+)(?:[-._](\d+))?")
_LIKE_A_DATE: Final = re.compile(r"v?\d+(\.\d+)?-\d.*")


@dataclass(frozen=True, kw_only=True)
class Release:
    """One version of one model, as published; its folder never changes again.

    Attributes:
        name: the model's, as in its URL and in MLServer.
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
    def is_prerelease(self) -> bool:
        """Whether it gets traffic only from stacks that name it: 1.1.0-rc.1."""
        place = order(self.version)
        return place is not None and place.prerelease is not None

    @property
    def repository(self) -> str:
        """Where the registry has its image."""
        return object_name(self.name)

    @property
    def label(self) -> str:
        """The name of the Kubernetes objects that serve it, e.g. iris-1-0; unique to the release."""
        return f"{object_name(self.name)}-{self.slug}"

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


def is_name(text: str) -> bool:
    """Whether a model may have this name, see NAME_FORM."""
    return _NAME.fullmatch(text) is not None


def object_name(model: str) -> str:
    """A model's name as a DNS label, for Kubernetes and registries: iris is iris, my_model is my-model-8a2f32b1.

    The digits tell names apart that differ only in what a label has no room for.
    """
    if _LABEL.fullmatch(model):
        return model
    kept = re.sub(r"[^a-z0-9]+", "-", model.lower())
    digits = hashlib.sha256(model.encode()).hexdigest()[:8]
    return f"{'' if kept[0].isalpha() else 'm-'}{kept}-{digits}"


def order(version: str) -> semver.Version | None:
    """Semantic order of a version: v0.0.10 after v0.0.9, 1.0.0-rc1 before 1.0; None if it has none.

    2024-9-1 has none: it would be a pre-release of 2024.0.0, and 2024-10-1 an older one.
    """
    if _LIKE_A_DATE.fullmatch(version):
        return None
    try:
        return semver.Version.parse(version.removeprefix("v"), optional_minor_and_patch=True)
    except ValueError:
        return None


def meant(version: str) -> str | None:
    """What to write instead of a date without semantic order: 2024.9.1 for 2024-09-01; None if it is not one."""
    match = _DATE.fullmatch(version)
    return match and match[1] + ".".join(str(int(number)) for number in match.groups()[1:] if number)
