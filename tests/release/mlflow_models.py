# mypy: ignore-errors
# Its packages are those of a model's lock, see test_convert_mlflow.py.
"""Trains models of MLflow's flavours and saves them in different ways: ``mlflow_models.py FOLDER``.

Beside them it writes ``direct.json``: what each predicts for its example without a server, a list for each output.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier
from mlflow.models import ModelSignature, infer_signature
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, Schema
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from xgboost import XGBClassifier, XGBRegressor

SEED = 26322
ROWS = 3
FLOWERS, SPECIES = load_iris(return_X_y=True)
# One of each species.
ASKED = FLOWERS[:: len(FLOWERS) // ROWS][:ROWS]


class Doubles(PythonModel):
    def predict(self, context, model_input, params=None):
        return np.asarray(model_input) * 2


class Frame(PythonModel):
    def predict(self, context, model_input, params=None):
        found = np.asarray(model_input)
        return pd.DataFrame({"sum": found.sum(axis=1), "whole": found.sum(axis=1).astype("int64")})


class Arrays(PythonModel):
    def predict(self, context, model_input, params=None):
        return {"first": model_input["a"][:, 0], "sum": model_input["a"] + model_input["b"]}


class Texts(PythonModel):
    def predict(self, model_input: list[str]) -> list[str]:
        return [text.upper() for text in model_input]


class Scaled(PythonModel):
    def predict(self, context, model_input, params):
        return np.asarray(model_input) * params["factor"]


def month(frame):
    return pd.DataFrame({name: frame[name].dt.month for name in frame})


def passengers():
    """A table of every kind of column, a model of it that refuses what is not a date, and some rows."""
    count = 40
    table = pd.DataFrame(
        {
            "age": np.linspace(1, 80, count),
            "fare": np.linspace(5, 99, count).astype("float32"),
            "sex": ["male", "female"] * (count // 2),
            "active": [True, False, False, True] * (count // 4),
            "when": pd.date_range("2024-01-01", periods=count, freq="D"),
        }
    )
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["sex"]),
        (FunctionTransformer(month), ["when"]),
        remainder="passthrough",
    )
    model = make_pipeline(columns, LogisticRegression(max_iter=200, random_state=SEED)).fit(table, table["age"] > 40)
    # From the young to the old.
    return table, model, table[:: count // ROWS][:ROWS]


def lists(found):
    if isinstance(found, pd.DataFrame):
        return [found[name].tolist() for name in found]
    if isinstance(found, dict):
        return [each.ravel().tolist() for each in found.values()]
    return [found if isinstance(found, list) else found.ravel().tolist()]


def main(folder: Path) -> None:
    direct = {}

    def save(name, flavour, model, signature, example=None, *, asked=None, params=None):
        """Saves a model and asks it for its example, or for what is given."""
        flavour.save_model(
            path=folder / name,
            signature=signature,
            input_example=(example, params) if params else example,
            # What it needs is locked; MLflow would work that out by loading the model in another process.
            pip_requirements=["mlflow"],
            **model,
        )
        loaded = mlflow.pyfunc.load_model(str(folder / name))
        direct[name] = lists(loaded.predict(example if asked is None else asked, params=params))

    forest = RandomForestClassifier(n_estimators=10, random_state=SEED).fit(FLOWERS, SPECIES)
    boosted = XGBClassifier(n_estimators=5, random_state=SEED).fit(FLOWERS, SPECIES)
    light = LGBMClassifier(n_estimators=5, verbose=-1, random_state=SEED).fit(FLOWERS, SPECIES)
    flavours = {
        "sklearn": (mlflow.sklearn, scikit(forest), forest.predict(FLOWERS)),
        "xgboost": (mlflow.xgboost, {"xgb_model": boosted}, boosted.predict(FLOWERS)),
        "lightgbm": (mlflow.lightgbm, {"lgb_model": light}, light.predict(FLOWERS)),
        "pyfunc": (mlflow.pyfunc, {"python_model": Doubles()}, FLOWERS * 2),
    }
    for name, (flavour, model, found) in flavours.items():
        signature = infer_signature(FLOWERS, found)
        save(f"{name}-both", flavour, model, signature, ASKED)
        save(f"{name}-signature", flavour, model, signature, asked=ASKED)
        # False: MLflow would take it from the example.
        save(f"{name}-example", flavour, model, False, ASKED)
        save(f"{name}-neither", flavour, model, False, asked=ASKED)

    table, model, some = passengers()
    signature = infer_signature(table, model.predict(table))
    save("table", mlflow.sklearn, scikit(model), signature, some)
    save("table-signature", mlflow.sklearn, scikit(model), signature, asked=some)

    signature = infer_signature(FLOWERS, forest.predict_proba(FLOWERS))
    save("probabilities", mlflow.sklearn, scikit(forest) | {"pyfunc_predict_fn": "predict_proba"}, signature, ASKED)
    named = RandomForestClassifier(n_estimators=10, random_state=SEED).fit(FLOWERS, np.array(["a", "b", "c"])[SPECIES])
    save("names", mlflow.sklearn, scikit(named), infer_signature(FLOWERS, named.predict(FLOWERS)), ASKED)
    # As MLflow's documentation writes one by hand: the answer has no such name, and floats of 32 bits.
    signature = ModelSignature(infer_signature(FLOWERS).inputs, Schema([ColSpec("double", "price")]))
    price = XGBRegressor(n_estimators=5, random_state=SEED).fit(FLOWERS, SPECIES)
    save("by-hand", mlflow.xgboost, {"xgb_model": price}, signature, ASKED)

    def function(name, model, inputs, outputs, example, **params):
        signature = infer_signature(inputs, outputs, params) if outputs is not None else None
        save(name, mlflow.pyfunc, {"python_model": model}, signature, example, params=params)

    function("frame", Frame(), FLOWERS, Frame().predict(None, FLOWERS), ASKED)
    both = {"a": ASKED, "b": ASKED}
    function("arrays", Arrays(), both, Arrays().predict(None, both), both)
    function("texts", Texts(), None, None, ["good", "bad"])
    function("parameters", Scaled(), FLOWERS, FLOWERS, ASKED, factor=3.0)
    (folder / "direct.json").write_text(json.dumps(direct))


def scikit(model):
    # MLflow's own format loads no function, and must be told of each type.
    return {"sk_model": model, "serialization_format": "cloudpickle"}


main(Path(sys.argv[1]))
