"""The table of the instance's processes."""

from local.cluster.cluster import Cluster
from local.cluster.layout import LOOPBACK, Layout
from local.cluster.processes import Process, Processes
from model_serving.problems import aligned

HEADER = ("PROCESS", "PID", "STATE", "UP", "PORTS", "LOG")
RUNNING = "running"
DIED = "died"


def table(layout: Layout) -> tuple[str, bool]:
    """The table, with the last log lines of each process that died, and whether all run and answer."""
    address = layout.address.read_text() if layout.address.exists() else LOOPBACK
    processes = Processes(layout)
    rows = [_row(step, processes) for step in Cluster(layout).steps(address) if isinstance(step, Process)]
    died = [
        f"\n{name} died; its last log lines:\n{processes.last_lines(name)}"
        for name, _, state, *_ in rows
        if state == DIED
    ]
    return "\n".join([aligned([HEADER, *rows]), *died]), all(state == RUNNING for _, _, state, *_ in rows)


def _row(process: Process, processes: Processes) -> tuple[str, ...]:
    pid, state, uptime = "-", "stopped", "-"
    if record := processes.record(process.name):
        if record.is_alive:
            state = RUNNING if process.ready() else "does not answer"
            pid, uptime = str(record.pid), _duration(record.uptime_seconds)
        elif record.has_died:
            state = DIED
    ports = ",".join(map(str, process.ports)) or "-"
    return process.name, pid, state, uptime, ports, str(processes.log(process.name))


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s"
