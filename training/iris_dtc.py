"""Trains iris-dtc: a decision tree that tells three species of iris apart by four lengths in centimetres.

Run it with ``--output models/iris-dtc/<version>`` in an environment made from that release's requirements.lock.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import joblib
from numpy.random import RandomState
from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier

ARTEFACT = "iris-decision-tree.joblib"
SEED = 26322
HELD_OUT = 10


def train() -> tuple[DecisionTreeClassifier, float]:
    """The fitted tree and its accuracy on the flowers that it has not seen."""
    flowers, species = load_iris(return_X_y=True)
    # RandomState, not default_rng: NumPy promises its stream for ever, so the split is the same in every version.
    order = RandomState(SEED).permutation(len(flowers))
    seen, unseen = order[:-HELD_OUT], order[-HELD_OUT:]
    tree = DecisionTreeClassifier(random_state=SEED).fit(flowers[seen], species[seen])
    return tree, float(tree.score(flowers[unseen], species[unseen]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Train iris-dtc and write its artefact.",
        epilog="Example: python training/iris_dtc.py --output models/iris-dtc/1.0",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the release")
    output: Path = parser.parse_args().output
    tree, accuracy = train()
    output.mkdir(parents=True, exist_ok=True)
    joblib.dump(tree, output / ARTEFACT)
    print(f"{output / ARTEFACT}: accuracy {accuracy:.3f} on {HELD_OUT} held-out flowers")


if __name__ == "__main__":
    main()
