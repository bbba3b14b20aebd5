"""Runs the real engine on a project, with the clouds stood in for, and reads what it did."""

from __future__ import annotations

import base64
import contextlib
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from tests.engine.api_standin import LOGIN, ApiStandin
from tests.engine.provider import merged

ROOT: Final = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS: Final = 120
END_SECONDS: Final = 10
STANDINS: Final = ("gcp", "kubernetes", "docker-build", "gitlab")
ENDPOINT: Final = "STANDIN_CLUSTER_DNS_ENDPOINT"
AUTHORITY: Final = "STANDIN_CLUSTER_AUTHORITY"
"""Environment variables with the address of the run's API server, and the file of its certificate."""
_TAIL_LINES: Final = 60
_BEGUN: dict[tuple[str, str], tuple[str, dict[str, bytes]]] = {}
"""Project and stack to the salt of its secrets, and the files of its backend before its first update."""
_NOT_PASSED_ON: Final = ("PULUMI_", "GOOGLE_", "PYTHON")


@dataclass(frozen=True, kw_only=True)
class Step:
    """What the engine did with one resource."""

    operation: str
    token: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command did.

    Attributes:
        changes: operation to number of resources, as the summary has it; ``same`` and the stack itself left out.
        steps: every resource that was not left as it was, in the engine's order.
        errors: what the engine or a provider said went wrong.
    """

    command: str
    code: int
    text: str
    seconds: float
    changes: Mapping[str, int] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    errors: tuple[str, ...] = ()

    def __str__(self) -> str:
        tail = "\n".join(self.text.splitlines()[-_TAIL_LINES:])
        did = f"{self.command}: exit code {self.code} after {self.seconds:.1f} s, {dict(self.changes)}"
        return "\n".join([did, tail, *self.errors])

    def names(self, operation: str) -> set[str]:
        return {step.name for step in self.steps if step.operation == operation}


class Unexpected(AssertionError):
    """A command ended otherwise than the test expected; the text is the command and the end of what it printed."""


class Cloud:
    """What the stand-ins hold, to read and to change behind the engine's back."""

    def __init__(self, folder: Path, *, is_new: bool = True) -> None:
        self.folder = folder
        self.faults = folder / "faults.json"
        folder.mkdir(parents=True, exist_ok=not is_new)

    def resources(self, package: str = "gcp") -> dict[str, dict[str, Any]]:
        """Token and id, ``token::id``, to what the cloud holds."""
        path = self.folder / f"{package}.json"
        found: dict[str, dict[str, Any]] = json.loads(path.read_text())["resources"] if path.exists() else {}
        return found

    def of(self, token: str) -> dict[str, Any]:
        """The outputs of the one resource of a type."""
        (found,) = (each for each in self.resources(token.partition(":")[0]).values() if each["token"] == token)
        outputs: dict[str, Any] = found["outputs"]
        return outputs

    def drift(self, token: str, *, name: str | None = None, **properties: Any) -> None:
        """Changes the one resource of a type, or that of a name in the program, as somebody at a console would."""
        self._rewrite(token, name, lambda resource: resource["outputs"].update(properties))

    def lose(self, token: str) -> None:
        """Deletes the one resource of a type, as somebody at a console would."""
        self._rewrite(token, None, None)

    def fail(self, *faults: Mapping[str, Any]) -> None:
        """What goes wrong from now on, see tests.engine.provider.Faults; nothing, if nothing is given."""
        # At once: the stand-ins look all the time.
        scratch = self.faults.with_suffix(".new")
        scratch.write_text(json.dumps(faults))
        scratch.replace(self.faults)

    def _rewrite(self, token: str, name: str | None, change: Any) -> None:
        path = self.folder / f"{token.partition(':')[0]}.json"
        content = json.loads(path.read_text())
        (key,) = (
            key for key, each in content["resources"].items() if each["token"] == token and name in (None, each["name"])
        )
        if change is None:
            del content["resources"][key]
        else:
            change(content["resources"][key])
        path.write_text(json.dumps(content))


class Project:
    """A folder with a program, a stack of its own and a cloud of its own."""

    def __init__(self, folder: Path, home: Path, cloud: Cloud, stack: str, *, is_new: bool = True) -> None:
        self.folder, self.cloud, self.stack = folder, cloud, stack
        backend = folder.parent / f"{folder.name}-state"
        backend.mkdir(exist_ok=not is_new)
        self.environment = {
            # PYTHON…: whoever runs the tests may forbid bytecode, which a program that runs every day has.
            **{key: value for key, value in os.environ.items() if not key.startswith(_NOT_PASSED_ON)},
            "PATH": search_path(home),
            "PULUMI_BACKEND_URL": f"file://{backend}?metadata=skip",
            "PULUMI_HOME": str(home),
            "PULUMI_CONFIG_PASSPHRASE": "stand-in",
            "PULUMI_DEBUG_COMMANDS": "true",  # for --event-log
            "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "STANDIN_STATE": str(cloud.folder),
            "STANDIN_FAULTS": str(cloud.faults),
            "STANDIN_TYPES": str(home / "types"),
        }
        if ENDPOINT in os.environ:
            # The program asks for the cluster's status there.
            self.environment["GOOGLE_CONTAINER_CUSTOM_ENDPOINT"] = f"https://{os.environ[ENDPOINT]}/"
        if AUTHORITY in os.environ:
            # The kubeconfig has none, because Google's front door has a public certificate.
            self.environment["SSL_CERT_FILE"] = os.environ[AUTHORITY]
        self._backend = backend
        if is_new:
            self._begin()

    @property
    def settings_file(self) -> Path:
        folder = self.folder / "stacks"
        return (folder if folder.is_dir() else self.folder) / f"Pulumi.{self.stack}.yaml"

    def settings(self) -> str:
        return self.settings_file.read_text()

    def edit_settings(self, old: str, new: str) -> None:
        assert old in self.settings(), old
        self.settings_file.write_text(self.settings().replace(old, new))

    def set_settings(self, section: str, content: Mapping[str, Any], *, over: bool = False) -> None:
        """Writes a section of the stack file; ``over``: into what is there."""
        file = yaml.safe_load(self.settings())
        before = file["config"].get(f"model-serving:{section}", {})
        file["config"][f"model-serving:{section}"] = merged(before, content) if over else content
        self.settings_file.write_text(yaml.safe_dump(file))

    def preview(self, *, fails: bool = False) -> Outcome:
        return self.run("preview", fails=fails)

    def up(self, *, fails: bool | None = False, keep_going: bool = False) -> Outcome:
        """``keep_going``: one resource's failure stops only those that need it."""
        options = ("--continue-on-error",) if keep_going else ()
        return self.run("up", "--yes", "--skip-preview", *options, fails=fails)

    def refresh(self, *, fails: bool = False) -> Outcome:
        return self.run("refresh", "--yes", "--skip-preview", fails=fails)

    def destroy(self, *, fails: bool = False) -> Outcome:
        return self.run("destroy", "--yes", "--skip-preview", fails=fails)

    def export(self) -> str:
        """The state as whoever may read the backend finds it."""
        (path,) = (self._backend / ".pulumi" / "stacks").glob(f"*/{self.stack}.json")
        return path.read_text()

    def all_resources(self) -> list[dict[str, Any]]:
        """What the state holds."""
        found: list[dict[str, Any]] = json.loads(self.export())["checkpoint"]["latest"].get("resources", [])
        return found

    def outputs(self) -> str:
        """The stack's outputs as JSON; secret ones are encrypted."""
        (stack,) = (each for each in self.all_resources() if each["type"] == "pulumi:pulumi:Stack")
        return json.dumps(stack["outputs"])

    def resources(self) -> list[dict[str, Any]]:
        """What the state holds, the stack, components and providers left out."""
        listed = self.all_resources()
        return [each for each in listed if each.get("custom") and not each["type"].startswith("pulumi:providers:")]

    def _begin(self) -> None:
        """``pulumi stack init``, which takes a second, once for each name of a stack; then what it wrote."""
        project = yaml.safe_load((self.folder / "Pulumi.yaml").read_text())["name"]
        if (project, self.stack) not in _BEGUN:
            before = self.settings() if self.settings_file.exists() else ""
            self.run("stack", "init", self.stack, "--secrets-provider", "passphrase")
            (salt,) = re.findall(r"^encryptionsalt: .*$", self.settings(), re.MULTILINE)
            self.settings_file.write_text(before)
            files = (path for path in self._backend.rglob("*") if path.is_file())
            _BEGUN[project, self.stack] = (
                salt,
                {str(path.relative_to(self._backend)): path.read_bytes() for path in files},
            )
        salt, files_of_stack = _BEGUN[project, self.stack]
        for name, content in files_of_stack.items():
            path = self._backend / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        with self.settings_file.open("a") as file:
            file.write(f"{salt}\n")

    def run(self, *arguments: str, fails: bool | None = False) -> Outcome:
        """One command of the CLI.

        Args:
            fails: whether it is expected to fail; None takes either.

        Raises:
            Unexpected: if it fails and should not have, the other way round, or is not done in time.
        """
        log = self.folder.parent / f"{self.folder.name}-events.json"
        log.unlink(missing_ok=True)
        acts = arguments[0] in ("preview", "up", "refresh", "destroy")
        command = ["pulumi", *arguments, "--non-interactive", *(("--event-log", str(log)) if acts else ())]
        command += ["--stack", self.stack] if arguments[0] != "plugin" and arguments[:2] != ("stack", "init") else []
        started = time.monotonic()
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if acts else subprocess.PIPE,
            text=True,
        ) as process:
            try:
                printed, complaints = process.communicate(timeout=TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                printed = _end(process)
                raise Unexpected(f"{arguments[0]} was not done after {TIMEOUT_SECONDS} s\n{printed}") from None
        outcome = Outcome(
            command=f"pulumi {' '.join(arguments)} ({self.stack})",
            code=process.returncode,
            text=printed + (complaints or "" if process.returncode else ""),
            seconds=time.monotonic() - started,
            **(_events(log) if acts else {}),
        )
        if fails is not None and bool(outcome.code) != fails:
            raise Unexpected(f"expected {'failure' if fails else 'success'}. {outcome}")
        return outcome


@contextlib.contextmanager
def cluster_api() -> Iterator[None]:
    """An API server of every cloud's cluster, for projects that this process makes within the block."""
    with tempfile.TemporaryDirectory(prefix="api-standin-") as name:
        folder = Path(name)
        server = ApiStandin(folder)
        named = {
            ENDPOINT: server.endpoint,
            AUTHORITY: str(server.authority),
            "STANDIN_TYPES": str(folder / "types"),
        }
        os.environ |= named
        try:
            yield
        finally:
            for variable in named:
                del os.environ[variable]
            server.close()


def whole_project(folder: Path, home: Path, stack: str) -> Project:
    """A copy of this project with one of its stacks, in a folder of its own."""
    copy = copy_of_project(folder / stack)
    return Project(copy, home, Cloud(folder / f"{stack}-cloud"), stack)


def twin(original: Path, folder: Path, home: Path, stack: str) -> Project:
    """What whole_project made in one folder, in another one: with its state, and with a cloud of its own."""
    shutil.copytree(original, folder, symlinks=True)
    return Project(folder / stack, home, Cloud(folder / f"{stack}-cloud", is_new=False), stack, is_new=False)


def copy_of_project(target: Path) -> Path:
    """The checkout as it would be committed now."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    (target / ".venv").symlink_to(environment_folder())
    # The stacks' own secrets provider is a key in the cloud; here it is a passphrase.
    for path in (target / "stacks").glob("Pulumi.*.yaml"):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text(
            "".join(x for x in lines if not x.startswith(("secretsprovider:", "encryptedkey:", "encryptionsalt:")))
        )
    return target


def small_project(target: Path, program: str, config: Mapping[str, str]) -> Path:
    """A project of one file."""
    target.mkdir(parents=True)
    (target / ".venv").symlink_to(environment_folder())
    (target / "Pulumi.yaml").write_text(
        "name: small\nruntime: {name: python, options: {virtualenv: .venv}}\n"
        + f"config: {json.dumps({key: {'value': value} for key, value in config.items()})}\n"
    )
    (target / "__main__.py").write_text(program)
    return target


def pulumi_home(target: Path, standins: Iterable[str] = STANDINS, socket: Path | None = None) -> Path:
    """A PULUMI_HOME whose plugins are stand-ins, and for the packages left out those that were built.

    ``socket``: of the process that serves the stand-ins, see tests/engine/residents.py; without it each is one.
    """
    standins = tuple(standins)
    for package in standins:
        version = importlib.metadata.version(f"pulumi-{package}")
        folder = target / "plugins" / f"resource-{package}-v{version}"
        folder.mkdir(parents=True)
        plugin = folder / f"pulumi-resource-{package}"
        start = f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -m tests.engine.standin {package}'
        if socket:
            client = Path(__file__).with_name("plugin.py")
            start = f'STANDIN_SOCKET="{socket}" exec "{sys.executable}" -I -S "{client}" {package}'
        plugin.write_text(f'#!/bin/sh\nSTANDIN_VERSION="{version}" {start}\n')
        plugin.chmod(0o755)
    for built in (ROOT / ".state" / "pulumi" / "plugins").iterdir():
        if built.is_dir() and built.name.partition("-")[2].rpartition("-v")[0] not in standins:
            shutil.copytree(built, target / "plugins" / built.name, symlinks=True)
    if not (found := shutil.which("pulumi", path=f"{ROOT / '.state' / 'bin'}{os.pathsep}{os.environ['PATH']}")):
        raise FileNotFoundError("pulumi is neither in .state/bin nor on PATH: run `make tools`")
    (target / "bin").mkdir(parents=True)
    (target / "bin" / "pulumi").symlink_to(found)
    login = target / "bin" / "gke-gcloud-auth-plugin"
    login.write_text(LOGIN)
    login.chmod(0o755)
    return target


def search_path(home: Path) -> str:
    """PATH without real providers: the engine prefers those on PATH to those in PULUMI_HOME."""
    others = (x for x in os.environ["PATH"].split(os.pathsep) if not any(Path(x).glob("pulumi-resource-*")))
    return os.pathsep.join([str(home / "bin"), *others])


def environment_folder() -> Path:
    return Path(sys.prefix)


def plain_secrets(text: str, *secrets: str) -> list[str]:
    """Those of the secrets that a text shows, as they are or in base64."""
    return [each for each in secrets if each in text or base64.b64encode(each.encode()).decode().rstrip("=") in text]


def _end(process: subprocess.Popen[str]) -> str:
    """Ends a command with its plugins and its program, which would ask for a killed engine forever; what it printed.

    At the second interrupt Pulumi no longer waits for what it has begun.
    """
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGKILL):
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=END_SECONDS)[0]
    return ""


def _events(log: Path) -> dict[str, Any]:
    changes: Counter[str] = Counter()
    steps, errors = [], []
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
        event = json.loads(line)
        if summary := event.get("summaryEvent"):
            changes.update({key: count for key, count in summary["resourceChanges"].items() if key != "same"})
        elif metadata := event.get("resourcePreEvent", {}).get("metadata"):
            if metadata["op"] != "same" and metadata["type"] != "pulumi:pulumi:Stack":
                name = metadata["urn"].rpartition("::")[2]
                steps.append(Step(operation=metadata["op"], token=metadata["type"], name=name))
        elif (diagnostic := event.get("diagnosticEvent")) and diagnostic["severity"] == "error":
            errors.append(diagnostic["message"])
    return {"changes": dict(changes), "steps": tuple(steps), "errors": tuple(errors)}
