"""The section ``images`` of a stack file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from model_serving.sections import IMAGE_PATH, Section


class ImageSettings(Section):
    """How images are built."""

    base: str = Field(
        "python:3.11-slim-bookworm",
        # The parts of a reference: host, path, tag and digest.
        pattern=rf"^([a-zA-Z0-9.-]+(:[0-9]+)?/)?{IMAGE_PATH}(:[a-zA-Z0-9_][a-zA-Z0-9_.-]{{0,127}})?"
        r"(@sha256:[a-f0-9]{64})?$",
        examples=["python:3.11-slim-bookworm"],
        description="Image with Python 3.11 and its venv module, on which the runtimes of new releases are built.",
    )
    builder: str | None = Field(
        None,
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.+-]*$",
        examples=["model-serving"],
        description="Name of a buildx builder. Without it the default builder of the machine is used.",
    )
    compression: Literal["gzip", "zstd"] | None = Field(
        None,
        description="Compression of the layers that are pushed. zstd takes a quarter of the time, which counts if the "
        "registry is near; every node needs containerd 1.5 or newer. Defaults to gzip with Docker's media types. To go "
        "back from zstd, write gzip: without the setting, an image on a runtime of zstd layers could not be pulled.",
    )
    wheels: str | None = Field(
        None,
        min_length=1,
        examples=[".state/wheels"],
        description="Folder with a folder of wheels per lock, relative to the project. A lock that has one is "
        "installed from there without a network; any other is installed from the package index.",
    )
