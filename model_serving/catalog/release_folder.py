"""Reads and checks the folder of one release: settings, artefact, lock, contract, and versions at training."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from model_serving.catalog import contents, mlserver_keys, pointers, tensors
from model_serving.catalog.pointers import Pointer
from model_serving.catalog.releases import Release, meant, order
from model_serving.catalog.report import Report
from model_serving.catalog.requirements import LOCK_COMMAND, LOCK_HELP, Package, locked, normal, unlocked
from model_serving.catalog.training_versions import trained_with
from model_serving.problems import InvalidInput, first_few

SETTINGS: Final = "model-settings.json"
SERVER_SETTINGS: Final = "settings.json"
LOCK: Final = "requirements.lock"
REQUEST: Final = "request.json"
RESPONSE: Final = "response.json"
OTHER_VERSIONS: Final = "acceptsOtherVersions"
"""Key inside ``parameters.extra``: packages that may be served in another version than at training."""

# The tag of an image, and a label's value in Kubernetes, which has fewer.
# https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pulling-manifests
_TAG: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_IMPORT_PATH: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
_OF_MLFLOW: Final = frozenset({"models", "runs", "mlflow-artifacts"})
"""Addresses of what MLflow has stored."""

_Value = TypeVar("_Value", str, dict[str, Any])


class ReleaseFolder:
    """Continues after a problem, so that all of them are reported.

    Args:
        folder: of the release.
        shared_lock: of a release that has no lock of its own.
        report: gets the problems.
    """

    def __init__(self, folder: Path, shared_lock: Path, report: Report) -> None:
        self._folder = folder
        self._path = folder / SETTINGS
        self._own_lock, self._shared_lock = folder / LOCK, shared_lock
        self._report = report
        self._settings: dict[str, Any] = {}
        self._parameters: dict[str, Any] = {}

    def release(self) -> Release:
        """The release; incomplete if it has problems, and otherwise unread if it has wrong links."""
        self._check_version()
        links = [*contents.wrong_links(self._folder, inside=self._folder)]
        for path, what in links:
            self._report.refuse_link(path, what)
        if links:
            return Release(
                name=self._folder.parent.name,
                version=self._folder.name,
                folder=self._folder,
                implementation="",
                lock=self._own_lock,
                request=None,
                response=None,
            )
        self._check_files()
        implementation = self._implementation()
        lock = self._own_lock if self._own_lock.is_file() else self._shared_lock
        self._check_lock(lock, implementation)
        return Release(
            name=self._folder.parent.name,
            version=self._folder.name,
            folder=self._folder,
            implementation=implementation or "",
            lock=lock,
            request=self._contract(REQUEST, "inputs"),
            response=self._contract(RESPONSE, "outputs"),
            describes_inputs=bool(self._settings.get("inputs")),
            pointers=self._pointers(),
        )

    def _check_version(self) -> None:
        version = self._folder.name
        if not _TAG.fullmatch(version):
            self._report.refuse(
                self._folder,
                f'the version "{version}" cannot be the tag of an image and a label in Kubernetes',
                "A registry would refuse the image of this release, or Kubernetes its pods.",
                "Rename the folder: up to 63 letters, digits, ., _ and -, starting and ending with a letter or digit.",
            )
        if order(version) is None:
            form = meant(version)
            self._report.refuse(
                self._folder,
                f'the version "{version}" has no semantic order',
                "It would be unclear which release is the newest and takes the traffic.",
                f"Rename the folder to {form}."
                if form
                else "Rename the folder like 1.0, 1.2.3, v0.0.10 or 1.2.3-rc1, numbers without leading zeros.",
            )

    def _check_files(self) -> None:
        """Refuses files that MLServer would read as settings, or that look as if it did, and pointers of Git LFS."""
        for path in sorted(contents.files(self._folder)):
            if contents.is_lfs_pointer(path):
                self._report.refuse(
                    path,
                    "is a pointer of Git LFS and not the file itself",
                    "The image would contain the pointer, and MLServer could not load it.",
                    "Get the file: git lfs pull. In a pipeline, set GIT_LFS_SKIP_SMUDGE=0, or `lfs: true` for "
                    "actions/checkout.",
                )
            if path.name.removesuffix(pointers.SUFFIX) == SETTINGS and path != self._path:
                self._report.refuse(
                    path,
                    f"is a second {SETTINGS} in the release",
                    "MLServer would load that model too, and it could take the traffic of this one.",
                    "Remove it, or give it another name.",
                )
        if (path := self._folder / SERVER_SETTINGS).exists():
            self._report.refuse(
                path,
                "has the name of the server's own settings",
                "MLServer reads no settings of the server from a release, so they would have no effect.",
                "Remove it, and set what it says in the stack file: workers, or environment with MLSERVER_ variables. "
                "If the model's own code reads it, give it another name.",
            )

    def _pointers(self) -> tuple[Pointer, ...]:
        try:
            return tuple(pointers.of(self._folder, shown=self._report.shown))
        except InvalidInput as error:
            self._report.problems += error.problems
            return ()

    # model-settings.json

    def _implementation(self) -> str | None:
        """Reads and checks the settings; the class that they name, None if it is refused."""
        if not self._path.is_file():
            self._report.refuse(
                self._path,
                "is missing",
                "MLServer would start without the model and still report that it is ready.",
                'Write it, with "name", "implementation", and "version" and "uri" inside "parameters".',
            )
            return None
        settings = self._report.read_json(
            self._path, "MLServer would skip the model and still report that it is ready."
        )
        if settings is None:
            return None
        self._settings = settings
        name, version = self._folder.parent.name, self._folder.name
        self._check_same("name", name)
        parameters = self._required("parameters", dict, f'"parameters": {{"version": "{version}", "uri": …}}')
        if parameters:
            self._parameters = parameters
            # MLServer 1.7.1 reads no other place; with a version beside the name, /versions/<version>/ answers 404.
            self._check_same("parameters.version", version)
        for what, reason in mlserver_keys.refused(settings):
            self._report.refuse(self._path, what, reason.consequence, reason.remedy)
        for key in settings.keys() & {"inputs", "outputs"}:
            self._check_tensors(self._path, settings, key, data=False)
        if not (self._folder / REQUEST).is_file():
            for what, remedy in tensors.too_large(settings.get("inputs")):
                self._report.refuse(self._path, what, "The request that is derived from it could not be sent.", remedy)
        implementation = self._import_path()
        if isinstance(settings.get("parameters"), dict):
            self._check_artefact(implementation)
        return implementation

    def _check_same(self, key: str, folder: str) -> None:
        wanted = f'"{key.rpartition(".")[2]}": "{folder}"'
        value = self._required(key, str, wanted)
        if value is not None and value != folder:
            self._report.refuse(
                self._path,
                f'{key} is "{value}", and that of the release is "{folder}"',
                "The route would ask MLServer for a model or version that does not exist.",
                f"Write {wanted}",
            )

    def _import_path(self) -> str | None:
        example = '"implementation": "mlserver_sklearn.SKLearnModel"'
        value = self._required("implementation", str, example)
        if value is None or _IMPORT_PATH.fullmatch(value):
            return value
        self._report.refuse(
            self._path,
            f'implementation is "{value}", which is not a class in a module',
            "MLServer could not import it.",
            f"Write the module and the class, separated by a dot: {example}",
        )
        return None

    def _check_artefact(self, implementation: str | None) -> None:
        if self._parameters.get("uri") is None and (implementation is None or self._has_code_of(implementation)):
            return
        uri = self._required("parameters.uri", str, '"uri": "./model.joblib"')
        if uri and (scheme := _SCHEME.match(uri)):
            self._refuse_address(uri, scheme[1].lower(), implementation or "")
        elif uri and (fault := self._fault_of(uri)):
            self._report.refuse(
                self._path,
                f'parameters.uri is "{uri}", {fault}',
                "The image would not contain the artefact, and the model server has no network to fetch it.",
                f"Put the artefact into {self._report.shown(self._folder)} and write its path from there.",
            )

    def _refuse_address(self, uri: str, scheme: str, implementation: str) -> None:
        release = f"--name {self._folder.parent.name} --version {self._folder.name}"
        convert = f"make the release of it: python -m model_serving convert mlflow FOLDER {release}"
        if scheme in _OF_MLFLOW:
            remedy = f"Download it, mlflow artifacts download --artifact-uri {uri} --dst-path FOLDER, and {convert}"
        elif implementation.startswith("mlserver_mlflow."):
            remedy = f"Download the folder with the file MLmodel, and {convert}"
        else:
            remedy = (
                f"Download it into {self._report.shown(self._folder)}, and write its path from there. If DVC tracks "
                f"it, make the release of it: python -m model_serving convert dvc REPOSITORY PATH {release}"
            )
        self._report.refuse(
            self._path,
            f'parameters.uri is "{uri}", which is not a file of the release',
            "The image would not contain the artefact, and the model server has no network to fetch it.",
            remedy,
        )

    def _required(self, key: str, kind: type[_Value], example: str) -> _Value | None:
        """The value of a key, ``parameters.uri`` for one inside parameters; None if it is refused."""
        inside, _, last = key.rpartition(".")
        holder = self._settings[inside] if inside else self._settings
        value = holder.get(last)
        if isinstance(value, kind) and value:
            return value
        if last in holder:
            what = f"{key} is {json.dumps(value, ensure_ascii=False)}"
        else:
            near = difflib.get_close_matches(last, holder, n=1)
            outside = "; it is outside of parameters" if last in self._settings else ""
            what = f"{key} is missing" + (f'; there is "{near[0]}"' if near else outside)
        wanted = ("a string" if kind is str else "an object") + (f" inside {inside}" if inside else "")
        consequence = "MLServer would not serve the model under its name and version."
        self._report.refuse(self._path, what, consequence, f"Write {wanted}: {example}")
        return None

    def _has_code_of(self, implementation: str) -> bool:
        """Whether the release contains the class: MLServer looks for modules in the model's folder first."""
        module = self._folder / implementation.partition(".")[0]
        return module.with_suffix(".py").is_file() or module.is_dir()

    def _fault_of(self, uri: str) -> str | None:
        folder = self._folder.resolve()
        try:
            target = (folder / uri).resolve(strict=False)
            target.exists()
        except (OSError, ValueError):
            return "which cannot be the path of a file"
        if not target.is_relative_to(folder):
            return "which is outside of the release"
        if any(contents.is_ignored(part) for part in target.relative_to(folder).parts):
            return "which is hidden, and hidden files are not part of a release"
        if not target.exists() and not pointers.place_for(target).is_file():
            return "which does not exist"
        return None

    # requirements.lock

    def _check_lock(self, lock: Path, implementation: str | None) -> None:
        if not lock.is_file():
            self._report.refuse(
                self._folder,
                f"has no {LOCK}, and {self._report.shown(lock.parent)} has none for all models",
                "The packages that the model was trained with are unknown, so no image could serve it faithfully.",
                f"Lock its requirements: {self._lock_command(self._own_lock)}",
            )
            return
        text = lock.read_text(encoding="utf-8", errors="replace")
        if "\0" in text:
            self._report.refuse(
                lock,
                "is not UTF-8",
                "Its packages could be neither read nor installed.",
                "Save it as UTF-8. PowerShell's > writes UTF-16; --output-file does not.",
            )
            return
        packages = locked(text)
        if loose := unlocked(text):
            self._report.refuse(
                lock,
                f"{first_few([json.dumps(line, ensure_ascii=False) for line in loose])}: not one exact version",
                "The image, which installs what the lock says and nothing else, could not be built.",
                f"Lock every package as name==version with its hashes: {self._lock_command(lock)}",
            )
        if bare := [name for name, package in packages.items() if not package.hashed]:
            more = f" and {len(bare) - 1} more" if len(bare) > 1 else ""
            self._report.refuse(
                lock,
                f"{bare[0]}{more} without a hash",
                "A package that was replaced since the training would be installed unnoticed.",
                f"Lock with hashes: {self._lock_command(lock)}",
            )
        if implementation:
            self._check_runtime(lock, packages, implementation)
            self._check_training(lock, packages, implementation)

    def _check_runtime(self, lock: Path, packages: Mapping[str, Package], implementation: str) -> None:
        runtime = [] if self._has_code_of(implementation) else [normal(implementation.partition(".")[0])]
        for package in dict.fromkeys(["mlserver", *runtime]):
            if package not in packages:
                self._report.refuse(
                    self._path,
                    f"implementation {implementation} needs {package}, which {self._report.shown(lock)} lacks",
                    "MLServer could not import it, and the pods would never become ready.",
                    f"Add {package} to the requirements and lock them again: {self._lock_command(lock)}",
                )

    def _check_training(self, lock: Path, packages: Mapping[str, Package], implementation: str) -> None:
        """Refuses a package that is served in another version than the model was trained with."""
        accepted, uri = self._accepted(), self._parameters.get("uri")
        artefact = self._folder / uri if isinstance(uri, str) and uri and not self._fault_of(uri) else None
        for trained in trained_with(self._folder, implementation, artefact):
            if trained.package in accepted or not trained.differs_from(packages):
                continue
            extra = f'"extra": {{"{OTHER_VERSIONS}": ["{trained.package}"]}}'
            self._report.refuse(
                trained.told_by,
                f"was made with {trained.package} {trained.version}, and {self._report.shown(lock)} has "
                f"{' or '.join(sorted(packages[trained.package].versions))}",
                "Another version may fail to load the model, or load it and give different predictions.",
                f"Lock {trained.package}=={trained.version}, or train again; if the other version is known to work, "
                f'write {extra} inside "parameters" of {self._report.shown(self._path)}.',
            )

    def _accepted(self) -> set[str]:
        """Packages that, according to the model, may have another version than at training."""
        extra = self._parameters.get("extra")
        names = extra.get(OTHER_VERSIONS, []) if isinstance(extra, dict) else []
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return {normal(name) for name in names}
        self._report.refuse(
            self._path,
            f"parameters.extra.{OTHER_VERSIONS} is {json.dumps(names, ensure_ascii=False)}",
            "It would be unclear which packages may have another version than at training.",
            f'Write a list of packages: "{OTHER_VERSIONS}": ["scikit-learn"]',
        )
        return set()

    def _lock_command(self, lock: Path) -> str:
        return f"{LOCK_COMMAND} requirements.in --output-file {self._report.shown(lock)} ({LOCK_HELP})"

    # request.json and response.json

    def _contract(self, name: str, key: str) -> Path | None:
        path = self._folder / name
        if not path.is_file():
            return None
        if name == RESPONSE and not (self._folder / REQUEST).is_file():
            self._report.refuse(
                path,
                f"has no {REQUEST} beside it",
                "It would never be compared with an answer.",
                f"Add the {REQUEST} that it answers, or remove it.",
            )
        content = self._report.read_json(path, "The release could not be checked before it gets traffic.")
        if content is not None:
            self._check_tensors(path, content, key, data=True)
            for what, remedy in tensors.wrong_tolerances(content, key):
                self._report.refuse(path, what, "No answer could be compared with this one.", remedy)
        return path

    def _check_tensors(self, path: Path, content: Mapping[str, Any], key: str, *, data: bool) -> None:
        consequence = "MLServer would refuse it: it is not in the form of the V2 protocol."
        for what, remedy in tensors.mistakes(content, key, data=data):
            self._report.refuse(path, what, consequence, remedy)
