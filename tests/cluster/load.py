"""Constant load on a model through the gateway, by wrk, which hides no error.

wrk and not a client in Go or Python: it never sends a request again by itself. Go's HTTP client repeats one whose
kept-alive connection was closed under it, and what a caller would have seen as a failure would not be counted.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

SCRIPT: Final = Path(__file__).with_name("load.lua")
LONGEST_SECONDS: Final = 600
"""A bound on a run whose test forgot it; a test ends its load itself."""
ANSWER_SECONDS: Final = 60
ENVOY_FLUSH_SECONDS: Final = 11
"""Envoy writes its access log every 10 s."""
KINDS: Final = {"kept-alive connections": (), "a new connection per request": ("Connection: close",)}
_LOGGED: Final = re.compile(r'^\[([^\]]+)\] "\S+ \S+ \S+" (\d{3}) (\S+)')


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A request that was not answered with 200.

    Attributes:
        what: the status, or what became of the connection.
        text: the beginning of the answer.
        sent: when it was sent, in seconds since the epoch.
        at: when its failure was seen.
    """

    kind: str
    what: str
    text: str
    sent: float
    at: float

    def __str__(self) -> str:
        when = dt.datetime.fromtimestamp(self.sent, dt.UTC).time().isoformat("milliseconds")
        return f"{when} UTC, after {(self.at - self.sent) * 1000:.0f} ms, {self.kind}: {self.what} {self.text}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a load saw.

    Attributes:
        answered: answers by the kind of connection.
        versions: answers by the model's version.
        longest: milliseconds of the slowest answer.
    """

    answered: dict[str, int]
    versions: Counter[str]
    failures: tuple[Failure, ...]
    seconds: float
    p50: float
    p99: float
    longest: float

    @property
    def total(self) -> int:
        return sum(self.answered.values())

    def __str__(self) -> str:
        return (
            f"{len(self.failures)} of {self.total} failed, {self.total / self.seconds:.0f}/s, "
            f"p50 {self.p50:.0f} ms, p99 {self.p99:.0f} ms, longest {self.longest:.0f} ms"
        )

    def check(self, gateway_log: Path) -> None:
        """Fails if a request did, and says when and what the gateway took down about it."""
        if not self.failures:
            return
        time.sleep(ENVOY_FLUSH_SECONDS)
        shown = "\n".join(f"  {failure}" for failure in self.failures[:20])
        lines = "\n".join(f"  {line}" for line in [*refused(gateway_log, since=self.failures[0].sent)][:20])
        raise AssertionError(f"{self}\n{shown}\nthe gateway's log, with its response flags:\n{lines}")


def refused(gateway_log: Path, *, since: float) -> Iterator[str]:
    """Lines of Envoy's access log about requests that it did not answer with 200, or not in full."""
    for line in gateway_log.read_text(encoding="utf-8", errors="replace").splitlines():
        if not (logged := _LOGGED.match(line)):
            continue
        at = dt.datetime.fromisoformat(logged[1].replace("Z", "+00:00")).timestamp()
        if at >= since - 1 and (logged[2] != "200" or logged[3] != "-"):
            yield line[:300]


class _Generator:
    """One wrk, read while it runs."""

    def __init__(self, kind: str, command: Sequence[str]) -> None:
        self._kind = kind
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._answers: dict[str, int] = {}
        self._other: list[str] = []
        self.failures: list[Failure] = []
        self.report: dict[str, Any] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def answered(self) -> int:
        return sum([*self._answers.values()])

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            word, _, rest = line.strip().partition(" ")
            if word == "progress":
                thread, count = rest.split()
                self._answers[thread] = int(count)
            elif word == "failure":
                self.failures.append(Failure(kind=self._kind, **json.loads(rest)))
            elif word == "report":
                self.report = json.loads(rest)
            else:
                self._other.append(line)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(ANSWER_SECONDS)
        self._reader.join()
        assert self.report, "".join(self._other)


class Load:
    """Requests to a model, one after the other on each of a few connections, until the end of the block.

    Half of the connections are kept alive, half are made anew for each request. ``report`` is there afterwards.

    Args:
        url: what is asked.
        body: file with the request.
        connections: of each kind.
        pause_milliseconds: between an answer and the next request; without it the load is as fast as the answers.
    """

    def __init__(self, url: str, body: Path, *, connections: int = 2, pause_milliseconds: int = 0) -> None:
        self._url = url
        self._body = body
        self._connections = str(connections)
        self._pause = str(pause_milliseconds)
        self._generators: dict[str, _Generator] = {}
        self._report: Report | None = None

    def _command(self, headers: Sequence[str]) -> list[str]:
        return [
            "wrk",
            *("--threads", self._connections, "--connections", self._connections),
            *("--duration", f"{LONGEST_SECONDS}s", "--timeout", f"{ANSWER_SECONDS}s"),
            *("--script", str(SCRIPT), self._url, "--", str(self._body), self._pause, *headers),
        ]

    def __enter__(self) -> Load:
        self._generators = {kind: _Generator(kind, self._command(headers)) for kind, headers in KINDS.items()}
        self.wait_for(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for generator in self._generators.values():
            generator.stop()
        self._report = self._summary()

    @property
    def answered(self) -> int:
        """Answers so far."""
        return sum(generator.answered for generator in self._generators.values())

    @property
    def failed(self) -> int:
        """Failures so far."""
        return sum(len(generator.failures) for generator in self._generators.values())

    def wait_for(self, answers: int, *, seconds: float = LONGEST_SECONDS) -> None:
        """Waits for so many answers more."""
        wanted = self.answered + answers
        deadline = time.monotonic() + seconds
        while self.answered < wanted:
            assert time.monotonic() < deadline, f"{self.answered} answers of {wanted} after {seconds} s"
            time.sleep(0.05)

    @property
    def report(self) -> Report:
        assert self._report, "the load is not over"
        return self._report

    def _summary(self) -> Report:
        reports = {kind: generator.report for kind, generator in self._generators.items()}
        failures = [failure for generator in self._generators.values() for failure in generator.failures]
        versions: Counter[str] = Counter()
        for report in reports.values():
            versions.update(report["versions"])
        return Report(
            answered={kind: report["answered"] for kind, report in reports.items()},
            versions=versions,
            failures=tuple(sorted(failures, key=lambda failure: failure.sent)),
            seconds=max(report["seconds"] for report in reports.values()),
            # The slower kind's: their samples are not at hand to be merged.
            p50=max(report["p50"] for report in reports.values()),
            p99=max(report["p99"] for report in reports.values()),
            longest=max(report["longest"] for report in reports.values()),
        )
