"""The answer of a model that returns a DataFrame; importing this module puts its codec in the place of MLServer's.

PandasCodec of MLServer 1.7.1 raises for dates, for categories, for nullable columns, and for text with gaps:
https://github.com/SeldonIO/MLServer/blob/1.7.1/mlserver/codecs/pandas.py
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from mlserver.codecs import DatetimeCodec, PandasCodec, register_request_codec
from mlserver.types import Parameters, ResponseOutput, TensorData

DATES: Final = frozenset({"date", "datetime", "datetime64"})
"""Kinds of content: https://pandas.pydata.org/docs/reference/api/pandas.api.types.infer_dtype.html"""


@register_request_codec
class TableCodec(PandasCodec):  # type: ignore[misc]
    """An output for each column. Gaps are null, dates text in ISO 8601, and categories what they stand for."""

    @classmethod
    def encode_outputs(cls, payload: pd.DataFrame, use_bytes: bool = True) -> list[ResponseOutput]:
        return [cls._output(str(name), column, use_bytes=use_bytes) for name, column in payload.items()]

    @classmethod
    def _output(cls, name: str, column: pd.Series, *, use_bytes: bool) -> ResponseOutput:
        gaps = column.isna()
        present = column[~gaps]
        values = np.asarray(present)
        is_dates = pd.api.types.infer_dtype(values) in DATES
        if is_dates:
            values = np.array([each.isoformat() for each in present], dtype=object)
        frame = pd.DataFrame({name: pd.Series(values, dtype=values.dtype)})
        (output,) = super().encode_outputs(frame, use_bytes=use_bytes)
        if is_dates:
            output.parameters = Parameters(content_type=DatetimeCodec.ContentType)
        if gaps.any():
            data = iter(output.data.root)
            output.data = TensorData(root=[None if gap else next(data) for gap in gaps])
            output.shape = [len(column), 1]
        return output
