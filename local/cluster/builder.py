"""The image registry, buildkitd, and the builder definition by which Pulumi's image provider finds buildkitd."""

from __future__ import annotations

import json

from local.cluster import probes
from local.cluster.layout import BUILDER, LOOPBACK, REGISTRY, REGISTRY_PORT, Layout
from local.cluster.processes import Process


def registry(layout: Layout, *, is_read_only: bool = False) -> Process:
    configuration = layout.configuration / "registry.json"
    maintenance = {"maintenance": {"readonly": {"enabled": True}}} if is_read_only else {}
    content = {
        "version": "0.1",
        "log": {"accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(layout.cache / "registry")},
            "delete": {"enabled": True},
            "cache": {"blobdescriptor": "inmemory"},
            **maintenance,
        },
        "http": {"addr": f"{LOOPBACK}:{REGISTRY_PORT}"},
    }
    return Process(
        name="registry",
        command=("docker-registry", "serve", str(configuration)),
        ready=lambda: probes.http_ok(REGISTRY_PORT, "/v2/"),
        ports={REGISTRY_PORT: "the image registry"},
        files={configuration: json.dumps(content, indent=2)},
    )


def buildkitd(layout: Layout) -> Process:
    configuration = layout.configuration / "buildkitd.toml"
    content = f"""\
root = "{layout.cache}/buildkit"
[grpc]
  address = ["unix://{layout.buildkit_socket}"]
[otel]
  socketPath = "{layout.run}/otel.sock"
[worker.oci]
  enabled = true
  defaultCgroupParent = "/{layout.cgroup}/builds"
[worker.containerd]
  enabled = false
[registry."{REGISTRY}"]
  http = true
"""
    return Process(
        name="buildkitd",
        command=(f"{layout.bin}/buildkitd", "--config", str(configuration)),
        ready=lambda: probes.socket_accepts(layout.buildkit_socket),
        files={configuration: content},
    )


def write_definition(layout: Layout) -> None:
    """Write the file that `docker buildx create --driver remote` would write."""
    unset = dict.fromkeys(("Platforms", "DriverOpts", "Flags", "Files"))
    node = {"Name": f"{BUILDER}0", "Endpoint": f"unix://{layout.buildkit_socket}", **unset}
    definition = json.dumps({"Name": BUILDER, "Driver": "remote", "Nodes": [node], "Dynamic": False})
    if not layout.builder.exists() or layout.builder.read_text() != definition:
        layout.builder.parent.mkdir(parents=True, exist_ok=True)
        layout.builder.write_text(definition)
