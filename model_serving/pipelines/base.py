"""What a preview is compared with: the commit that is live, and what of it the previewed commit lacks."""

from collections.abc import Callable, Iterator
from typing import Final

from model_serving.pipelines.values import Part
from model_serving.problems import first_few

SHOWN: Final = 12
"""Digits of a commit."""


class Base(Part):
    """The commit that is live, and its relation to the previewed one.

    Attributes:
        commit: the live commit.
        deployed: when, in UTC, and how that ended.
        behind: number of live commits that the previewed commit lacks; None if it is not known.
        is_merged: whether they were merged for the preview.
        why: why they were not.
        undone: models that only those commits have changed.
        target: the branch to merge into; empty if the previewed commit is deployed as it is.
        waiting: number of commits of the target that are previewed as well, because they are not live yet.
    """

    commit: str
    deployed: str
    behind: int | None = 0
    is_merged: bool = False
    why: str = ""
    undone: tuple[str, ...] = ()
    target: str = ""
    waiting: int = 0

    def sentences(self, mark: Callable[[str], str]) -> Iterator[str]:
        """The same for people; ``mark`` formats names."""
        yield f"Compared with {mark(self.commit[:SHOWN])}, deployed at {self.deployed}."
        missing = _commits(self.behind or 0)
        if self.behind is None:
            yield "It cannot be fetched: whether the changes below undo parts of it is not known."
        elif self.is_merged:
            yield f"This branch is {missing} behind what is live. It was previewed merged with what is live."
        elif self.behind:
            what = f"This {'branch' if self.target else 'commit'} is {missing} behind what is live"
            yield f"{what}{f', and {self.why}' if self.why else ''}: the changes below also undo what it lacks."
            if self.undone:
                yield f"Only for that reason, there are changes of {first_few([mark(name) for name in self.undone])}."
            if self.target:
                yield f"Merge {mark(self.target)} into the branch to see only its own changes."
        if self.waiting:
            is_one = self.waiting == 1
            yield (
                f"{_commits(self.waiting)} of {mark(self.target)} {'is' if is_one else 'are'} not live yet, and "
                f"{'its' if is_one else 'their'} changes are shown as well."
            )


def _commits(number: int) -> str:
    return f"{number} commit{'' if number == 1 else 's'}"
