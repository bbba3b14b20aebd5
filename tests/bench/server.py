"""What a core serves: MLServer with the settings that it is given here, against its defaults."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench.bare import ROLLOUT, server
from tests.bench.checkout import PROJECT, Checkout, Failed, kubectl
from tests.bench.figures import Row, Section
from tests.bench.gateway import MANY, SECONDS, pod_address
from tests.bench.progress import Progress
from tests.bench.wrk import Load, load

TITLE: Final = "MLServer's settings"
HERE: Final = "bench-settings-here"
DEFAULTS: Final = "bench-settings-default"
DEFAULT_BY_MLSERVER: Final = ("MLSERVER_DEBUG", "MLSERVER_PARALLEL_WORKERS")
"""What is left out for the defaults: the rest says where its ports and its folder are."""
MEMORY: Final = "2Gi"
"""For both, so that none is short of it."""
USED: Final = """
import glob, os, re
ticks = memory = 0
for folder in glob.glob("/proc/[0-9]*"):
    if folder != f"/proc/{os.getpid()}":
        fields = open(f"{folder}/stat").read().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
        memory += int(re.search(r"^Pss: *([0-9]+)", open(f"{folder}/smaps_rollup").read(), re.M)[1])
print(ticks / os.sysconf("SC_CLK_TCK"), memory / 1024)
"""
"""Prints the seconds of a processor and the MiB of memory of a container's processes, from within."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A load, and what the server used for it.

    Attributes:
        processor: seconds of a core.
        memory: MiB after it.
    """

    load: Load
    processor: float
    memory: float


def measure(checkout: Checkout, runs: int, progress: Progress) -> Section:
    rows = [row for model in checkout.outputs["models"] for row in _rows(model, runs, progress)]
    text = (
        f"Two pods of each model, alike but for `{'` and `'.join(DEFAULT_BY_MLSERVER)}`, asked "
        f"directly by wrk in turn, {SECONDS} s on {MANY} connections. Requests per second of a core are the requests "
        "divided by the seconds that a core worked for the pod's processes. MLServer's defaults are debug mode and one "
        "worker process beside its own, which can use a second core; here it has neither, and scales by pods."
    )
    return Section(title=TITLE, text=text, rows=rows)


def request_of(model: str, project: Path = PROJECT) -> Path:
    """A request of a model; the version that is live may be one of another part, whose folder is gone."""
    return min((project / "models" / model).glob("*/request.json"))


def _rows(model: str, runs: int, progress: Progress) -> Iterator[Row]:
    progress.say(f"pods of {model} with the settings here and with MLServer's defaults")
    body = request_of(model)
    path = f"/v2/models/{model}/infer"
    with _pods(model) as names:
        for name in names:
            _seen(name, path, body, seconds=1)
        pairs = [
            [_seen(name, path, body) for name in names]
            for _ in progress.each(f"requests to {model} with both settings", range(runs))
        ]
    here, defaults = zip(*pairs, strict=True)
    series = {
        "requests per second of a core": ("/s", lambda seen: seen.load.requests / seen.processor),
        "requests per second": ("/s", lambda seen: seen.load.rate),
        "median answer": ("ms", lambda seen: seen.load.p50),
        "memory": ("MiB", lambda seen: seen.memory),
    }
    for what, (unit, of) in series.items():
        yield Row(
            what=f"`{model}`: {what}",
            unit=unit,
            values=[*map(of, here)],
            baseline="defaults",
            base=[*map(of, defaults)],
        )


@contextmanager
def _pods(model: str) -> Iterator[tuple[str, str]]:
    """Two servers of a model that nobody routes to, for a while: the names of their Deployments."""
    listed = kubectl("get", "deployments", f"--selector=app.kubernetes.io/name={model}", "--output=json")
    own = json.loads(listed)["items"][0]
    items = [_alone(server(own, HERE)), _with_defaults(_alone(server(own, DEFAULTS)))]
    names = (HERE, DEFAULTS)
    try:
        kubectl("apply", "--filename=-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        for name in names:
            _await(name)
        yield names
    finally:
        kubectl("delete", *(f"deployment/{name}" for name in names), "--ignore-not-found")


def _await(name: str) -> None:
    try:
        kubectl("rollout", "status", f"deployment/{name}", ROLLOUT)
    except Failed as error:
        raise Failed(f"{error}\n{kubectl('logs', f'deployment/{name}', '--tail=40')}") from None


def _alone(deployment: dict[str, Any]) -> dict[str, Any]:
    """With memory enough, and without a time to drain: it has no clients but the load."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["resources"] = {"limits": {"memory": MEMORY}, "requests": {"memory": "1Gi"}}
    container.pop("lifecycle", None)
    return deployment


def _with_defaults(deployment: dict[str, Any]) -> dict[str, Any]:
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["env"] = [entry for entry in container["env"] if entry["name"] not in DEFAULT_BY_MLSERVER]
    return deployment


def _seen(name: str, path: str, body: Path, *, seconds: int = SECONDS) -> Seen:
    url = f"http://{pod_address(f'app={name}')}:8080{path}"
    before, _ = used(name)
    seen = load(url, body, connections=MANY, seconds=seconds)
    after, memory = used(name)
    return Seen(load=seen, processor=after - before, memory=memory)


def used(name: str) -> tuple[float, float]:
    """Seconds that a core has worked for a Deployment's one pod, and the MiB of memory that it has."""
    processor, memory = kubectl("exec", f"deployment/{name}", "--", "python", "-c", USED).split()
    return float(processor), float(memory)
