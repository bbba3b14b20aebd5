"""What must be so in every stack on Google Cloud, read from what the engine holds after an update."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from components.serving.route import GRPC_SUFFIX
from tests.engine.gcp_standin import APIS

Resource = Mapping[str, Any]

_READING: Final = frozenset(
    f"roles/{role}"
    for role in (
        *("certificatemanager.viewer", "compute.networkViewer", "container.clusterViewer", "monitoring.viewer"),
        *("iam.serviceAccountViewer", "iam.workloadIdentityPoolViewer", "serviceusage.serviceUsageViewer"),
    )
)
ON_PROJECT: Final[Mapping[str, frozenset[str]]] = {
    "plan": _READING,
    "verify": _READING,
    "apply": frozenset(
        f"roles/{role}"
        for role in (
            *("artifactregistry.admin", "binaryauthorization.policyEditor", "certificatemanager.owner"),
            *("compute.networkAdmin", "compute.securityAdmin", "container.admin", "gkehub.editor"),
            *("iam.serviceAccountViewer", "iam.workloadIdentityPoolViewer", "monitoring.editor", "storage.admin"),
            "serviceusage.serviceUsageAdmin",
        )
    ),
    "nodes": frozenset({"roles/container.defaultNodeServiceAccount"}),
    "review": frozenset({"roles/container.clusterViewer"}),
}
"""Duty -> roles that its account may have in the project. A new one belongs into docs/gcp.md with its reason first."""

_PUBLIC_CLASSES: Final = ("gke-l7-global-external", "gke-l7-regional-external", "gke-l7-gxlb")
_OPEN_MEMBERS: Final = ("allUsers", "allAuthenticatedUsers")


def made_before_their_api(resources: Iterable[Resource]) -> Iterator[str]:
    """Resources that may be made before the stack has enabled what makes them: by luck it goes well, or not."""
    needs = {each["urn"]: set(each.get("dependencies", ())) for each in resources}
    services = {
        each["inputs"]["service"]: each["urn"] for each in resources if each["type"] == "gcp:projects/service:Service"
    }
    for resource in resources:
        provider, _, kind = resource["type"].partition(":")
        service = services.get(APIS.get(kind.partition("/")[0], "")) if provider == "gcp" else None
        reached: set[str] = set()
        ahead = [resource["urn"]]
        while ahead:
            new = needs.get(ahead.pop(), set()) - reached
            reached |= new
            ahead += new
        if service and service not in reached:
            yield f"{resource['urn'].rpartition('::')[2]} ({kind}) does not wait for {service.rpartition('::')[2]}"


def routes_before_their_contract(resources: Iterable[Resource]) -> Iterator[str]:
    """Routes of a model's whole traffic that may lead to a version before it has kept its contract."""
    checks = {_name(each): each["urn"] for each in resources if each["type"] == "kubernetes:batch/v1:Job"}
    for route in resources:
        # A version's own route has a dot in its name, and is what its check asks; so has that for gRPC, which is none.
        is_pinned = "." in _name(route).removesuffix(GRPC_SUFFIX)
        if not route["type"].endswith(":HTTPRoute") or is_pinned:
            continue
        backends = (each for rule in route["inputs"]["spec"]["rules"] for each in rule["backendRefs"])
        for check in sorted({f"{each['name']}-contract" for each in backends} & checks.keys()):
            if checks[check] not in route["dependencies"]:
                yield f"{_name(route)} does not wait for {check}"


def broad_bindings(resources: Iterable[Resource]) -> Iterator[str]:
    """Bindings in the project, or above it, besides those of ON_PROJECT; and any that evicts other members."""
    for resource in resources:
        kind, name = resource["type"], resource["urn"].rpartition("::")[2]
        inputs = resource.get("inputs", {})
        role, member = str(inputs.get("role", "")), str(inputs.get("member", ""))
        if re.search(r"IAM(Binding|Policy|AuditConfig)$", kind, re.IGNORECASE):
            yield f"{name}: a {kind} takes roles away from whoever else has them"
        elif re.match(r"gcp:(organizations|folder)/.*iammember", kind, re.IGNORECASE):
            yield f"{name}: {role} above the project"
        elif kind == "gcp:projects/iAMMember:IAMMember":
            duty = member.partition("@")[0].rpartition("-")[2]
            own_reader = duty in ("plan", "verify", "apply") and re.fullmatch(r"projects/[^/]+/roles/\w+_reader", role)
            if not own_reader and role not in ON_PROJECT.get(duty, ()):
                yield f"{name}: {member} has {role} in the whole project"
        if member in _OPEN_MEMBERS or set(inputs.get("members", ())) & set(_OPEN_MEMBERS):
            yield f"{name}: {role} for everybody"


def public_doors(resources: Iterable[Resource]) -> Iterator[str]:
    """Whatever of a stack can be reached from the internet."""
    for resource in resources:
        provider, _, kind = resource["type"].partition(":")
        opens = _DOORS.get((provider, kind.rpartition(":")[2]))
        if opens and (door := opens(resource.get("inputs", {}))):
            yield f"{resource['urn'].rpartition('::')[2]}: {door}"


def _name(resource: Resource) -> str:
    return str(resource["urn"].rpartition("::")[2])


def _address(inputs: Mapping[str, Any]) -> str:
    return "an external address" if inputs.get("addressType", "EXTERNAL") == "EXTERNAL" else ""  # Google's default


def _balancer(inputs: Mapping[str, Any]) -> str:
    scheme = str(inputs.get("loadBalancingScheme", "EXTERNAL"))
    return "" if scheme.startswith("INTERNAL") else "an external load balancer"


def _machine(inputs: Mapping[str, Any]) -> str:
    given = any(each.get("accessConfigs") for each in inputs.get("networkInterfaces", ()))
    return "a machine with an external address" if given else ""


def _bucket(inputs: Mapping[str, Any]) -> str:
    return "" if inputs.get("publicAccessPrevention") == "enforced" else "a bucket that can be opened to everybody"


def _cluster(inputs: Mapping[str, Any]) -> str:
    if not inputs.get("privateClusterConfig", {}).get("enablePrivateNodes"):
        return "nodes with external addresses"
    own_address = inputs.get("controlPlaneEndpointsConfig", {}).get("ipEndpointsConfig", {}).get("enabled", True)
    return "a control plane with an address of its own" if own_address else ""


def _gateway(inputs: Mapping[str, Any]) -> str:
    name = str(inputs.get("spec", {}).get("gatewayClassName", ""))
    return f"a gateway of the class {name}" if name.startswith(_PUBLIC_CLASSES) else ""


def _service(inputs: Mapping[str, Any]) -> str:
    kind = inputs.get("spec", {}).get("type")
    annotations = inputs.get("metadata", {}).get("annotations", {})
    internal = annotations.get("networking.gke.io/load-balancer-type") == "Internal"
    return f"a Service of the type {kind}" if kind == "NodePort" or (kind == "LoadBalancer" and not internal) else ""


_DOORS: Final[Mapping[tuple[str, str], Callable[[Mapping[str, Any]], str]]] = {
    ("gcp", "Address"): _address,
    ("gcp", "GlobalAddress"): _address,
    ("gcp", "ForwardingRule"): _balancer,
    ("gcp", "GlobalForwardingRule"): _balancer,
    ("gcp", "Instance"): _machine,
    ("gcp", "Bucket"): _bucket,
    ("gcp", "Cluster"): _cluster,
    ("kubernetes", "Gateway"): _gateway,
    ("kubernetes", "Service"): _service,
    ("kubernetes", "Ingress"): lambda inputs: "an Ingress, which GKE gives an external address",
}
