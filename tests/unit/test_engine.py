"""How Pulumi is run and what is said meanwhile, with a small program in Pulumi's place."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_serving.pipelines import engine
from model_serving.pipelines.progress import QUIET_SECONDS, Progress
from model_serving.pipelines.redact import Redactor

EVENTS = [
    {"sequence": 1, "diagnosticEvent": {"severity": "warning", "prefix": "warning: ", "message": "the key is s3cr3t"}},
    {"sequence": 2, "diagnosticEvent": {"severity": "debug", "message": "noise"}},
    {"sequence": 3, "summaryEvent": {"resourceChanges": {"update": 1, "same": 2}}},
]


@pytest.fixture
def pulumi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a Python program in Pulumi's place."""

    def place(program: str) -> None:
        path = tmp_path / "bin" / "pulumi"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!{sys.executable}\nimport json, os, signal, sys, time\n{program}")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")

    return place


def test_events_texts_and_the_exit_code_come_through_and_what_is_printed_is_redacted(
    pulumi: Callable[[str], None],
) -> None:
    pulumi(
        f"[print(json.dumps(event)) for event in {EVENTS!r}]\n"
        "print('plain s3cr3t', file=sys.stderr)\n"
        'print(\'{"not": "an event"}\')\n'
        "sys.exit(7)\n"
    )
    events: list[Any] = []
    texts: list[str] = []
    out = io.StringIO()
    code = engine.run(
        ["preview", "--stack", "dev"],
        redactor=Redactor(["s3cr3t"]),
        on_event=events.append,
        on_text=texts.append,
        out=out,
    )
    assert code == 7
    assert events == EVENTS
    assert sorted(texts) == ["plain s3cr3t", '{"not": "an event"}']
    assert "  | warning: the key is [secret]\n" in out.getvalue()
    assert "  | plain [secret]\n" in out.getvalue()
    assert "2 same, 1 update" in out.getvalue()
    assert "noise" not in out.getvalue()


def test_pulumi_is_told_to_print_events_without_colours(pulumi: Callable[[str], None]) -> None:
    pulumi("print(sys.argv[1:], os.environ['PULUMI_ENABLE_STREAMING_JSON_PREVIEW'])")
    texts: list[str] = []
    engine.run(["up", "--stack", "dev"], redactor=Redactor([]), on_text=texts.append, out=io.StringIO())
    assert texts == ["['up', '--json', '--non-interactive', '--color', 'never', '--stack', 'dev'] true"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_pulumi_once_and_its_end_is_awaited(
    pulumi: Callable[[str], None], tmp_path: Path, number: signal.Signals
) -> None:
    got = tmp_path / "got"
    pulumi(
        "def note(number, _):\n"
        f"    open({str(got)!r}, 'a').write(f'{{number}} ')\n"
        "    time.sleep(0.3)\n"
        "    sys.exit(3)\n"
        "signal.signal(signal.SIGINT, note)\n"
        "signal.signal(signal.SIGTERM, note)\n"
        "print('ready', flush=True)\n"
        "time.sleep(30)\n"
    )
    began = time.monotonic()
    code = engine.run(["up"], redactor=Redactor([]), on_text=lambda _: os.kill(os.getpid(), number), out=io.StringIO())
    assert code == 3
    assert got.read_text() == f"{number.value} "
    assert time.monotonic() - began < 10
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "the handlers are as they were"


def test_a_terminals_interrupt_of_the_group_does_not_reach_pulumi_twice(
    pulumi: Callable[[str], None], tmp_path: Path
) -> None:
    """A second one would make Pulumi drop everything."""
    got = tmp_path / "got"
    pulumi(
        f"signal.signal(signal.SIGINT, lambda number, _: open({str(got)!r}, 'a').write('x'))\n"
        "print('ready', flush=True)\n"
        "time.sleep(1.5)\n"
    )
    program = "from model_serving.pipelines import engine, redact\nengine.run(['up'], redactor=redact.Redactor([]))\n"
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert child.stdout
    assert "ready" in child.stdout.readline()
    os.killpg(child.pid, signal.SIGINT)
    child.communicate(timeout=20)
    assert got.read_text() == "x"


def test_a_mistake_in_a_callback_leaves_no_pulumi_behind(pulumi: Callable[[str], None], tmp_path: Path) -> None:
    pulumi("print(os.getpid(), flush=True)\ntime.sleep(30)\n")
    pids: list[int] = []

    def fail(line: str) -> None:
        pids.append(int(line))
        raise RuntimeError("mistake")

    with pytest.raises(RuntimeError, match="mistake"):
        engine.run(["up"], redactor=Redactor([]), on_text=fail, out=io.StringIO())
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_plugin_that_outlives_pulumi_is_not_waited_for(pulumi: Callable[[str], None]) -> None:
    pulumi("import subprocess\nsubprocess.Popen(['sleep', '8'])\nsys.exit(4)\n")
    began = time.monotonic()
    assert engine.run(["preview"], redactor=Redactor([]), out=io.StringIO()) == 4
    assert time.monotonic() - began < 6


def test_a_missing_pulumi_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(engine.EngineMissing, match="Run `make tools`"):
        engine.run(["preview"], redactor=Redactor([]), out=io.StringIO())


class Told:
    """Progress with a clock of its own."""

    def __init__(self, expected: int | None = None) -> None:
        self.lines: list[str] = []
        self.now = 0.0
        self.progress = Progress(
            self.lines.append, redact=Redactor(["s3cr3t"]).text, expected=expected, clock=lambda: self.now
        )

    def step(self, event: str, operation: str, name: str, *, planning: bool = False) -> None:
        kind = "kubernetes:apps/v1:Deployment"
        metadata = {
            "op": operation,
            "urn": f"urn:pulumi:dev::p::{kind}::{name}",
            "type": kind,
            "new": {"custom": True},
        }
        self.progress.event({event: {"metadata": metadata, "planning": planning}})


def test_an_update_tells_what_of_how_many_and_how_long() -> None:
    told = Told(expected=2)
    told.step("resourcePreEvent", "create", "iris-1-1")
    told.now = 72
    told.step("resOutputsEvent", "create", "iris-1-1")
    told.step("resourcePreEvent", "same", "other")
    told.step("resourcePreEvent", "update", "s3cr3t")
    told.step("resOpFailedEvent", "update", "s3cr3t")
    assert told.lines == [
        "[0m00s] creating Deployment iris-1-1",
        "[1m12s] 1/2 created Deployment iris-1-1 in 1m12s",
        "[1m12s] updating Deployment [secret]",
        "[1m12s] failed to update Deployment [secret]",
    ]


def test_a_preview_tells_only_what_would_be_done() -> None:
    told = Told()
    for event in ("resourcePreEvent", "resOutputsEvent"):
        told.step(event, "create", "iris-1-1", planning=True)
    assert told.lines == ["[0m00s] would create Deployment iris-1-1"]


def test_silence_is_broken_by_what_is_still_under_way() -> None:
    told = Told()
    told.step("resourcePreEvent", "create", "iris-1-1")
    told.now = QUIET_SECONDS - 1
    told.progress.tick()
    assert len(told.lines) == 1
    told.now = QUIET_SECONDS
    told.progress.tick()
    assert told.lines[-1] == "[0m15s] still creating Deployment iris-1-1 (0m15s)"


def test_silence_is_broken_by_what_the_program_waits_for() -> None:
    told = Told()

    def wait(state: str) -> None:
        diagnostic = {"severity": "info", "urn": "urn", "message": f"{state}\n", "ephemeral": True}
        told.progress.event({"diagnosticEvent": diagnostic})

    def tick() -> str:
        told.now += QUIET_SECONDS
        told.progress.tick()
        return told.lines[-1]

    wait("iris 1.1: 0 of 1 pods are ready")
    assert told.lines == []
    assert tick() == "[0m15s] still waiting: iris 1.1: 0 of 1 pods are ready"
    wait("")
    assert tick() == "[0m30s] still running, 0 resources compared"


def test_nothing_that_pulumi_says_is_a_command_to_the_runner() -> None:
    told = Told()
    told.progress.text("::add-mask::x\n##[group]y\n\x1b[31mred\x1b[0m\rback")
    assert all(line.startswith("  | ") for line in told.lines)
    assert "##[" not in "".join(told.lines)
    assert not {"\x1b", "\r"} & {*"".join(told.lines)}


def test_pulumi_starts_once_its_process_id_is_taken_down(pulumi: Callable[[str], None], tmp_path: Path) -> None:
    started = tmp_path / "started"
    pulumi(f"open({str(started)!r}, 'w').close(); print(os.getpid(), sys.stdin.read() == '')")
    taken: list[int] = []

    def take_down(process: int) -> None:
        taken.append(process)
        assert not started.exists()

    texts: list[str] = []
    engine.run(["up"], redactor=Redactor([]), on_start=take_down, on_text=texts.append, out=io.StringIO())
    assert texts == [f"{taken[0]} True"]


def test_pulumi_never_starts_if_its_process_id_cannot_be_taken_down(
    pulumi: Callable[[str], None], tmp_path: Path
) -> None:
    started = tmp_path / "started"
    pulumi(f"open({str(started)!r}, 'w').close()")

    def fail(_: int) -> None:
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        engine.run(["up"], redactor=Redactor([]), on_start=fail, out=io.StringIO())
    assert not started.exists()
