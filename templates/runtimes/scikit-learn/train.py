"""Trains a decision tree that tells three species of iris apart; writes ``build/``."""

from __future__ import annotations

import json
from pathlib import Path

import joblib
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split
from sklearn.tree import DecisionTreeClassifier

BUILD = Path("build")
SEED = 26322
ASKED = 3

BUILD.mkdir(exist_ok=True)
flowers, species = load_iris(return_X_y=True)
seen, unseen, labels, _ = train_test_split(flowers, species, test_size=10, random_state=SEED)
tree = DecisionTreeClassifier(random_state=SEED).fit(seen, labels)
joblib.dump(tree, BUILD / "model.joblib")

rows = unseen[:ASKED].tolist()
asked = {"name": "predict", "shape": [ASKED, 4], "datatype": "FP64", "data": rows}
answer = {"name": "predict", "shape": [ASKED, 1], "datatype": "INT64", "data": tree.predict(rows).tolist()}
(BUILD / "request.json").write_text(json.dumps({"inputs": [asked]}))
(BUILD / "response.json").write_text(json.dumps({"outputs": [answer]}))
