"""Trains boosted trees that tell three species of iris apart; writes ``build/``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from sklearn.datasets import load_iris
from xgboost import XGBClassifier

BUILD = Path("build")
SEED = 26322
ASKED = 3

BUILD.mkdir(exist_ok=True)
flowers, species = load_iris(return_X_y=True)
trees = XGBClassifier(n_estimators=10, max_depth=3, random_state=SEED, n_jobs=1).fit(flowers, species)
# As JSON, which every later version reads; a pickle is read by the version that wrote it.
trees.save_model(BUILD / "model.json")

rows = flowers[:: len(flowers) // ASKED][:ASKED].astype(np.float32)
asked = {"name": "predict", "shape": [ASKED, 4], "datatype": "FP32", "data": rows.tolist()}
found = trees.predict(rows).astype(int).tolist()
answer = {"name": "predict", "shape": [ASKED, 1], "datatype": "INT64", "data": found}
(BUILD / "request.json").write_text(json.dumps({"inputs": [asked]}))
(BUILD / "response.json").write_text(json.dumps({"outputs": [answer]}))
