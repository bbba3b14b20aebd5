"""The contract check: a Job that sends a version its release's example request before any traffic moves to it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from pulumi import ComponentResource, Input, Output, Resource, ResourceOptions

from components.manifest import CORE, EXISTS, RESTRICTED_CONTAINER, RESTRICTED_POD, Manifest
from components.serving.route import pinned_path

NAME: Final = "contract"
"""Kubernetes name of the resources that all checks share."""
LABELS: Final = {"app.kubernetes.io/component": "contract-check"}
"""Of the checks' pods. They have no label of a model server, or a Service would send them requests."""
FOLDER: Final = "/contract"
LONGEST_LABEL: Final = 44
"""Characters of a release's label in the name of its Job, which may have 63."""
FEWEST_ANSWERS: Final = 3
"""Of a slow model, for which server/contract.py still asks when the first one has come at the last moment."""
PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, kw_only=True)
class ContractChecksArgs:
    """Shared by the checks of a stack.

    Attributes:
        scripts: name of a file -> its text, of the program that queries a version.
        url: the gateway's, as its certificate names it.
        address: of the URL's host, if the cluster may not resolve it.
        proxy_ranges: CIDR ranges of the gateway's proxies, which may run in the cluster.
        name: of what they share, in Kubernetes.
        more_labels: of everything here.
        is_allowed: whether a policy lets the checks ask the gateway already.
    """

    namespace: Input[str]
    scripts: Mapping[str, str]
    url: Input[str]
    address: Input[str | None] = None
    proxy_ranges: Sequence[str] = ()
    name: str = NAME
    more_labels: Mapping[str, str] = field(default_factory=dict)
    is_allowed: bool = False

    @property
    def labels(self) -> dict[str, str]:
        """Of the checks and their pods."""
        return {**LABELS, **self.more_labels}

    @property
    def metadata(self) -> dict[str, Any]:
        """Of what they share."""
        labels = {"labels": {**self.more_labels}} if self.more_labels else {}
        return {"name": self.name, "namespace": self.namespace, **labels}


@dataclass(frozen=True, kw_only=True)
class CheckArgs:
    """The check of one version.

    Attributes:
        label: name of the release in Kubernetes.
        image: the model's image by digest, with the Python that runs the script and the folder with the contract.
        fingerprint: hexadecimal digits that change with the release or its runtime, and so does the Job's name.
        start_seconds: for its pods to load the model.
        provision_seconds: for a pod, also the check's, to get a node and its image before that.
        seconds: for the right answer after that.
        answer_seconds: for which a request may take.
        after: the gateway's configuration for the version.
        path: below which the gateway serves exactly this version; None is its own route's.
    """

    label: str
    model: str
    version: str
    image: Input[str]
    fingerprint: str
    seconds: int
    answer_seconds: int
    start_seconds: int = 120
    provision_seconds: int = 300
    after: Sequence[Resource] = ()
    path: str | None = None

    @property
    def job_name(self) -> str:
        return f"{self.label[:LONGEST_LABEL].rstrip('-')}-{NAME}-{self.fingerprint[:8]}"

    @property
    def asking_seconds(self) -> int:
        return self.start_seconds + self.seconds

    @property
    def active_seconds(self) -> int:
        return self.provision_seconds + self.asking_seconds + FEWEST_ANSWERS * self.answer_seconds


@dataclass(frozen=True, kw_only=True)
class Check:
    """A declared check.

    Attributes:
        job: whose success says that the contract is kept; its ``metadata`` is among the outputs.
        seconds: after which it has failed.
    """

    job: Manifest
    seconds: int


class ContractChecks(ComponentResource):
    """The script, a NetworkPolicy that only allows the gateway, and a Job per version.

    A finished Job stays as the record of the check until its version goes, so that later updates do not repeat it. A
    failed one is run again.
    """

    def __init__(self, name: str, args: ContractChecksArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("model-serving:index:ContractChecks", name, None, opts)
        self._args = args
        self._shared = [self._scripts(name, args)]
        if not args.is_allowed:
            self._shared.append(allow_gateway(name, args, ResourceOptions(parent=self)))
        self.register_outputs({})

    def _scripts(self, name: str, args: ContractChecksArgs) -> Manifest:
        return Manifest(
            name,
            CORE,
            "ConfigMap",
            metadata=args.metadata,
            data=dict(args.scripts),
            opts=ResourceOptions(parent=self),
        )

    def check(self, args: CheckArgs) -> Check:
        """Declares the check of a version."""
        job = Manifest(
            f"{args.label}-{NAME}",
            "batch/v1",
            "Job",
            metadata={
                "name": args.job_name,
                "namespace": self._args.namespace,
                "labels": self._args.labels,
                # The next update repeats a failed check.
                "annotations": {"pulumi.com/replaceUnready": "true", **EXISTS},
            },
            spec={
                # The script itself retries; a second pod would only hide the first one's message.
                "backoffLimit": 0,
                "activeDeadlineSeconds": args.active_seconds,
                "template": {"metadata": {"labels": self._args.labels}, "spec": self._pod(args)},
            },
            opts=ResourceOptions(
                parent=self,
                depends_on=[*self._shared, *args.after],
            ),
        )
        return Check(job=job, seconds=args.active_seconds)

    def _pod(self, args: CheckArgs) -> dict[str, Any]:
        return {
            "containers": [self._container(args)],
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": RESTRICTED_POD,
            "volumes": [{"name": NAME, "configMap": {"name": self._args.name}}],
        }

    def _container(self, args: CheckArgs) -> dict[str, Any]:
        options = {
            "model": args.model,
            "version": args.version,
            "folder": f"/models/{args.model}",
            "path": f"{args.path or pinned_path(args.model, args.version)}/infer",
            "seconds": str(args.asking_seconds),
            "answer-seconds": str(args.answer_seconds),
        }
        arguments = [f"--{key}={value}" for key, value in options.items()]
        return {
            "name": NAME,
            "image": args.image,
            "workingDir": FOLDER,
            "command": ["python", "-m", "server.contract"],
            "args": Output.all(url=self._args.url, address=self._args.address).apply(
                lambda known: [*arguments, *(f"--{key}={value}" for key, value in known.items() if value)]
            ),
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
            # Its output is the reason, which Pulumi reports for a failed Job.
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "securityContext": RESTRICTED_CONTAINER,
            "volumeMounts": [{"name": NAME, "mountPath": f"{FOLDER}/server", "readOnly": True}],
        }


def allow_gateway(name: str, args: ContractChecksArgs, opts: ResourceOptions) -> Manifest:
    """Declares the NetworkPolicy of the checks' pods: to the gateway, and nothing else."""
    egress = Output.all(url=args.url, address=args.address).apply(
        lambda known: _egress(known["url"], known["address"], args.proxy_ranges)
    )
    return Manifest(
        name,
        "networking.k8s.io/v1",
        "NetworkPolicy",
        metadata=args.metadata,
        spec={"podSelector": {"matchLabels": args.labels}, "policyTypes": ["Ingress", "Egress"], "egress": egress},
        opts=opts,
    )


def _egress(url: str, address: str | None, proxy_ranges: Sequence[str]) -> list[dict[str, Any]]:
    """To the gateway's address, and to its proxies, to which a cluster that runs them redirects the traffic."""
    parts = urlsplit(url)
    gateway = {"port": parts.port or PORTS[parts.scheme], "protocol": "TCP"}
    rules: list[dict[str, Any]] = []
    if proxy_ranges:
        rules.append({"to": [{"ipBlock": {"cidr": cidr}} for cidr in proxy_ranges]})
    try:
        network = ipaddress.ip_network(address or parts.hostname or "")
    except ValueError:
        # The pod must resolve a name: it needs DNS, and that port at any address.
        dns = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
        return [*rules, {"ports": dns}, {"ports": [gateway]}]
    return [*rules, {"to": [{"ipBlock": {"cidr": str(network)}}], "ports": [gateway]}]
