"""Trains the trees, and keeps the loss after each round for the report."""

from __future__ import annotations

import lightgbm

from steps import settings, tables


def main() -> None:
    chosen = settings.read(settings.Train)
    _, wines, cultivars = tables.read(tables.SEEN)
    _, unseen, answers = tables.read(tables.HELD_OUT)
    seen = lightgbm.Dataset(wines, cultivars)
    losses: dict[str, dict[str, list[float]]] = {}
    trees = lightgbm.train(
        {
            "objective": "multiclass",
            "num_class": 3,
            "metric": "multi_logloss",
            "seed": chosen.seed,
            "learning_rate": chosen.learning_rate,
            "num_leaves": chosen.num_leaves,
            "min_data_in_leaf": chosen.min_data_in_leaf,
            # Sums in a fixed order: with several threads the last digits depend on which thread ends first.
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
            "verbosity": -1,
        },
        seen,
        num_boost_round=chosen.rounds,
        valid_sets=[seen, seen.create_valid(unseen, answers)],
        valid_names=["train", "validation"],
        callbacks=[lightgbm.record_evaluation(losses)],
    )
    tables.BOOSTER.parent.mkdir(exist_ok=True)
    trees.save_model(tables.BOOSTER)
    columns = [[f"{loss:.5f}" for loss in losses[name]["multi_logloss"]] for name in ("train", "validation")]
    rounds = range(1, chosen.rounds + 1)
    tables.write(tables.HISTORY, ["round", "train", "validation"], zip(rounds, *columns, strict=True))


if __name__ == "__main__":
    main()
