"""Flags measurements that are far from what training has seen: code of the model's own, served by MLServer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


def far(values: np.ndarray, *, mean: list[float], deviation: list[float], limit: float) -> np.ndarray:
    """1 for each row with a value that is more than so many standard deviations from the mean, else 0."""
    distance = np.abs(values - np.array(mean)) / np.array(deviation)
    return (distance.max(axis=1) > limit).astype(np.int64).reshape(-1, 1)


class Outliers(MLModel):
    async def load(self) -> bool:
        # Beside this file, wherever the release is.
        self._seen = json.loads(Path(__file__).with_name("seen.json").read_text())
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        values = NumpyCodec.decode_input(payload.inputs[0])
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[NumpyCodec.encode_output("outlier", far(values, **self._seen))],
        )
