"""Takes down the engine's events and makes a preview of them, with every secret taken out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

from model_serving.pipelines import costs, traffic
from model_serving.pipelines.changes import Change, ModelChange, Operation, Outcome, Preview, Server, Violation
from model_serving.pipelines.redact import Redactor
from model_serving.pipelines.values import Comparison, Difference

COMPONENT: Final = "model-serving:index:"
PLATFORM: Final = "Platform"
"""It only holds the others together."""
MOST_DIFFERENCES: Final = 200
"""Of one resource; a longer list is no help to anybody, and a generated document can have thousands."""
MOST_ERRORS: Final = 50
_SAYS_NOTHING: Final = ("preview failed", "update failed")
"""What Pulumi says at last, behind what went wrong."""
NO_CHANGES_EXPECTED: Final = 7
"""Exit code of ``--expect-no-changes`` when there are some."""

_OPERATIONS: Final[Mapping[str, Operation]] = {
    "create": "create",
    "update": "update",
    "delete": "delete",
    "replace": "replace",
    "import": "import",
    "import-replacement": "replace",
    "discard": "forget",
}
"""The engine's operations -> what becomes of a resource. A replacement's own steps are said by ``replace``."""

Metadata = Mapping[str, Any]


class Recorder:
    """Collects the events of one run.

    Args:
        stack: its name.
        commit: what is looked at.
        redactor: goes over every text before it is shortened and kept.
        order: place among the stacks.
    """

    def __init__(self, *, stack: str, commit: str, redactor: Redactor, order: int = 0) -> None:
        self._stack, self._commit, self._order = stack, commit, order
        self._redact = redactor.text
        self._parents: dict[str, tuple[str, str]] = {}
        self._steps: dict[str, Metadata] = {}
        self._same: dict[str, Metadata] = {}
        self._violations: list[Violation] = []
        self._errors: dict[str, None] = {}

    def event(self, event: Mapping[str, Any]) -> None:
        """Takes one event, as ci.engine hands it out."""
        if metadata := event.get("resourcePreEvent", {}).get("metadata"):
            self._take(metadata)
        elif violation := event.get("policyEvent"):
            self._violations.append(self._violation(violation))
        elif (diagnostic := event.get("diagnosticEvent")) and diagnostic["severity"] == "error":
            name = diagnostic.get("urn", "").rpartition("::")[2]
            self._error(f"{name}: {diagnostic['message']}" if name else diagnostic["message"])

    def text(self, line: str) -> None:
        """Takes a line that is no event: a mistake from before the engine ran."""
        if line.startswith("error:"):
            self._error(line.removeprefix("error:"))

    def preview(self, code: int) -> Preview:
        """What was found.

        Args:
            code: how Pulumi ended.
        """
        models, unchanged_models = self._models()
        resources = [
            costs.Resource(token=each["type"], old=_inputs(each, "old"), new=_inputs(each, "new"))
            for each in [*self._steps.values(), *self._same.values()]
        ]
        outcome, why = self._outcome(code)
        return Preview(
            stack=self._stack,
            commit=self._commit,
            order=self._order,
            outcome=outcome,
            why=why,
            changes=tuple(self._change(metadata) for metadata in self._steps.values()),
            unchanged=len(self._same),
            models=models,
            unchanged_models=unchanged_models,
            # What was not reached before a failure would look as if it were to go.
            costs=costs.estimate(resources) if outcome == "ok" else (),
            without_figure=costs.without_figure(resources[: len(self._steps)]),
            violations=tuple(self._violations),
            errors=tuple(islice(self._errors, MOST_ERRORS)),
        )

    def _take(self, metadata: Metadata) -> None:
        urn, state = metadata["urn"], metadata.get("new") or metadata.get("old") or {}
        self._parents[urn] = (metadata["type"], state.get("parent", ""))
        if not state.get("custom") or metadata["type"].startswith("pulumi:"):
            return
        if metadata["op"] == "same":
            self._same.setdefault(urn, metadata)
        elif metadata["op"] in _OPERATIONS:
            # What waits to be deleted since an earlier update has the URN of what took its place.
            key = f"{urn}::old" if urn in self._steps and metadata["op"] == "delete" else urn
            self._steps[key] = metadata
            self._same.pop(urn, None)

    def _change(self, metadata: Metadata) -> Change:
        operation = _OPERATIONS[metadata["op"]]
        if operation == "delete" and (metadata.get("old") or {}).get("retainOnDelete"):
            operation = "forget"
        differences = [*self._differences(metadata)]
        # First what decides, so that it is not what is left out.
        differences.sort(key=lambda each: not each.forces)
        return Change(
            operation=operation,
            kind=metadata["type"].rpartition(":")[2],
            token=metadata["type"],
            name=self._redact(metadata["urn"].rpartition("::")[2]),
            component=self._component(metadata["urn"]),
            differences=tuple(differences[:MOST_DIFFERENCES]),
            omitted=max(0, len(differences) - MOST_DIFFERENCES),
        )

    def _differences(self, metadata: Metadata) -> Iterator[Difference]:
        if metadata["op"] not in ("delete", "discard"):
            yield from Comparison(metadata["type"], self._redact).differences(metadata)

    def _component(self, urn: str) -> str:
        while urn in self._parents:
            token, parent = self._parents[urn]
            kind = token.removeprefix(COMPONENT)
            if token.startswith(COMPONENT) and kind != PLATFORM:
                return kind
            urn = parent
        return ""

    def _models(self) -> tuple[tuple[ModelChange, ...], int]:
        known = [*self._steps.values(), *self._same.values()]
        routes = [
            traffic.Route(old=_inputs(each, "old"), new=_inputs(each, "new"))
            for each in known
            if traffic.HTTP_ROUTE.fullmatch(each["type"])
        ]
        servers = [
            traffic.ServerChange(change=self._change(each), labels=_labels(each))
            for each in self._steps.values()
            if each["type"] == costs.DEPLOYMENT
        ]
        found, unchanged = traffic.models(routes, servers)
        return tuple(self._redacted(each) for each in found), unchanged

    def _redacted(self, model: ModelChange) -> ModelChange:
        shares = [
            tuple(share.model_copy(update={"version": self._redact(share.version)}) for share in each)
            for each in (model.before, model.after)
        ]
        servers = tuple(
            Server(version=self._redact(each.version), differences=each.differences) for each in model.servers
        )
        return ModelChange(name=self._redact(model.name), before=shares[0], after=shares[1], servers=servers)

    def _violation(self, event: Mapping[str, Any]) -> Violation:
        urn = event.get("resourceUrn", "")
        token, name = urn.rpartition("::")[0].rpartition("::")[2].rpartition("$")[2], urn.rpartition("::")[2]
        return Violation(
            policy=self._redact(event["policyName"]),
            pack=self._redact(event.get("policyPackName", "")),
            level=event["enforcementLevel"],
            message=self._redact(event["message"].strip()),
            resource=self._redact(f"{token.rpartition(':')[2]} {name}") if urn else "",
        )

    def _error(self, message: str) -> None:
        if message.strip() in _SAYS_NOTHING:
            return
        self._errors.setdefault(self._redact(message.strip()), None)

    def _outcome(self, code: int) -> tuple[Outcome, str]:
        if code in (0, NO_CHANGES_EXPECTED):
            return "ok", ""
        if any(each.level == "mandatory" for each in self._violations):
            return "failed", "A mandatory policy is violated; a deployment would stop at it."
        if code < 0:
            return "failed", f"Pulumi was ended by signal {-code} before it was done."
        return "failed", f"Pulumi ended with code {code}."


def _inputs(metadata: Metadata, side: str) -> Mapping[str, Any] | None:
    state = metadata.get(side)
    return None if state is None else state.get("inputs") or {}


def _labels(metadata: Metadata) -> Mapping[str, str]:
    inputs = _inputs(metadata, "new") or _inputs(metadata, "old") or {}
    labels: Mapping[str, str] = inputs.get("metadata", {}).get("labels", {})
    return labels
