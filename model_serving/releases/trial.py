"""Loads a release in a local MLServer and checks its contract, as the serving side will.

MLServer is started by the launcher of the images (server/launcher), which also says why a model cannot be loaded. It
runs in the environment of the model's lock, which may differ from that of this process. It listens only on loopback,
and ends with this process, however that ends.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from model_serving.catalog.requirements import locked, normal
from model_serving.problems import InvalidInput, Problem, first_few
from model_serving.stack.models import ANSWER_SECONDS
from server import contract, launcher, tensors
from server.contract import Answer, Ask, Broken, Contract, Door

READY_SECONDS: Final = 180.0
"""MLServer itself needs 3 s on an idle machine; the rest is for a large model on a busy one."""
CONTRACT_SECONDS: Final = 60.0
STOP_SECONDS: Final = 10.0
PAUSE_SECONDS: Final = 0.1
SHOWN_LINES: Final = 25
_SHOWN_PACKAGES: Final = 10
_CHATTER: Final = re.compile(r"^INFO: |\] INFO - ")
_LAUNCHER: Final = "model_serving_launcher"
"""The launcher's name in an image, and so here: a model may have a module named server."""
_INSTALLED: Final = """
import importlib.metadata, json
print(json.dumps({each.metadata["Name"]: each.version for each in importlib.metadata.distributions()}))
"""
_START: Final = f"""
import os, runpy, threading

def end_with_parent():
    os.read(0, 1)
    os._exit(1)

threading.Thread(target=end_with_parent, daemon=True).start()
runpy.run_module("{_LAUNCHER}.main", run_name="__main__")
"""
"""The launcher of the images. It ends when the pipe from this process closes: a killed job leaves no server behind."""


def problems(python: str, lock: Path) -> Sequence[Problem]:
    """Packages of an interpreter's environment that differ from the lock; those in only one of the two do not count."""
    try:
        done = subprocess.run([python, "-c", _INSTALLED], capture_output=True, encoding="utf-8", timeout=60, check=True)
        installed = {normal(name): version for name, version in json.loads(done.stdout).items()}
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return [_wrong(f"{python} does not run: {error}", "Name the right Python: --python PATH")]
    remedy = f"Install the lock into it, uv pip sync --require-hashes {lock.name}, or name another one: --python PATH"
    if "mlserver" not in installed:
        return [_wrong(f"{python} has no mlserver", remedy)]
    wanted = locked(lock.read_text(encoding="utf-8", errors="replace"))
    others = [
        f"{name} is {installed[name]}, locked {' or '.join(sorted(package.versions))}"
        for name, package in sorted(wanted.items())
        if name in installed and package.versions and installed[name] not in package.versions
    ]
    if not others:
        return []
    return [_wrong(f"{python} has other packages: {first_few(others, _SHOWN_PACKAGES, '; ')}", remedy)]


def run(
    folder: Path,
    *,
    name: str,
    version: str,
    python: str,
    ready_seconds: float = READY_SECONDS,
    contract_seconds: float = CONTRACT_SECONDS,
    answer_seconds: float = ANSWER_SECONDS,
) -> bool:
    """Serves a complete release for a moment, with an interpreter whose environment has MLServer.

    Args:
        folder: of the release.
        name: of the model.
        version: of the model.
        python: the interpreter.
        ready_seconds: for the model to load.
        contract_seconds: for the first right answer after that.
        answer_seconds: for which each answer may take.

    Returns:
        Whether it has a contract; without one, it is only loaded.

    Raises:
        InvalidInput: if it cannot be loaded, or does not keep its contract.
    """
    try:
        promised = contract.read(folder)
    except Broken as broken:
        expected, came = broken.args
        raise InvalidInput.of(
            "request.json and response.json",
            f"expected: {expected}; there is: {came}",
            "The model could not be tried.",
            "Correct the file.",
        ) from None
    with _server(folder, name=name, version=version, python=python) as server:
        server.wait(f"/v2/models/{name}/versions/{version}/ready", seconds=ready_seconds)
        if promised:
            seconds = {"seconds": contract_seconds, "answer_seconds": answer_seconds}
            _ask(promised, server, name=name, version=version, **seconds)
    return promised is not None


@dataclass(frozen=True, kw_only=True)
class _Server:
    title: str
    process: subprocess.Popen[bytes]
    port: int
    output: Path
    reason: Path

    def failure(self, how: str) -> InvalidInput:
        """The error of a server that does not serve, with its reason, or else its log except for MLServer's chatter."""
        if reason := self.reason.read_text(encoding="utf-8", errors="replace"):
            return InvalidInput.of(
                "model-settings.json",
                reason,
                "Nothing was released: its pods would fail the same way.",
                "Correct it. `publish --dry-run` tries it on a laptop.",
            )
        lines = self.output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        log = [f"    {line}" for line in lines if not _CHATTER.search(line)][-SHOWN_LINES:]
        return InvalidInput.of(
            "model-settings.json",
            "\n".join([f"{self.title} cannot be served: {how}. Its last words:", *log]),
            "Nothing was released: its pods would fail the same way.",
            "Correct what it says. `publish --dry-run` tries it on a laptop.",
        )

    def wait(self, path: str, *, seconds: float) -> None:
        """Waits until a path answers 200."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check()
            if self._status(path) == http.client.OK:
                return
            time.sleep(PAUSE_SECONDS)
        raise self.failure(f"it was not loaded within {seconds:g} s")

    def check(self) -> None:
        """Raises InvalidInput if the server has ended."""
        if self.process.poll() is not None:
            raise self.failure(f"MLServer ended with {self.process.returncode}")

    def ask(self, path: str, request: Mapping[str, Any]) -> Ask:
        """Asks a model for as long as the server lives."""
        once = Door(f"http://127.0.0.1:{self.port}").ask(path, request)

        def while_it_lives(*, seconds: float) -> Answer:
            self.check()
            return once(seconds=seconds)

        return while_it_lives

    def _status(self, path: str) -> int:
        """HTTP status; 0 if there is no answer yet."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()


@contextmanager
def _server(folder: Path, *, name: str, version: str, python: str) -> Iterator[_Server]:
    with tempfile.TemporaryDirectory(prefix="trial-", ignore_cleanup_errors=True) as scratch, socket.socket() as held:
        # A copy: a model's own code may write beside itself, which must not become part of the release.
        shutil.copytree(folder, Path(scratch) / "models" / name)
        shutil.copytree(Path(launcher.__path__[0]), Path(scratch) / "code" / _LAUNCHER)
        # A port that was only looked up could belong to another program, and the answers to another model, by the time
        # MLServer binds it. Bound but not listening: early connections are refused instead of queued.
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        output, reason = Path(scratch) / "log", Path(scratch) / "reason"
        reason.touch()
        command = [python, "-c", _START, str(Path(scratch) / "models"), "--socket", str(held.fileno())]
        with output.open("wb") as log:
            process = subprocess.Popen(
                [*command, "--termination-log", str(reason)],
                cwd=scratch,
                env=_environment(Path(scratch), port),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[held.fileno()],
            )
        try:
            yield _Server(title=f"{name} {version}", process=process, port=port, output=output, reason=reason)
        finally:
            _stop(process)


def _environment(scratch: Path, port: int) -> dict[str, str]:
    """The environment of this process, without MLServer's settings and without tokens."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.upper().startswith("MLSERVER_") and "TOKEN" not in key.upper()
    }
    return kept | {
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_HTTP_PORT": str(port),
        # Not used: any free port will do.
        "MLSERVER_GRPC_PORT": "0",
        "MLSERVER_METRICS_PORT": "0",
        "MLSERVER_DEBUG": "false",
        "MLSERVER_PARALLEL_WORKERS": "0",
        # By default beside the root of the file system, where not every account may write.
        "MLSERVER_ENVIRONMENTS_DIR": str(scratch / "environments"),
        # Worker processes write their metrics there; by default, into the working directory.
        "PROMETHEUS_MULTIPROC_DIR": str(scratch),
        "MLSERVER_METRICS_DIR": str(scratch),
        "PYTHONPATH": str(scratch / "code"),
        "PYTHONUNBUFFERED": "1",
    }


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin:
        process.stdin.close()


def _ask(
    promised: Contract, server: _Server, *, name: str, version: str, seconds: float, answer_seconds: float
) -> None:
    path = f"/v2/models/{name}/versions/{version}/infer"
    ask = server.ask(path, promised.request)
    try:
        contract.fulfil(promised, ask, model=name, version=version, seconds=seconds, answer_seconds=answer_seconds)
    except Broken as broken:
        expected, came = broken.args
        raise InvalidInput.of(
            "response.json" if promised.response else "request.json",
            f"{name} {version} does not keep its contract.\n"
            f"  asked: POST {path} {tensors.shown(json.dumps(promised.request))}\n"
            f"  came back: {came}\n"
            f"  expected: {expected}",
            "Nothing was released: the serving side would not move any traffic to it.",
            contract.remedy(promised, broken, "Correct the model, or the contract, and tag the next version."),
        ) from None


def _wrong(what: str, remedy: str) -> Problem:
    return Problem(
        file="environment of the model",
        what=what,
        consequence="The trial would not show how the locked packages serve the model.",
        remedy=remedy,
    )
