"""Images of one layer, made and pushed to the local registry without a builder or an engine."""

import gzip
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

import requests

from local.cluster.layout import LOOPBACK, REGISTRY, REGISTRY_PORT
from model_serving.problems import Failure

CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 60
COMPRESSION_LEVEL = 4  # half the time of the default, a twentieth larger
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What a manifest says about a compressed archive: digest and size of the file, and digest of the archive in it."""

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
    """Whether the registry has the image."""
    return _ask(_session(), "HEAD", _manifest(image), headers={"Accept": _MANIFEST}).ok


def push(image: str, layer: Layer, file: Path, process: Mapping[str, Any]) -> None:
    """Push an image of one layer; `process` is its default for containers: Env, Cmd, Entrypoint."""
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
    url = _manifest(image)
    blobs = url.rpartition("/manifests/")[0] + "/blobs"
    with _session() as session, file.open("rb") as content:
        _put_blob(session, blobs, layer.digest, content)
        _put_blob(session, blobs, config_digest, config)
        headers = {"Content-Type": _MANIFEST}
        _ask(session, "PUT", url, HTTPStatus.CREATED, data=json.dumps(manifest), headers=headers)


def _manifest(image: str) -> str:
    """Its address in the registry."""
    repository, _, tag = image.removeprefix(f"{REGISTRY}/").partition(":")
    return f"http://{LOOPBACK}:{REGISTRY_PORT}/v2/{repository}/manifests/{tag}"


def _put_blob(session: requests.Session, blobs: str, digest: str, content: IO[bytes] | bytes) -> None:
    if _ask(session, "HEAD", f"{blobs}/{digest}").ok:
        return
    begun = _ask(session, "POST", f"{blobs}/uploads/", HTTPStatus.ACCEPTED)
    place, headers = urljoin(begun.url, begun.headers["Location"]), {"Content-Type": "application/octet-stream"}
    _ask(session, "PUT", place, HTTPStatus.CREATED, params={"digest": digest}, data=content, headers=headers)


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # no proxy leads to this machine
    return session


def _ask(
    session: requests.Session, method: str, url: str, wanted: HTTPStatus | None = None, **options: Any
) -> requests.Response:
    try:
        answer = session.request(method, url, timeout=TIMEOUT_SECONDS, **options)
    except requests.RequestException as error:
        raise Failure(
            f"The image registry at {REGISTRY} does not answer: {error}\n"
            "  Start it with the rest of the local cluster: python -m local.cluster start"
        ) from error
    if wanted and answer.status_code != wanted:
        path = urlsplit(url).path
        raise Failure(
            f"The image registry at {REGISTRY} answered {answer.status_code} to {method} {path}; see its log."
        )
    return answer
