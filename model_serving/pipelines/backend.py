"""Pulumi's backend, asked through the CLI: the same for a folder and for a bucket."""

import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

import yaml

from model_serving.images import remotes
from model_serving.pipelines import redact
from model_serving.pipelines.engine import EngineMissing
from model_serving.pipelines.redact import Redactor
from model_serving.problems import Failure

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

URL: Final = "PULUMI_BACKEND_URL"
TIMEOUT_SECONDS: Final = 120
_RECENT: Final = 20
"""Entries of the history to search: the newest may be a refresh, or an update without a commit."""
_SCHEMES: Final = {"azblob": "az"}
"""Pulumi's names of schemes -> those of the packages that read them, where they differ."""


class Update(NamedTuple):
    """An update in the stack's history, successful or not, of a commit.

    Attributes:
        commit: that was checked out.
        started: its beginning.
        result: ``succeeded``, ``failed`` or ``in-progress``.
        where: the pipeline that ran it, or a laptop.
    """

    commit: str
    started: datetime
    result: str
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class Backend:
    """The backend of one stack. Methods raise `Failure`; its message contains no secret."""

    stack: str
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    @property
    def url(self) -> str:
        """Its address."""
        if url := self.environ.get(URL):
            return url
        raise Failure(
            f"{URL} is not set.\n"
            "  The locks of the stack are in the backend that it names, and were not looked at.\n"
            "  Set it to the address of the backend, e.g. gs://bucket. `pulumi whoami --verbose` shows it."
        )

    @property
    def project(self) -> str:
        """Name of the project in the current folder."""
        return str(yaml.safe_load(Path("Pulumi.yaml").read_text(encoding="utf-8"))["name"])

    def state(self) -> dict[str, Any]:
        """The last deployment; its secrets are encrypted."""
        return dict(self._json("stack", "export")["deployment"])

    def checkpoint(self) -> dict[str, Any]:
        """The last deployment as in its file, without Pulumi's start; empty if there is none."""
        with reading(self.url) as (files, root), suppress(FileNotFoundError):
            content = files.cat_file(f"{root}/.pulumi/stacks/{self.project}/{self.stack}.json")
            return dict(json.loads(content)["checkpoint"]["latest"] or {})
        return {}

    def outputs(self) -> dict[str, Any]:
        """The outputs of the last update; empty before the first."""
        return dict(self._json("stack", "output", "--json"))

    def change_state(self, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        """Replaces the state; the caller makes sure that no update is running."""
        whole = self._json("stack", "export")
        self._run("stack", "import", text=json.dumps({**whole, "deployment": change(whole["deployment"])}))

    def adopt(self, existing: Iterable[tuple[str, str, str]], *, parent: str, provider: str) -> None:
        """Imports what exists, type, name and ID of each, under a parent and a provider of the state, by URN."""
        resources = [
            {"type": kind, "name": name, "id": identifier, "parent": "parent", "provider": "provider"}
            for kind, name, identifier in existing
        ]
        content = {"nameTable": {"parent": parent, "provider": provider}, "resources": resources}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "import.json"
            file.write_text(json.dumps(content), encoding="utf-8")
            options = ("--protect=false", "--generate-code=false", "--skip-preview", "--yes")
            self._run("import", "--file", str(file), *options)

    def stacks(self) -> list[str]:
        """All stacks of the backend; those of other projects with the project's name in front."""
        return [each["name"] for each in self._json("stack", "ls", "--all", "--json")]

    def last_update(self) -> Update | None:
        """The newest update with a known commit."""
        for entry in self.history():
            known = entry.get("environment", {})
            if entry["kind"] == "update" and (commit := known.get("git.head")):
                where = known.get("ci.build.url") or known.get("ci.system") or "a laptop"
                return Update(commit, datetime.fromisoformat(entry["startTime"]), entry.get("result", ""), where)
        return None

    def history(self) -> list[dict[str, Any]]:
        """The latest updates, newest first."""
        return list(self._json("stack", "history", "--json", "--page-size", str(_RECENT)))

    def tags(self) -> dict[str, str]:
        return dict(self._json("stack", "tag", "ls", "--json"))

    def set_tag(self, name: str, value: str) -> None:
        self._run("stack", "tag", "set", name, value)

    def remove_tag(self, name: str) -> None:
        """Removes a tag, if it exists."""
        self._run("stack", "tag", "rm", name)

    def redactor(self) -> Redactor:
        """Hides the secrets of the stack's configuration and state, and those of the environment."""
        # In parallel: each takes half a second, mostly to decrypt.
        with ThreadPoolExecutor() as pool:
            configuration = pool.submit(self._json, "config", "--show-secrets", "--json")
            state = pool.submit(self._json, "stack", "export", "--show-secrets")
            return redact.for_stack(configuration.result(), state.result(), self.environ)

    def _json(self, *arguments: str) -> Any:
        return json.loads(self._run(*arguments) or "{}")

    def _run(self, *arguments: str, text: str = "") -> str:
        command = ["pulumi", *arguments, "--non-interactive", "--stack", self.stack]
        try:
            return subprocess.run(
                command,
                env=dict(self.environ),
                input=text,
                capture_output=True,
                encoding="utf-8",
                timeout=TIMEOUT_SECONDS,
                check=True,
            ).stdout
        except FileNotFoundError:
            raise EngineMissing from None
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            why = (
                error.stderr if isinstance(error, subprocess.CalledProcessError) else f"no answer in {error.timeout} s"
            )
            said = redact.for_environment(self.environ).text(f"`{shlex.join(command)}` failed: {why.strip()}")
            consequence = "The stack's data in the backend could not be read or written."
            if "--show-secrets" in arguments:
                consequence = "Without the secrets, Pulumi's output cannot be redacted and is not shown."
            raise Failure(
                f"{said}\n  {consequence}\n"
                f"  Check {URL}, that the stack exists, and that you may read its state and decrypt with its key."
            ) from None


@contextmanager
def reading(url: str) -> "Iterator[tuple[AbstractFileSystem, str]]":
    """The files of a backend, and its root among them.

    Raises:
        Failure: if a block with this fails.
    """
    address = urlsplit(url)
    try:
        scheme = _SCHEMES.get(address.scheme, address.scheme)
        yield remotes.filesystem(scheme), f"{address.netloc}{address.path}".rstrip("/")
    except Exception as error:
        raise Failure(
            f"the backend {address.scheme}://{address.netloc}{address.path} cannot be read: {error}\n"
            "  Whether an update is running is not known, so nothing was changed.\n"
            "  Let this account read and write there; backends other than folders and gs:// need the package named.\n"
            "  Once no update is running, `pulumi cancel` removes the lock of a dead one as well."
        ) from None
