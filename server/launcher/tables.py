"""The answer of a model that returns a DataFrame.

MLServer 1.7's codec knows NumPy's numbers and columns of nothing but text. Dates, categories, missing text and pandas'
own types of numbers are errors there, https://github.com/SeldonIO/MLServer/blob/1.7.1/mlserver/codecs/pandas.py.
"""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from mlserver.codecs import DatetimeCodec, PandasCodec, StringCodec, register_request_codec
from mlserver.types import Parameters, ResponseOutput


@register_request_codec
class TableCodec(PandasCodec):  # type: ignore[misc]
    """Registered in place of MLServer's, of which it keeps the name of the content type."""

    @classmethod
    def encode_outputs(cls, payload: pd.DataFrame, use_bytes: bool = True) -> list[ResponseOutput]:
        return [cls._column(str(name), payload[name], use_bytes=use_bytes) for name in payload]

    @classmethod
    def _column(cls, name: str, column: pd.Series[Any], *, use_bytes: bool) -> ResponseOutput:
        plain = _plain(column)
        kind = _kind_of_text(plain)
        if kind is None:
            (output,) = super().encode_outputs(plain.to_frame(name), use_bytes)
            return output
        return ResponseOutput(
            name=name,
            shape=[len(plain), 1],
            datatype="BYTES",
            data=[_text(value) for value in plain],
            parameters=Parameters(content_type=kind),
        )


def _plain(column: pd.Series[Any]) -> pd.Series[Any]:
    """A column of numbers of NumPy's, or of objects."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biufO":
        return column
    if isinstance(column.dtype, pd.CategoricalDtype):
        return _plain(column.astype(column.cat.categories.dtype))
    if pd.api.types.is_numeric_dtype(column.dtype):
        return column.astype(column.dtype.numpy_dtype if column.notna().all() else "float64")
    return column.astype(object)


def _kind_of_text(column: pd.Series[Any]) -> str | None:
    """The content type of a column of text or dates, which may lack some; None of all others."""
    values = [value for value in column if not _is_missing(value)] if column.dtype == object else []
    if not values:
        return str(StringCodec.ContentType) if column.dtype == object else None
    for kinds, codec in ((str, StringCodec), (date, DatetimeCodec)):
        if all(isinstance(value, kinds) for value in values):
            return str(codec.ContentType)
    return None


def _text(value: Any) -> str | None:
    if _is_missing(value):
        return None
    return value if isinstance(value, str) else str(value.isoformat())


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)  # noqa: PLR0124 - NaN
