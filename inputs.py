"""Everything that people wrote, read and checked as a whole before anything is declared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import catalog
import live
import preflight
import settings
from problems import InvalidInput, Problem

MODELS: Final = Path("models")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A stack's settings and the models that it serves."""

    settings: settings.Settings
    models: tuple[live.LiveModel, ...]


def read(stack: str, values: Mapping[str, str]) -> Inputs:
    """Reads the stack file and the models, and looks whether cluster and registry are there.

    Args:
        stack: the stack's name.
        values: its configuration, key with prefix -> text.

    Raises:
        InvalidInput: with every mistake of both; nothing was changed.
    """
    problems: list[Problem] = []
    file = settings.file_of(stack)
    chosen, released = None, None
    try:
        chosen = settings.read(stack, values)
    except InvalidInput as error:
        problems += error.problems
    try:
        released = catalog.read(MODELS)
    except InvalidInput as error:
        problems += error.problems
    if chosen is None or released is None:
        raise InvalidInput(problems)
    models = live.resolve(chosen, released, file=file)
    # A platform of the stack's own may be there only after the first update.
    if chosen.gcp is None:
        preflight.check(chosen, file=file)
    return Inputs(settings=chosen, models=models)
