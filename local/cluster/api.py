"""A client of the API server, for the few objects that the cluster itself consists of.

One connection from Python answers in a millisecond or two, where each start of kubectl costs a fifth of a second.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
from pathlib import Path
from typing import Any

from local.cluster.errors import LocalError
from local.cluster.layout import API_PORT

MANAGER = "model-serving-local"
TIMEOUT_SECONDS = 10.0


class ApiError(LocalError):
    """The API server refused a request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"The API server answered {status}: {message}")
        self.status = status


class Api:
    """Requests as the user of a kubeconfig that `kubeadm` wrote."""

    def __init__(self, *, kubeconfig: Path, address: str) -> None:
        self._kubeconfig = kubeconfig  # read at the first request: it may not be made yet
        self._address = address
        self._connection: http.client.HTTPSConnection | None = None

    def is_ready(self) -> bool:
        try:
            return self._send("GET", "/readyz", None, {})[0] == http.client.OK
        except OSError:
            return False

    def get(self, path: str) -> dict[str, Any] | None:
        """An object, or None where there is none."""
        status, body = self._send("GET", path, None, {})
        if status == http.client.NOT_FOUND:
            return None
        return self._decode(status, body)

    def apply(self, path: str, manifest: str) -> dict[str, Any]:
        """Make an object what the YAML or JSON text says, leaving fields that others own."""
        headers = {"Content-Type": "application/apply-patch+yaml"}
        return self._decode(*self._send("PATCH", f"{path}?fieldManager={MANAGER}&force=true", manifest, headers))

    def _decode(self, status: int, body: bytes) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(body or b"{}")
        if status >= http.client.BAD_REQUEST:
            raise ApiError(status, str(content.get("message", content)))
        return content

    def _send(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> tuple[int, bytes]:
        """Over the open connection where there is one; anew when the server had closed it or was started again."""
        reused = self._connection is not None
        try:
            return self._exchange(method, path, body, headers)
        except (OSError, http.client.HTTPException):
            self.close()
            if not reused:
                raise
        return self._exchange(method, path, body, headers)

    def _exchange(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(
                self._address, API_PORT, timeout=TIMEOUT_SECONDS, context=_context(self._kubeconfig)
            )
        self._connection.request(method, path, body.encode() if body is not None else None, headers)
        response = self._connection.getresponse()
        return response.status, response.read()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _context(kubeconfig: Path) -> ssl.SSLContext:
    """Trust and identity from the data that kubeadm puts into a kubeconfig."""
    text = kubeconfig.read_text()
    context = ssl.create_default_context(cadata=_data(text, "certificate-authority-data").decode())
    identity = kubeconfig.with_suffix(".pem")  # the ssl module reads certificates from files only
    if not identity.exists() or identity.stat().st_mtime < kubeconfig.stat().st_mtime:
        identity.touch(mode=0o600)
        identity.write_bytes(_data(text, "client-certificate-data") + _data(text, "client-key-data"))
    context.load_cert_chain(identity)
    return context


def _data(kubeconfig: str, key: str) -> bytes:
    match = re.search(rf"^ *{key}: (\S+)$", kubeconfig, re.MULTILINE)
    if not match:
        raise LocalError(f"A kubeconfig of the local cluster has no {key}; run stop --delete, then start again.")
    return base64.b64decode(match[1])
