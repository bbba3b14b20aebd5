"""Which job of a pipeline something belongs to: a lock, a note, a deployment."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

RunState = Literal["running", "finished", "unknown"]
"""Unknown is what the site does not know, or no longer: a deleted pipeline, a job of another project or site."""


class Run(BaseModel):
    """One run of a job; survives a round trip through JSON.

    Attributes:
        name: for people, e.g. ``job deploy-dev of pipeline 1207``.
        url: where its log is; empty if there is none.
        id: for ``Site.run_state`` of the same site alone.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    url: str
    id: str
