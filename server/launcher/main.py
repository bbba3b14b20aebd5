"""``python -m server.launcher.main FOLDER``: serves the only release in a folder.

MLServer's workers import this module as well, which gives them their event loop.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

import uvloop
from mlserver import ModelSettings, Settings
from mlserver.logging import configure_logger
from mlserver.repository.load import load_model_settings
from pydantic import ValidationError

from . import tables  # noqa: F401 - registers its codec, here and in the workers
from .entry import wrap
from .limits import Bounds, InvalidLimit
from .loading import EXIT_CODE, Unloadable, report, settings_file, unloadable
from .serving import Serving

ORIGINS: Final = "MODEL_SERVING_ALLOWED_ORIGINS"
"""Variable of the environment: origins of web pages whose scripts may ask, with spaces between them."""
TERMINATION_LOG: Final = "/dev/termination-log"


class EventLoopPolicy(uvloop.EventLoopPolicy):  # type: ignore[misc]
    """Makes a loop for who asks for one first, as MLServer's workers do; uvloop makes none any more since 0.22."""

    def get_event_loop(self) -> Any:
        try:
            return super().get_event_loop()
        except RuntimeError:
            self.set_event_loop(self.new_event_loop())
            return super().get_event_loop()


# A worker of MLServer 1.7 installs uvloop's policy unless it has one whose module begins with this name.
EventLoopPolicy.__module__ = "uvloop"
asyncio.set_event_loop_policy(EventLoopPolicy())


def read(root: Path) -> ModelSettings:
    """The settings of the release.

    Raises:
        Unloadable: if they are none.
    """
    path = settings_file(root)
    # As MLServer's own command does, for models that import each other.
    sys.path.insert(0, str(root))
    try:
        release = load_model_settings(str(path))
    except (ValidationError, ValueError, TypeError) as error:
        raise _wrong(path, f"{type(error).__name__}: {error}") from error
    if release.name != path.parent.name:
        raise _wrong(path, f"its settings are of the model {release.name}")
    return release


def _wrong(path: Path, what: str) -> Unloadable:
    return Unloadable(
        what=f"{path.parent.name} cannot be loaded: {what}",
        file=path.name,
        remedy=f"Correct {path.name} and release a new version.",
    )


async def serve(root: Path, socket: int | None = None) -> None:
    """Serves until a signal comes.

    Args:
        root: folder with the folder of the release.
        socket: number of a bound socket to answer on, instead of MLServer's port.

    Raises:
        Unloadable: if the release, or a limit, is wrong.
    """
    settings = Settings()
    configure_logger(settings)
    try:
        bounds = Bounds.of(os.environ)
    except InvalidLimit as error:
        raise Unloadable(
            what=str(error), file="environment of the pod", remedy="Correct it in the stack file."
        ) from error
    release = read(root)
    folder = settings_file(root).parent
    implementation = release.implementation_
    parameters = release.parameters
    artefact = (folder / parameters.uri).resolve() if parameters.uri else folder
    try:
        origins = os.environ.get(ORIGINS, "").split()
        await Serving(settings, wrap(release), bounds, socket, origins=origins).run()
    except Exception as error:
        label = f"{release.name} {parameters.version or ''}".strip()
        raise unloadable(label, error, implementation=implementation, artefact=artefact, folder=folder) from error


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="folder with the folder of a release, e.g. /models")
    parser.add_argument("--termination-log", type=Path, default=Path(TERMINATION_LOG), help="written if it is there")
    parser.add_argument("--socket", type=int, help="number of a bound socket to answer on, instead of MLServer's port")
    options = parser.parse_args()
    asyncio.run(_serve_or_end(options.folder.resolve(), options.socket, options.termination_log))
    return 0


async def _serve_or_end(root: Path, socket: int | None, termination_log: Path) -> None:
    try:
        await serve(root, socket)
    except Unloadable as reason:
        report(reason, termination_log)
        _end()


def _end() -> NoReturn:
    """Ends at once: threads and workers that are still loading, or wait for work, would hold it up."""
    for worker in multiprocessing.active_children():
        worker.kill()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_CODE)


if __name__ == "__main__":
    sys.exit(main())
