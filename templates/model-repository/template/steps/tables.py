"""Tables of numbers as files of comma-separated values."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

CULTIVAR: Final = "cultivar"
"""Last column of the data: 0, 1 or 2; the others are measurements."""
HELD_OUT: Final = Path("data/held-out.csv")
SEEN: Final = Path("data/seen.csv")
BOOSTER: Final = Path("build/wine-cultivars.txt")
HISTORY: Final = Path("plots/history.csv")
PREDICTIONS: Final = Path("plots/predictions.csv")


def read(path: Path) -> tuple[Sequence[str], NDArray[np.float64], NDArray[np.int64]]:
    """Names of the measurements, measurements and cultivars."""
    with path.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    values = np.array(rows, dtype=np.float64)
    return head[:-1], values[:, :-1], values[:, -1].astype(np.int64)


def write(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(head)
        table.writerows(rows)
