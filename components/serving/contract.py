"""The contract check: a version is asked what its release says that it can answer, before any traffic moves to it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from pulumi import (
    ComponentResource,
    CustomTimeouts,
    Input,
    Output,
    Resource,
    ResourceHook,
    ResourceHookBinding,
    ResourceOptions,
)

from components.manifest import CORE, Manifest

NAME: Final = "contract"
"""Of what all checks share, in Kubernetes."""
LABELS: Final = {"app.kubernetes.io/component": "contract-check"}
"""Of the pods that ask. None of a model server's, or a Service would send them requests."""
FOLDER: Final = "/contract"
LONGEST_LABEL: Final = 44
"""Characters of a release's label in the name of its Job, which has 63 at most."""
KEPT: Final = "The contract is kept."
"""What server/contract.py prints then. It is not imported, for the sake of all that it imports itself."""
PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, kw_only=True)
class ContractChecksArgs:
    """What the checks of a stack share.

    Attributes:
        script: the program that asks.
        url: the gateway as its clients name it, with scheme and host.
        address: where that is, if the name in the URL is not known in the cluster.
        proxy_ranges: CIDR ranges of the gateway's proxies, which may run in the cluster.
        begins: called before the Job of a check is made.
    """

    namespace: Input[str]
    script: str
    url: Input[str]
    address: Input[str | None] = None
    proxy_ranges: Sequence[str] = ()
    begins: ResourceHook | None = None


@dataclass(frozen=True, kw_only=True)
class CheckArgs:
    """The check of one version.

    Attributes:
        label: name of the release in Kubernetes.
        image: the model's image by digest; its Python runs the script, and its folder holds the contract.
        fingerprint: hexadecimal digits that change with the release or its runtime; a Job of another is another Job.
        path: where the gateway has this version and no other.
        start_seconds: how long its pods may take to load the model.
        provision_seconds: how long a pod, its own too, may wait for a node and for the image before that.
        seconds: how long it may take to answer right after that.
        after: what the gateway must know before it is asked.
    """

    label: str
    model: str
    version: str
    image: Input[str]
    fingerprint: str
    path: str
    seconds: int
    start_seconds: int = 120
    provision_seconds: int = 300
    after: Sequence[Resource] = ()

    @property
    def job_name(self) -> str:
        return f"{self.label[:LONGEST_LABEL].rstrip('-')}-{NAME}-{self.fingerprint[:8]}"

    @property
    def asking_seconds(self) -> int:
        return self.start_seconds + self.seconds


@dataclass(frozen=True, kw_only=True)
class Check:
    """A check that was declared.

    Attributes:
        job: what depends on it happens only if the version keeps its contract.
        name: of the Job in Kubernetes, whose pod prints KEPT as soon as it does.
    """

    job: Resource
    name: str


class ContractChecks(ComponentResource):
    """The script and what its pods may reach: the gateway and nothing else; and a Job per version that asks.

    A Job stays when it is done, as the record of the check, and goes with its version: whoever runs the program again
    finds it and asks nothing. A Job that failed is run again.
    """

    def __init__(self, name: str, args: ContractChecksArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:ContractChecks", name, None, opts)
        self._args = args
        self._shared = [self._script(name, args), self._allow_gateway(name, args)]
        self.register_outputs({})

    def _script(self, name: str, args: ContractChecksArgs) -> Manifest:
        return Manifest(
            name,
            CORE,
            "ConfigMap",
            metadata={"name": NAME, "namespace": args.namespace},
            data={"contract.py": args.script},
            opts=ResourceOptions(parent=self),
        )

    def _allow_gateway(self, name: str, args: ContractChecksArgs) -> Manifest:
        egress = Output.all(url=args.url, address=args.address).apply(
            lambda known: _egress(known["url"], known["address"], args.proxy_ranges)
        )
        return Manifest(
            name,
            "networking.k8s.io/v1",
            "NetworkPolicy",
            metadata={"name": NAME, "namespace": args.namespace},
            spec={"podSelector": {"matchLabels": LABELS}, "policyTypes": ["Ingress", "Egress"], "egress": egress},
            opts=ResourceOptions(parent=self),
        )

    def check(self, args: CheckArgs) -> Check:
        """Declares the check of a version."""
        return Check(job=self._job(args), name=args.job_name)

    def _job(self, args: CheckArgs) -> Resource:
        active_seconds = args.asking_seconds + args.provision_seconds
        return Manifest(
            f"{args.label}-{NAME}",
            "batch/v1",
            "Job",
            metadata={
                "name": args.job_name,
                "namespace": self._args.namespace,
                "labels": LABELS,
                # One that failed is no record: the next update asks again.
                "annotations": {"pulumi.com/replaceUnready": "true"},
            },
            spec={
                # The script itself asks again and again; a second pod would only hide what the first one said.
                "backoffLimit": 0,
                "activeDeadlineSeconds": active_seconds,
                "template": {"metadata": {"labels": LABELS}, "spec": self._pod(args)},
            },
            opts=ResourceOptions(
                parent=self,
                depends_on=[*self._shared, *args.after],
                custom_timeouts=CustomTimeouts(create=f"{active_seconds + 60}s"),
                hooks=ResourceHookBinding(before_create=[self._args.begins]) if self._args.begins else None,
            ),
        )

    def _pod(self, args: CheckArgs) -> dict[str, Any]:
        return {
            "containers": [self._container(args)],
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"name": NAME, "configMap": {"name": NAME}}],
        }

    def _container(self, args: CheckArgs) -> dict[str, Any]:
        options = {
            "model": args.model,
            "version": args.version,
            "folder": f"/models/{args.model}",
            "path": f"{args.path}/infer",
            "seconds": str(args.asking_seconds),
        }
        arguments = [f"--{key}={value}" for key, value in options.items()]
        return {
            "name": NAME,
            "image": args.image,
            "command": ["python", f"{FOLDER}/contract.py"],
            "args": Output.all(url=self._args.url, address=self._args.address).apply(
                lambda known: [*arguments, *(f"--{key}={value}" for key, value in known.items() if value)]
            ),
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
            # What it prints is the reason, and Pulumi tells it to whoever waits for the Job.
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [{"name": NAME, "mountPath": FOLDER, "readOnly": True}],
        }


def _egress(url: str, address: str | None, proxy_ranges: Sequence[str]) -> list[dict[str, Any]]:
    """To the gateway's address, and to its proxies, which a cluster that runs them itself puts in its place."""
    parts = urlsplit(url)
    gateway = {"port": parts.port or PORTS[parts.scheme], "protocol": "TCP"}
    rules: list[dict[str, Any]] = []
    if proxy_ranges:
        rules.append({"to": [{"ipBlock": {"cidr": cidr}} for cidr in proxy_ranges]})
    try:
        network = ipaddress.ip_network(address or parts.hostname or "")
    except ValueError:
        # A name, so that its address is found out by the pod: it needs DNS, and that port wherever the name leads.
        dns = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
        return [*rules, {"ports": dns}, {"ports": [gateway]}]
    return [*rules, {"to": [{"ipBlock": {"cidr": str(network)}}], "ports": [gateway]}]
