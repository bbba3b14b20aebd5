"""What Google says of a cluster. Its provider does not: it takes a cluster that could not be created for created."""

from __future__ import annotations

import asyncio
from http.client import HTTPException
from typing import Final

import pulumi

from model_serving.stack import gke
from model_serving.stack.gke import ClusterName

UNUSABLE: Final = ("PROVISIONING", "STOPPING", "ERROR")
"""Of https://cloud.google.com/kubernetes-engine/docs/reference/rest/v1/projects.locations.clusters#Cluster.Status;
a cluster that is RECONCILING or DEGRADED still takes requests."""


async def require_usable(cluster: ClusterName, token: str, resource: pulumi.Resource) -> None:
    """Asks GKE's API for the status of a cluster. If it does not answer, a warning says so, and the update goes on.

    Args:
        cluster: that is looked at.
        token: access token of whoever updates the stack.
        resource: that a warning is about.

    Raises:
        pulumi.RunError: if the cluster cannot be used.
    """
    try:
        described = await asyncio.to_thread(gke.describe, cluster, token)
    except (OSError, HTTPException, ValueError) as error:
        pulumi.log.warn(f"the status of the cluster {cluster.name} could not be read: {error}", resource)
        return
    status = described.get("status")
    if status not in UNUSABLE:
        return
    reason = described.get("statusMessage") or "Google gives no reason"
    raise pulumi.RunError(
        f"the cluster {cluster.name} in {cluster.location} cannot be used: {status}, {reason}.\n"
        f"  Nothing was applied into it.\n  {_remedy(cluster, status)}"
    )


def _remedy(cluster: ClusterName, status: str) -> str:
    if status != "ERROR":
        return (
            "Wait until `gcloud container clusters list` shows it as RUNNING, or no longer at all; then run this again."
        )
    place = f"--location {cluster.location} --project {cluster.project}"
    return (
        "Remove the cause, e.g. raise a quota. Then delete the cluster and let it be created again:\n"
        f"  `gcloud container clusters delete {cluster.name} {place}`, then `pulumi up --refresh`."
    )
