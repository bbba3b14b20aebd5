"""The sections of params.yaml: a key that is not one of these ends the step, and no default takes its place."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

FILE: Final = Path("params.yaml")


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Prepare(Section):
    """How the data is divided.

    Attributes:
        seed: of the permutation.
        held_out: wines at its end, which training never sees.
    """

    seed: int
    held_out: int


class Train(Section):
    """LightGBM's own parameters; ``rounds`` is how many trees each cultivar gets."""

    seed: int
    rounds: int
    learning_rate: float
    num_leaves: int
    min_data_in_leaf: int


class Evaluate(Section):
    """How many of the held-out wines are in the contract."""

    asked: int


SectionT = TypeVar("SectionT", bound=Section)


def read(section: type[SectionT]) -> SectionT:
    """Reads a section; ends the program with everything that is wrong in it."""
    name = section.__name__.lower()
    try:
        content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
        return section.model_validate(content.get(name) if isinstance(content, dict) else None)
    except yaml.YAMLError as error:
        sys.exit(f"{FILE} is no YAML: {error}")
    except ValidationError as error:
        for each in error.errors():
            print(f"{FILE}: {'.'.join([name, *map(str, each['loc'])])}: {each['msg']}", file=sys.stderr)
        sys.exit(f"  Parameters of {name} are: {', '.join(section.model_fields)}.")
