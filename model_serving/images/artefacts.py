"""Large files of releases on their way into an image: in a folder of this machine for as long as the build takes.

On each preview the provider hashes every folder that an image is built from. These files are in a hidden one, which the
Dockerfile's .dockerignore leaves out of that hash: it is the same whether or not they are on this machine, and their
pointers, which it covers, change whenever they do.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from model_serving.catalog import Release
from model_serving.images import large_files
from model_serving.images.remotes import Say, open_remote

DOCKERFILE: Final = Path("server/model-fetched.Dockerfile")
CONTEXTS: Final = Path(".state/artefacts")
"""Build contexts by the hash of the release's folder."""
FETCHED: Final = ".fetched"
"""Folder in a context, as the Dockerfile has it."""


def context_of(release: Release) -> Path:
    """The build context with a release's large files; there while its image is built."""
    return CONTEXTS / release.content_hash


def fetch(folder: Path, context: Path, *, remote: str, say: Say) -> None:
    """Fills a build context.

    Args:
        folder: of the release.
        context: its build context.
        remote: address of the remote.
        say: is told of each file.

    Raises:
        InvalidInput: with every file that is missing, altered or out of reach.
        RemoteError: if the remote cannot be used at all.
    """
    large_files.fetch(folder, open_remote(remote, say=say), context / FETCHED, say=say)


def remove(context: Path) -> None:
    """Frees the disk once the image is in the registry; after a failure the files stay for the next run."""
    shutil.rmtree(context, ignore_errors=True)
