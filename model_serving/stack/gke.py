"""A cluster on Google Cloud, as Google's API describes it, and the kubeconfig that reaches it."""

from __future__ import annotations

import json
import os
import urllib.request
from dataclasses import dataclass
from typing import Any, Final

ENDPOINT: Final = "GOOGLE_CONTAINER_CUSTOM_ENDPOINT"
"""Variable with another address of GKE's API, which Google's provider reads as well."""
GOOGLES_ENDPOINT: Final = "https://container.googleapis.com/v1/"
TIMEOUT_SECONDS: Final = 10
LOGIN: Final = "gke-gcloud-auth-plugin"
"""Prints a token of Google's for whoever runs it."""


@dataclass(frozen=True, kw_only=True)
class ClusterName:
    """Where a cluster is; ``location`` is a region or a zone."""

    project: str
    location: str
    name: str

    @property
    def path(self) -> str:
        return f"projects/{self.project}/locations/{self.location}/clusters/{self.name}"


def describe(cluster: ClusterName, token: str) -> dict[str, Any]:
    """What Google says of a cluster.

    Args:
        cluster: that is asked for.
        token: access token of whoever asks.

    Raises:
        OSError: if Google does not answer, or refuses.
        http.client.HTTPException: if the answer ends too early.
        ValueError: if the answer is not JSON.
    """
    address = os.environ.get(ENDPOINT, GOOGLES_ENDPOINT)
    request = urllib.request.Request(f"{address}{cluster.path}", headers={"Authorization": f"Bearer {token}"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - Google's or the user's own
        described: dict[str, Any] = json.load(answer)
    return described


def kubeconfig(name: str, host: str) -> dict[str, Any]:
    """Without credentials: the plugin asks Google for a new token whenever the old one has expired."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        # No certificate authority: the DNS name has a public certificate, which the cluster's own would not match.
        # https://github.com/fluxcd/flux2/issues/5896
        "clusters": [{"name": name, "cluster": {"server": f"https://{host}"}}],
        "users": [
            {
                "name": name,
                "user": {
                    "exec": {
                        "apiVersion": "client.authentication.k8s.io/v1beta1",
                        "command": LOGIN,
                        "installHint": "Install it with `gcloud components install gke-gcloud-auth-plugin`.",
                        "interactiveMode": "Never",
                        "provideClusterInfo": True,
                    }
                },
            }
        ],
    }
