"""The job of a pipeline to which something belongs: a lock, a note, a deployment."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

RunState = Literal["running", "finished", "unknown"]
"""Unknown: a deleted pipeline, or a job of another project or site."""


class Run(BaseModel):
    """One run of a job.

    Attributes:
        name: for people, e.g. ``job deploy-dev of pipeline 1207``.
        url: of its log; empty if there is none.
        id: for ``Site.run_state`` of the same site only.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    url: str
    id: str
