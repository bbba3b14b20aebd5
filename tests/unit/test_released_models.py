from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from model_serving import catalog

ROOT = Path(__file__).parents[2]
NAMES = ("classificador-produtos", "iris-dtc", "wine-lgbm")
PRODUCTS = ROOT / "templates" / "model-repository" / "template" / "data" / "products.csv"


@pytest.fixture(scope="module")
def released() -> catalog.Catalog:
    return catalog.read(ROOT / "models")


@pytest.mark.parametrize("name", NAMES)
def test_each_release_says_what_it_must_answer(released: catalog.Catalog, name: str) -> None:
    for release in released.releases(name):
        assert release.request is not None
        assert release.response is not None


def test_the_seed_requests_are_those_of_the_workflow_that_is_automated(released: catalog.Catalog) -> None:
    def inputs(name: str) -> object:
        request = released.get(name, "1.0").request
        assert request is not None
        return json.loads(request.read_text())["inputs"]

    assert inputs("iris-dtc") == [
        {"name": "predict", "shape": [1, 4], "datatype": "FP32", "data": [5, 3.4, 1.5, 0.2]},
    ]
    assert inputs("classificador-produtos") == [
        {"name": "predict", "shape": [3], "datatype": "BYTES", "data": ["boneca", "carrinho", "minecraft"]},
    ]


def test_the_scikit_learn_models_share_a_lock_and_so_a_runtime_image(released: catalog.Catalog) -> None:
    iris, products = (released.get(name, "1.0").lock.read_bytes() for name in ("iris-dtc", "classificador-produtos"))
    assert iris == products


def test_products_are_labelled_once_and_in_similar_numbers() -> None:
    with PRODUCTS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["name"] for row in rows}) == len(rows)
    categories = Counter(row["category"] for row in rows)
    assert set(categories) == {"brinquedos", "jogos", "livros", "vestuário"}
    assert min(categories.values()) > 40
