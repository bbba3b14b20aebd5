"""Says how good the trees are on the held-out wines, and makes the contract of a release from some of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, log_loss, recall_score

from steps import settings, tables


def main() -> None:
    chosen = settings.read(settings.Evaluate)
    names, wines, actual = tables.read(tables.HELD_OUT)
    probabilities = np.asarray(lightgbm.Booster(model_file=tables.BOOSTER).predict(wines))
    predicted = probabilities.argmax(axis=1)
    recalls = recall_score(actual, predicted, labels=range(3), average=None, zero_division=0)
    metrics = {
        "accuracy": round(accuracy_score(actual, predicted), 4),
        "loss": round(log_loss(actual, probabilities, labels=range(3)), 4),
        "recall": {str(cultivar): round(recall, 4) for cultivar, recall in enumerate(recalls.tolist())},
    }
    _write(Path("metrics.json"), metrics)
    certain = [f"{probability:.4f}" for probability in probabilities.max(axis=1)]
    tables.write(
        tables.PREDICTIONS,
        ["alcohol", "proline", "actual", "predicted", "probability"],
        zip(
            wines[:, names.index("alcohol")],
            wines[:, names.index("proline")],
            actual,
            predicted,
            certain,
            strict=True,
        ),
    )
    asked, answered = wines[: chosen.asked], probabilities[: chosen.asked]
    _write(Path("build/request.json"), {"inputs": [_tensor(asked)]})
    _write(Path("build/response.json"), {"outputs": [_tensor(answered)]})


def _tensor(values: NDArray[np.float64]) -> dict[str, Any]:
    return {"name": "predict", "shape": list(values.shape), "datatype": "FP64", "data": values.ravel().tolist()}


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
