"""The local cluster's life: start, loss of each process, stop, and what a stop leaves behind.

Every cluster here runs in a network namespace of its own, with its own home folder, so that neither the machine's
cluster nor the order of tests matters.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.cluster import cgroups, checks, probes, processes
from local.cluster.layout import PROJECT, Layout
from local.cluster.pause import PAUSE_IMAGE
from local.tools import packages
from model_serving.problems import Failure

PROCESSES = (
    "registry",
    "buildkitd",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "containerd",
    "kubelet",
    "kube-proxy",
    "kube-router",
    "contour",
    "envoy",
)
KILLED = ("etcd", "containerd", "envoy")
"""One that others need to start, one that has children, and the last one."""
ALIKE = pytest.mark.thorough(f"the same of {', '.join(KILLED)}")
TOOLS = PROJECT / ".state" / "bin"
SHUTDOWN_SECONDS = 10
"""After SIGTERM to everything at once. It takes less than 2 s; an API server that waits for etcd takes 11 or 31 s."""
HOLD = "import socket, sys; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); print(flush=True); s.accept()"
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "sleeper"},
    "spec": {"containers": [{"name": "sleeper", "image": PAUSE_IMAGE}]},
}
GATEWAY = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "gateway", "namespace": "models"},
    "spec": {"gatewayClassName": "contour", "listeners": [{"name": "http", "protocol": "HTTP", "port": 80}]},
}

POLICY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "nothing"},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
}


class Instance:
    """A cluster in a network namespace of its own, driven as a person would: through its command line."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.state = folder / "state"
        self.home = folder / "home"
        self.tools = TOOLS
        self.kubeconfig_of_user = self.home / ".kube" / "config"
        self.kubeconfig_of_user.parent.mkdir(parents=True)
        self.kubeconfig_of_user.write_text("the user's own")
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self._namespace = Path(f"/proc/{self._holder.pid}/ns/net")
        while self._namespace.readlink() == Path("/proc/self/ns/net").readlink():
            time.sleep(0.01)
        self.inside("ip", "link", "set", "lo", "up")
        self.inside("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")  # whatever the machine's own is

    def close(self) -> None:
        done = self.run("stop", "--delete")
        self._holder.kill()
        self._holder.wait()
        assert done.returncode == 0, done.stdout + done.stderr

    def command(self, *arguments: str) -> list[str]:
        return ["nsenter", f"--net={self._namespace}", *arguments]

    def inside(self, *arguments: str) -> str:
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, check=True).stdout

    def local(self, *arguments: str) -> list[str]:
        options = ("--name", self.name, "--state", str(self.state), "--bin", str(self.tools))
        return self.command(sys.executable, "-m", "local.cluster", *arguments, *options)

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if key not in {"XDG_CACHE_HOME", "KUBECONFIG"}}
        return kept | {"HOME": str(self.home)}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.local(*arguments), capture_output=True, text=True, check=False, env=self.environment, cwd=PROJECT
        )

    def kubectl(self, *arguments: str, text: str = "") -> str:
        command = self.command(str(TOOLS / "kubectl"), f"--kubeconfig={self.state}/kubeconfig", *arguments)
        return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout

    def run_pod(self) -> None:
        """Waits until the pod `sleeper` is ready, which may run already."""
        self.kubectl("wait", "--for=create", "serviceaccount/default", "--timeout=60s")
        self.kubectl("apply", "-f", "-", text=json.dumps(POD))
        self.kubectl("wait", "--for=condition=Ready", "pod/sleeper", "--timeout=60s")

    def pids(self) -> dict[str, int]:
        return {path.name: json.loads(path.read_text())["pid"] for path in (self.state / "local" / "pids").iterdir()}

    def marked(self) -> list[int]:
        """The cluster's own processes and the shims of its containers, not what runs in these."""
        return [pid for pid in processes.running() if processes.mark_of(pid) == Path(self._run)]

    def traces(self) -> dict[str, list[str]]:
        """Everything on this machine that belongs to the instance or lies in its network namespace."""
        rules = self.inside("iptables-save") + self.inside("ip6tables-save")
        return {
            "processes": sorted(self._processes()),
            "mounts": re.findall(
                rf".*(?:{self.state}|{self.home}|{self._run}).*", Path("/proc/mounts").read_text(encoding="utf-8")
            ),
            "interfaces": re.findall(r"^\d+: ([^:@]+)", self.inside("ip", "link"), re.MULTILINE),
            "routes": self.inside("ip", "route", "show", "table", "all").splitlines(),
            "rules": re.findall(r"^(-A .*|:\S+ -) ?", rules, re.MULTILINE),
            "sets": self.inside("ipset", "list", "-name").split(),
            "cgroups": [*self._cgroups()],
            "kernel": [self.inside("cat", "/proc/sys/net/ipv4/ip_forward")],
            "namespaces": self.inside("ip", "netns", "list").split(),
            "files": [str(path) for path in self._files()],
        }

    @property
    def _run(self) -> str:
        return f"/run/model-serving/{self.name}"

    def _cgroups(self) -> Iterator[str]:
        # Not with glob, which fails if another cluster's cgroup goes meanwhile.
        for folder, names, _ in os.walk("/sys/fs/cgroup"):
            if f"model-serving-{self.name}" in names:
                yield f"{folder}/model-serving-{self.name}"

    def _files(self) -> Iterator[Path]:
        yield from Path("/run").glob(f"model-serving/{self.name}")
        yield from Path("/var/lib/cni").glob(f"results/model-serving-{self.name}-*")
        yield from (
            link for link in Path("/var/log").glob("containers/*") if link.readlink().is_relative_to(self.state)
        )

    def _processes(self) -> Iterator[str]:
        namespace = self._namespace.readlink()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                dead = folder.joinpath("stat").read_text().rpartition(")")[2].split()[0] in "ZX"
                marked = self._run.encode() in folder.joinpath("environ").read_bytes()
                contained = f"model-serving-{self.name}" in folder.joinpath("cgroup").read_text()
                here = (folder / "ns" / "net").readlink() == namespace
            except OSError:
                continue
            if not dead and (marked or contained or here) and int(folder.name) != self._holder.pid:
                yield folder.joinpath("comm").read_text().strip()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Not pytest's own: a kubelet's sockets need short paths."""
    with tempfile.TemporaryDirectory(prefix="ms-") as path:
        yield Path(path)


@pytest.fixture(scope="module")
def instance(folder: Path) -> Iterator[Instance]:
    made = Instance(f"test-{os.getpid()}", folder)
    yield made
    made.close()


@pytest.fixture(scope="module")
def before(instance: Instance) -> dict[str, list[str]]:
    return instance.traces()


@pytest.fixture(scope="module")
def running(instance: Instance, before: dict[str, list[str]]) -> Instance:
    done = instance.run("start")
    assert done.returncode == 0, done.stdout + done.stderr
    return instance


@pytest.fixture
def other(folder: Path) -> Iterator[Instance]:
    with tempfile.TemporaryDirectory(dir=folder) as path:
        made = Instance(f"test-{os.getpid()}-other", Path(path))
        yield made
        made.close()


def test_start_from_nothing_ends_with_a_ready_node(running: Instance) -> None:
    node = json.loads(running.kubectl("get", "node", "local", "-o", "json"))
    ready = [condition["status"] for condition in node["status"]["conditions"] if condition["type"] == "Ready"]
    assert ready == ["True"]
    assert running.kubectl("config", "current-context").strip() == "model-serving-local"
    assert running.run("status").returncode == 0


def test_a_gateway_is_served_as_soon_as_it_is_declared(running: Instance) -> None:
    running.kubectl("create", "namespace", "models")
    running.kubectl("apply", "-f", "-", text=json.dumps(GATEWAY))
    running.kubectl("wait", "--for=condition=Programmed", "--namespace=models", "gateway/gateway", "--timeout=60s")


def test_a_second_start_starts_nothing(running: Instance) -> None:
    pids = running.pids()
    done = running.run("start")
    assert (done.returncode, running.pids()) == (0, pids), done.stdout + done.stderr


def test_a_pod_runs_from_the_registry(running: Instance) -> None:
    running.run_pod()


def test_a_network_policy_reaches_the_firewall(running: Instance) -> None:
    running.kubectl("apply", "-f", "-", text=json.dumps(POLICY))
    deadline = time.monotonic() + 60
    while not running.inside("ipset", "list", "-name"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("name", [each if each in KILLED else pytest.param(each, marks=ALIKE) for each in PROCESSES])
def test_a_killed_process_is_named_and_started_again(running: Instance, name: str) -> None:
    pids = running.pids()
    os.kill(pids[name], signal.SIGKILL)
    status = running.run("status")
    assert status.returncode == 1
    assert f"{name} died; its last log lines:" in status.stdout

    done = running.run("start")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{name} (process {pids[name]}) had died; its last log lines:" in done.stdout
    now = running.pids()
    assert {changed for changed in PROCESSES if now[changed] != pids[changed]} == {name}
    assert running.run("status").returncode == 0


def test_a_shutdown_of_the_machine_waits_for_nothing(running: Instance) -> None:
    running.run_pod()
    layout = Layout(name=running.name, state=running.state, bin=running.tools)
    started = {pid: processes.start_time(pid) for pid in (*running.marked(), *cgroups.members(layout))}
    assert len(started) > len(PROCESSES), "no pod is among them"
    for pid in started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    probes.wait_until(
        lambda: not any(start and processes.start_time(pid) == start for pid, start in started.items()),
        SHUTDOWN_SECONDS,
        lambda: f"still there after {SHUTDOWN_SECONDS} s: {sorted(running.traces()['processes'])}",
    )
    done = running.run("start")
    assert done.returncode == 0, done.stdout + done.stderr
    running.kubectl("wait", "--for=condition=Ready", "pod/sleeper", "--timeout=60s")


def test_another_checkout_cannot_take_the_name(running: Instance, folder: Path) -> None:
    done = subprocess.run(
        [*running.local("start"), "--state", str(folder / "second")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"Stop it with --state {running.state}" in done.stderr


@pytest.mark.thorough("the checkout before, whose cluster runs; tests/unit/test_local.py")
def test_a_cluster_that_was_killed_with_its_checkout_in_place_does_not_keep_the_name(other: Instance) -> None:
    nothing = other.traces()
    assert other.run("start").returncode == 0
    other.run_pod()
    for pid in other.marked():
        os.kill(pid, signal.SIGKILL)
    # On busy cores a killed process takes a moment to go; until then it is a cluster that runs.
    probes.wait_until(lambda: not other.marked(), 60, lambda: f"still there: {other.marked()}")
    first, other.state = other.state, other.state.with_name("second")
    done = other.run("start")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not [line for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines() if str(first) in line]
    assert other.run("stop", "--delete").returncode == 0
    assert other.traces() == nothing


def test_stop_leaves_nothing_and_start_recovers_the_objects(running: Instance, before: dict[str, list[str]]) -> None:
    for what, traces in running.traces().items():
        assert traces != before[what] or what == "namespaces", f"nothing of {what} to look for"
    running.inside("iptables", "-t", "nat", "-N", "CNI-of-another")
    running.inside("ip", "link", "add", "of-another", "type", "bridge")
    others = before | {
        "rules": [":CNI-of-another -"],
        "interfaces": [*before["interfaces"], "of-another"],
        # Docker, for example, relies on it without setting it again.
        "kernel": ["1\n"],
    }
    stopped = running.run("stop")
    assert stopped.returncode == 0
    assert "net/ipv4/ip_forward stays 1: the bridge of-another is newer" in stopped.stdout
    assert running.traces() == others
    assert running.run("stop").returncode == 0
    assert running.traces() == others
    running.inside("iptables", "-t", "nat", "-X", "CNI-of-another")
    running.inside("ip", "link", "delete", "of-another")
    running.inside("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
    assert running.run("status").returncode == 1

    # A laptop comes back with another address: whatever names the old one has to be made anew.
    running.inside("ip", "link", "add", "other", "type", "bridge")
    running.inside("ip", "address", "add", "192.0.2.77/24", "dev", "other")
    running.inside("ip", "link", "set", "other", "up")
    done = running.run("start")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "https://192.0.2.77:6443" in (running.state / "kubeconfig").read_text()
    running.kubectl("wait", "--for=condition=Ready", "pod/sleeper", "--timeout=60s")

    for pid in running.pids().values():
        os.kill(pid, signal.SIGKILL)
    assert running.run("stop", "--delete").returncode == 0
    running.inside("ip", "link", "delete", "other")
    assert running.traces() == before
    assert not (running.state / "kubeconfig").exists()
    assert not (running.state / "local" / "etcd").exists()
    assert running.kubeconfig_of_user.read_text() == "the user's own"


def test_taken_ports_are_all_named_before_anything_starts(other: Instance) -> None:
    holders = [
        subprocess.Popen(other.command(sys.executable, "-c", HOLD, port), stdout=subprocess.PIPE)
        for port in ("5000", "8080")
    ]
    try:
        for holder in holders:
            assert holder.stdout
            holder.stdout.readline()
        done = other.run("start")
        assert done.returncode == 1
        for holder, port, purpose in zip(holders, ("5000", "8080"), ("the image registry", "the gateway"), strict=True):
            assert f"{port}, wanted for {purpose}: held by process {holder.pid} " in done.stderr
            assert f"kill {holder.pid}" in done.stderr
        assert not (other.state / "local" / "pids").exists()
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()


def test_a_process_that_dies_at_once_is_named_with_its_last_words(other: Instance, folder: Path) -> None:
    other.tools = folder / "broken" / "bin"
    shutil.copytree(TOOLS, other.tools, symlinks=True)
    (other.tools.parent / "share-contour").symlink_to((TOOLS.parent / "share-contour").resolve())
    (other.tools / "etcd").unlink()
    (other.tools / "etcd").write_text("#!/bin/sh\necho no luck today\nexit 3\n")
    (other.tools / "etcd").chmod(0o755)
    done = other.run("start")
    assert done.returncode == 1
    assert "etcd died while the cluster started" in done.stderr
    assert "no luck today" in done.stderr
    assert "Traceback" not in done.stderr


def interrupted(process: subprocess.Popen[bytes]) -> str:
    """Presses Ctrl-C until the process has ended; returns what it said.

    Python loses one that comes while it finalizes an object: it prints the exception and goes on,
    https://docs.python.org/3/reference/datamodel.html#object.__del__.
    """
    for _ in range(10):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=2)[0].decode()
    raise AssertionError("ten interrupts have not ended it")


def test_an_interrupted_start_can_be_gone_on_with(other: Instance) -> None:
    nothing = other.traces()
    start = subprocess.Popen(
        other.local("start"), cwd=PROJECT, env=other.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    deadline = time.monotonic() + 60
    while not (other.state / "local" / "pids" / "kube-apiserver").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    output = interrupted(start)
    assert start.returncode == 130, output
    assert "Traceback" not in output
    done = other.run("start")
    assert done.returncode == 0, done.stdout + done.stderr
    assert other.run("stop").returncode == 0
    assert other.traces() == nothing


def test_everything_that_is_missing_is_in_one_message(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(packages, "CLUSTER", {"no-such-one": "one", "no-such-two": "two"})
    layout = Layout(name="test-other", state=folder / "empty", bin=folder / "empty" / "bin")
    with pytest.raises(Failure, match=r"have them in one two\. As root: python3 ") as raised:
        checks.check_machine(layout)
    assert "Missing: no-such-one, no-such-two." in str(raised.value)
    assert "Build them: make tools" in str(raised.value)
    assert "model-serving:kubeContext" in str(raised.value)


def test_a_user_who_is_not_root_learns_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Failure, match="Run it with make, which uses sudo for this step only"):
        checks.require_root()
