"""Finds the release of an image, and says why it cannot be loaded: in the log, and where Kubernetes looks for it."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

EXIT_CODE: Final = os.EX_CONFIG
"""Of a server whose release or settings are wrong: another start would fail the same way."""
SETTINGS: Final = "model-settings.json"
LOCK: Final = "requirements.lock"
MISSING: Final = f"A package is missing that the model imports. Add it to {LOCK} and release a new version."
LONGEST_MESSAGE: Final = 4096
"""Bytes of a termination message that Kubernetes keeps."""

log = logging.getLogger("mlserver")


class NoImplementation(Exception):
    """The class of a model cannot be imported; the cause says why."""


@dataclass(frozen=True, kw_only=True)
class Unloadable(Exception):
    """A release cannot be loaded.

    Attributes:
        what: was wrong, with the type and text of the exception.
        file: of the release, relative to its folder.
        remedy: what to do about it.
    """

    what: str
    file: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}\n  file: {self.file}\n  {self.remedy}"


def settings_file(root: Path) -> Path:
    """The settings of the only release: those at its top, never any deeper ones.

    Raises:
        Unloadable: if there is no release, or more than one.
    """
    found = sorted(root.glob(f"*/{SETTINGS}"))
    if len(found) != 1:
        there = ", ".join(str(path.relative_to(root)) for path in found) or "none"
        raise Unloadable(
            what=f"{root} must hold one release; there is {there}",
            file=f"*/{SETTINGS}",
            remedy="Build the image from the folder of one release.",
        )
    return found[0]


def unloadable(release: str, error: BaseException, *, implementation: str, artefact: Path, folder: Path) -> Unloadable:
    """Says why a release cannot be loaded.

    Args:
        release: name and version.
        error: what was raised, here or in a worker.
        implementation: of the release, as a Python path.
        artefact: what it is loaded from.
        folder: of the release.
    """
    if isinstance(error, NoImplementation) and error.__cause__:
        error = error.__cause__
        file, remedy = _without_implementation(error, implementation)
    elif _kind(error) == "MemoryError":
        file, remedy = _described(artefact, folder), "Give the model more memory in the stack file, `resources.memory`."
    elif _kind(error) == "ModuleNotFoundError":
        file, remedy = LOCK, MISSING
    else:
        file, remedy = (
            _described(artefact, folder),
            (
                "The file is not whole, or the model's own code fails. Train the model again with the packages of "
                f"{LOCK}, and release a new version; `publish --dry-run` tries it on a laptop."
            ),
        )
    return Unloadable(what=f"{release} cannot be loaded: {_shown(error)}", file=file, remedy=remedy)


def _kind(error: BaseException) -> str:
    return _shown(error).partition(":")[0]


def _shown(error: BaseException) -> str:
    # An exception that comes from a worker has its type in its text.
    words = [] if type(error).__name__ == "WorkerError" else [type(error).__name__]
    return ": ".join([*words, str(error).removeprefix("builtins.")]).removesuffix(": ")


def _without_implementation(error: BaseException, implementation: str) -> tuple[str, str]:
    module = implementation.rpartition(".")[0]
    if not isinstance(error, ModuleNotFoundError):
        return SETTINGS, f"Correct the implementation {implementation}, or its code, and release a new version."
    if error.name and (module == error.name or module.startswith(f"{error.name}.")):
        return SETTINGS, (
            f"The module of the implementation {implementation} is neither in {LOCK} nor beside {SETTINGS}. Correct "
            "its name, or add its package to the lock, and release a new version."
        )
    return LOCK, MISSING


def _described(artefact: Path, folder: Path) -> str:
    name = artefact.relative_to(folder) if artefact.is_relative_to(folder) else artefact
    if artefact.is_file():
        return f"{name} ({artefact.stat().st_size} bytes)"
    return f"{name}" if artefact.exists() else f"{name} (not there)"


def report(reason: Unloadable, termination_log: Path) -> None:
    """Writes the reason into the log, with the traceback, and for Kubernetes, if it has made the file for that."""
    log.error("%s", reason, exc_info=reason.__cause__)
    if termination_log.exists():
        termination_log.write_bytes(str(reason).encode()[:LONGEST_MESSAGE])
