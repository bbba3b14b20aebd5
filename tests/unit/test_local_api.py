"""The client of the local cluster's API server, and of its registry, against servers of a test."""

from __future__ import annotations

import base64
import io
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from local.cluster import oci, ports
from local.cluster.api import REPETITIONS, Api
from local.cluster.layout import LOOPBACK, Layout
from model_serving.problems import Failure

Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def certificate(name: str, signer: Pair | None = None) -> Pair:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder(serial_number=x509.random_serial_number())
        .subject_name(subject)
        .issuer_name(signer[0].subject if signer else subject)
        .public_key(key.public_key())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))]), critical=False)
    )
    return made.sign(signer[1] if signer else key, hashes.SHA256()), key


def pem(pair: Pair, *, key: bool = True) -> bytes:
    own = pair[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pair[0].public_bytes(serialization.Encoding.PEM) + (own if key else b"")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    received: ClassVar[list[tuple[str, str, bytes]]] = []
    dropped: ClassVar[list[int]] = [0]

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.received.append((self.command, self.path, body))
        if self.dropped[0]:
            self.dropped[0] -= 1
            self.close_connection = True
            return
        status = 404 if "missing" in self.path else 409 if "conflict" in self.path else 200
        answer = json.dumps({"message": "told", "path": self.path}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_PATCH(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    authority = certificate("authority")
    server, client = certificate("server", authority), certificate("client", authority)
    layout = Layout(name="unit", state=Path("/tmp/state"), bin=tmp_path)
    layout.certificates = tmp_path
    (tmp_path / "ca.crt").write_bytes(pem(authority, key=False))
    (tmp_path / "server.pem").write_bytes(pem(server))
    parts = {"certificate": pem(client, key=False), "key": pem(client).removeprefix(pem(client, key=False))}
    data = [f"    client-{name}-data: {base64.b64encode(part).decode()}\n" for name, part in parts.items()]
    (tmp_path / "super-admin.conf").write_text("".join(data))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    context.load_verify_locations(tmp_path / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    with ThreadingHTTPServer((LOOPBACK, 0), Handler) as listening:
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setattr(ports, "API", listening.server_address[1])
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
        Handler.received.clear()
        Handler.dropped[0] = 0
        yield Api(layout, LOOPBACK)
        listening.shutdown()
        thread.join()


def test_an_object_is_read_and_applied_with_the_identity_of_the_kubeconfig(api: Api) -> None:
    assert api.is_ready()
    assert api.get("/api/v1/nodes/local") == {"message": "told", "path": "/api/v1/nodes/local"}
    assert api.get("/missing") is None
    api.apply("/api/v1/namespaces/a", "kind: Namespace")
    path = "/api/v1/namespaces/a?fieldManager=model-serving-local&force=true"
    assert Handler.received[-1] == ("PATCH", path, b"kind: Namespace")


def test_a_request_without_an_answer_is_repeated_and_a_probe_is_not(api: Api) -> None:
    Handler.dropped[0] = REPETITIONS
    assert api.get("/api") == {"message": "told", "path": "/api"}
    assert len(Handler.received) == REPETITIONS + 1
    Handler.dropped[0] = 1
    assert not api.is_ready()
    assert api.is_ready()


def test_a_refusal_is_told_in_the_servers_words(api: Api) -> None:
    with pytest.raises(Failure, match="The API server answered 409: told"):
        api.get("/conflict")


def test_a_server_that_is_not_there_is_not_ready(tmp_path: Path) -> None:
    layout = Layout(name="unit", state=Path("/tmp/state"), bin=tmp_path)
    layout.certificates = tmp_path
    assert not Api(layout, LOOPBACK).is_ready(), "it has no certificates yet"


def test_a_registry_that_is_not_there_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci, "REGISTRY_PORT", 1)
    with pytest.raises(Failure, match=r"does not answer: (.|\n)*python -m local\.cluster start"):
        oci.is_pushed("localhost:5000/base/pause:1")


def test_the_same_content_is_the_same_layer(tmp_path: Path) -> None:
    first, second = (oci.compress(io.BytesIO(b"content"), tmp_path / name) for name in ("a", "b"))
    assert first == second
    assert first.size == (tmp_path / "a").stat().st_size
