"""Escapes foreign texts for Markdown on GitLab and GitHub, and for Mermaid.

Everything named by a program, a provider or a person goes into a code span or a fenced block, where neither site looks
for markup, mentions (@team), references (#12, !3), links, HTML or quick actions (/close).
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

LONGEST: Final = 200
"""Characters of one name or value."""
_INVISIBLE: Final = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")
"""Unicode categories of invisible characters and of those that change the direction of text."""
_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: str) -> str:
    """One line with escapes for invisible characters."""
    return "".join(
        _ESCAPES.get(each, f"\\u{ord(each):04x}") if unicodedata.category(each) in _INVISIBLE else each for each in text
    )


def logged(text: str) -> str:
    """One line for the log of a job, without commands to GitHub's runner, which reads ``##[command]`` in any line."""
    return visible(text).replace("##[", "## [")


def code(text: str) -> str:
    """A code span."""
    shown = visible(text)
    if len(shown) > LONGEST:
        shown = f"{shown[:LONGEST]}…"
    if not shown.strip():
        return "*empty*"
    mark = "`" * (_longest_run(shown) + 1)
    # A backtick at either end would extend the mark; one space at both ends is stripped when it is rendered.
    pad = " " if shown[0] in "` " or shown[-1] in "` " else ""
    return f"{mark}{pad}{shown}{pad}{mark}"


def cell(text: str) -> str:
    """A code span in a table. Sites differ in how a bar after a backslash is escaped, so bars are replaced."""
    return code(text.replace("|", "¦"))


def prose(text: str) -> str:
    """A sentence of this project that may quote others: characters that could be markup are removed."""
    return re.sub(r"[^\w .,;:'()/-]", "", visible(text))


def fence(lines: Iterable[str]) -> str:
    """A fence that none of the lines can close."""
    return "`" * max([3, *(_longest_run(line) + 1 for line in lines)])


def link(text: str, url: str) -> str:
    """A link; only the text if the address is not a plain web address."""
    if not re.fullmatch(r"https?://[^\s<>()\[\]`\\|\"']+", url):
        return code(text)
    return f"[{code(text)}]({url})"


def label(text: str) -> str:
    """A quoted Mermaid label; special characters become character codes, e.g. ``#35;``."""
    return '"' + re.sub(r"[^\w .,%→/-]|%(?=%)", lambda found: f"#{ord(found[0])};", visible(text)) + '"'


def _longest_run(text: str) -> int:
    return max(map(len, re.findall(r"`+", text)), default=0)
