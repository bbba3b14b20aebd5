"""Trains a pipeline with a transformer of its own; writes ``build/``, with the code that serves it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import joblib
from ratios import Ratios
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

BUILD = Path("build")
SEED = 26322
ASKED = 3

BUILD.mkdir(exist_ok=True)
flowers, species = load_iris(return_X_y=True)
pipeline = make_pipeline(Ratios(), DecisionTreeClassifier(random_state=SEED)).fit(flowers, species)
joblib.dump(pipeline, BUILD / "model.joblib")
for name in ("ratios.py", "served.py"):
    shutil.copy(name, BUILD)

rows = flowers[:: len(flowers) // ASKED][:ASKED]
asked = {"name": "predict", "shape": list(rows.shape), "datatype": "FP64", "data": rows.tolist()}
answer = {"name": "predict", "shape": [ASKED, 1], "datatype": "INT64", "data": pipeline.predict(rows).tolist()}
(BUILD / "request.json").write_text(json.dumps({"inputs": [asked]}))
(BUILD / "response.json").write_text(json.dumps({"outputs": [answer]}))
