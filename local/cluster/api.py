"""A client of the API server for the few objects that the cluster itself needs.

One connection from Python answers in one or two milliseconds; each start of kubectl takes 200.
"""

import base64
import re
from functools import cached_property
from http import HTTPStatus
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from local.cluster import certificates, ports
from local.cluster.layout import Layout, write_atomically
from model_serving.problems import Failure

MANAGER = "model-serving-local"
TIMEOUT_SECONDS = 10.0
REPETITIONS = 3
"""Of a request without an answer: a server that has just started can be slow."""


class Api:
    """A connection with the rights of the kubeconfig super-admin, which is read at the first request."""

    def __init__(self, layout: Layout, address: str) -> None:
        self._layout = layout
        self._url = f"https://{address}:{ports.API}"

    def is_ready(self) -> bool:
        try:
            return self._send("GET", "/readyz").ok
        except OSError:
            return False

    def get(self, path: str) -> dict[str, Any] | None:
        """An object, or None if it does not exist."""
        answer = self._send("GET", path)
        return None if answer.status_code == HTTPStatus.NOT_FOUND else _decode(answer)

    def apply(self, path: str, manifest: str) -> None:
        """Apply an object in YAML or JSON on the server's side, leaving fields that others own."""
        headers = {"Content-Type": "application/apply-patch+yaml"}
        _decode(
            self._send("PATCH", f"{path}?fieldManager={MANAGER}&force=true", data=manifest.encode(), headers=headers)
        )

    def _send(self, method: str, path: str, **options: Any) -> requests.Response:
        return self._session.request(method, self._url + path, timeout=TIMEOUT_SECONDS, **options)

    @cached_property
    def _session(self) -> requests.Session:
        """Trust and identity of a kubeconfig that kubeadm made; a GET and a server-side apply may both be repeated."""
        kubeconfig = certificates.kubeconfig(self._layout, "super-admin")
        identity = kubeconfig.with_suffix(".pem")  # certificates are only read from files
        if not identity.exists() or identity.stat().st_mtime < kubeconfig.stat().st_mtime:
            text = kubeconfig.read_text()
            pem = _data(text, "client-certificate-data") + _data(text, "client-key-data")
            write_atomically(identity, pem, mode=0o600)
        session = requests.Session()
        session.trust_env = False  # no proxy leads to this machine
        session.verify, session.cert = str(self._layout.certificates / "ca.crt"), str(identity)
        session.mount(self._url, HTTPAdapter(max_retries=Retry(REPETITIONS, allowed_methods=None)))
        session.mount(f"{self._url}/readyz", HTTPAdapter())
        return session


def _decode(answer: requests.Response) -> dict[str, Any]:
    content: dict[str, Any] = answer.json()
    if not answer.ok:
        raise Failure(f"The API server answered {answer.status_code}: {content.get('message', content)}")
    return content


def _data(kubeconfig: str, key: str) -> str:
    match = re.search(rf"^ *{key}: (\S+)$", kubeconfig, re.MULTILINE)
    if not match:
        raise Failure(f"A kubeconfig of the local cluster has no {key}; run stop --delete, then start again.")
    return base64.b64decode(match[1]).decode()
