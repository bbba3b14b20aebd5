"""Trains classificador-produtos: a text pipeline that sorts Portuguese product names into categories of a shop.

Run it with ``--output models/classificador-produtos/<version>`` in an environment made from that release's
requirements.lock.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import joblib
from numpy.random import RandomState
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

ARTEFACT = "classificador-produtos.joblib"
PRODUCTS = Path(__file__).with_name("products.csv")
SEED = 26322
HELD_OUT = 40


def read_products() -> tuple[list[str], list[str]]:
    with PRODUCTS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["name"] for row in rows], [row["category"] for row in rows]


def pipeline() -> Pipeline:
    """Parts of words, because a name has two or three of them and most are seen once: "bonecas" must help "boneca"."""
    parts = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), strip_accents="unicode", sublinear_tf=True)
    return make_pipeline(parts, LogisticRegression(C=30, max_iter=1000, random_state=SEED))


def train() -> tuple[Pipeline, float]:
    """The fitted pipeline and its accuracy on the names that it has not seen."""
    names, categories = read_products()
    # RandomState, not default_rng: NumPy promises its stream for ever, so the split is the same in every version.
    order = RandomState(SEED).permutation(len(names))
    seen, unseen = order[:-HELD_OUT], order[-HELD_OUT:]
    fitted = pipeline().fit([names[i] for i in seen], [categories[i] for i in seen])
    return fitted, float(fitted.score([names[i] for i in unseen], [categories[i] for i in unseen]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Train classificador-produtos and write its artefact.",
        epilog="Example: python training/classificador_produtos.py --output models/classificador-produtos/1.0",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the release")
    output: Path = parser.parse_args().output
    fitted, accuracy = train()
    output.mkdir(parents=True, exist_ok=True)
    joblib.dump(fitted, output / ARTEFACT)
    print(f"{output / ARTEFACT}: accuracy {accuracy:.3f} on {HELD_OUT} held-out names")


if __name__ == "__main__":
    main()
