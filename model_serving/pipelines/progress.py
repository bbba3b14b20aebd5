"""Pulumi's progress as plain lines, for job logs without a cursor."""

import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

QUIET_SECONDS: Final = 15
"""Silence after which a line names the operations still running, so that the job does not seem to hang."""
_DONE: Final[Mapping[str, tuple[str, str]]] = {
    "create": ("creating", "created"),
    "update": ("updating", "updated"),
    "delete": ("deleting", "deleted"),
    "replace": ("replacing", "replaced"),
    "create-replacement": ("creating replacement", "created replacement"),
    "delete-replaced": ("deleting replaced", "deleted replaced"),
    "import": ("importing", "imported"),
    "import-replacement": ("importing replacement", "imported replacement"),
    "read": ("reading", "read"),
    "read-replacement": ("reading replacement", "read replacement"),
    "refresh": ("refreshing", "refreshed"),
    "discard": ("forgetting", "forgot"),
    "discard-replaced": ("forgetting replaced", "forgot replaced"),
    "remove-pending-replace": ("forgetting replaced", "forgot replaced"),
}
"""Operation of the engine -> its name while it runs and once it is done; other operations change nothing."""
_SHOWN: Final = ("info", "info#err", "warning", "error")


class Progress:
    """Turns events into lines.

    ``redact`` gets whole texts, because a secret may have several lines; ``expected`` is the number of resources that
    will change, if known; ``clock`` returns seconds.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        *,
        redact: Callable[[str], str],
        expected: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write, self._redact, self._expected, self._clock = write, redact, expected, clock
        self._started = self._said = clock()
        self._compared: set[str] = set()
        self._done: set[str] = set()
        self._running: dict[str, tuple[str, float]] = {}
        self._states: dict[str, str] = {}
        self._told: set[str] = set()

    def event(self, event: Mapping[str, Any]) -> None:
        if metadata := event.get("resourcePreEvent", {}).get("metadata"):
            self._begin(metadata, planning=bool(event["resourcePreEvent"].get("planning")))
        elif metadata := event.get("resOutputsEvent", {}).get("metadata"):
            self._end(metadata, planning=bool(event["resOutputsEvent"].get("planning")))
        elif metadata := event.get("resOpFailedEvent", {}).get("metadata"):
            self._running.pop(metadata["urn"], None)
            self._say(f"failed to {metadata['op']} {_called(metadata)}")
        elif diagnostic := event.get("diagnosticEvent"):
            self._diagnostic(diagnostic)
        elif violation := event.get("policyEvent"):
            self.text(f"policy {violation['policyName']} ({violation['enforcementLevel']}): {violation['message']}")
        elif summary := event.get("summaryEvent"):
            counts = [f"{count} {kind}" for kind, count in sorted(summary.get("resourceChanges", {}).items())]
            self._say(", ".join(counts) or "nothing to do")

    def text(self, text: str) -> None:
        """Output of Pulumi or a program, each line marked; repeated texts are printed once."""
        if text.strip() in self._told:
            return
        self._told.add(text.strip())
        for line in self._redact(text).splitlines():
            if line.strip():
                self._write(f"  | {_plain(line)}")
                self._said = self._clock()

    def tick(self) -> None:
        """Call it regularly: it prints a line after QUIET_SECONDS of silence."""
        now = self._clock()
        if now - self._said < QUIET_SECONDS:
            return
        longest = sorted(self._running.values(), key=lambda running: running[1])[:3]
        still = [f"{what} ({_duration(now - since)})" for what, since in longest] or [*self._states.values()][:3]
        if (others := max(len(self._running), len(self._states)) - len(still)) > 0:
            still.append(f"{others} more")
        self._say(f"still {', '.join(still)}" if still else f"still running, {len(self._compared)} resources compared")

    def _diagnostic(self, diagnostic: Mapping[str, Any]) -> None:
        if diagnostic["severity"] not in _SHOWN:
            return
        if not diagnostic.get("ephemeral"):
            self.text(diagnostic.get("prefix", "") + diagnostic["message"])
        # What the program waits for, e.g. the pods of a version, which is no operation of the engine's.
        elif state := diagnostic["message"].strip():
            self._states[diagnostic.get("urn", "")] = f"waiting: {state}"
        else:
            self._states.pop(diagnostic.get("urn", ""), None)

    def _begin(self, metadata: Mapping[str, Any], *, planning: bool) -> None:
        self._compared.add(metadata["urn"])
        if not _counts(metadata):
            return
        if planning:
            self._say(f"would {metadata['op']} {_called(metadata)}")
            return
        what = f"{_DONE[metadata['op']][0]} {_called(metadata)}"
        self._running[metadata["urn"]] = (what, self._clock())
        self._say(what)

    def _end(self, metadata: Mapping[str, Any], *, planning: bool) -> None:
        if planning or not _counts(metadata):
            return
        self._done.add(metadata["urn"])
        self._states.pop(metadata["urn"], None)
        _, since = self._running.pop(metadata["urn"], ("", self._clock()))
        number = f"{len(self._done)}/{max(self._expected, len(self._done))} " if self._expected else ""
        took = _duration(self._clock() - since)
        self._say(f"{number}{_DONE[metadata['op']][1]} {_called(metadata)} in {took}")

    def _say(self, what: str) -> None:
        self._said = self._clock()
        self._write(f"[{_duration(self._said - self._started)}] {_plain(self._redact(what))}")


def _counts(metadata: Mapping[str, Any]) -> bool:
    """Whether it changes an actual resource, not a component or the stack itself."""
    state = metadata.get("new") or metadata.get("old") or {}
    return metadata["op"] in _DONE and bool(state.get("custom")) and not metadata["type"].startswith("pulumi:")


def _called(metadata: Mapping[str, Any]) -> str:
    return f"{metadata['type'].rpartition(':')[2]} {metadata['urn'].rpartition('::')[2]}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02}s"


def _plain(line: str) -> str:
    """One line without escape sequences and without commands to GitHub's runner."""
    # https://github.com/actions/runner reads `##[command]` anywhere in a line, and `::command::` at its start.
    return re.sub(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]", "", line).replace("##[", "## [")
