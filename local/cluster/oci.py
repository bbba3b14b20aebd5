"""Images of one layer, made and pushed to the local registry without a builder or an engine."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from local.cluster.errors import LocalError
from local.cluster.layout import LOOPBACK, REGISTRY, REGISTRY_PORT

CHUNK_BYTES = 1 << 20
COMPRESSION_LEVEL = 4  # half the time of the default, a twentieth larger
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A compressed archive and what a manifest says about it.

    Attributes:
        digest: of the compressed file.
        content_digest: of the archive in it.
    """

    digest: str
    content_digest: str
    size: int

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def compress(archive: IO[bytes], target: Path) -> Layer:
    """Compress the same content to the same bytes, whenever that is."""
    content = hashlib.sha256()
    with target.open("wb") as file, gzip.GzipFile("", "wb", COMPRESSION_LEVEL, file, mtime=0) as output:
        while chunk := archive.read(CHUNK_BYTES):
            content.update(chunk)
            output.write(chunk)
        output.close()
        file.flush()
        os.fsync(file.fileno())
    with target.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256")
    return Layer(
        digest=f"sha256:{digest.hexdigest()}",
        content_digest=f"sha256:{content.hexdigest()}",
        size=target.stat().st_size,
    )


def is_pushed(image: str) -> bool:
    """Whether the registry has the image.

    Raises:
        LocalError: the registry does not answer.
    """
    repository, tag = _parse(image)
    with _Registry() as registry:
        return (
            registry.send("HEAD", f"/v2/{repository}/manifests/{tag}", headers={"Accept": _MANIFEST}) == http.client.OK
        )


def push(image: str, layer: Layer, file: Path, process: Mapping[str, Any]) -> None:
    """Push an image of one layer; `process` is its default for containers: Env, Cmd, Entrypoint."""
    repository, tag = _parse(image)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": process,
            "rootfs": {"type": "layers", "diff_ids": [layer.content_digest]},
        }
    ).encode()
    config_digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": {"mediaType": _CONFIG, "digest": config_digest, "size": len(config)},
        "layers": [{"mediaType": _LAYER, "digest": layer.digest, "size": layer.size}],
    }
    with _Registry() as registry, file.open("rb") as content:
        registry.put_blob(repository, layer.digest, content, layer.size)
        registry.put_blob(repository, config_digest, io.BytesIO(config), len(config))
        path = f"/v2/{repository}/manifests/{tag}"
        registry.expect(http.client.CREATED, "PUT", path, json.dumps(manifest).encode(), {"Content-Type": _MANIFEST})


def _parse(image: str) -> tuple[str, str]:
    repository, _, tag = image.removeprefix(f"{REGISTRY}/").partition(":")
    return repository, tag


class _Registry:
    """One connection to the local registry."""

    def __init__(self) -> None:
        self._connection = http.client.HTTPConnection(LOOPBACK, REGISTRY_PORT, timeout=60)
        self._location = ""

    def __enter__(self) -> _Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def send(
        self, method: str, path: str, body: bytes | IO[bytes] | None = None, headers: Mapping[str, str] | None = None
    ) -> int:
        try:
            self._connection.request(method, path, body, dict(headers or {}))
            response = self._connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            raise LocalError(
                f"The image registry at {REGISTRY} does not answer: {error}\n"
                "  Start it with the rest of the local cluster: python -m local.cluster start"
            ) from error
        self._location = response.headers.get("Location", "")
        return response.status

    def expect(
        self, wanted: int, method: str, path: str, body: bytes | IO[bytes] | None, headers: Mapping[str, str]
    ) -> None:
        status = self.send(method, path, body, headers)
        if status != wanted:
            raise LocalError(f"The image registry at {REGISTRY} answered {status} to {method} {path}; see its log.")

    def put_blob(self, repository: str, digest: str, content: IO[bytes], size: int) -> None:
        if self.send("HEAD", f"/v2/{repository}/blobs/{digest}") == http.client.OK:
            return
        self.expect(http.client.ACCEPTED, "POST", f"/v2/{repository}/blobs/uploads/", None, {"Content-Length": "0"})
        location = self._location.removeprefix(f"http://{LOOPBACK}:{REGISTRY_PORT}")
        path = f"{location}{'&' if '?' in location else '?'}digest={digest}"
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        self.expect(http.client.CREATED, "PUT", path, content, headers)
