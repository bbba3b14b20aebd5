"""Divides the wines into those that are learnt from and those that are held out."""

from __future__ import annotations

from pathlib import Path

from numpy.random import RandomState

from steps import settings, tables


def main() -> None:
    chosen = settings.read(settings.Prepare)
    head, *rows = Path("data/wine.csv").read_text(encoding="utf-8").splitlines()
    # RandomState, not default_rng: NumPy promises its stream for ever, so the split is the same in every version.
    order = RandomState(chosen.seed).permutation(len(rows))
    for path, part in ((tables.SEEN, order[: -chosen.held_out]), (tables.HELD_OUT, order[-chosen.held_out :])):
        path.write_text("\n".join([head, *(rows[place] for place in part), ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
