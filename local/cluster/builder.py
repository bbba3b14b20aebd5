"""The image registry, buildkitd, and the builder definition by which Pulumi's image provider finds buildkitd."""

from __future__ import annotations

import json

from local.cluster import probes
from local.cluster.configuration import files
from local.cluster.layout import BUILDER, REGISTRY_PORT, Layout
from local.cluster.processes import Process


def registry(layout: Layout, *, is_read_only: bool = False) -> Process:
    configuration = files(layout, "registry.yaml", is_read_only=json.dumps(is_read_only))
    return Process(
        name="registry",
        command=("docker-registry", "serve", *map(str, configuration)),
        ready=lambda: probes.http_ok(REGISTRY_PORT, "/v2/"),
        ports={REGISTRY_PORT: "the image registry"},
        files=configuration,
    )


def buildkitd(layout: Layout) -> Process:
    configuration = files(layout, "buildkitd.toml")
    return Process(
        name="buildkitd",
        command=(f"{layout.bin}/buildkitd", "--config", *map(str, configuration)),
        ready=lambda: probes.socket_accepts(layout.buildkit_socket),
        files=configuration,
    )


def write_definition(layout: Layout) -> None:
    """Write the file that `docker buildx create --driver remote` would write."""
    unset = dict.fromkeys(("Platforms", "DriverOpts", "Flags", "Files"))
    node = {"Name": f"{BUILDER}0", "Endpoint": f"unix://{layout.buildkit_socket}", **unset}
    definition = json.dumps({"Name": BUILDER, "Driver": "remote", "Nodes": [node], "Dynamic": False})
    if not layout.builder.exists() or layout.builder.read_text() != definition:
        layout.builder.parent.mkdir(parents=True, exist_ok=True)
        layout.builder.write_text(definition)
