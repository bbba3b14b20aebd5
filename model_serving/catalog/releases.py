"""What is released: the folder ``models/<name>/<version>/``, read and checked before anything is built or changed.

It tells whether a release can be served, not whether it answers well: that is asked of the running model server. Which
releases are live is the stack's choice (see model_serving/stack/settings.py). Nothing here imports Pulumi or MLServer.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import semver

from model_serving.catalog import contents, pointers
from model_serving.catalog.pointers import Pointer
from model_serving.catalog.requirements import Package, locked, normal
from model_serving.catalog.training_versions import TrainedWith, trained_with
from model_serving.problems import InvalidInput, Problem

SETTINGS = "model-settings.json"
LOCK = "requirements.lock"
REQUEST = "request.json"
RESPONSE = "response.json"
OTHER_VERSIONS = "acceptsOtherVersions"
"""Key inside ``parameters.extra``: packages that may be served in another version than the model was trained with."""

# A label of DNS that begins with a letter: Kubernetes names no Service otherwise.
# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#rfc-1035-label-names
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LABEL_LENGTH = 63
# https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pulling-manifests
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
# https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md#tensor-data-types
_DATATYPE = re.compile(r"BOOL|BYTES|FP(16|32|64)|U?INT(8|16|32|64)")

_Value = TypeVar("_Value", str, dict[str, Any])


@dataclass(frozen=True, kw_only=True)
class Release:
    """One version of one model, as it was published; its folder never changes again.

    Attributes:
        name: the model's, a DNS label.
        version: as the folder is named, e.g. ``1.0`` or ``v0.0.10``; also the tag of its image.
        folder: what the model image holds, save what contents.IGNORED names.
        implementation: the class that MLServer serves it with, e.g. ``mlserver_sklearn.SKLearnModel``.
        lock: what it was trained with, and is served with; one for all models where a release has none of its own.
        request: an inference request that it must be able to answer, if it was released with one.
        response: the outputs that it must answer then, if it was released with them.
        describes_inputs: whether its settings tell of the inputs that it takes.
        pointers: large files that are in a remote, and that its image holds all the same.
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
        """Whether there is a request that it must be able to answer, or one can be made from what it takes."""
        return self.request is not None or self.describes_inputs

    @property
    def slug(self) -> str:
        """The version as a part of a DNS label: 1.0 is 1-0, v0.0.10 is v0-0-10."""
        return _slug(self.version)

    @property
    def label(self) -> str:
        """``<name>-<slug>``, the name of what serves it; no other release has the same."""
        return f"{self.name}-{self.slug}"

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the folder's paths and bytes: what "the same release" means.

        It is worked out when it is first asked for, because a repository keeps many releases and a stack serves few.
        """
        total = hashlib.sha256()
        for path in sorted(contents.files(self.folder), key=lambda path: path.relative_to(self.folder).as_posix()):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            # A line per file, like sha256sum's: no file's end can be taken for the next one's beginning.
            total.update(f"{digest}  {path.relative_to(self.folder).as_posix()!r}\n".encode())
        return total.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Every release by the model's name, newest last."""

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


def read(folder: Path, *, root: Path | None = None) -> Catalog:
    """Everything that is released in a folder, usually ``models``.

    Args:
        folder: holds a folder per model, which holds a folder per version.
        root: what paths in messages are relative to; by default the folder that holds this one.

    Raises:
        InvalidInput: with every problem of every release.
    """
    reader = _Reader(folder, root or folder.parent)
    catalog = reader.catalog()
    if reader.problems:
        raise InvalidInput(reader.problems)
    return catalog


def _slug(version: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", version.lower()).strip("-")


def order(version: str) -> semver.Version | None:
    """Where a version stands: v0.0.10 after v0.0.9, 1.0.0-rc1 before 1.0; None if it stands nowhere."""
    try:
        return semver.Version.parse(version.removeprefix("v"), optional_minor_and_patch=True)
    except ValueError:
        return None


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and all(type(size) is int for size in value)


_TENSOR: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "name": (lambda value: isinstance(value, str) and value != "", '"name": "predict"'),
    "shape": (_is_shape, '"shape": [1, 4]'),
    "datatype": (
        lambda value: isinstance(value, str) and _DATATYPE.fullmatch(value) is not None,
        '"datatype": "FP32", or BOOL, BYTES, FP16 to FP64, INT8 to INT64, UINT8 to UINT64',
    ),
    "data": (lambda value: isinstance(value, list) and value != [], '"data": [5, 3.4, 1.5, 0.2]'),
}
_METADATA_KEYS = ("name", "shape", "datatype")


class _Reader:
    """One reading of the folder; goes on after a problem, so that a person sees all of them."""

    def __init__(self, folder: Path, root: Path) -> None:
        self._folder = folder
        self._root = root
        self._locks: set[Path] = set()
        self._describing: set[Path] = set()
        self._parameters: dict[Path, dict[str, Any]] = {}
        self.problems: list[Problem] = []

    def catalog(self) -> Catalog:
        models = self._folders(self._folder, "a model", f"{self._shown(self._folder)}/<name>/<version>/", {LOCK})
        if not models:
            self._refuse(
                self._folder,
                "holds no model",
                "There is nothing to serve.",
                f"Add a release: {self._shown(self._folder)}/<name>/<version>/ with its {SETTINGS} and artefact.",
            )
        by_name = {model.name: self._model(model) for model in models}
        self._check_labels([release for releases in by_name.values() for release in releases])
        return Catalog(by_name=by_name)

    def _model(self, folder: Path) -> tuple[Release, ...]:
        self._check_name(folder)
        versions = self._folders(folder, "a version", f"{self._shown(folder)}/<version>/")
        if not versions:
            self._refuse(
                folder,
                "holds no version",
                "A stack that names this model would have nothing to serve.",
                f"Add a release, {self._shown(folder)}/<version>/, or remove the folder.",
            )
        releases = [self._release(version) for version in versions]
        placed = [(place, release) for release in releases if (place := order(release.version)) is not None]
        placed.sort(key=lambda pair: (pair[0], pair[1].version))
        self._check_order(folder, placed)
        return tuple(release for _, release in placed)

    def _release(self, folder: Path) -> Release:
        self._check_version(folder)
        implementation = self._implementation(folder)
        lock = self._lock(folder, implementation)
        if implementation and lock.is_file():
            self._check_training(folder, lock, implementation)
        return Release(
            name=folder.parent.name,
            version=folder.name,
            folder=folder,
            implementation=implementation or "",
            lock=lock,
            request=self._tensors(folder, REQUEST, "inputs"),
            response=self._tensors(folder, RESPONSE, "outputs"),
            describes_inputs=folder in self._describing,
            pointers=self._pointers(folder),
        )

    def _pointers(self, folder: Path) -> tuple[Pointer, ...]:
        try:
            return tuple(pointers.of(folder, shown=self._shown))
        except InvalidInput as error:
            self.problems += error.problems
            return ()

    # Names

    def _check_name(self, folder: Path) -> None:
        if not _LABEL.fullmatch(folder.name):
            self._refuse(
                folder,
                f'the model\'s name "{folder.name}" is no DNS label',
                "Kubernetes would refuse a Service of that name.",
                "Rename the folder: lower-case letters, digits and -, a letter first, no - at the end.",
            )

    def _check_version(self, folder: Path) -> None:
        if not _TAG.fullmatch(folder.name):
            self._refuse(
                folder,
                f'the version "{folder.name}" is no registry tag',
                "A registry would refuse the image of this release.",
                'Rename the folder: at most 128 letters, digits, "_", "." and "-", neither "." nor "-" first.',
            )
        if order(folder.name) is None:
            self._refuse(
                folder,
                f'the version "{folder.name}" has no semantic order',
                "Which release is the newest, and takes the traffic, could not be told.",
                "Rename the folder like 1.0, 1.2.3, v0.0.10 or 1.2.3-rc1, numbers without leading zeros.",
            )

    def _check_order(self, folder: Path, placed: list[tuple[semver.Version, Release]]) -> None:
        for (order, release), (next_order, other) in pairwise(placed):
            if order == next_order:
                self._refuse(
                    folder,
                    f"{release.version} and {other.version} are the same version in semantic order",
                    "Which of them is the newest, and takes the traffic, could not be told.",
                    "Remove the one that was never published, or release it under a higher version.",
                )

    def _check_labels(self, releases: Iterable[Release]) -> None:
        first: dict[str, Release] = {}
        for release in releases:
            self._check_length(release)
            other = first.setdefault(release.label, release)
            if other is not release:
                self._refuse(
                    release.folder,
                    f"it and {self._shown(other.folder)} would both be served as {release.label}",
                    "Their Deployments would have one name, so that only one of them could be live.",
                    "Rename the one that was never published, so that more than . - _ or the case differs.",
                )

    def _check_length(self, release: Release) -> None:
        length = len(release.label)
        if length > _LABEL_LENGTH:
            self._refuse(
                release.folder,
                f"name and version together, {release.label}, have {length} characters",
                f"Kubernetes would refuse a Service of that name: {_LABEL_LENGTH} is the most it allows.",
                f"Shorten the model's name or the version by {length - _LABEL_LENGTH} or more.",
            )

    # model-settings.json

    def _implementation(self, folder: Path) -> str | None:
        """The class that the settings name, once they are checked; None if that has been refused."""
        path = folder / SETTINGS
        if not path.is_file():
            self._refuse(
                path,
                "is missing",
                "MLServer would start without the model and still report that it is ready.",
                'Write it, with "name", "implementation", and "version" and "uri" inside "parameters".',
            )
            return None
        settings = self._json(path, "MLServer would skip the model and still report that it is ready.")
        if settings is None:
            return None
        self._check_identity(path, settings)
        for key in ("inputs", "outputs"):
            if key in settings:
                self._check_tensors(path, settings, key, _METADATA_KEYS)
        if settings.get("inputs"):
            self._describing.add(folder)
        if isinstance(parameters := settings.get("parameters"), dict):
            self._parameters[folder] = parameters
        implementation = self._checked_import_path(path, settings)
        self._check_artefact(path, settings, implementation)
        return implementation

    def _check_identity(self, path: Path, settings: dict[str, Any]) -> None:
        name, version = path.parent.parent.name, path.parent.name
        self._check_same(path, settings, "name", name)
        if self._required(path, settings, "parameters", dict, f'"parameters": {{"version": "{version}", "uri": …}}'):
            # MLServer 1.7.1 knows no other place; with a version beside the name, /versions/<version>/ answers 404.
            self._check_same(path, settings, "parameters.version", version)

    def _check_same(self, path: Path, settings: dict[str, Any], key: str, folder: str) -> None:
        wanted = f'"{key.rpartition(".")[2]}": "{folder}"'
        value = self._required(path, settings, key, str, wanted)
        if value is not None and value != folder:
            self._refuse(
                path,
                f'{key} is "{value}", and its folder is "{folder}"',
                "The route would ask MLServer for a model or version that is not there.",
                f"Write {wanted}, or rename the folder.",
            )

    def _checked_import_path(self, path: Path, settings: dict[str, Any]) -> str | None:
        example = '"implementation": "mlserver_sklearn.SKLearnModel"'
        value = self._required(path, settings, "implementation", str, example)
        if value is None or _IMPORT_PATH.fullmatch(value):
            return value
        self._refuse(
            path,
            f'implementation is "{value}", which names no class in a module',
            "MLServer could not import it.",
            f"Write the module and the class with a dot between: {example}",
        )
        return None

    def _check_artefact(self, path: Path, settings: dict[str, Any], implementation: str | None) -> None:
        parameters = settings.get("parameters")
        if not isinstance(parameters, dict):
            return
        if "uri" not in parameters and (implementation is None or _is_own_code(path.parent, implementation)):
            return
        uri = self._required(path, settings, "parameters.uri", str, '"uri": "./model.joblib"')
        complaint = _uri_complaint(path.parent, uri) if uri else None
        if complaint:
            self._refuse(
                path,
                f'parameters.uri is "{uri}", {complaint}',
                "The image would not hold the artefact, and the model server has no network to fetch it.",
                f"Put the artefact into {self._shown(path.parent)} and write its path from there.",
            )

    def _required(
        self, path: Path, settings: dict[str, Any], key: str, kind: type[_Value], example: str
    ) -> _Value | None:
        """The value of a key, ``parameters.uri`` for one inside parameters; None once it is refused."""
        inside, _, last = key.rpartition(".")
        holder = settings[inside] if inside else settings
        value = holder.get(last)
        if isinstance(value, kind) and value:
            return value
        shown = json.dumps(value, ensure_ascii=False)
        wanted = ("a string" if kind is str else "an object") + (f" inside {inside}" if inside else "")
        self._refuse(
            path,
            f"{key} is {shown}" if last in holder else f"{key} is missing{_nearby(last, holder, settings)}",
            "MLServer would not serve the model under its name and version.",
            f"Write {wanted}: {example}",
        )
        return None

    # requirements.lock

    def _lock(self, folder: Path, implementation: str | None) -> Path:
        own, shared = folder / LOCK, self._folder / LOCK
        lock = own if own.is_file() else shared
        if not lock.is_file():
            self._refuse(
                folder,
                f"has no {LOCK}, and {self._shown(self._folder)} has none for all models",
                "What the model was trained with is unknown, so no image could serve it faithfully.",
                f"Lock its requirements: {self._lock_command(own)}",
            )
            return own
        packages = locked(lock.read_text(encoding="utf-8", errors="replace"))
        self._check_hashes(lock, packages)
        if implementation:
            self._check_runtime(folder, lock, implementation, packages)
        return lock

    def _check_hashes(self, lock: Path, packages: Mapping[str, Package]) -> None:
        bare = [name for name, package in packages.items() if not package.hashed]
        if bare and lock not in self._locks:
            more = f" and {len(bare) - 1} more" if len(bare) > 1 else ""
            self._refuse(
                lock,
                f"{bare[0]}{more} without a hash",
                "A package that was replaced since the training would be installed unnoticed.",
                f"Lock with hashes: {self._lock_command(lock)}",
            )
        self._locks.add(lock)

    def _check_runtime(self, folder: Path, lock: Path, implementation: str, packages: Mapping[str, Package]) -> None:
        runtime = [] if _is_own_code(folder, implementation) else [normal(implementation.partition(".")[0])]
        for package in dict.fromkeys(["mlserver", *runtime]):
            if package not in packages:
                self._refuse(
                    folder / SETTINGS,
                    f"implementation {implementation} needs {package}, which {self._shown(lock)} lacks",
                    "MLServer could not import it, and the pods would never get ready.",
                    f"Add {package} to the requirements and lock them again: {self._lock_command(lock)}",
                )

    def _check_training(self, folder: Path, lock: Path, implementation: str) -> None:
        """Refuses a package that is served in another version than the model was trained with."""
        packages = locked(lock.read_text(encoding="utf-8", errors="replace"))
        accepted = self._accepted(folder)
        for trained in trained_with(folder, implementation, self._artefact(folder)):
            if trained.package not in accepted and trained.differs_from(packages):
                self._refuse_training(folder, lock, trained, packages[trained.package])

    def _artefact(self, folder: Path) -> Path | None:
        uri = self._parameters.get(folder, {}).get("uri")
        return folder / uri if isinstance(uri, str) and uri and not _uri_complaint(folder, uri) else None

    def _refuse_training(self, folder: Path, lock: Path, trained: TrainedWith, served: Package) -> None:
        extra = f'"extra": {{"{OTHER_VERSIONS}": ["{trained.package}"]}}'
        self._refuse(
            trained.told_by,
            f"was made with {trained.package} {trained.version}, and {self._shown(lock)} has "
            f"{' or '.join(sorted(served.versions))}",
            "Another version may not load the model, or load it and predict something else.",
            f"Lock {trained.package}=={trained.version}, or train again; if the other version is known to do, write "
            f'{extra} inside "parameters" of {self._shown(folder / SETTINGS)}.',
        )

    def _accepted(self, folder: Path) -> set[str]:
        """Packages of which the model says that another version than the training's will do."""
        extra = self._parameters.get(folder, {}).get("extra")
        names = extra.get(OTHER_VERSIONS, []) if isinstance(extra, dict) else []
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return {normal(name) for name in names}
        self._refuse(
            folder / SETTINGS,
            f"parameters.extra.{OTHER_VERSIONS} is {json.dumps(names, ensure_ascii=False)}",
            "Nobody could tell which packages may be of another version than at the training.",
            f'Write a list of packages: "{OTHER_VERSIONS}": ["scikit-learn"]',
        )
        return set()

    def _lock_command(self, lock: Path) -> str:
        return f"uv pip compile --generate-hashes requirements.in --output-file {self._shown(lock)}"

    # request.json and response.json

    def _tensors(self, folder: Path, name: str, key: str) -> Path | None:
        path = folder / name
        if not path.is_file():
            return None
        if name == RESPONSE and not (folder / REQUEST).is_file():
            self._refuse(
                path,
                f"has no {REQUEST} beside it",
                "It would never be compared with an answer.",
                f"Add the {REQUEST} that it answers, or remove it.",
            )
        content = self._json(path, "The release could not be tried before it gets traffic.")
        if content is not None:
            self._check_tensors(path, content, key, _TENSOR)
            self._check_tolerances(path, content, key)
        return path

    def _check_tolerances(self, path: Path, content: dict[str, Any], key: str) -> None:
        tensors = content.get(key)
        for holder in (content, *(tensors if isinstance(tensors, list) else ())):
            parameters = holder.get("parameters") if isinstance(holder, dict) else None
            tolerance = parameters.get("tolerance", 0) if isinstance(parameters, dict) else 0
            if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance < math.inf:
                self._refuse(
                    path,
                    f"parameters.tolerance is {json.dumps(tolerance)}",
                    "No answer could be compared with this one.",
                    'Write by how much a float may differ, relative to itself or in all: "tolerance": 1e-4',
                )

    def _check_tensors(self, path: Path, content: dict[str, Any], key: str, keys: Iterable[str]) -> None:
        tensors = content.get(key)
        if not isinstance(tensors, list) or not tensors:
            self._refuse_tensor(
                path,
                f"{key} is missing" if key not in content else f"{key} is no list of tensors",
                f'Write "{key}": a list of objects with {", ".join(keys)}.',
            )
            return
        for position, tensor in enumerate(tensors):
            self._check_tensor(path, tensor, f"{key}[{position}]", keys)

    def _check_tensor(self, path: Path, tensor: object, place: str, keys: Iterable[str]) -> None:
        if not isinstance(tensor, dict):
            self._refuse_tensor(path, f"{place} is no object", f"Write an object with {', '.join(keys)}.")
            return
        for key in keys:
            fits, example = _TENSOR[key]
            if key not in tensor:
                self._refuse_tensor(path, f"{place}.{key} is missing", f"Write it, like {example}.")
            elif not fits(tensor[key]):
                value = json.dumps(tensor[key], ensure_ascii=False)
                self._refuse_tensor(path, f"{place}.{key} is {value}", f"Write it like {example}.")

    def _refuse_tensor(self, path: Path, what: str, remedy: str) -> None:
        self._refuse(path, what, "MLServer would refuse it: it is not in the form of the V2 protocol.", remedy)

    # Files

    def _folders(self, parent: Path, noun: str, form: str, files: Iterable[str] = ()) -> list[Path]:
        """The folders inside; anything else is refused, because nobody would notice that it is not served."""
        found = sorted(parent.iterdir()) if parent.is_dir() else []
        entries = [
            path for path in found if not contents.is_ignored(path.name) and path.name not in {"README.md", *files}
        ]
        for path in entries:
            if not path.is_dir():
                self._refuse(
                    path,
                    f"is a file where the folder of {noun} is expected",
                    "It would never be served, and nobody would notice.",
                    f"Move it into a release, {form}, or remove it.",
                )
        return [path for path in entries if path.is_dir()]

    def _json(self, path: Path, consequence: str) -> dict[str, Any] | None:
        """What the file holds if that is a JSON object, else None and a problem."""
        remedy = f"Correct it there; this says when it is right: python3 -m json.tool {self._shown(path)}"
        try:
            content = json.loads(path.read_bytes().decode())
        except json.JSONDecodeError as error:
            self._refuse(path, f"line {error.lineno}, column {error.colno}: {error.msg}", consequence, remedy)
            return None
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            column = error.start - error.object.rfind(b"\n", 0, error.start)
            self._refuse(path, f"line {line}, column {column}: not UTF-8", consequence, "Save the file as UTF-8.")
            return None
        if isinstance(content, dict):
            return content
        self._refuse(path, "holds no JSON object", consequence, "Begin it with { and end it with }.")
        return None

    def _refuse(self, path: Path, what: str, consequence: str, remedy: str) -> None:
        self.problems.append(Problem(file=self._shown(path), what=what, consequence=consequence, remedy=remedy))

    def _shown(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def _nearby(key: str, holder: Iterable[str], settings: Iterable[str]) -> str:
    """Where a missing key may have gone."""
    near = difflib.get_close_matches(key, holder, n=1)
    if near:
        return f'; there is "{near[0]}"'
    return "; it stands outside of parameters" if key in settings else ""


def _is_own_code(folder: Path, implementation: str) -> bool:
    """Whether the release brings the class itself: MLServer looks for modules in the model's folder first."""
    module = folder / implementation.partition(".")[0]
    return module.with_suffix(".py").is_file() or module.is_dir()


def _uri_complaint(folder: Path, uri: str) -> str | None:
    if "://" in uri:
        return "which is no file of the release"
    target = (folder / uri).resolve()
    if not target.is_relative_to(folder.resolve()):
        return "which is outside of the release"
    if any(contents.is_ignored(part) for part in target.relative_to(folder.resolve()).parts):
        return "which is hidden, and hidden files are no part of a release"
    if not target.exists() and not pointers.place_for(target).is_file():
        return "which points to nothing"
    return None
