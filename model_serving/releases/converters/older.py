"""Releases of the older layout: one folder for name and tag, ``models/<name>-<tag>/``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from model_serving import catalog
from model_serving.catalog.contents import is_ignored
from model_serving.releases.converters.draft import Draft, read_settings, unusable

HELP: Final = "a folder <name>-<tag> of the older layout"
EXAMPLE: Final = "python -m model_serving convert older models/iris-dtc-v0.0.10 --lock requirements.lock"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="FOLDER", help="of the release")


def draft(options: argparse.Namespace, scratch: Path) -> Draft:
    folder: Path = options.source
    settings = read_settings(folder / catalog.SETTINGS)
    name, version = _name_and_version(folder, settings, options.name, options.version)
    # As the release job of the older layout did.
    settings = json.loads(json.dumps(settings).replace("$VERSAO", version).replace("$VERSION", version))
    # MLServer ignores a version outside the parameters, and serves the model without one.
    settings.pop("version", None)
    lock = folder / catalog.LOCK
    kept = [path for path in folder.iterdir() if path.name not in {catalog.SETTINGS, catalog.LOCK}]
    return Draft(
        name=name,
        version=version,
        settings=settings,
        files={path.name: path for path in kept if not is_ignored(path.name)},
        lock=lock if lock.is_file() else None,
        remarks=[f"{folder} was not changed: remove it in the commit that adds this release."],
    )


def _name_and_version(
    folder: Path, settings: Mapping[str, Any], name: str | None, version: str | None
) -> tuple[str, str]:
    """The options, else the parts of the folder's name; the name in the settings decides between several readings.

    ``model-1.0-v2`` may be version v2 of model-1.0, or version 1.0-v2 of model.
    """
    if name and version:
        return name, version
    parts = folder.resolve().name.split("-")
    splits = [("-".join(parts[:end]), "-".join(parts[end:])) for end in range(1, len(parts))]
    found = [
        split
        for split in splits
        if catalog.order(split[1]) is not None and name in {None, split[0]} and version in {None, split[1]}
    ]
    if not found:
        remedy = "Add the options, like --name iris-dtc --version v0.0.10"
        raise unusable(folder, "its name does not end with - and a version", remedy)
    # The first one has the longest version.
    return next((split for split in found if split[0] == settings.get("name")), found[0])
