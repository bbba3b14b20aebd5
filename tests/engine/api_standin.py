"""An API server for the program's own watches, in which every pod is ready and every check is passed at once.

One for all projects of a run, because their states name its address. Whose cluster is meant, the login tells: GKE's
plugin, for which a stand-in is written as well, hands out the folder of the project's cloud as its token.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST: Final = "127.0.0.1"
WATCH_SECONDS: Final = 0.2
"""After which a watch ends without news, as an API server ends each now and then; the client lists again."""
STATUS: Final[Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "deployments": lambda spec: {
        "observedGeneration": 1,
        "availableReplicas": spec.get("replicas", 1),
        "conditions": [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}],
    },
    "jobs": lambda _: {"conditions": [{"type": "Complete", "status": "True"}]},
}
KINDS: Final = {"deployments": ":Deployment", "jobs": ":Job"}
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
    def do_GET(self) -> None:
        url = urlsplit(self.path)
        namespace, kind = url.path.split("/")[-2:]
        if parse_qs(url.query).get("watch") == ["True"]:
            time.sleep(WATCH_SECONDS)
            body = b""
        else:
            cloud = Path(self.headers["Authorization"].removeprefix("Bearer "))
            listed = {"metadata": {"resourceVersion": "1"}, "items": _items(cloud, namespace, kind)}
            body = json.dumps(listed).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def _items(cloud: Path, namespace: str, kind: str) -> list[dict[str, Any]]:
    if kind not in KINDS:
        return []
    held = json.loads((cloud / "kubernetes.json").read_text())["resources"].values()
    things = [each["outputs"] for each in held if each["token"].endswith(KINDS[kind])]
    return [
        {**thing, "status": STATUS[kind](thing["spec"])}
        for thing in things
        if thing["metadata"].get("namespace") == namespace
    ]


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
