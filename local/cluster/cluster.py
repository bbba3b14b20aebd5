"""One local cluster: what it consists of, and how all of that is taken away again."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from local.cluster import (
    builder,
    certificates,
    cgroups,
    checks,
    control_plane,
    firewall,
    garbage,
    gateway,
    kernel,
    locks,
    mounts,
    network,
    node,
    pause,
)
from local.cluster.api import Api
from local.cluster.errors import LocalError
from local.cluster.layout import NODE, Layout
from local.cluster.owner import owner_of, write_owner
from local.cluster.processes import Process, Processes, boot
from local.cluster.steps import START_SECONDS, Report, Start, Step, Task

GRACE_SECONDS = 5
KEEPERS = ("etcd", "containerd", "registry", "buildkitd")  # of data; these get time to close their files
NOT_READY_TAINT = "node.kubernetes.io/not-ready"
CONTAINER_LOGS = Path("/var/log/containers")  # fixed in the kubelet
SHIM_SOCKETS = Path("/run/containerd/s")  # fixed in containerd
BUILD_STATES = Path("/run/runc")  # fixed in buildkit


class Cluster:
    """One instance of the local cluster."""

    def __init__(self, layout: Layout, report: Report) -> None:
        self._layout = layout
        self._report = report
        self.processes = Processes(layout)

    # start

    def start(self) -> None:
        checks.check_machine(self._layout)
        with self._locked():
            self._claim()
            self._clear_leftovers()
            address = self._choose_address()
            steps = self.steps(address)
            processes = [step for step in steps if isinstance(step, Process)]
            checks.check_ports(process for process in processes if not self.processes.is_alive(process.name))
            self._retire(processes)
            self._prepare(address)
            Start(steps, self.processes, self._report).run()

    def _claim(self) -> None:
        """Refuse to take over what runs from another checkout under the same name."""
        state = self._owners_state()
        if state != self._layout.state and state.exists() and self.processes.any_marked():
            raise LocalError(
                f"A local cluster named {self._layout.name} was started from {state}.\n"
                f"  Stop it with --state {state}, or give this one another name with --name."
            )

    def _owners_state(self) -> Path:
        return Path(owner_of(self._layout.run).get("state", self._layout.state))

    def _clear_leftovers(self) -> None:
        """A reboot leaves the pods' addresses taken; a checkout may be deleted, or killed with its cluster."""
        state = self._owners_state()
        if state != self._layout.state:
            Cluster(replace(self._layout, state=state), self._report)._remove_everything()
        elif owner_of(self._layout.run).get("boot") == boot():
            return
        if self._layout.run.exists() or self._layout.pod_addresses.exists():
            self._remove_everything()

    def _choose_address(self) -> str:
        """What runs keeps its address as long as this machine has it; afterwards everything starts anew."""
        chosen = network.own_address()
        if not any(self.processes.is_alive(name) for name in self.processes.names()):
            return chosen
        if owner_of(self._layout.run).get("network") != network.namespace():
            raise LocalError(
                f"The local cluster named {self._layout.name} runs in another network namespace.\n"
                "  Give this one another --name and --state, or stop that one."
            )
        used = self._layout.address.read_text() if self._layout.address.exists() else chosen
        if network.has_address(used):
            return used
        self._report(f"this machine's address is {chosen} and no longer {used}: starting everything anew")
        self._remove_everything()
        return chosen

    def steps(self, address: str) -> list[Step]:
        """Everything that `start` does, each with what it has to wait for."""
        layout = self._layout
        return [
            Task(name="certificates", run=lambda: certificates.ensure(layout, address)),
            *builder.processes(layout),
            *control_plane.processes(layout, address, self._api(address)),
            *node.processes(layout, address),
            Task(name="pause image", run=pause.ensure_pushed, after=("registry",)),
            Task(name="administrators", run=lambda: self._bind_administrators(address), after=("kube-apiserver",)),
            Task(name="node", run=lambda: self._await_node(address), after=("kubelet", "kube-controller-manager")),
            Task(
                name="gateway definitions",
                run=lambda: gateway.install_definitions(layout, self._api(address)),
                after=("kube-apiserver",),
            ),
            *gateway.processes(layout),
        ]

    def _api(self, address: str) -> Api:
        return Api(kubeconfig=certificates.kubeconfig(self._layout, "super-admin"), address=address)

    def _retire(self, processes: Sequence[Process]) -> None:
        """Say what died, and end what would run differently today: another version, another configuration."""
        changed = []
        for process in processes:
            record = self.processes.record(process.name)
            if self.processes.died(process.name) and record:
                lines = self.processes.last_lines(process.name)
                self._report(f"{process.name} (process {record.pid}) had died; its last log lines:\n{lines}")
            elif record and record.is_alive and record.digest != process.digest:
                self._report(f"{process.name} is started again: its version or configuration changed")
                changed.append(process.name)
        self._end(changed)

    def _end(self, names: Sequence[str]) -> None:
        """End those that keep data last and in peace: etcd waits for its clients to leave."""
        self.processes.end_all([name for name in names if name not in KEEPERS])
        self.processes.end_all([name for name in names if name in KEEPERS], grace_seconds=GRACE_SECONDS)

    def _prepare(self, address: str) -> None:
        layout = self._layout
        for folder in (layout.run, layout.cluster, layout.cache, layout.pod_logs):
            folder.mkdir(parents=True, exist_ok=True)
        write_owner(layout)
        layout.address.write_text(address)
        network.ensure_address(address)
        network.ensure_bridge()
        kernel.prepare(layout)
        cgroups.make(layout)
        builder.write_definition(layout)

    def _bind_administrators(self, address: str) -> None:
        """The administrators of kubeadm and the API server's own requests to the kubelet are of this group."""
        name = "kubeadm:cluster-admins"
        kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name}}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
        group = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name}
        path = f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{name}"
        api = self._api(address)
        if not api.get(path):
            api.apply(path, json.dumps(kind | {"roleRef": role, "subjects": [group]}))

    def _await_node(self, address: str) -> None:
        """Ready by a report of the kubelet that runs now, and free for pods."""
        record = self.processes.record("kubelet")
        started = int(time.time() - record.uptime_seconds) if record else 0
        api = self._api(address)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if _is_ready(api.get(f"/api/v1/nodes/{NODE}") or {}, since=started):
                return
            time.sleep(0.05)
        raise LocalError(f"The node is not Ready after {START_SECONDS} s:\n{self.processes.last_lines('kubelet')}")

    # in between

    def collect_garbage(self) -> int:
        """Frees the space of what was removed from the image registry; returns the bytes."""
        with self._locked():
            self._claim()
            return garbage.collect(self._layout, self.processes)

    # stop

    def stop(self, *, delete: bool) -> None:
        if not self._layout.state.exists() and not self._layout.run.exists():
            return
        self._claim()
        with self._locked():
            self._clear_leftovers()
            self._remove_everything()
            if delete:
                self._delete_state()

    def _remove_everything(self) -> None:
        """The kubelet goes first, for it would start pods again; data is closed while nothing uses it any more."""
        layout = self._layout
        names = self.processes.names()
        self.processes.end_all([name for name in names if name not in KEEPERS])
        cgroups.remove(layout)  # ends the pods, while containerd can still take note
        self._end(names)
        sockets = _shim_sockets(layout)
        self.processes.end_marked()
        cgroups.remove(layout)
        mounts.unmount_below((layout.run, layout.kubelet, layout.cache))
        if owner_of(self._layout.run).get("network") == network.namespace():  # another's is not for us to clean
            network.remove(layout)
            firewall.clean(layout)
            kernel.restore(layout)
        self._remove_files(sockets)

    def _remove_files(self, sockets: Sequence[Path]) -> None:
        layout = self._layout
        for socket in sockets:
            socket.unlink(missing_ok=True)
        if CONTAINER_LOGS.is_dir():
            for link in CONTAINER_LOGS.iterdir():
                if link.is_symlink() and link.readlink().is_relative_to(layout.pod_logs):
                    link.unlink()
        for folder in (layout.run, layout.pod_addresses):
            shutil.rmtree(folder, ignore_errors=True)
        self._remove_build_states()
        for folder in (CONTAINER_LOGS, SHIM_SOCKETS, SHIM_SOCKETS.parent, BUILD_STATES, layout.run.parent):
            with contextlib.suppress(OSError):  # not empty: others use it
                folder.rmdir()

    def _remove_build_states(self) -> None:
        """What runc remembers of builds that were under way."""
        own = f"/{self._layout.cgroup}/"
        for state in BUILD_STATES.glob("*/state.json"):
            if own in state.read_text(errors="replace"):
                shutil.rmtree(state.parent, ignore_errors=True)

    def _delete_state(self) -> None:
        layout = self._layout
        for path in layout.cluster.iterdir():
            if path not in {layout.lock, layout.logs}:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        layout.kubeconfig.unlink(missing_ok=True)
        layout.builder.unlink(missing_ok=True)

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        """One start or stop at a time."""
        waiting = "another start or stop of this cluster is under way: waiting for it"
        return locks.held(self._layout.lock, waiting=waiting, report=self._report)


def _is_ready(found: dict[str, object], *, since: int) -> bool:
    """Whether a node is Ready and open for pods, as reported no earlier than `since`."""
    spec, status = found.get("spec"), found.get("status")
    if not isinstance(spec, dict) or not isinstance(status, dict):
        return False
    if any(taint["key"] == NOT_READY_TAINT for taint in spec.get("taints", [])):
        return False
    return any(
        condition["type"] == "Ready"
        and condition["status"] == "True"
        and datetime.fromisoformat(condition["lastHeartbeatTime"]).timestamp() >= since
        for condition in status.get("conditions", [])
    )


def _shim_sockets(layout: Layout) -> list[Path]:
    """Each container's folder names the socket of its shim, which is in a folder that all of containerd shares."""
    files = (layout.run / "containerd/io.containerd.runtime.v2.task").glob("*/*/address")
    return [Path(file.read_text().removeprefix("unix://")) for file in files]
