"""The documents, and the commands in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[1]
DOCUMENTS: Final = (
    *(PROJECT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((PROJECT / "docs").rglob("*.md")),
)
TUTORIALS: Final = PROJECT / "docs" / "tutorials"


def shell_lines(text: str, *, before: str | None = None) -> list[str]:
    """The commands of the blocks for a shell, one after the other; a command of several lines is one.

    Args:
        text: of a document.
        before: a heading; what comes after it is left out.
    """
    if before is not None:
        text, found, _ = text.partition(f"\n## {before}\n")
        assert found, f"no heading {before}"
    blocks = re.findall(r"^(?: *|\d+\. )```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    lines = (line.strip() for block in blocks for line in re.sub(r" *\\\n *", " ", block).splitlines())
    return [line for line in lines if line]
