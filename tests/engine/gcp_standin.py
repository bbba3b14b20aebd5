"""Google Cloud as this project uses it: names, outputs and refusals of its resources, without Google.

The tables hold what Google or its provider decides and the SDK's classes do not say. A resource that no table names
still works: it is checked against the SDK and gets an id and the outputs that all have.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

import grpc

from tests.engine import google_answers, google_outputs, google_requests, sdk_types
from tests.engine.provider import UNKNOWN, Path_, Provider, is_secret, merged, number_of, secret
from tests.engine.store import Properties, Refused, Request

# Names as the API gives them, from the resource's inputs, the provider's project and region. {x.last} is the part of x
# behind the last slash: an argument may be a name or a whole path.
IDENTIFIERS: Final[Mapping[str, str]] = {
    "artifactregistry/repository": "projects/{project}/locations/{location}/repositories/{repositoryId}",
    "artifactregistry/repositoryIamMember": "projects/{project}/locations/{location}/repositories/{repository.last}"
    "/{role}/{member}",
    "binaryauthorization/policy": "projects/{project}",
    "certificatemanager/certificate": "projects/{project}/locations/{location}/certificates/{name}",
    "certificatemanager/certificateMap": "projects/{project}/locations/global/certificateMaps/{name}",
    "certificatemanager/certificateMapEntry": "projects/{project}/locations/global/certificateMaps/{map.last}"
    "/certificateMapEntries/{name}",
    "certificatemanager/dnsAuthorization": "projects/{project}/locations/{location}/dnsAuthorizations/{name}",
    "compute/address": "projects/{project}/regions/{region}/addresses/{name}",
    "compute/firewall": "projects/{project}/global/firewalls/{name}",
    "compute/globalAddress": "projects/{project}/global/addresses/{name}",
    "compute/network": "projects/{project}/global/networks/{name}",
    "compute/regionSecurityPolicy": "projects/{project}/regions/{region}/securityPolicies/{name}",
    "compute/router": "projects/{project}/regions/{region}/routers/{name}",
    "compute/routerNat": "{project}/{region}/{router.last}/{name}",
    "compute/securityPolicy": "projects/{project}/global/securityPolicies/{name}",
    "compute/subnetwork": "projects/{project}/regions/{region}/subnetworks/{name}",
    "container/cluster": "projects/{project}/locations/{location}/clusters/{name}",
    "container/nodePool": "projects/{project}/locations/{location}/clusters/{cluster.last}/nodePools/{name}",
    "dns/recordSet": "projects/{project}/managedZones/{managedZone}/rrsets/{name}/{type}",
    "iam/workloadIdentityPool": "projects/{project}/locations/global/workloadIdentityPools/{workloadIdentityPoolId}",
    "iam/workloadIdentityPoolProvider": "projects/{project}/locations/global/workloadIdentityPools"
    "/{workloadIdentityPoolId}/providers/{workloadIdentityPoolProviderId}",
    "kms/cryptoKey": "{keyRing}/cryptoKeys/{name}",
    "kms/cryptoKeyIAMMember": "{cryptoKeyId}/{role}/{member}",
    "kms/keyRing": "projects/{project}/locations/{location}/keyRings/{name}",
    "projects/iAMCustomRole": "projects/{project}/roles/{roleId}",
    "projects/iAMMember": "{project}/{role}/{member}{condition}",
    "projects/service": "{project}/{service}",
    "projects/serviceIdentity": "projects/{project}/services/{service}",
    "serviceaccount/account": "projects/{project}/serviceAccounts/{accountId}@{project}.iam.gserviceaccount.com",
    "serviceaccount/iAMMember": "{serviceAccountId}/{role}/{member}{condition}",
    "serviceaccount/key": "{serviceAccountId}/keys/{digest}",
    "storage/bucket": "{name}",
    "storage/bucketIAMMember": "b/{bucket}/{role}/{member}{condition}",
}

# Another value there makes another resource, where the SDK's own text does not say so (its provider's schema does).
_EVERYWHERE: Final = {"name", "project", "location", "region", "zone", "accountId", "repositoryId", "serviceAccountId"}
_REPLACED_BY: Final[Mapping[str, set[str]]] = {
    "*[Ii][Aa][Mm]Member": {"*"},
    "artifactregistry/repository": {"format", "mode", "kmsKeyName"},
    "certificatemanager/certificate": {"managed", "scope"},
    "certificatemanager/certificateMapEntry": {"map", "hostname", "matcher"},
    "certificatemanager/dnsAuthorization": {"domain"},
    "compute/*ddress": {"address", "addressType", "networkTier", "purpose", "subnetwork", "network", "prefixLength"},
    "compute/network": {"autoCreateSubnetworks", "description"},
    "compute/router*": {"network", "router"},
    "compute/subnetwork": {"network", "purpose", "description"},
    "container/cluster": {
        *("network", "subnetwork", "networkingMode", "ipAllocationPolicy", "enableAutopilot", "clusterIpv4Cidr"),
        *("initialNodeCount", "datapathProvider", "defaultMaxPodsPerNode", "masterAuth", "nodeConfig"),
    },
    "container/nodePool": {"cluster", "initialNodeCount", "maxPodsPerNode", "namePrefix"},
    "iam/workloadIdentityPool*": {"workloadIdentityPoolId", "workloadIdentityPoolProviderId"},
    "kms/cryptoKey": {"keyRing"},
    "projects/service*": {"service"},
    "serviceaccount/key": {"keepers", "keyAlgorithm", "privateKeyType", "publicKeyType"},
}

_PATTERNS: Final[Mapping[tuple[str, str], str]] = {
    ("artifactregistry/repository", "repositoryId"): r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?",
    ("compute/*", "name"): r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?",
    ("container/cluster", "name"): r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?",
    ("iam/workloadIdentityPool*", "workloadIdentityPoolId"): r"(?!gcp-)[a-z0-9-]{4,32}",
    ("iam/workloadIdentityPool*", "workloadIdentityPoolProviderId"): r"(?!gcp-)[a-z0-9-]{4,32}",
    (
        "*[Ii][Aa][Mm]Member",
        "member",
    ): r"(serviceAccount|user|group|domain|principal|principalSet):.+|all(Authenticated)?Users",
    ("*[Ii][Aa][Mm]Member", "role"): r"(roles|projects/[^/]+/roles|organizations/[^/]+/roles)/[A-Za-z0-9_.]+",
    ("serviceaccount/account", "accountId"): r"[a-z]([a-z0-9-]{4,28})[a-z0-9]",
    ("storage/bucket", "name"): r"(?!goog)[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]",
}
"""Formats that the API insists on."""

_AUTOPILOT_REFUSES: Final = ("enableShieldedNodes", "removeDefaultNodePool", "networkPolicy", "nodePools", "nodeConfig")

# What is on in a new project (Google's list), and what has to be on before a resource of a module can be made.
_ENABLED: Final = {
    *("serviceusage.googleapis.com", "cloudresourcemanager.googleapis.com", "iam.googleapis.com"),
    *("storage.googleapis.com", "monitoring.googleapis.com", "logging.googleapis.com"),
}
APIS: Final[Mapping[str, str]] = {
    "artifactregistry": "artifactregistry.googleapis.com",
    "binaryauthorization": "binaryauthorization.googleapis.com",
    "certificatemanager": "certificatemanager.googleapis.com",
    "compute": "compute.googleapis.com",
    "container": "container.googleapis.com",
    "dns": "dns.googleapis.com",
    "gkehub": "gkehub.googleapis.com",
    "iam": "iam.googleapis.com",
    "kms": "cloudkms.googleapis.com",
    "monitoring": "monitoring.googleapis.com",
    "serviceaccount": "iam.googleapis.com",
    "storage": "storage.googleapis.com",
}
ATTRIBUTION: Final = {"goog-pulumi-provisioned": "true"}
"""The label that the provider adds to every resource that has labels."""
_UNKNOWN_WITHIN: Final[Mapping[str, Properties]] = {
    "container/cluster": {"controlPlaneEndpointsConfig": {"dnsEndpointConfig": {"endpoint": UNKNOWN}}}
}
"""What a preview does not know inside of what was asked for."""

_NEVER_FORGOTTEN: Final = {
    "iam/workloadIdentityPool",
    "iam/workloadIdentityPoolProvider",
    "kms/keyRing",
    "kms/cryptoKey",
}
"""Deleted, the name stays taken: for 30 days or for ever."""

_HOLDS: Final[Mapping[str, tuple[str, ...]]] = {
    "compute/network": ("network",),
    "compute/subnetwork": ("subnetwork",),
    "compute/router": ("router",),
}
"""What cannot go while another resource's inputs name it under one of these keys."""


class Google(Provider):
    package: ClassVar[str] = "gcp"

    def problems(self, token: str, inputs: Properties) -> Iterator[tuple[str, str]]:
        yield from sdk_types.problems(token, inputs)
        kind = _kind(token)
        for (pattern, key), wanted in _PATTERNS.items():
            value = inputs.get(key)
            if not fnmatch.fnmatchcase(kind, pattern) or not isinstance(value, str) or value == UNKNOWN:
                continue
            if not re.fullmatch(wanted, value):
                yield key, f"is {value!r}, which the API does not take: {wanted}"
        if kind == "container/cluster" and inputs.get("enableAutopilot"):
            for key in inputs.keys() & set(_AUTOPILOT_REFUSES):
                yield key, "conflicts with enableAutopilot"
        if kind == "storage/bucket":
            seconds = inputs.get("softDeletePolicy", {}).get("retentionDurationSeconds", 0)
            if seconds not in (UNKNOWN, 0) and not 604800 <= seconds <= 7776000:
                yield "softDeletePolicy.retentionDurationSeconds", f"is {seconds}, not 0 or 604800 to 7776000"
        if kind == "iam/workloadIdentityPoolProvider" and not inputs.get("attributeCondition"):
            issuer = inputs.get("oidc", {}).get("issuerUri", "")
            if any(host in str(issuer) for host in ("token.actions.githubusercontent.com", "gitlab.com")):
                yield "attributeCondition", "must reference one of the provider's claims: this issuer serves everyone"

    def defaulted(self, token: str, name: str, inputs: Properties, old: Properties, seed: str) -> Properties:
        key = "accountId" if _kind(token) == "serviceaccount/account" else "name"
        if key in inputs or key not in sdk_types.input_names(token):
            return inputs
        return {**inputs, key: old.get(key) or f"{name}-{seed[:7]}"}

    def identify(self, request: Request) -> str:
        kind = _kind(request.token)
        fallback = f"projects/{{project}}/{kind}/" + ("{name}" if "name" in request.inputs else request.name)
        return self._filled(request, IDENTIFIERS.get(kind, fallback))

    def _filled(self, request: Request, template: str) -> str:
        return re.sub(
            r"\{(\w+)(\.last)?\}",
            lambda found: self._part(request, found[1]).rpartition("/" if found[2] else "\0")[2],
            template,
        )

    def _part(self, request: Request, key: str) -> str:
        value = request.inputs.get(key)
        if isinstance(value, str):
            return value
        if key == "condition":
            return f"/{value['title']}" if value else ""
        if key == "digest":
            return hashlib.sha256(repr(request).encode()).hexdigest()[:40]
        if key == "location" and request.token.startswith("gcp:certificatemanager"):
            return "global"
        setting = {"location": "region"}.get(key, key)
        if not (configured := self.config.get(setting)):
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"{request.name}: {key}: required field is not set")
        return str(configured)

    def computed(self, request: Request) -> Properties:
        names = sdk_types.output_names(request.token)
        project = self._part(request, "project")
        common = {
            "project": project,
            "region": request.inputs.get("region") or self.config.get("region"),
            "location": request.inputs.get("location"),
            "selfLink": f"https://www.googleapis.com/{request.token.split(':')[1].partition('/')[0]}/v1/"
            f"{request.identifier}",
            "etag": hashlib.sha256(repr(request.inputs).encode()).hexdigest()[:12],
            "createTime": "2026-01-01T00:00:00Z",
            "effectiveLabels": secret(self._labels(request) | ATTRIBUTION),
            "pulumiLabels": secret(self._labels(request)),
        }
        general = {key: value for key, value in common.items() if key in names and value is not None}
        special = google_outputs.OUTPUTS.get(_kind(request.token))
        outputs = {**general, **(special(request, project) if special else {})}
        host = self.environ.get("STANDIN_CLUSTER_DNS_ENDPOINT")
        if host and _kind(request.token) == "container/cluster":
            outputs["controlPlaneEndpointsConfig"] = {"dnsEndpointConfig": {"endpoint": host}}
        if unknown := outputs.keys() - names:
            raise Refused(grpc.StatusCode.INTERNAL, f"the stand-in invents outputs of {request.token}: {unknown}")
        return outputs

    def answer(self, request: Request) -> Properties:
        """Asks Google, whose descriptions decide whether it takes the request, and reads what it has then."""
        token, asked = request.token, request.inputs
        if "effectiveLabels" in sdk_types.output_names(token):
            asked = asked | {_labels_of(token): self._labels(request) | ATTRIBUTION}
        try:
            kind = google_requests.kind(_kind(token))
            problems = list(kind.problems(asked, lambda template: self._filled(request, template)))
            state = google_answers.state_of(kind, sdk_types.inputs_of(token), asked)
        except google_requests.Incomplete as error:
            raise Refused(grpc.StatusCode.INTERNAL, str(error)) from None
        if problems:
            told = "; ".join(f"{place} {reason}" for place, reason in problems)
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"Error 400: {request.name}: {told}")
        # The provider shows a program the labels that it gave, and none of the others.
        given = request.inputs.get(_labels_of(token))
        state = {**state, _labels_of(token): given} if given else _without(state, _labels_of(token))
        outputs: Properties = merged(state, self.computed(request))
        return outputs

    def _labels(self, request: Request) -> Properties:
        defaults = self.config.get("defaultLabels", {})
        defaults = json.loads(defaults) if isinstance(defaults, str) else defaults
        return {**defaults, **request.inputs.get(_labels_of(request.token), {})}

    def changes(self, token: str, state: Properties, old: Properties, new: Properties) -> Iterator[Path_]:
        kind, shape = google_requests.kind(_kind(token)), sdk_types.inputs_of(token)
        return google_answers.changes(kind, kept=sdk_types.kept(token), shape=shape, state=state, old=old, new=new)

    def inputs_now(self, request: Request, found: Mapping[str, Any]) -> Properties:
        inputs: Properties = google_answers.limited(found["outputs"], request.inputs)
        return inputs

    def planned(self, token: str, inputs: Properties) -> Properties:
        known = {**dict.fromkeys(sdk_types.output_names(token) - inputs.keys(), UNKNOWN), **inputs}
        planned: Properties = merged(known, _UNKNOWN_WITHIN.get(_kind(token), {}))
        return planned

    def replaced_by(self, token: str, path: Path_) -> bool:
        if path[0] in _EVERYWHERE or sdk_types.replaced_by(token, path):
            return True
        kinds = (keys for pattern, keys in _REPLACED_BY.items() if fnmatch.fnmatchcase(_kind(token), pattern))
        return any(path[0] in keys or "*" in keys for keys in kinds)

    def before_create(self, request: Request, content: dict[str, Any]) -> None:
        module = _kind(request.token).partition("/")[0]
        resources = content["resources"].values()
        enabled = {r["inputs"]["service"] for r in resources if _kind(r["token"]) == "projects/service"}
        if (api := APIS.get(module)) and api not in enabled | _ENABLED:
            raise Refused(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"Error 403: {api} has not been used in project {self.config.get('project')} before or it is disabled",
            )
        if member := request.inputs.get("member"):
            _refuse_unknown_member(str(member), content)
        for key in ("network", "subnetwork"):
            named = request.inputs.get(key)
            if named and module in ("compute", "container") and not _is_there(f"compute/{key}", named, content):
                raise Refused(grpc.StatusCode.NOT_FOUND, f"Error 404: the {key} {named} was not found")

    def before_delete(self, request: Request, content: dict[str, Any]) -> bool:
        kind, inputs = _kind(request.token), request.inputs
        policy = inputs.get("deletionPolicy", self.config.get("deletionPolicy"))
        if kind == "container/cluster" and inputs.get("deletionProtection", True):
            raise Refused(
                grpc.StatusCode.FAILED_PRECONDITION,
                "Cannot destroy cluster because deletion_protection is set to true. "
                "Set it to false to proceed with cluster deletion.",
            )
        if policy == "PREVENT":
            raise Refused(
                grpc.StatusCode.FAILED_PRECONDITION, f"cannot destroy {request.identifier}: deletion_policy is PREVENT"
            )
        for other in content["resources"].values():
            for key in _HOLDS.get(kind, ()):
                if _names(request.identifier, other["inputs"].get(key)):
                    raise Refused(
                        grpc.StatusCode.FAILED_PRECONDITION,
                        f"Error 400: {request.identifier} is already being used by {other['id']}, "
                        "resourceInUseByAnotherResource",
                    )
        if kind in _NEVER_FORGOTTEN and policy != "ABANDON":
            content["deleted"].append(request.key)
        return policy != "ABANDON"

    def ask(self, token: str, arguments: Properties, content: dict[str, Any]) -> Properties:
        project = str(arguments.get("project") or arguments.get("projectId") or self.config.get("project"))
        name = token.rpartition(":")[2]
        if name == "getProject":
            return {"projectId": project, "number": number_of(project), "name": project, "id": f"projects/{project}"}
        if name == "getClientConfig":
            return {"project": project, "region": self.config.get("region", ""), "accessToken": secret("stand-in")}
        # gcp:container/getCluster:getCluster looks for gcp:container/cluster:Cluster.
        module = token.split(":")[1].partition("/")[0]
        wanted = name.removeprefix("get")
        for resource in content["resources"].values():
            if _kind(resource["token"]).lower() == f"{module}/{wanted}".lower() and all(
                resource["outputs"].get(key) == value for key, value in arguments.items()
            ):
                return {"id": resource["id"], **_as_answer(resource["outputs"])}
        raise Refused(grpc.StatusCode.NOT_FOUND, f"Error 404: {name} found no {wanted} with {arguments}")


def _as_answer(outputs: Properties) -> Properties:
    """Outputs as functions give them: a block is a list of one there, and its name a plural."""
    blocks = {key: value for key, value in outputs.items() if isinstance(value, dict) and not is_secret(value)}
    plain = {key: value for key, value in outputs.items() if not isinstance(value, dict) and key != "networkId"}
    return plain | {f"{key}s": [_as_answer(value)] for key, value in blocks.items()}


def _kind(token: str) -> str:
    """``container/cluster`` of ``gcp:container/cluster:Cluster``."""
    return token.split(":")[1]


def _labels_of(token: str) -> str:
    return "resourceLabels" if _kind(token) == "container/cluster" else "labels"


def _without(properties: Properties, key: str) -> Properties:
    return {each: value for each, value in properties.items() if each != key}


def _names(identifier: str, reference: Any) -> bool:
    """Whether an argument means this resource: by its id, by an address that ends with it, or by its bare name."""
    return isinstance(reference, str) and (reference.endswith(identifier) or reference == identifier.rpartition("/")[2])


def _is_there(kind: str, reference: str, content: dict[str, Any]) -> bool:
    """Whether a resource exists, as far as this project knows: another project's is taken on trust."""
    found = (r["id"] for r in content["resources"].values() if _kind(r["token"]) == kind)
    return reference == "default" or any(_names(identifier, reference) for identifier in found)


def _refuse_unknown_member(member: str, content: dict[str, Any]) -> None:
    outputs = [resource["outputs"] for resource in content["resources"].values()]
    if found := re.fullmatch(r"serviceAccount:([^\[]+)\.svc\.id\.goog\[.+\]", member):
        pools = [each.get("workloadIdentityConfig") or {} for each in outputs]
        if not any(pool.get("workloadPool") == f"{found[1]}.svc.id.goog" for pool in pools):
            raise Refused(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"Error 400: Identity Pool does not exist ({found[1]}.svc.id.goog): no cluster has Workload Identity",
            )
    elif re.fullmatch(r"serviceAccount:(?!service-)[a-z0-9-]+@[a-z0-9-]+\.iam\.gserviceaccount\.com", member):
        if member not in [each.get("member") for each in outputs if "email" in each]:
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"Error 400: {member} does not exist")
    elif (
        found := re.match(r"principal(?:Set)?://iam\.googleapis\.com/(.+/workloadIdentityPools/[^/]+)/", member)
    ) and (found[1] not in [each.get("name") for each in outputs]):
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"Error 400: Identity Pool does not exist ({found[1]})")
