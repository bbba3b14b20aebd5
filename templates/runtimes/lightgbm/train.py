"""Trains boosted trees that tell three wines apart; writes ``build/``."""

from __future__ import annotations

import json
from pathlib import Path

import lightgbm
from sklearn.datasets import load_wine

BUILD = Path("build")
SEED = 26322
ASKED = 2
PARAMETERS = {"objective": "multiclass", "num_class": 3, "seed": SEED, "deterministic": True, "num_threads": 1}

BUILD.mkdir(exist_ok=True)
wines, kinds = load_wine(return_X_y=True)
booster = lightgbm.train({**PARAMETERS, "verbosity": -1}, lightgbm.Dataset(wines, kinds), num_boost_round=10)
# As text: later versions read it, and a change shows.
booster.save_model(BUILD / "model.txt")

rows = wines[:: len(wines) // ASKED][:ASKED]
asked = {"name": "predict", "shape": list(rows.shape), "datatype": "FP64", "data": rows.tolist()}
chances = booster.predict(rows)
answer = {"name": "predict", "shape": [ASKED, 3], "datatype": "FP64", "data": chances.ravel().tolist()}
(BUILD / "request.json").write_text(json.dumps({"inputs": [asked]}))
(BUILD / "response.json").write_text(json.dumps({"outputs": [answer]}))
