"""Takes down what measurements usually look like; writes ``build/``, with the code that serves it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from outliers import far

BUILD = Path("build")
SEED = 26322
LIMIT = 4.0
ASKED = [[0.1, -0.3], [9.0, 0.0]]

BUILD.mkdir(exist_ok=True)
measured = np.random.RandomState(SEED).normal(size=(500, 2))
seen = {"mean": measured.mean(axis=0).tolist(), "deviation": measured.std(axis=0).tolist(), "limit": LIMIT}
(BUILD / "seen.json").write_text(json.dumps(seen))
shutil.copy("outliers.py", BUILD)

asked = {"name": "values", "shape": [len(ASKED), 2], "datatype": "FP64", "data": ASKED}
found = far(np.array(ASKED), **seen).ravel().tolist()
answer = {"name": "outlier", "shape": [len(ASKED), 1], "datatype": "INT64", "data": found}
(BUILD / "request.json").write_text(json.dumps({"inputs": [asked]}))
(BUILD / "response.json").write_text(json.dumps({"outputs": [answer]}))
