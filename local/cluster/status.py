"""What runs, since when, and where its log is."""

from __future__ import annotations

from local.cluster.cluster import Cluster
from local.cluster.layout import LOOPBACK, Layout
from local.cluster.processes import Process

HEADER = ("PROCESS", "PID", "STATE", "UP", "PORTS", "LOG")
RUNNING = "running"
DIED = "died"


class Status:
    """One look at every process of an instance."""

    def __init__(self, layout: Layout) -> None:
        address = layout.address.read_text() if layout.address.exists() else LOOPBACK
        cluster = Cluster(layout, print)
        self._processes = cluster.processes
        self._expected = [step for step in cluster.steps(address) if isinstance(step, Process)]

    def table(self) -> tuple[str, bool]:
        """The table with the last log lines of what died, and whether all runs and answers."""
        states = {process.name: self._state(process) for process in self._expected}
        rows = [HEADER, *(self._row(process, states[process.name]) for process in self._expected)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        for name, state in states.items():
            if state == DIED:
                lines.append(f"\n{name} died; its last log lines:\n{self._processes.last_lines(name)}")
        return "\n".join(lines), all(state == RUNNING for state in states.values())

    def _state(self, process: Process) -> str:
        if self._processes.is_alive(process.name):
            return RUNNING if process.ready() else "does not answer"
        return DIED if self._processes.died(process.name) else "stopped"

    def _row(self, process: Process, state: str) -> tuple[str, ...]:
        record = self._processes.record(process.name)
        alive = record is not None and record.is_alive
        ports = ",".join(map(str, process.ports))
        log = str(self._processes.log(process.name))
        if record is None or not alive:
            return process.name, "-", state, "-", ports or "-", log
        return process.name, str(record.pid), state, _duration(record.uptime_seconds), ports or "-", log


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s"
