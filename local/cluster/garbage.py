"""Frees the disk space of images that were removed from the local registry, while pods go on pulling the others.

A registry that takes pushes meanwhile would lose layers of an image that is half there, and one that goes on running
afterwards would take layers for present that are gone: both are in its documentation or its issues,
https://distribution.github.io/distribution/about/garbage-collection/ and
https://github.com/distribution/distribution/issues/1803. So it runs read-only until it is done, and then anew.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Final

from local.cluster import builder, probes
from local.cluster.errors import LocalError
from local.cluster.layout import REGISTRY_PORT, Layout
from local.cluster.processes import Process, Processes

GRACE_SECONDS: Final = 5
READY_SECONDS: Final = 10
COLLECTION_SECONDS: Final = 600
POLL_SECONDS: Final = 0.02


def collect(layout: Layout, processes: Processes) -> int:
    """Collects the garbage of the registry.

    A run that is killed leaves a registry that refuses pushes; the next start of the cluster notices it by its
    configuration and starts it anew.

    Returns:
        Bytes that are free now and were not before.

    Raises:
        LocalError: if the registry does not run, or fails; it serves then as before.
    """
    usual = builder.registry(layout)
    if not (processes.is_alive(usual.name) and usual.ready()):
        raise LocalError(
            "The image registry does not run, so nothing of it was freed.\n  Run `python -m local.cluster start` first."
        )
    data = layout.cache / "registry"
    before = _size(data)
    try:
        _restart(builder.registry(layout, is_read_only=True), processes)
        _collect(usual)
    finally:
        _restart(usual, processes)
    return before - _size(data)


def _collect(registry: Process) -> None:
    # Without --delete-untagged: it takes images that a pod runs by their digest, and parts of those with several.
    (configuration,) = registry.files
    command = [registry.command[0], "garbage-collect", str(configuration)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COLLECTION_SECONDS, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise LocalError(
            f"The image registry could not collect its garbage: {' '.join(said)}\n"
            "  Its images are all there, and so is the garbage.\n"
            f"  Run `{' '.join([*command, '--dry-run'])}` to see at which image it fails."
        )


def _restart(registry: Process, processes: Processes) -> None:
    processes.end_all([registry.name], grace_seconds=GRACE_SECONDS)
    processes.launch(registry)
    deadline = time.monotonic() + READY_SECONDS
    while not probes.http_ok(REGISTRY_PORT, "/v2/"):
        if time.monotonic() > deadline or not processes.is_alive(registry.name):
            raise LocalError(
                f"The image registry did not start again:\n{processes.last_lines(registry.name)}\n"
                "  No image can be pulled or pushed. Run `python -m local.cluster start`."
            )
        time.sleep(POLL_SECONDS)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
