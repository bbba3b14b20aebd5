"""Trains a decision tree and keeps it as an MLflow model, with its signature; writes ``build/``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlflow.sklearn
from mlflow.models import infer_signature
from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier

BUILD = Path("build")
SEED = 26322
ASKED = 3

# MLflow adds nothing to a folder that is there.
shutil.rmtree(BUILD, ignore_errors=True)
BUILD.mkdir()
flowers, species = load_iris(return_X_y=True)
tree = DecisionTreeClassifier(random_state=SEED).fit(flowers, species)
rows = flowers[:: len(flowers) // ASKED][:ASKED]
found = tree.predict(rows)
mlflow.sklearn.save_model(
    tree,
    BUILD / "model",
    signature=infer_signature(rows, found),
    # MLflow's own format for scikit-learn runs no code when it is loaded, and has to be told which types it may make.
    skops_trusted_types=["sklearn.tree._tree.Tree"],
    # What it needs is locked beside it; MLflow would work that out by loading the model in another process.
    pip_requirements=["scikit-learn"],
)

asked = {"name": "input-0", "shape": [ASKED, 4], "datatype": "FP64", "data": rows.tolist()}
answer = {"name": "output-1", "shape": [ASKED, 1], "datatype": "INT64", "data": found.tolist()}
(BUILD / "request.json").write_text(json.dumps({"inputs": [asked]}))
(BUILD / "response.json").write_text(json.dumps({"outputs": [answer]}))
