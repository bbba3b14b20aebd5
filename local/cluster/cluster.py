"""One local cluster: its steps from nothing to Ready, and the removal of all of its traces."""

import contextlib
import json
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from local.cluster import (
    certificates,
    cgroups,
    checks,
    firewall,
    garbage,
    gateway,
    kernel,
    locks,
    mounts,
    network,
    pause,
    ports,
    programs,
)
from local.cluster.api import Api
from local.cluster.layout import NODE, Layout, write_atomically
from local.cluster.probes import wait_until
from local.cluster.processes import Process, Processes, boot, network_namespace, owner_of, write_owner
from local.cluster.steps import START_SECONDS, Step, Task, run_steps
from model_serving.problems import Failure

GRACE_SECONDS = 5
KEEPERS = ("etcd", "containerd", "registry", "buildkitd")  # of data; they get time to close their files
NOT_READY_TAINT = "node.kubernetes.io/not-ready"
CONTAINER_LOGS = Path("/var/log/containers")  # fixed in the kubelet
SHIM_SOCKETS = Path("/run/containerd/s")  # fixed in containerd
BUILD_STATES = Path("/run/runc")  # fixed in buildkit


class Cluster:
    """One instance of the local cluster."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._processes = Processes(layout)

    def start(self) -> None:
        checks.check_machine(self._layout)
        with self._locked():
            self._claim()
            self._clear_leftovers()
            address = self._choose_address()
            steps = self.steps(address)
            processes = [step for step in steps if isinstance(step, Process)]
            checks.check_ports([process for process in processes if not self._processes.is_alive(process.name)])
            self._end_changed(processes)
            self._prepare(address)
            run_steps(steps, self._processes)

    def stop(self, *, delete: bool) -> None:
        layout = self._layout
        if not layout.state.exists() and not layout.run.exists():
            return
        self._claim()
        with self._locked():
            self._clear_leftovers()
            self._remove_everything()
            if delete:
                for path in {*layout.cluster.iterdir(), layout.kubelet} - {layout.lock, layout.logs}:
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                for folder in layout.kubelet.parents[:2]:
                    with contextlib.suppress(OSError):  # not empty, as the checkout's own is
                        folder.rmdir()
                layout.kubeconfig.unlink(missing_ok=True)
                layout.builder.unlink(missing_ok=True)

    def collect_garbage(self) -> int:
        """Free the space of removed images in the registry; returns the bytes."""
        with self._locked():
            self._claim()
            return garbage.collect(self._layout, self._processes)

    def steps(self, address: str) -> list[Step]:
        """Everything that `start` does, each with the steps that it waits for."""
        layout, served = self._layout, ("kube-apiserver",)
        return [
            Task(name="certificates", run=lambda: certificates.ensure(layout, address)),
            programs.registry(layout),
            programs.buildkitd(layout),
            programs.etcd(layout),
            programs.api_server(layout, address),
            programs.controller_manager(layout),
            programs.scheduler(layout),
            programs.containerd(layout),
            programs.kubelet(layout, address),
            programs.kube_proxy(layout),
            programs.kube_router(layout),
            Task(name="pause image", run=pause.ensure_pushed, after=("registry",)),
            Task(name="administrators", run=lambda: _bind_administrators(layout, address), after=served),
            Task(name="node", run=lambda: self._await_node(address), after=("kubelet", "kube-controller-manager")),
            # After the node: the namespace may come only after the API server is ready.
            Task(name="API for pods", run=lambda: _publish_api(layout, address), after=("node",)),
            Task(name="gateway definitions", run=lambda: gateway.install_definitions(layout, address), after=served),
            programs.contour(layout),
            programs.envoy(layout),
        ]

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        """Serializes the commands that change the cluster."""
        return locks.held(self._layout.lock, waiting="another start or stop of this cluster is running: waiting for it")

    def _claim(self) -> None:
        """Refuse to replace a cluster of the same name that runs from another checkout."""
        state = self._owners_state()
        if state != self._layout.state and state.exists() and any(self._processes.marked()):
            raise Failure(
                f"A local cluster named {self._layout.name} was started from {state}.\n"
                f"  Stop it with --state {state}, or give this one another name with --name."
            )

    def _owners_state(self) -> Path:
        return Path(owner_of(self._layout.run).get("state", self._layout.state))

    def _clear_leftovers(self) -> None:
        """Clean up after a reboot, which leaves pod addresses taken, and after a cluster of a former checkout."""
        state = self._owners_state()
        if state != self._layout.state:
            Cluster(replace(self._layout, state=state))._remove_everything()
        elif owner_of(self._layout.run).get("boot") == boot():
            return
        if self._layout.run.exists() or self._layout.pod_addresses.exists():
            self._remove_everything()

    def _choose_address(self) -> str:
        """Keep the address of a running cluster while this machine has it; otherwise everything restarts."""
        chosen = network.own_address()
        if not any(self._processes.is_alive(name) for name in self._processes.names()):
            return chosen
        if owner_of(self._layout.run).get("network") != network_namespace():
            raise Failure(
                f"The local cluster named {self._layout.name} runs in another network namespace.\n"
                "  Give this one another --name and --state, or stop that one."
            )
        used = self._layout.address.read_text() if self._layout.address.exists() else chosen
        if network.has_address(used):
            return used
        print(f"this machine's address changed from {used} to {chosen}: restarting everything")
        self._remove_everything()
        return chosen

    def _end_changed(self, processes: Sequence[Process]) -> None:
        """Report processes that died, and end those whose version or configuration changed."""
        changed = []
        for process in processes:
            record = self._processes.record(process.name)
            if record and record.has_died:
                lines = self._processes.last_lines(process.name)
                print(f"{process.name} (process {record.pid}) had died; its last log lines:\n{lines}")
            elif record and record.is_alive and record.digest != process.digest:
                print(f"{process.name} is started again: its version or configuration changed")
                changed.append(process.name)
        self._end(changed)

    def _end(self, names: Iterable[str]) -> None:
        """End the processes that keep data last and gracefully, because etcd waits for its clients to disconnect."""
        self._processes.end_all([name for name in names if name not in KEEPERS])
        self._processes.end_all([name for name in names if name in KEEPERS], grace_seconds=GRACE_SECONDS)

    def _prepare(self, address: str) -> None:
        layout = self._layout
        for folder in (layout.run, layout.cluster, layout.cache, layout.pod_logs):
            folder.mkdir(parents=True, exist_ok=True)
        write_owner(layout)
        if not layout.address.exists() or layout.address.read_text() != address:
            write_atomically(layout.address, address)
        network.ensure_address(address)
        network.ensure_bridge()
        kernel.prepare(layout)
        cgroups.make(layout)
        programs.write_definition(layout)

    def _await_node(self, address: str) -> None:
        """Wait until the kubelet that runs now has reported the node as Ready, and it accepts pods."""
        record = self._processes.record("kubelet")
        started = int(time.time() - record.uptime_seconds) if record else 0
        api = Api(self._layout, address)
        wait_until(
            lambda: _is_ready(api.get(f"/api/v1/nodes/{NODE}") or {}, since=started),
            START_SECONDS,
            lambda: f"The node is not Ready after {START_SECONDS} s:\n{self._processes.last_lines('kubelet')}",
        )

    def _remove_everything(self) -> None:
        """The kubelet ends first, because it would start pods again; data is closed once nothing uses it."""
        layout = self._layout
        names = self._processes.names()
        self._processes.end_all([name for name in names if name not in KEEPERS])
        cgroups.remove(layout)  # ends the pods while containerd can still record it
        self._end(names)
        sockets = _shim_sockets(layout)
        self._processes.end_marked()
        cgroups.remove(layout)
        mounts.unmount_below((layout.run, layout.kubelet, layout.cache))
        if owner_of(layout.run).get("network") == network_namespace():  # never clean another one
            network.remove(layout)
            firewall.clean(layout)
            kernel.restore(layout)
        _remove_files(layout, sockets)


def _bind_administrators(layout: Layout, address: str) -> None:
    """Give cluster-admin to the group of kubeadm's administrators and of the API server's requests to the kubelet."""
    name = "kubeadm:cluster-admins"
    rbac = "rbac.authorization.k8s.io"
    binding = {
        "apiVersion": f"{rbac}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": rbac, "kind": "Group", "name": name}],
    }
    Api(layout, address).apply(f"/apis/{rbac}/v1/clusterrolebindings/{name}", json.dumps(binding))


def _publish_api(layout: Layout, address: str) -> None:
    """Give the Service `kubernetes` its endpoint.

    The API server could do it, but would remove it at its end, and wait half a minute for an etcd that ends as well.
    """
    endpoint = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "protocol": "TCP", "port": ports.API}],
    }
    path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes"
    Api(layout, address).apply(path, json.dumps(endpoint))


def _is_ready(found: dict[str, Any], *, since: int) -> bool:
    """Whether a node is Ready and accepts pods, as reported no earlier than `since`."""
    if any(taint["key"] == NOT_READY_TAINT for taint in found.get("spec", {}).get("taints", [])):
        return False
    return any(
        condition["type"] == "Ready"
        and condition["status"] == "True"
        and datetime.fromisoformat(condition["lastHeartbeatTime"]).timestamp() >= since
        for condition in found.get("status", {}).get("conditions", [])
    )


def _shim_sockets(layout: Layout) -> list[Path]:
    """Sockets of the containers' shims, which are in a folder that all of containerd shares."""
    files = (layout.run / "containerd/io.containerd.runtime.v2.task").glob("*/*/address")
    return [Path(file.read_text().removeprefix("unix://")) for file in files]


def _remove_files(layout: Layout, sockets: Iterable[Path]) -> None:
    for socket in sockets:
        socket.unlink(missing_ok=True)
    for link in CONTAINER_LOGS.glob("*"):
        if link.is_symlink() and link.readlink().is_relative_to(layout.pod_logs):
            link.unlink()
    for folder in (layout.run, layout.pod_addresses):
        shutil.rmtree(folder, ignore_errors=True)
    for state in BUILD_STATES.glob("*/state.json"):  # of builds that were interrupted
        if f"/{layout.cgroup}/" in state.read_text(errors="replace"):
            shutil.rmtree(state.parent, ignore_errors=True)
    for folder in (CONTAINER_LOGS, SHIM_SOCKETS, SHIM_SOCKETS.parent, BUILD_STATES, layout.run.parent):
        with contextlib.suppress(OSError):  # others still use it
            folder.rmdir()
