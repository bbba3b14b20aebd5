"""Turns the engine's events into a preview without secrets."""

from collections.abc import Mapping
from typing import Any, Final

from model_serving.pipelines import costs, traffic
from model_serving.pipelines.changes import Change, ModelChange, Operation, Outcome, Preview, Violation
from model_serving.pipelines.redact import Redactor
from model_serving.pipelines.values import Inputs, Resource, differences

COMPONENT: Final = "model-serving:index:"
PLATFORM: Final = "Platform"
"""Component that only groups the others."""
MOST_DIFFERENCES: Final = 200
"""Of one resource; a generated document can have thousands."""
MOST_ERRORS: Final = 50
_SAYS_NOTHING: Final = ("preview failed", "update failed")
"""Pulumi's last message, after the actual errors."""
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
"""The engine's operations; the steps of a replacement are left out, because ``replace`` covers them."""

Metadata = Mapping[str, Any]


class Recorder:
    """Collects the events of one run; the redactor gets every text before it is shortened and kept."""

    def __init__(self, *, stack: str, commit: str, redactor: Redactor, order: int = 0) -> None:
        self._stack, self._commit, self._order = stack, commit, order
        self._redact = redactor.text
        self._parents: dict[str, tuple[str, str]] = {}
        self._steps: dict[str, Metadata] = {}
        self._same: dict[str, Metadata] = {}
        self._violations: list[Violation] = []
        self._errors: dict[str, None] = {}

    def event(self, event: Mapping[str, Any]) -> None:
        """Takes an event of `engine.run`."""
        if metadata := event.get("resourcePreEvent", {}).get("metadata"):
            self._take(metadata)
        elif violation := event.get("policyEvent"):
            self._violations.append(self._violation(violation))
        elif (diagnostic := event.get("diagnosticEvent")) and diagnostic["severity"] == "error":
            name = _name(diagnostic.get("urn", ""))
            self._error(f"{name}: {diagnostic['message']}" if name else diagnostic["message"])

    def text(self, line: str) -> None:
        """Takes a line that is not an event: an error from before the engine ran."""
        if line.startswith("error:"):
            self._error(line.removeprefix("error:"))

    def preview(self, code: int) -> Preview:
        """The result of a run that ended with an exit code, or with a negated signal."""
        changes = tuple(self._change(metadata) for metadata in self._steps.values())
        resources = [
            Resource(token=each["type"], old=_inputs(each.get("old")), new=_inputs(each.get("new")))
            for each in [*self._steps.values(), *self._same.values()]
        ]
        changed = resources[: len(changes)]
        models, unchanged_models = traffic.models(resources, zip(changed, changes, strict=True))
        outcome, why = self._outcome(code)
        return Preview(
            stack=self._stack,
            commit=self._commit,
            order=self._order,
            outcome=outcome,
            why=why,
            changes=changes,
            unchanged=len(self._same),
            models=tuple(self._redacted(each) for each in models),
            unchanged_models=unchanged_models,
            # After a failure, resources that were not reached would count as deleted.
            costs=costs.estimate(resources) if outcome == "ok" else (),
            without_figure=costs.without_figure(changed),
            violations=tuple(self._violations),
            errors=tuple(self._errors)[:MOST_ERRORS],
        )

    def _take(self, metadata: Metadata) -> None:
        urn, state = metadata["urn"], metadata.get("new") or metadata.get("old") or {}
        self._parents[urn] = (metadata["type"], state.get("parent", ""))
        if not state.get("custom") or metadata["type"].startswith("pulumi:"):
            return
        if metadata["op"] == "same":
            self._same.setdefault(urn, metadata)
        elif metadata["op"] in _OPERATIONS:
            # A deletion pending from an earlier update has the URN of the resource that replaced it.
            key = f"{urn}::old" if urn in self._steps and metadata["op"] == "delete" else urn
            self._steps[key] = metadata
            self._same.pop(urn, None)

    def _change(self, metadata: Metadata) -> Change:
        operation = _OPERATIONS[metadata["op"]]
        if operation == "delete" and (metadata.get("old") or {}).get("retainOnDelete"):
            operation = "forget"
        is_gone = metadata["op"] in ("delete", "discard")
        found = [] if is_gone else differences(metadata["type"], metadata, self._redact)
        # The decisive ones first, so that they are not left out.
        found.sort(key=lambda each: not each.forces)
        return Change(
            operation=operation,
            kind=_kind(metadata["type"]),
            token=metadata["type"],
            name=self._redact(_name(metadata["urn"])),
            component=self._component(metadata["urn"]),
            differences=tuple(found[:MOST_DIFFERENCES]),
            omitted=max(0, len(found) - MOST_DIFFERENCES),
        )

    def _component(self, urn: str) -> str:
        while urn in self._parents:
            token, parent = self._parents[urn]
            kind = token.removeprefix(COMPONENT)
            if token.startswith(COMPONENT) and kind != PLATFORM:
                return kind
            urn = parent
        return ""

    def _redacted(self, model: ModelChange) -> ModelChange:
        parts = {
            part: tuple(
                each.model_copy(update={"version": self._redact(each.version)}) for each in getattr(model, part)
            )
            for part in ("before", "after", "servers")
        }
        return model.model_copy(update={"name": self._redact(model.name), **parts})

    def _violation(self, event: Mapping[str, Any]) -> Violation:
        urn = event.get("resourceUrn", "")
        token = urn.rpartition("::")[0].rpartition("::")[2].rpartition("$")[2]
        return Violation(
            policy=self._redact(event["policyName"]),
            pack=self._redact(event.get("policyPackName", "")),
            level=event["enforcementLevel"],
            message=self._redact(event["message"].strip()),
            resource=self._redact(f"{_kind(token)} {_name(urn)}") if urn else "",
        )

    def _error(self, message: str) -> None:
        if message.strip() not in _SAYS_NOTHING:
            self._errors.setdefault(self._redact(message.strip()), None)

    def _outcome(self, code: int) -> tuple[Outcome, str]:
        if code in (0, NO_CHANGES_EXPECTED):
            return "ok", ""
        if any(each.level == "mandatory" for each in self._violations):
            return "failed", "A mandatory policy is violated, so a deployment would fail."
        if code < 0:
            return "failed", f"Pulumi was stopped by signal {-code}."
        return "failed", f"Pulumi exited with code {code}."


def _kind(token: str) -> str:
    return token.rpartition(":")[2]


def _name(urn: str) -> str:
    return urn.rpartition("::")[2]


def _inputs(state: Mapping[str, Any] | None) -> Inputs | None:
    return None if state is None else state.get("inputs") or {}
