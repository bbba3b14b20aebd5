"""Result of a preview without any secret: one JSON file per stack, passed between the jobs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

from model_serving.pipelines.base import Base
from model_serving.pipelines.costs import Cost
from model_serving.pipelines.values import UNKNOWN, Difference, Part

Outcome = Literal["ok", "failed", "no-identity", "removed"]
"""Of a preview; removed: the previewed commit takes the stack out of the pipelines."""
Operation = Literal["create", "update", "replace", "delete", "import", "forget"]
"""Change of a resource; ``forget`` only removes it from the state."""

SIGNS: Final[Mapping[Operation, str]] = {
    "replace": "-",
    "delete": "-",
    "forget": "-",
    "update": "!",
    "import": "+",
    "create": "+",
}
"""Most important first; with the first character of a line of a diff, which sets its colour."""
COLUMNS: Final[Sequence[Sequence[Operation]]] = (("create", "import"), ("update",), ("replace",), ("delete", "forget"))
"""Operations counted in the columns create, update, replace and delete of the note's tables."""


class Change(Part):
    """Change of one resource.

    Attributes:
        kind: last part of its type, e.g. ``Deployment``.
        token: its whole type, e.g. ``kubernetes:apps/v1:Deployment``.
        component: kind of the component it belongs to, e.g. ``ModelServer``; empty if none.
        differences: all properties if it is created, none if it is deleted.
        omitted: number of differences left out.
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
        return self.operation in ("replace", "delete")

    @property
    def forced_by(self) -> tuple[Difference, ...]:
        """Differences that need a new resource; none if it is replaced only because another one is."""
        return tuple(each for each in self.differences if each.forces)

    @property
    def title(self) -> str:
        """First line of its diff."""
        place = f" ({self.component})" if self.component else ""
        return f"{SIGNS[self.operation]} {self.operation} {self.kind} {self.name}{place}"

    def lines(self) -> Iterator[str]:
        """The other lines of its diff."""
        if self.operation == "update" and not self.differences:
            yield f"    changes, if any, are {UNKNOWN}"
        for each in self.differences:
            forced = "  (forces replacement)" if each.forces else ""
            if each.old is not None and each.new == UNKNOWN:
                yield f"!   {each.path}: {each.old} → {UNKNOWN}{forced}"
            elif each.old is None and each.new is None:
                yield f"!   {each.path}: {UNKNOWN}{forced}"
            else:
                sides = (("-", each.old), ("+", each.new))
                yield from (f"{sign}   {each.path}: {value}{forced}" for sign, value in sides if value is not None)
        if self.omitted:
            yield f"    … and {self.omitted} more"


class Share(Part):
    """Traffic of a live version of a model.

    Attributes:
        percent: of the requests to the model that do not name a version.
        shadow: whether it only gets copies of them, and its answers are dropped.
    """

    version: str
    percent: float
    shadow: bool = False


class Server(Part):
    """Changes of the pods of a version that stays live."""

    version: str
    differences: tuple[Difference, ...]


class ModelChange(Part):
    """Change of one model: its live versions before and after, oldest first, and changed pods of those that stay."""

    name: str
    before: tuple[Share, ...]
    after: tuple[Share, ...]
    servers: tuple[Server, ...] = ()

    @property
    def moves_traffic(self) -> bool:
        return self.before != self.after


class Violation(Part):
    """A policy violation; ``resource`` is type and name, or empty if it concerns the whole stack."""

    policy: str
    pack: str
    level: Literal["advisory", "mandatory", "disabled", "remediate"]
    message: str
    resource: str


class Preview(Part):
    """Changes that an update of a stack would make.

    Attributes:
        commit: the full hash of the previewed commit.
        order: position in the order of deployments.
        base: what it is compared with; None if that is not known.
        why: reason of any outcome but ok.
        changes: in the engine's order; without components, providers and the stack itself.
        models: only those that change.
        costs: kinds of resources whose costs change.
        without_figure: changed kinds whose costs cannot be estimated.
    """

    stack: str
    commit: str
    order: int = 0
    base: Base | None = None
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

    def count(self, *operations: Operation) -> int:
        return sum(change.operation in operations for change in self.changes)

    @property
    def sorted_changes(self) -> list[Change]:
        """Most important first."""
        return sorted(self.changes, key=lambda change: [*SIGNS].index(change.operation))

    @property
    def monthly(self) -> float:
        """Change of the estimated costs in US dollars per month."""
        return sum(cost.after - cost.before for cost in self.costs)


def terraform_report(preview: Preview) -> dict[str, int]:
    """GitLab's report for the merge request widget; a replacement counts as creation and deletion."""
    # https://docs.gitlab.com/ci/yaml/artifacts_reports/#artifactsreportsterraform
    return {
        "create": preview.count("create", "replace"),
        "update": preview.count("update", "import"),
        "delete": preview.count("delete", "forget", "replace"),
    }
