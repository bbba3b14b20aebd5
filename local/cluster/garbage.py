"""Frees the disk space of images that were removed from the local registry, while pods keep pulling the others.

A registry that accepts pushes meanwhile would lose layers of a partly pushed image, and one that keeps running
afterwards would report deleted layers as present:
https://distribution.github.io/distribution/about/garbage-collection/ and
https://github.com/distribution/distribution/issues/1803. So it runs read-only meanwhile and restarts afterwards.
"""

import subprocess
from pathlib import Path
from typing import Final

from local.cluster import programs
from local.cluster.layout import Layout
from local.cluster.probes import wait_until
from local.cluster.processes import Process, Processes
from model_serving.problems import Failure

GRACE_SECONDS: Final = 5
READY_SECONDS: Final = 10
COLLECTION_SECONDS: Final = 600


def collect(layout: Layout, processes: Processes) -> int:
    """Collect the registry's garbage; returns the freed bytes.

    After a failure the registry serves as before. If this command is killed, the registry rejects pushes until the next
    start of the cluster, which sees its configuration and restarts it.
    """
    usual = programs.registry(layout)
    if not (processes.is_alive(usual.name) and usual.ready()):
        raise Failure(
            "The image registry does not run, so no space was freed.\n  Run `python -m local.cluster start` first."
        )
    data = layout.cache / "registry"
    before = _size(data)
    try:
        _restart(programs.registry(layout, is_read_only=True), processes)
        _collect(usual)
    finally:
        _restart(usual, processes)
    return before - _size(data)


def _collect(registry: Process) -> None:
    # Without --delete-untagged, which deletes images that a pod runs by digest, and parts of multi-platform images.
    (configuration,) = registry.files
    command = [registry.command[0], "garbage-collect", str(configuration)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COLLECTION_SECONDS, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise Failure(
            f"The image registry could not collect its garbage: {' '.join(said)}\n"
            "  No image was lost and no space was freed.\n"
            f"  Run `{' '.join([*command, '--dry-run'])}` to see at which image it fails."
        )


def _restart(registry: Process, processes: Processes) -> None:
    processes.end_all([registry.name], grace_seconds=GRACE_SECONDS)
    processes.launch(registry)
    wait_until(
        registry.ready,
        READY_SECONDS,
        lambda: (
            f"The image registry did not start again:\n{processes.last_lines(registry.name)}\n"
            "  No image can be pulled or pushed. Run `python -m local.cluster start`."
        ),
    )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
