"""A client of the API server for the few objects that the cluster itself needs.

One connection from Python answers in one or two milliseconds; each start of kubectl takes 200.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
from functools import cached_property
from pathlib import Path
from typing import Any

from local.cluster import certificates, ports
from local.cluster.errors import LocalError
from local.cluster.layout import Layout, write_atomically

MANAGER = "model-serving-local"
TIMEOUT_SECONDS = 10.0
REPETITIONS = 3
"""Of a request without an answer; a GET and a server-side apply may both be repeated."""


class Api:
    """A connection with the rights of the kubeconfig super-admin, which is read at the first request."""

    def __init__(self, layout: Layout, address: str) -> None:
        self._kubeconfig = certificates.kubeconfig(layout, "super-admin")
        self._address = address

    def is_ready(self) -> bool:
        try:
            return self._send("GET", "/readyz", repetitions=0)[0] == http.client.OK
        except (OSError, http.client.HTTPException):
            return False

    def get(self, path: str) -> dict[str, Any] | None:
        """An object, or None if it does not exist."""
        status, body = self._send("GET", path)
        return None if status == http.client.NOT_FOUND else _decode(status, body)

    def apply(self, path: str, manifest: str) -> None:
        """Apply an object in YAML or JSON on the server's side, leaving fields that others own."""
        _decode(*self._send("PATCH", f"{path}?fieldManager={MANAGER}&force=true", manifest.encode()))

    def _send(
        self, method: str, path: str, body: bytes | None = None, *, repetitions: int = REPETITIONS
    ) -> tuple[int, bytes]:
        """Sends a request, and again if there is no answer: a server that has just started can be slow."""
        try:
            headers = {"Content-Type": "application/apply-patch+yaml"} if body else {}
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()  # the next request opens it again
            if not repetitions:
                raise
        return self._send(method, path, body, repetitions=repetitions - 1)

    @cached_property
    def _connection(self) -> http.client.HTTPSConnection:
        context = _context(self._kubeconfig)
        return http.client.HTTPSConnection(self._address, ports.API, timeout=TIMEOUT_SECONDS, context=context)


def _decode(status: int, body: bytes) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(body or b"{}")
    if status >= http.client.BAD_REQUEST:
        raise LocalError(f"The API server answered {status}: {content.get('message', content)}")
    return content


def _context(kubeconfig: Path) -> ssl.SSLContext:
    """Trust and identity of a kubeconfig that kubeadm made."""
    text = kubeconfig.read_text()
    context = ssl.create_default_context(cadata=_data(text, "certificate-authority-data"))
    identity = kubeconfig.with_suffix(".pem")  # the ssl module reads certificates only from files
    if not identity.exists() or identity.stat().st_mtime < kubeconfig.stat().st_mtime:
        pem = _data(text, "client-certificate-data") + _data(text, "client-key-data")
        write_atomically(identity, pem, mode=0o600)
    context.load_cert_chain(identity)
    return context


def _data(kubeconfig: str, key: str) -> str:
    match = re.search(rf"^ *{key}: (\S+)$", kubeconfig, re.MULTILINE)
    if not match:
        raise LocalError(f"A kubeconfig of the local cluster has no {key}; run stop --delete, then start again.")
    return base64.b64decode(match[1]).decode()
