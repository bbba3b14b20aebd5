"""The table "Who may do what" of docs/gcp.md, which the program is held to."""

from __future__ import annotations

import re
from pathlib import Path

Row = tuple[str, str, str]
"""Who has which role on what."""


def documented() -> dict[Row, str]:
    """Row -> why it is needed. A line of the table with several accounts is a row for each."""
    rows: dict[Row, str] = {}
    for line in Path("docs/gcp.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 4 and (role := re.fullmatch(r"`((roles/|own: )[\w./ ]+)`", cells[1])):
            for who in cells[0].split(", "):
                row = (who, role[1], cells[2])
                assert row not in rows, f"docs/gcp.md has {row} twice"
                rows[row] = cells[3]
    return rows
