"""What Google alone decides of a resource: addresses, keys, states. Each takes the resource and its project."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from tests.engine.provider import number_of, secret
from tests.engine.store import Properties, Request


def _account(request: Request, project: str) -> Properties:
    email = request.identifier.rpartition("/")[2]
    return {
        "email": email,
        "member": f"serviceAccount:{email}",
        "name": request.identifier,
        "uniqueId": number_of(email) * 2,
    }


def _account_key(request: Request, project: str) -> Properties:
    # Whatever looks like this in a state file or an output is a leak: tests search for it.
    return {
        "name": request.identifier,
        "privateKey": secret(f"{PRIVATE_KEY}-{request.identifier[-8:]}"),
        "publicKey": "public",
        "validAfter": "2026-01-01T00:00:00Z",
        "validBefore": "9999-12-31T23:59:59Z",
    }


PRIVATE_KEY: Final = "stand-in-private-key"
"""How every secret begins that the stand-in makes up."""


def _cluster(request: Request, project: str) -> Properties:
    location = request.inputs.get("location", "")
    host = f"gke-{number_of(request.identifier)}-{number_of(project)}.{location}.gke.goog"
    return {
        "endpoint": "10.0.0.2",
        "controlPlaneEndpointsConfig": {"dnsEndpointConfig": {"endpoint": host}},
        "masterAuth": {
            "clusterCaCertificate": "Y2VydGlmaWNhdGU=",
            "clientCertificate": "",
            "clientKey": secret(""),
        },
        "masterVersion": "1.34.4-gke.1",
        "nodeVersion": "1.34.4-gke.1",
        "servicesIpv4Cidr": "10.30.0.0/20",
    }


def _pool(request: Request, project: str) -> Properties:
    return {"name": _numbered(request, project), "state": "ACTIVE"}


def _numbered(request: Request, project: str) -> str:
    return request.identifier.replace(f"projects/{project}/", f"projects/{number_of(project)}/", 1)


def _repository(request: Request, project: str) -> Properties:
    location, name = request.identifier.split("/")[3], request.identifier.rpartition("/")[2]
    return {"name": name, "registryUri": f"{location}-docker.pkg.dev/{project}/{name}"}


def _address(request: Request, project: str) -> Properties:
    internal = request.inputs.get("addressType") == "INTERNAL"
    last = int(number_of(request.identifier)) % 250 + 2
    # 203.0.113.0/24 is reserved for documentation.
    return {"address": request.inputs.get("address") or (f"10.10.0.{last}" if internal else f"203.0.113.{last}")}


def _service_identity(request: Request, project: str) -> Properties:
    service = str(request.inputs["service"]).partition(".")[0]
    agent = "container-engine-robot" if service == "container" else f"gcp-sa-{service}"
    email = f"service-{number_of(project)}@{agent}.iam.gserviceaccount.com"
    return {"email": email, "member": f"serviceAccount:{email}"}


def _dns_authorization(request: Request, project: str) -> Properties:
    record = {
        "name": f"_acme-challenge.{request.inputs['domain']}.",
        "type": "CNAME",
        "data": f"{number_of(request.identifier)}.authorize.certificatemanager.goog.",
    }
    return {"dnsResourceRecords": [record]}


def _certificate(request: Request, project: str) -> Properties:
    managed = request.inputs.get("managed", {})
    return {"sanDnsnames": managed.get("domains", []), **({"managed": {"state": "ACTIVE"}} if managed else {})}


def _named(request: Request, project: str) -> Properties:
    return {"name": f"{request.identifier}-{number_of(request.identifier)}"}


def _bucket(request: Request, project: str) -> Properties:
    return {"url": f"gs://{request.identifier}", "projectNumber": int(number_of(project))}


OUTPUTS: Final[Mapping[str, Callable[[Request, str], Properties]]] = {
    "artifactregistry/repository": _repository,
    "certificatemanager/certificate": _certificate,
    "certificatemanager/dnsAuthorization": _dns_authorization,
    "compute/address": _address,
    "compute/globalAddress": _address,
    "compute/network": lambda request, _: {"networkId": number_of(request.identifier), "gatewayIpv4": ""},
    "compute/subnetwork": lambda request, _: {"gatewayAddress": "10.10.0.1"},
    "container/cluster": _cluster,
    "iam/workloadIdentityPool": _pool,
    "iam/workloadIdentityPoolProvider": _pool,
    "monitoring/alertPolicy": _named,
    "monitoring/notificationChannel": _named,
    "projects/iAMCustomRole": lambda request, _: {"name": request.identifier, "deleted": False},
    "projects/serviceIdentity": _service_identity,
    "serviceaccount/account": _account,
    "serviceaccount/key": _account_key,
    "storage/bucket": _bucket,
}
