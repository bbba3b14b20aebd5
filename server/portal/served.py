"""What a stack serves, as the program has written it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Version:
    """A deployed version of a model.

    Attributes:
        weight: percent of the model's traffic.
        ready_url: answers 200 if the version can serve.
        shadow: whether it gets a copy of the model's requests.
        deployed: when, in the form of RFC 3339; None is not known.
        grpc: whether it can be asked over gRPC as well.
        about: description of its release: inputs, outputs, request, response, frameworks, implementation, origin; each
            only if known.
    """

    model: str
    version: str
    weight: int
    ready_url: str
    shadow: bool = False
    deployed: str | None = None
    grpc: bool = False
    about: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def public(self) -> dict[str, Any]:
        """What clients may know of it."""
        return {
            "model": self.model,
            "version": self.version,
            "weight": self.weight,
            "shadow": self.shadow,
            "deployed": self.deployed,
            "grpc": self.grpc,
            "about": dict(self.about),
        }


def read(path: Path) -> list[Version]:
    """Reads the file: a list of versions with camelCase keys."""
    return [
        Version(
            model=each["model"],
            version=each["version"],
            weight=each["weight"],
            ready_url=each["readyUrl"],
            shadow=each.get("shadow", False),
            deployed=each.get("deployed"),
            grpc=each.get("grpc", False),
            about=each.get("about", {}),
        )
        for each in json.loads(path.read_text(encoding="utf-8"))
    ]
