"""``python -m tests.stock``: the README's commands on a stock Debian, through reboots, to the last trace."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.stock import guest, image, traces
from tests.stock.guest import Guest
from tests.stock.image import CHECKOUT, SERVED

ASK = f"""curl --silent --show-error --fail --header 'Content-Type: application/json' \
  --data @models/{SERVED}/1.0/request.json http://127.0.0.1:8080/mlapi/v2/models/{SERVED}/infer"""
Step = tuple[str, Callable[[Guest], str]]


class Fault(Exception):
    """What is not as it should be."""


def steps() -> Iterator[Step]:
    """What is done, and how: each returns what it has found, or raises Fault."""
    before: list[traces.Traces] = []

    def remember(machine: Guest) -> str:
        before.append(traces.seen(machine))
        return f"{len(before[0]['units that start at boot'])} units start at boot"

    def unchanged_units(machine: Guest) -> str:
        units, sockets = "units that start at boot", "listening sockets"
        if new := traces.listed(machine, units) - before[0][units]:
            raise Fault(f"{', '.join(sorted(new))} would start at boot")
        open_to_all = {line for line in traces.listed(machine, sockets) - before[0][sockets] if line[0] in "*0["}
        if open_to_all:
            raise Fault(f"listens on all addresses: {', '.join(sorted(open_to_all))}")
        return "nothing new starts at boot, nothing new listens on all addresses"

    def reboot(machine: Guest) -> str:
        ended, up = machine.reboot()
        if running := traces.listed(machine, "processes"):
            raise Fault(f"runs since boot: {', '.join(sorted(running))}")
        return f"ended after {ended:.0f} s, login after {up:.0f} s more, and nothing of ours runs"

    def no_traces(machine: Guest) -> str:
        if left := traces.differences(before[0], traces.seen(machine)):
            raise Fault("\n    ".join(["left behind:", *left]))
        return "nothing is left"

    yield "what is there before", remember
    yield "make doctor", lambda machine: _made(machine, "doctor")
    yield "make up, the first", lambda machine: _made(machine, "up", "predict")
    yield "a prediction", _asked
    yield "what is installed", unchanged_units
    yield "reboot while it serves", reboot
    yield "make up after the reboot", lambda machine: _made(machine, "up", "predict")
    yield "a prediction after the reboot", _asked
    yield "make up with nothing to do", lambda machine: _made(machine, "up", "unchanged")
    yield "make down", lambda machine: _made(machine, "down")
    yield "what is left", no_traces


def _made(machine: Guest, target: str, expected: str = "") -> str:
    done = machine.run(f"cd {CHECKOUT} && make {target}", is_shown=True)
    if done.code:
        raise Fault(f"exit code {done.code}")
    if expected not in done.said:
        raise Fault(f"it does not say {expected!r}")
    return f"{done.seconds:.0f} s"


def _asked(machine: Guest) -> str:
    done = machine.run(f"cd {CHECKOUT} && {ASK}")
    if done.code or '"outputs"' not in done.said:
        raise Fault(done.said.strip())
    return done.said.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition(": ")[2], epilog="Example: python -m tests.stock")
    parser.add_argument("--folder", type=Path, help="where the disk is made, 10 GB (default: a folder in /tmp)")
    options = parser.parse_args()
    is_emulated = not guest.has_hardware()
    if is_emulated:
        print(f"No hardware for virtual machines: emulated, much slower, some limits {image.SLOWER} times as long.")
    with tempfile.TemporaryDirectory(prefix="stock-", dir=options.folder) as name:
        folder = Path(name)
        try:
            return _tried(folder, is_emulated=is_emulated)
        except (guest.NotUp, subprocess.CalledProcessError) as error:
            print(error, file=sys.stderr)
            return 1


def _tried(folder: Path, *, is_emulated: bool) -> int:
    began = time.monotonic()
    disk = image.make(folder, is_emulated=is_emulated)
    print(f"the disk is made after {time.monotonic() - began:.0f} s", flush=True)
    faults = 0
    with guest.booted(disk, folder, is_emulated=is_emulated) as machine:
        print(f"booted: login after {machine.wait():.0f} s", flush=True)
        todo = list(steps())
        for number, (what, do) in enumerate(todo, 1):
            print(f"[{number}/{len(todo)}] {what}", flush=True)
            try:
                found = do(machine)
            except Fault as fault:
                faults += 1
                found = f"WRONG: {fault}"
            print(f"[{number}/{len(todo)}] {what}: {found} ({time.monotonic() - began:.0f} s in all)", flush=True)
    print(f"{len(todo) - faults} passed, {faults} failed")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
