"""Questions to a process that it can answer only once it works."""

from __future__ import annotations

import http.client
import socket
import ssl
from pathlib import Path

from local.cluster.layout import LOOPBACK

TIMEOUT_SECONDS = 1.0


def http_ok(port: int, path: str) -> bool:
    return _ok(http.client.HTTPConnection(LOOPBACK, port, timeout=TIMEOUT_SECONDS), path)


def https_ok(port: int, path: str) -> bool:
    """Certificates are not checked: each process signs its own, and the question carries no secret."""
    context = ssl._create_unverified_context()  # noqa: S323
    return _ok(http.client.HTTPSConnection(LOOPBACK, port, timeout=TIMEOUT_SECONDS, context=context), path)


def socket_accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT_SECONDS)
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def _ok(connection: http.client.HTTPConnection, path: str) -> bool:
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
