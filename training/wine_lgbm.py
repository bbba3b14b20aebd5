"""Trains wine-lgbm: gradient-boosted trees that give the probabilities of three cultivars by 13 chemical measurements.

Run it with ``--output models/wine-lgbm/<version>`` in an environment made from that release's requirements.lock.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lightgbm
from numpy.random import RandomState
from sklearn.datasets import load_wine

ARTEFACT = "wine-lgbm.txt"
SEED = 26322
HELD_OUT = 36
ROUNDS = 60
PARAMETERS = {
    "objective": "multiclass",
    "num_class": 3,
    "learning_rate": 0.1,
    "num_leaves": 7,
    "min_data_in_leaf": 8,
    "seed": SEED,
    # Sums in a fixed order: with several threads the last digits depend on which thread ends first.
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}


def train() -> tuple[lightgbm.Booster, float]:
    """The fitted trees and their accuracy on the wines that they have not seen."""
    wines, cultivars = load_wine(return_X_y=True)
    # RandomState, not default_rng: NumPy promises its stream for ever, so the split is the same in every version.
    order = RandomState(SEED).permutation(len(wines))
    seen, unseen = order[:-HELD_OUT], order[-HELD_OUT:]
    trees = lightgbm.train(PARAMETERS, lightgbm.Dataset(wines[seen], cultivars[seen]), num_boost_round=ROUNDS)
    accuracy = (trees.predict(wines[unseen]).argmax(axis=1) == cultivars[unseen]).mean()
    return trees, float(accuracy)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Train wine-lgbm and write its artefact.",
        epilog="Example: python training/wine_lgbm.py --output models/wine-lgbm/1.0",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the release")
    output: Path = parser.parse_args().output
    trees, accuracy = train()
    output.mkdir(parents=True, exist_ok=True)
    trees.save_model(output / ARTEFACT)
    print(f"{output / ARTEFACT}: accuracy {accuracy:.3f} on {HELD_OUT} held-out wines")


if __name__ == "__main__":
    main()
