"""Runs the notebook from its first cell to its last, with the values of params.yaml."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any, Final

import papermill
import yaml
from traitlets.config import Config

PARAMETERS: Final = Path("params.yaml")
BUILD: Final = Path("build")
EXECUTED: Final = Path("executed")
"""Notebooks with what they printed and drew, for people: they have times in them, and are in no release."""
PRIVATE: Final = Config({"KernelManager": {"transport": "ipc"}})
"""By default the kernel listens on TCP, where everybody on the machine can read along."""


def main() -> None:
    notebook = the_notebook()
    values = parameters(notebook)
    # What an earlier training has left must not be released with this one's.
    shutil.rmtree(BUILD, ignore_errors=True)
    EXECUTED.mkdir(exist_ok=True)
    executed = EXECUTED / notebook.name
    try:
        papermill.execute_notebook(notebook, executed, parameters=values, progress_bar=False, config=PRIVATE)
    except papermill.PapermillExecutionError as error:
        sys.exit(f"{error}\nAll of it is in {executed}.")


def the_notebook() -> Path:
    """The one that is there; ends the program if there is none or another."""
    notebooks = sorted(Path().glob("*.ipynb"))
    if len(notebooks) != 1:
        sys.exit(f"One notebook trains the model, and here are: {', '.join(map(str, notebooks)) or 'none'}.")
    return notebooks[0]


def parameters(notebook: Path) -> dict[str, Any]:
    """What it is run with; ends the program if that is not what the notebook takes."""
    try:
        values = yaml.safe_load(PARAMETERS.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        sys.exit(f"{PARAMETERS} is no YAML: {error}")
    if not isinstance(values, dict):
        sys.exit(f"{PARAMETERS} holds no names with values.")
    known = papermill.inspect_notebook(notebook)
    # papermill only warns of these, and trains with the default.
    if unknown := values.keys() - known.keys():
        sys.exit(
            f"{PARAMETERS}: {', '.join(sorted(map(str, unknown)))} is no parameter of {notebook}.\n"
            "  It would be ignored, and the model trained with something else than is written there.\n"
            f"  Parameters are, by the cell with the tag `parameters`: {', '.join(known) or 'none'}."
        )
    return values


if __name__ == "__main__":
    main()
