"""Markdown made of blocks; the least important ones lose items until the text fits."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LIMIT: Final = 1_000_000
"""Characters of a note outside of a job: GitLab's limit."""
RESERVE: Final = 2000
"""Characters kept free for the list of what was left out and for a banner on top."""
NAMED: Final = 6
"""Blocks named in the list of what was left out."""
_FENCE: Final = re.compile(r"(`{3,})\w*$")


@dataclass(kw_only=True)
class Block:
    """Items between a head and a foot; without items there is neither.

    Attributes:
        what: name of the items where some are left out, e.g. ``changes in the full diff of dev``.
        importance: the lowest loses its items first.
        short: a shorter form of each item, if there is one. Items are shortened before any block loses one.
    """

    what: str
    importance: int
    head: str = ""
    items: Sequence[str] = ()
    short: Sequence[str] = ()
    foot: str = ""

    def __post_init__(self) -> None:
        self._kept = [*self.items]

    def __str__(self) -> str:
        return f"{self.head}{''.join(self._kept)}{self.foot}" if self._kept else ""

    @property
    def left_out(self) -> str:
        """The missing items, for people; empty if there are none."""
        missing = len(self.items) - len(self._kept)
        shortened = sum(kept != item for kept, item in zip(self._kept, self.items, strict=False))
        parts = [f"{missing} of {len(self.items)} {self.what}"] if missing else []
        return " and ".join([*parts, *([f"the properties of {shortened} of the {self.what}"] if shortened else [])])

    def shorten(self, excess: int) -> int:
        """Shortens items, last ones first, until enough is saved; returns the number of characters saved."""
        saved = 0
        for at in reversed(range(len(self.short))):
            if saved >= excess:
                break
            saved += len(self._kept[at]) - len(self.short[at])
            self._kept[at] = self.short[at]
        return saved

    def drop(self, excess: int) -> int:
        """Drops items, last ones first, until enough is saved; returns the number of characters saved."""
        before, saved = len(str(self)), 0
        while saved < excess and self._kept:
            saved += len(self._kept.pop())
        return before - len(str(self))


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """A part that always stays."""

    text: str

    def __str__(self) -> str:
        return self.text


def fit_note(parts: Sequence[Block | Fixed], limit: int, *, rest: str) -> str:
    """Joins parts within a limit in characters, of which RESERVE stay free.

    The text ends with a sentence about what was left out; ``rest`` says where to find that.
    """
    blocks = [part for part in parts if isinstance(part, Block)]
    excess = sum(len(str(part)) for part in parts) - (limit - RESERVE)
    by_importance = sorted(blocks, key=lambda block: block.importance)
    for save in [*(block.shorten for block in blocks), *(block.drop for block in by_importance)]:
        if excess > 0:
            excess -= save(excess)
    text, left_out = "".join(map(str, parts)), [block.left_out for block in blocks if block.left_out]
    if not left_out:
        return text
    named = "; ".join(left_out[:NAMED]) + ("; …" if len(left_out) > NAMED else "")
    return f"{text}\nLeft out because notes are limited to {limit:,} characters: {named}. {rest}\n"


def cut(text: str, limit: int, *, rest: str) -> str:
    """The beginning of a finished text, at most ``limit`` characters, with open code blocks and details closed.

    It ends with a sentence that says so; ``rest`` says where to find the whole text.
    """
    if len(text) <= limit:
        return text
    begun = text[: limit - min(RESERVE, limit // 2)]
    # Whole lines, unless there is only one.
    begun = begun[: begun.rfind("\n") + 1] or f"{begun}\n"
    fence, details = "", 0
    for line in begun.splitlines():
        if fence:
            fence = "" if line.strip() == fence else fence
        elif found := _FENCE.match(line):
            fence = found[1]
        else:
            details += line.count("<details>") - line.count("</details>")
    closed = f"{fence}\n" if fence else ""
    closed += "\n</details>\n" * details
    return f"{begun}{closed}\nCut off here because notes are limited to {limit:,} characters. {rest}\n"
