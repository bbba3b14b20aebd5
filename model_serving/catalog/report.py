"""Collects the problems of all releases, so that they are reported together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model_serving.problems import Problem


class Report:
    """Problems found so far; paths are shown relative to a root folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.problems: list[Problem] = []

    def shown(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def refuse(self, path: Path, what: str, consequence: str, remedy: str) -> None:
        """Adds a problem once, even if several releases share the file."""
        problem = Problem(file=self.shown(path), what=what, consequence=consequence, remedy=remedy)
        if problem not in self.problems:
            self.problems.append(problem)

    def refuse_link(self, path: Path, what: str) -> None:
        self.refuse(
            path,
            what,
            "Other machines and the image would not have it.",
            "Put the file itself there, or a relative link to a file of the same release.",
        )

    def read_json(self, path: Path, consequence: str) -> dict[str, Any] | None:
        """The JSON object in a file; None, and a problem, if it does not contain one."""
        try:
            content = json.loads(path.read_bytes().decode())
            # JSON can name half of a character, which neither a message nor MLServer could write.
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = json.dumps(error.object[error.start])
            what, remedy = f"has half of a character, {half}", "Write the character itself, or both of its halves."
        except json.JSONDecodeError as error:
            what = f"line {error.lineno}, column {error.colno}: {error.msg}"
            remedy = f"Correct it. To check the file, run: python3 -m json.tool {self.shown(path)}"
            if error.msg.startswith("Unexpected UTF-8 BOM"):
                what, remedy = "begins with a byte order mark", "Save the file as UTF-8 without one."
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            column = error.start - error.object.rfind(b"\n", 0, error.start)
            what, remedy = f"line {line}, column {column}: not UTF-8", "Save the file as UTF-8."
        except (ValueError, RecursionError) as error:
            what, remedy = f"cannot be read: {error}", "Write shorter numbers, and fewer lists inside of each other."
        else:
            if isinstance(content, dict):
                return content
            what, remedy = "is not a JSON object", "Begin it with { and end it with }."
        self.refuse(path, what, consequence, remedy)
        return None
