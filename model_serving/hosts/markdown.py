"""Writes texts of others into Markdown so that they stay text: on GitLab, on GitHub and in a Mermaid picture.

Everything that a program, a provider or a person made up goes into a code span or a fenced block. There neither site
looks for markup, mentions (@team), references (#12, !3), links, HTML or quick actions (/close).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

LONGEST: Final = 200
"""Characters of one name or value."""
_INVISIBLE: Final = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")
"""Categories of characters that are not seen, or that turn the direction of what follows."""
_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_IN_LABEL: Final = re.compile(r"[^\w .,%→/-]|%(?=%)")


def visible(text: str) -> str:
    """One line in which every character is seen."""
    return "".join(
        _ESCAPES.get(each, f"\\u{ord(each):04x}") if unicodedata.category(each) in _INVISIBLE else each for each in text
    )


def code(text: str) -> str:
    """A code span."""
    shown = visible(text)
    if len(shown) > LONGEST:
        shown = f"{shown[:LONGEST]}…"
    if not shown.strip():
        return "*empty*"
    fence = "`" * (_longest_run(shown) + 1)
    # A backtick at an end would lengthen the fence; two spaces at the ends are taken off again.
    pad = " " if shown[0] in "` " or shown[-1] in "` " else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def cell(text: str) -> str:
    """A code span in a table. Sites disagree on how to escape a bar behind a backslash, so it is another bar."""
    return code(text.replace("|", "¦"))


def prose(text: str) -> str:
    """A sentence of our own that may quote others: what could be markup is left out."""
    return re.sub(r"[^\w .,;:'()/-]", "", visible(text))


def fence(lines: Iterable[str]) -> str:
    """What begins and ends a block that has these lines in it; none of them can end it."""
    return "`" * max(3, *(_longest_run(line) + 1 for line in lines), 3)


def link(text: str, url: str) -> str:
    """A link; only the text, if the address is none of the web."""
    if not re.fullmatch(r"https?://[^\s<>()\[\]`\\|\"']+", url):
        return code(text)
    return f"[{code(text)}]({url})"


def label(text: str) -> str:
    """A quoted label of Mermaid; what has a meaning there is written as its number, ``#35;``."""
    return '"' + _IN_LABEL.sub(lambda found: f"#{ord(found[0])};", visible(text)) + '"'


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)
