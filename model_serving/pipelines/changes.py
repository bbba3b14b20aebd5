"""What a preview found, as the jobs hand it on: one JSON file a stack, without a secret in it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from model_serving.pipelines.costs import Cost
from model_serving.pipelines.values import Difference

__all__ = ["Change", "Cost", "Difference", "ModelChange", "Operation", "Outcome", "Preview", "Server", "Violation"]

Outcome = Literal["ok", "failed", "no-identity"]
Operation = Literal["create", "update", "replace", "delete", "import", "forget"]
"""What becomes of a resource; to forget it leaves it where it is."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Change(_Part):
    """What becomes of one resource.

    Attributes:
        kind: last part of its type, e.g. ``Deployment``.
        token: its whole type, e.g. ``kubernetes:apps/v1:Deployment``.
        name: in the program.
        component: kind of the component that it is part of, e.g. ``ModelServer``; empty if it is in none.
        differences: of its properties; of a new resource all, of one that goes none.
        omitted: how many differences are not among them.
    """

    operation: Operation
    kind: str
    token: str
    name: str
    component: str
    differences: tuple[Difference, ...] = ()
    omitted: int = 0

    @property
    def is_destructive(self) -> bool:
        """Whether something that is there ceases to be."""
        return self.operation in ("replace", "delete")

    @property
    def forced_by(self) -> tuple[Difference, ...]:
        """What takes another resource; nothing if that is only because of another resource that is replaced."""
        return tuple(each for each in self.differences if each.forces)


class Share(_Part):
    """A live version of a model.

    Attributes:
        percent: of the requests that go to the model as such.
        shadow: whether it gets a copy of them, and no client its answers.
    """

    version: str
    percent: float
    shadow: bool = False


class Server(_Part):
    """What changes in the pods of a version that stays."""

    version: str
    differences: tuple[Difference, ...]


class ModelChange(_Part):
    """What happens to one model.

    Attributes:
        before: its live versions, from the oldest to the newest; none if it is new.
        after: none if it goes.
        servers: what else changes in those that stay.
    """

    name: str
    before: tuple[Share, ...]
    after: tuple[Share, ...]
    servers: tuple[Server, ...] = ()

    @property
    def moves_traffic(self) -> bool:
        return self.before != self.after


class Violation(_Part):
    """What a policy says of a resource.

    Attributes:
        resource: type and name; empty if it is about the whole stack.
    """

    policy: str
    pack: str
    level: Literal["advisory", "mandatory", "disabled", "remediate"]
    message: str
    resource: str


class Preview(_Part):
    """What an update of a stack would do.

    Attributes:
        commit: the commit that was looked at, whole.
        order: place among the stacks, as they are deployed.
        why: why there is nothing, or not all; empty if the outcome is ok.
        changes: in the engine's order; components, providers and the stack itself left out.
        unchanged: number of resources that stay as they are.
        models: those to which something happens.
        unchanged_models: number of the others.
        costs: kinds of resources whose costs change.
        without_figure: kinds among the changed that cost something nobody can tell from a preview.
        errors: what the program, a provider or the engine said.
    """

    stack: str
    commit: str
    order: int = 0
    outcome: Outcome
    why: str = ""
    changes: tuple[Change, ...] = ()
    unchanged: int = 0
    models: tuple[ModelChange, ...] = ()
    unchanged_models: int = 0
    costs: tuple[Cost, ...] = ()
    without_figure: tuple[str, ...] = ()
    violations: tuple[Violation, ...] = ()
    errors: tuple[str, ...] = ()

    def count(self, operation: Operation) -> int:
        return sum(change.operation == operation for change in self.changes)

    @property
    def monthly(self) -> float:
        """What the costs change by, in US dollars a month, as far as there are figures."""
        return sum(cost.after - cost.before for cost in self.costs)


def terraform_report(preview: Preview) -> dict[str, int]:
    """GitLab's report for the merge request's widget, which knows no replacement: it counts as both."""
    # https://docs.gitlab.com/ci/yaml/artifacts_reports/#artifactsreportsterraform
    replaced = preview.count("replace")
    return {
        "create": preview.count("create") + replaced,
        "update": preview.count("update") + preview.count("import"),
        "delete": preview.count("delete") + preview.count("forget") + replaced,
    }
