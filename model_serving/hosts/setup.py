"""The setup of a site for the pipelines, as docs/ci.md describes it: what is done, what is not, what cannot be read.

Everything here only reads. A step that the token may not see is reported as such: an answer that is refused or missing
says nothing about the setting.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, Literal

from model_serving.hosts.access import SiteError

Answered = Callable[[], AbstractContextManager[None]]
State = Literal["done", "not done", "not readable"]
BRANCH: Final = "main"
"""Branch that the pipelines deploy."""
PASSPHRASE: Final = "PULUMI_CONFIG_PASSPHRASE"  # noqa: S105 - a variable's name


@dataclass(frozen=True, kw_only=True)
class Environment:
    """An environment that the pipelines deploy to.

    Attributes:
        approval: whether a person has to approve each deployment.
        passphrase: whether the stack's secrets need a passphrase.
    """

    name: str
    approval: bool = False
    passphrase: bool = False


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the setup.

    Attributes:
        found: what the site says, or why it says nothing.
        remedy: how to do it, or how to make it readable; empty if it is done.
    """

    name: str
    state: State
    found: str
    remedy: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was found of one step: ``wrong`` lists what is not as it should be."""

    found: str
    wrong: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Check:
    """How one step is examined.

    Attributes:
        remedy: how a person does the step.
        access: what the token needs to read it.
        examine: asks the site; raises `SiteError` if it refuses, `Unreadable` if its answer lacks the setting.
    """

    name: str
    remedy: str
    access: str
    examine: Callable[[], Verdict]

    def step(self, answered: Answered = nullcontext) -> Step:
        """The step as it stands."""
        try:
            with answered():
                verdict = self.examine()
        except SiteError as error:
            return Step(name=self.name, state="not readable", found=error.what, remedy=self.access)
        except Unreadable as error:
            return Step(name=self.name, state="not readable", found=str(error), remedy=self.access)
        if verdict.wrong:
            return Step(name=self.name, state="not done", found="; ".join(verdict.wrong), remedy=self.remedy)
        return Step(name=self.name, state="done", found=verdict.found)


class Unreadable(Exception):
    """The site answered, but without the setting: the token may not see it, or the site is too old for it."""


def examined(checks: Sequence[Check], answered: Answered = nullcontext) -> list[Step]:
    """The steps in order; one that cannot be read keeps no other from being read.

    In a block of ``answered``, an answer that is not understood is a `SiteError`.
    """
    return [check.step(answered) for check in checks]


def report(title: str, steps: Sequence[Step]) -> str:
    """The steps for people, each with the way to do it."""
    return "\n".join([title, "", *_lines(steps), "", _summary(steps)])


def _lines(steps: Sequence[Step]) -> Iterator[str]:
    for step in steps:
        yield f"{step.state:<14}{step.name}: {step.found}"
        if step.remedy:
            yield f"{'':<14}  {step.remedy}"


def _summary(steps: Sequence[Step]) -> str:
    counts = {state: sum(step.state == state for step in steps) for state in ("done", "not done", "not readable")}
    if counts["done"] == len(steps):
        return f"All {len(steps)} steps are done."
    return f"{counts['done']} of {len(steps)} steps are done, {counts['not done']} are not, " + (
        f"and {counts['not readable']} cannot be read with this token." if counts["not readable"] else "none is unread."
    )
