"""A stand-in for Google's exchange of tokens, and for its storage, at their real addresses behind a proxy on loopback.

Clients find it by HTTPS_PROXY and trust it by its certificate, so that nothing of the program is told of it. It gives a
token of the account for a token that a site has signed for its provider, https://google.aip.dev/auth/4117, or for a
key, https://developers.google.com/identity/protocols/oauth2/service-account; and the storage wants that token.
"""

from __future__ import annotations

import datetime as dt
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, parse_qsl, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from google.auth import crypt
from google.auth import jwt as google_jwt

from tests.google_storage import Handler as StorageHandler
from tests.google_storage import Storage

HOSTS: Final = (
    "sts.googleapis.com",
    "iamcredentials.googleapis.com",
    "storage.googleapis.com",
    "oauth2.googleapis.com",
)
jwt: Any = google_jwt
"""Without types."""
ISSUER: Final = "https://gitlab.example"
FEDERATED: Final = "federated-token"
TOKEN: Final = "ya29.of-the-account"  # noqa: S105 - opens nothing
EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ASSERTION: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@dataclass
class Google:
    """What Google knows.

    Attributes:
        provider: full name of the identity provider.
        account: that its jobs may act as.
        project: whose jobs it trusts.
        url: of the proxy; it also signs tokens as GitHub does.
        certificate: file with what clients have to trust.
        refused: why tokens were refused.
    """

    provider: str
    account: str
    project: str
    certificate: Path
    signer: crypt.RSASigner
    public: bytes
    storage: Storage = field(default_factory=lambda: Storage(token=TOKEN, url=f"https://{HOSTS[2]}"))
    url: str = ""
    refused: list[str] = field(default_factory=list)

    def environ(self) -> dict[str, str]:
        """Where clients find it, and what they trust."""
        trusted = str(self.certificate)
        return {
            **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), self.url),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1"),
            **dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), trusted),
        }

    def signed(self, **claims: str) -> str:
        """A job's token as a site signs it, for ten minutes."""
        now = int(dt.datetime.now(dt.UTC).timestamp())
        payload = {"iss": ISSUER, "iat": now, "exp": now + 600, "aud": self.provider, "project_id": self.project}
        token: bytes = jwt.encode(self.signer, payload | claims)
        return token.decode()

    def key(self) -> str:
        """A key file of the account."""
        return json.dumps(
            {
                "type": "service_account",
                "client_email": self.account,
                "token_uri": f"https://{HOSTS[3]}/token",
                "private_key": Path(self.certificate).with_suffix(".key").read_text(),
            }
        )

    def exchange(self, form: dict[str, str]) -> bool:
        """Whether a token is exchanged: it has to be the site's, for this provider, of this project."""
        try:
            if form["grant_type"] == ASSERTION:
                claims = jwt.decode(form["assertion"], certs=self.public, audience=f"https://{HOSTS[3]}/token")
                wrong = claims["iss"] != self.account
            else:
                claims = jwt.decode(form["subject_token"], certs=self.public, audience=self.provider)
                wrong = form["audience"] != self.provider or claims["project_id"] != self.project
        except ValueError as error:
            self.refused.append(str(error))
            return False
        if wrong:
            self.refused.append(f"not trusted: {claims}")
        return not wrong


class _Identity(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    google: Google

    def do_GET(self) -> None:
        """GitHub's answer to a job that asks for a token."""
        audience = parse_qs(urlsplit(self.path).query)["audience"][0]
        self._answer(200, {"value": self.google.signed(aud=audience)})

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith(":generateAccessToken"):
            right = self.headers["Authorization"] == f"Bearer {FEDERATED}" and f"/{self.google.account}:" in self.path
            expires = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
            answer = {"accessToken": TOKEN, "expireTime": f"{expires:%Y-%m-%dT%H:%M:%SZ}"}
            self._answer(200 if right else 403, answer if right else {"error": {"message": "Permission denied"}})
            return
        form = dict(parse_qsl(content.decode()))
        token = TOKEN if form["grant_type"] == ASSERTION else FEDERATED
        if self.google.exchange(form):
            self._answer(200, {"access_token": token, "expires_in": 3600, "token_type": "Bearer"})
        else:
            self._answer(400, {"error": "invalid_grant", "error_description": self.google.refused[-1]})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Not in the tests' output."""


class _Proxy(_Identity):
    tls: ssl.SSLContext
    inside: dict[str, type[BaseHTTPRequestHandler]]

    def do_CONNECT(self) -> None:
        handler = self.inside.get(self.path.partition(":")[0])
        if handler is None:
            self._answer(403, {"error": f"{self.path} is outside of this machine"})
            return
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        try:
            with self.tls.wrap_socket(self.connection, server_side=True) as secured:
                handler(secured, self.client_address, self.server)
        except OSError:
            # A client that has what it wants leaves without a farewell.
            return


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


@contextmanager
def google(folder: Path, *, provider: str, account: str, project: str) -> Iterator[Google]:
    """Google, for as long as the block takes; its certificate is in the folder."""
    signer, public = _certify(folder)
    known = Google(
        provider=provider,
        account=account,
        project=project,
        certificate=folder / "google.crt",
        signer=signer,
        public=public,
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "google.crt", folder / "google.key")
    identity = type("Identity", (_Identity,), {"google": known})
    storage = type("Storage", (StorageHandler,), {"storage": known.storage})
    inside = {host: storage if host == HOSTS[2] else identity for host in HOSTS}
    handler = type("Proxy", (_Proxy,), {"google": known, "tls": tls, "inside": inside})
    listener = _Listener(("127.0.0.1", 0), handler)
    known.url = f"http://127.0.0.1:{listener.server_port}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield known
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


def _certify(folder: Path) -> tuple[crypt.RSASigner, bytes]:
    """Makes the certificate of all hosts, and a signer with its key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in HOSTS]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / "google.key").write_bytes(private)
    (folder / "google.crt").write_bytes(public)
    make: Any = crypt.RSASigner.from_string
    return make(private), public
