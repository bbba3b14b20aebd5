"""What the backend knows of a stack, asked through Pulumi itself: works for a folder and for a bucket alike.

Its tags are the one place beside the state in which something can be left for other jobs: they can be written while the
stack is locked, take any text in the backends of one's own, and need no package for the bucket.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from model_serving.pipelines import redact
from model_serving.problems import Failure

TIMEOUT_SECONDS: Final = 120
_RECENT: Final = 20
"""How far back an update that names its commit is looked for; a refresh or a laptop's update may be newer."""


class BackendError(Failure):
    """The backend could not be asked; the message has three parts and no secret."""


@dataclass(frozen=True, kw_only=True)
class Update:
    """An update as the history has it, whether it succeeded or not.

    Attributes:
        commit: HEAD of the checkout it was started in.
    """

    commit: str
    started: datetime
    result: str


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One stack's."""

    stack: str
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    def state(self) -> dict[str, Any]:
        """The deployment as it was written last; its secrets are ciphertext."""
        deployment: dict[str, Any] = self._json("stack", "export")["deployment"]
        return deployment

    def outputs(self) -> dict[str, Any]:
        """What the last update exported; empty before the first."""
        exported: dict[str, Any] = self._json("stack", "output", "--json")
        return exported

    def change_state(self, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        """Writes the deployment anew; whoever calls this has made sure that nobody updates the stack."""
        whole = self._json("stack", "export")
        self._run("stack", "import", text=json.dumps({**whole, "deployment": change(whole["deployment"])}))

    def stacks(self) -> list[str]:
        """Every stack of the backend, those of other projects with the project in front."""
        return [each["name"] for each in self._json("stack", "ls", "--all", "--json")]

    def last_update(self) -> Update | None:
        """The newest update that tells its commit."""
        for entry in self.history():
            commit = entry.get("environment", {}).get("git.head")
            if entry["kind"] == "update" and commit:
                started = datetime.fromisoformat(entry["startTime"])
                return Update(commit=commit, started=started, result=entry.get("result", ""))
        return None

    def history(self) -> list[dict[str, Any]]:
        """The latest updates, the newest first, as Pulumi tells them."""
        told: list[dict[str, Any]] = self._json("stack", "history", "--json", "--page-size", str(_RECENT))
        return told

    def tags(self) -> dict[str, str]:
        found: dict[str, str] = self._json("stack", "tag", "ls", "--json")
        return found

    def set_tag(self, name: str, value: str) -> None:
        self._run("stack", "tag", "set", name, value)

    def remove_tag(self, name: str) -> None:
        """Removes a tag, also one that is not there."""
        self._run("stack", "tag", "rm", name)

    def cancel(self) -> None:
        """Removes every lock of the stack, living runs' too: who calls this has made sure that there is none."""
        self._run("cancel", "--yes")

    def _json(self, *arguments: str) -> Any:
        return json.loads(self._run(*arguments) or "{}")

    def _run(self, *arguments: str, text: str = "") -> str:
        command = ["pulumi", *arguments, "--non-interactive", "--stack", self.stack]
        try:
            done = subprocess.run(
                command,
                env=dict(self.environ),
                input=text,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except FileNotFoundError:
            raise BackendError(
                "pulumi is not on PATH.\n"
                "  Nothing can be asked of the stack, and nothing was changed.\n"
                '  Run `make tools`, then `eval "$(make env)"`.'
            ) from None
        except subprocess.TimeoutExpired:
            raise self._failed(command, f"no answer in {TIMEOUT_SECONDS} s") from None
        if done.returncode:
            raise self._failed(command, done.stderr)
        return done.stdout

    def _failed(self, command: list[str], why: str) -> BackendError:
        said = redact.for_environment(self.environ).text(f"`{shlex.join(command)}` failed: {why.strip()}")
        return BackendError(
            f"{said}\n"
            "  What the backend knows of the stack could not be read or written.\n"
            "  Check PULUMI_BACKEND_URL, that the stack exists, and that this identity may use the backend."
        )
