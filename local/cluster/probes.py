"""Probes that a process answers only once it works, and waiting for such a condition."""

import http.client
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from local.cluster.layout import LOOPBACK
from model_serving.problems import Failure

TIMEOUT_SECONDS = 1.0
POLL_SECONDS = 0.02


def wait_until(condition: Callable[[], bool], seconds: float, failure: Callable[[], str]) -> None:
    """Wait for a condition; after that many seconds, raise a Failure with the text of `failure`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failure(failure())
        time.sleep(POLL_SECONDS)


def http_ok(port: int, path: str) -> bool:
    return _ok(http.client.HTTPConnection(LOOPBACK, port, timeout=TIMEOUT_SECONDS), path)


def https_ok(port: int, path: str) -> bool:
    """Without verifying certificates: each process signs its own, and the request carries no secret."""
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
