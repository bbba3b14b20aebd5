"""Outputs of a model as binary data, for REST's extension and for gRPC."""

from __future__ import annotations

from typing import Any

from . import binary
from .errors import EncodingFailed


def packed(output: Any) -> bytes | None:
    """The values of an output as binary data; None if they have no such form.

    Raises:
        EncodingFailed: if one is not of the output's datatype.
    """
    try:
        return binary.packed(str(output.datatype), output.shape, getattr(output.data, "root", output.data))
    except (ValueError, TypeError, OverflowError) as error:
        raise EncodingFailed(f"{output.name} is not {output.datatype}: {error}") from error
