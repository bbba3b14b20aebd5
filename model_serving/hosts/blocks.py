"""A text out of blocks, of which the least important give way until all of it fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

RESERVE: Final = 2000
"""Characters kept free for what is said of what was left out, and for a banner on top."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A line or more.

    Attributes:
        short: what stands for it when there is little room; by default itself.
    """

    text: str
    short: str | None = None


@dataclass(kw_only=True)
class Block:
    """Items between a head and a foot, which go when no item is left.

    Attributes:
        what: what it holds, as it is said when some of it is left out, e.g. ``changes in the full diff of dev``.
        importance: of the items; 0 gives way first.
        importance_of_length: of what only their long form has.
    """

    what: str
    importance: int
    importance_of_length: int = 0
    head: str = ""
    items: Sequence[Item] = ()
    foot: str = ""
    kept: int = field(init=False)
    shortened: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.kept = len(self.items)

    def __str__(self) -> str:
        if not self.kept:
            return ""
        return f"{self.head}{''.join(self._texts())}{self.foot}"

    @property
    def left_out(self) -> str:
        """What is missing, for people; empty if nothing is."""
        missing = len(self.items) - self.kept
        parts = [f"{missing} of {len(self.items)} {self.what}"] if missing else []
        # Those that are gone altogether are counted already.
        shortened = self.shortened - sum(_can_be_short(item) for item in self.items[self.kept :])
        if shortened > 0:
            parts.append(f"the properties of {shortened} of the {self.what}")
        return " and ".join(parts)

    def shorten(self, excess: int) -> int:
        """Makes items short, from the last on, until enough is saved; returns how many characters that is."""
        saved = 0
        candidates = [item for item in self.items if _can_be_short(item)]
        while saved < excess and self.shortened < len(candidates):
            self.shortened += 1
            item = candidates[-self.shortened]
            saved += len(item.text) - len(item.short or "")
        return saved

    def drop(self, excess: int) -> int:
        """Leaves items out, from the last on, until enough is saved; returns how many characters that is."""
        before = len(str(self))
        texts = self._texts()
        saved = 0
        while saved < excess and self.kept:
            self.kept -= 1
            saved += len(texts[self.kept])
        return before - len(str(self))

    def _texts(self) -> list[str]:
        shortable = [number for number, item in enumerate(self.items) if _can_be_short(item)]
        short = {*shortable[len(shortable) - self.shortened :]}
        return [
            item.short if number in short and item.short is not None else item.text
            for number, item in enumerate(self.items[: self.kept])
        ]


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """A part that stays whatever its length."""

    text: str

    def __str__(self) -> str:
        return self.text


def fit(parts: Sequence[Block | Fixed], limit: int) -> tuple[str, list[str]]:
    """Puts the parts together.

    Args:
        parts: in the order in which they are read. Of two of the same importance, the later one is kept longer.
        limit: characters that there may be, besides RESERVE.

    Returns:
        The text, and what is not in it, one phrase a block.
    """
    blocks = [part for part in parts if isinstance(part, Block)]
    excess = sum(len(str(part)) for part in parts) - (limit - RESERVE)
    for _, reduce in sorted(
        [(block.importance_of_length, block.shorten) for block in blocks]
        + [(block.importance, block.drop) for block in blocks],
        key=lambda step: step[0],
    ):
        if excess <= 0:
            break
        excess -= reduce(excess)
    text = "".join(str(part) for part in parts)
    return text, [block.left_out for block in blocks if block.left_out]


def _can_be_short(item: Item) -> bool:
    return item.short is not None and len(item.short) < len(item.text)
