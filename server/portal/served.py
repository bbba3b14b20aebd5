"""What a stack serves, as the program has written it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Version:
    """A deployed version of a model.

    Attributes:
        weight: percent of the model's traffic.
        ready_url: answers 200 if the version can serve.
    """

    model: str
    version: str
    weight: int
    ready_url: str


def read(path: Path) -> list[Version]:
    """Reads the file: a list of versions with camelCase keys."""
    return [
        Version(
            model=each["model"],
            version=each["version"],
            weight=each["weight"],
            ready_url=each["readyUrl"],
        )
        for each in json.loads(path.read_text(encoding="utf-8"))
    ]
