"""The command line of the benchmark: ``python -m tests.bench``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tests.bench import checkout, gateway, machine, previews, protocols, release, server, traffic, versions
from tests.bench.figures import Row, Section, document
from tests.bench.progress import Progress

DOCUMENT: Final = checkout.PROJECT / "docs" / "benchmarks.md"
RUNS: Final = 5
Measure = Callable[[checkout.Checkout, int, Progress], Section]
PARTS: Final[Mapping[str, tuple[str, Measure]]] = {
    "preview": (previews.TITLE, previews.measure),
    "release": (release.TITLE, release.measure),
    "traffic": (traffic.TITLE, traffic.measure),
    "gateway": (gateway.TITLE, gateway.measure),
    "server": (server.TITLE, server.measure),
    "protocols": (protocols.TITLE, protocols.measure),
    "versions": (versions.TITLE, versions.measure),
}
HEAD: Final = """\
# Benchmarks

`make bench` measures and writes this page. What is measured and what it is compared with take turns, so that both see
the same machine; a figure is the median, with the lowest and the highest in parentheses. A ratio is the median of the
ratios of each turn. Seconds depend on the machine, ratios hardly; a bar is a bound of a ratio.

{machine}
"""


def main() -> int:
    options = _parser().parse_args()
    progress = Progress()
    measured: list[Section] = []
    failed: list[str] = []
    try:
        with checkout.checkout() as copy:
            for name in options.only or PARTS:
                try:
                    with copy.restored():
                        section = _measured(PARTS[name][1], copy, options.runs, progress)
                except checkout.Failed as error:
                    # The other parts do not need it.
                    print(f"{name} was not measured: {error}", file=sys.stderr)
                    failed.append(name)
                    continue
                print(f"\n{section.plain()}\n", flush=True)
                measured.append(section)
                if options.write:
                    _write(measured)
    except checkout.Failed as error:
        print(f"{error}\n  Is the cluster up? make up; make status", file=sys.stderr)
        return 1
    return _verdict([row for section in measured for row in section.rows]) or (1 if failed else 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measure how fast the program is, as ratios to a baseline, on the cluster of `make up`.",
        epilog="Example: make bench ONLY=release RUNS=2",
    )
    parser.add_argument("--only", action="append", choices=PARTS, help="a part, instead of all; may be repeated")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"how often each is measured (default: {RUNS})")
    parser.add_argument("--write", action="store_true", help="keep what was measured in docs/benchmarks.md")
    return parser


def _measured(measure: Measure, copy: checkout.Checkout, runs: int, progress: Progress) -> Section:
    began, load = time.monotonic(), machine.load()
    section = measure(copy, runs, progress)
    conditions = (
        f"{machine.today()}, commit {machine.commit()}, {runs} runs each, {time.monotonic() - began:.0f} s, "
        f"load average {load} before and {machine.load()} after"
    )
    return dataclasses.replace(section, conditions=conditions)


def _write(measured: Sequence[Section]) -> None:
    old = DOCUMENT.read_text() if DOCUMENT.exists() else ""
    head = HEAD.format(machine=machine.description())
    DOCUMENT.write_text(document(old, head=head, order=[title for title, _ in PARTS.values()], measured=measured))


def _verdict(rows: Sequence[Row]) -> int:
    missed = [row for row in rows if row.missed]
    for row in missed:
        print(f"missed: {row.what} is more than {row.bar:g} times {row.baseline}.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
