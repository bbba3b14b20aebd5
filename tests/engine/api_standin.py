"""An API server for the program's own watches, in which every pod is ready and every check is passed at once.

One for all projects of a run, because their states name its address. Whose cluster is meant, the login tells: GKE's
plugin, for which a stand-in is written as well, hands out the folder of the project's cloud as its token.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import ipaddress
import itertools
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST: Final = "127.0.0.1"
WATCH_SECONDS: Final = 5
"""After which a watch ends, as an API server ends each now and then; the client watches again from what it knows."""
POLL_SECONDS: Final = 0.1
STATUS: Final[Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "deployments": lambda spec: {
        "observedGeneration": 1,
        "availableReplicas": spec.get("replicas", 1),
        "conditions": [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}],
    },
    "jobs": lambda _: {"conditions": [{"type": "Complete", "status": "True"}]},
}
KINDS: Final = {
    "configmaps": ":ConfigMap",
    "deployments": ":Deployment",
    "gcpbackendpolicies": ":GCPBackendPolicy",
    "healthcheckpolicies": ":HealthCheckPolicy",
    "httproutes": ":HTTPRoute",
    "jobs": ":Job",
    "networkpolicies": ":NetworkPolicy",
    "services": ":Service",
}
GATEWAY: Final = {"metadata": {"name": "gateway"}, "status": {"addresses": [{"value": "10.10.0.9"}]}}
STATE: Final = "kubernetes.json"
"""File of a project's cloud."""
LOGIN: Final = """#!/bin/sh
printf '{"apiVersion": "client.authentication.k8s.io/v1beta1", "kind": "ExecCredential", "status": {"token": "%s"}}' \\
  "$STANDIN_STATE"
"""


class ApiStandin:
    """Serves until it is closed.

    Attributes:
        endpoint: host and port.
        authority: file with the certificate that clients have to trust.
    """

    def __init__(self, folder: Path) -> None:
        self.authority = folder / "authority.crt"
        key = _write_certificate(self.authority)
        self._server = ThreadingHTTPServer((HOST, 0), _Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.authority, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.endpoint = f"{HOST}:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Answers lists, and watches from the version of a list or of an event on."""

    protocol_version = "HTTP/1.1"
    versions: ClassVar[Iterator[int]] = itertools.count(1)
    known: ClassVar[dict[int, dict[str, Any]]] = {}
    """Version -> uid -> object."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        namespace, kind = url.path.split("/")[-2:]
        if namespace == "gateways":
            self._answer(GATEWAY)
            return
        if namespace == "clusters":
            # Of GKE's own API, which is at the same address.
            endpoint = {"endpoint": self.headers["Host"]}
            self._answer({"status": "RUNNING", "controlPlaneEndpointsConfig": {"dnsEndpointConfig": endpoint}})
            return
        look = functools.partial(_items, self._cloud, namespace, kind, query.get("labelSelector", [""])[0])
        things = look()
        if query.get("watch", [""])[0].lower() != "true":
            metadata = {"resourceVersion": str(self._remember(things))}
            self._answer({"metadata": metadata, "items": [*things.values()]})
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        # A program that ends does so without a farewell, and a test's cloud ends with the test.
        with contextlib.suppress(OSError):
            self._watch(look, int(query["resourceVersion"][0]))
            self._write_chunk(b"")

    def do_DELETE(self) -> None:
        """Deletes a collection."""
        url = urlsplit(self.path)
        namespace, kind = url.path.split("/")[-2:]
        going = _items(self._cloud, namespace, kind, parse_qs(url.query)["labelSelector"][0])
        file = self._cloud / STATE
        content = json.loads(file.read_text())
        held = content["resources"].items()
        content["resources"] = {key: each for key, each in held if each["outputs"]["metadata"]["uid"] not in going}
        scratch = file.with_suffix(".new")
        scratch.write_text(json.dumps(content))
        scratch.replace(file)
        self._answer({"kind": "Status", "apiVersion": "v1", "status": "Success"})

    @property
    def _cloud(self) -> Path:
        return Path(self.headers["Authorization"].removeprefix("Bearer "))

    def _answer(self, content: Mapping[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _watch(self, look: Callable[[], dict[str, Any]], version: int) -> None:
        before, end = self.known[version], time.monotonic() + WATCH_SECONDS
        while time.monotonic() < end:
            if (now := look()) != before:
                version = self._remember(now)
                changed = [("MODIFIED", thing) for uid, thing in now.items() if before.get(uid) != thing]
                gone = [("DELETED", thing) for uid, thing in before.items() if uid not in now]
                for kind, thing in changed + gone:
                    metadata = thing["metadata"] | {"resourceVersion": str(version)}
                    event = {"type": kind, "object": thing | {"metadata": metadata}}
                    self._write_chunk(json.dumps(event).encode() + b"\n")
                before = now
            time.sleep(POLL_SECONDS)

    def _write_chunk(self, content: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))

    def _remember(self, things: dict[str, Any]) -> int:
        self.known[version := next(self.versions)] = things
        return version

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def _items(cloud: Path, namespace: str, kind: str, selector: str = "") -> dict[str, Any]:
    """By uid."""
    file = cloud / STATE
    if kind not in KINDS or not file.exists():
        return {}
    # Each change replaces the file.
    state, (key, _, value) = file.stat(), selector.partition("=")
    things = _read_items(file, state.st_ino, state.st_mtime_ns, namespace, kind)
    return {uid: each for uid, each in things.items() if _is_selected(each["metadata"].get("labels", {}), key, value)}


@functools.lru_cache(maxsize=64)
def _read_items(file: Path, _inode: int, _changed: int, namespace: str, kind: str) -> dict[str, Any]:
    held = json.loads(file.read_text(encoding="utf-8"))["resources"].values()
    things = [each["outputs"] for each in held if each["token"].endswith(KINDS[kind])]
    status = STATUS.get(kind)
    return {
        thing["metadata"]["uid"]: {**thing, "status": status(thing["spec"]) if status else {}}
        for thing in things
        if thing["metadata"].get("namespace") == namespace
    }


def _is_selected(labels: Mapping[str, str], key: str, value: str) -> bool:
    return not key or (key in labels and value in ("", labels[key]))


def _write_certificate(path: Path) -> Path:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = path.with_suffix(".key")
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return private
