"""The parts of the local cluster that need neither root nor its tools: locks, processes, steps and ports."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from local.cluster import certificates, checks, kernel, layout, locks, network, probes, steps
from local.cluster.cluster import Cluster
from local.cluster.layout import SETTINGS
from local.cluster.processes import Process, Processes
from model_serving.problems import Failure

EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - to see who is in the way of whom
HOLD = """\
import sys, time
from pathlib import Path
from local.cluster.locks import held
with held(Path(sys.argv[1]), waiting=""):
    print(flush=True)
    time.sleep(60)
"""


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    place = layout.Layout(name="unit", state=Path("/tmp/state"), bin=tmp_path)
    place.run, place.pids, place.logs = tmp_path / "run", tmp_path / "pids", tmp_path / "logs"
    made = Processes(place)
    yield made
    made.end_all(made.names())


def sleeper(name: str, *after: str) -> Process:
    return Process(name=name, command=("sleep", "60"), ready=lambda: True, after=after)


def test_a_second_command_says_what_it_waits_for_and_a_killed_one_frees_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "folder" / "lock"
    said: list[str] = []
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()

        def report(text: str) -> None:
            said.append(text)
            holder.kill()

        with locks.held(lock, waiting="another command is under way", report=report):
            assert said == ["another command is under way"]
    with locks.held(lock, waiting="nobody", report=said.append):
        assert len(said) == 1


def test_a_cached_folder_is_made_once_and_whole_or_not_at_all(tmp_path: Path) -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "file").touch()
        if len(made) == 1:
            raise Failure("no network")

    folder = tmp_path / "cache" / "key"
    with pytest.raises(Failure, match="no network"):
        locks.ensure_folder(folder, make, waiting="")
    assert [path.name for path in folder.parent.iterdir()] == ["lock"]
    for _ in range(2):
        locks.ensure_folder(folder, make, waiting="")
    assert len(made) == 2
    assert (folder / "file").exists()
    assert {path.name for path in folder.parent.iterdir()} == {"lock", "key"}


def test_each_step_waits_for_those_before_it(processes: Processes, capsys: pytest.CaptureFixture[str]) -> None:
    alive: list[bool] = []
    task = steps.Task(name="task", run=lambda: alive.append(processes.is_alive("first")), after=("first",))
    started: list[steps.Step] = [sleeper("last", "task"), task, sleeper("first")]
    steps.run_steps(started, processes)
    assert alive == [True]
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["first", "task", "last"]
    steps.run_steps(started, processes)
    assert capsys.readouterr().out == "", "nothing is started again"


def test_a_process_that_dies_while_another_starts_is_named(processes: Processes) -> None:
    over = threading.Event()
    slow = Process(name="slow", command=("sleep", "60"), ready=over.is_set)
    dying = Process(name="dying", command=("sh", "-c", "echo no luck; exit 3"), ready=over.is_set)
    with pytest.raises(Failure, match="dying died while the cluster started; its last log lines:\n    no luck"):
        steps.run_steps([slow, dying], processes)
    # The threads that still wait for the two end with it.
    over.set()
    record = processes.record("dying")
    assert record
    assert record.has_died


def test_what_a_process_that_ended_left_behind_is_ended(processes: Processes) -> None:
    processes.launch(Process(name="parent", command=("sh", "-c", "sleep 60 & sleep 60 &"), ready=lambda: True))
    deadline = time.monotonic() + 10
    while processes.is_alive("parent"):
        assert time.monotonic() < deadline
    processes.end_all(processes.names())
    # A process that is being replaced by another program has no environment for a moment.
    probes.wait_until(lambda: len(list(processes.marked())) == 2, 10, lambda: f"marked: {list(processes.marked())}")
    processes.end_marked()
    assert list(processes.marked()) == []


@pytest.fixture
def certified(tmp_path: Path) -> layout.Layout:
    """A cluster's place with a kubeadm that makes an authority unless there is one, and a certificate."""
    place = layout.Layout(name="unit", state=Path("/tmp/state"), bin=tmp_path)
    place.kubeconfig = tmp_path / "kubeconfig"
    folder = place.certificates = tmp_path / "certificates"
    (tmp_path / "kubeadm").write_text(
        f"""#!/bin/sh
test -e {folder}/ca.key || echo whole > {folder}/ca.key
date +%s%N > {folder}/apiserver.crt
echo kubernetes-admin@model-serving-local > {folder}/admin.conf
"""
    )
    (tmp_path / "kubeadm").chmod(0o755)
    return place


def test_a_key_that_a_killed_start_left_half_written_is_made_again(certified: layout.Layout) -> None:
    certified.certificates.mkdir(parents=True)
    (certified.certificates / "ca.key").write_text("who")
    certificates.ensure(certified, "192.0.2.1")
    assert (certified.certificates / "ca.key").read_text() == "whole\n"
    assert certified.kubeconfig.read_text() == "model-serving-local\n"


def test_an_authority_outlives_the_address_and_a_start_that_was_killed_after_it(certified: layout.Layout) -> None:
    certificates.ensure(certified, "192.0.2.1")
    (certified.certificates / "ca.key").write_text("of the first start")
    first = (certified.certificates / "apiserver.crt").read_text()
    certificates.ensure(certified, "192.0.2.1")
    assert (certified.certificates / "apiserver.crt").read_text() == first
    (certified.bin / "kubeadm").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(Failure, match="kubeadm could not make"):
        certificates.ensure(certified, "192.0.2.2")
    (certified.bin / "kubeadm").write_text(f"#!/bin/sh\necho > {certified.certificates}/admin.conf\n")
    certificates.ensure(certified, "192.0.2.2")
    assert (certified.certificates / "ca.key").read_text() == "of the first start"
    assert not (certified.certificates / "apiserver.crt").exists(), "it was of another address"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> layout.Layout:
    """A cluster's place on a machine that does not forward and has a bridge."""
    for name in ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("0\n")
    monkeypatch.setattr(kernel, "_SETTINGS", tmp_path)
    monkeypatch.setattr(network, "others_bridges", lambda: {"br0"})
    place = layout.Layout(name="unit", state=Path("/tmp/state"), bin=tmp_path)
    place.kernel = tmp_path / "saved"
    return place


def forwarding(machine: layout.Layout) -> str:
    return (machine.kernel.parent / "net" / "ipv4" / "ip_forward").read_text().strip()


@pytest.mark.parametrize(
    ("bridges", "value"), [({"br0"}, "0"), (set(), "0"), ({"br0", "docker0"}, "1"), ({"docker0"}, "1")]
)
def test_forwarding_is_given_back_unless_a_newer_network_may_need_it(
    machine: layout.Layout, monkeypatch: pytest.MonkeyPatch, bridges: set[str], value: str
) -> None:
    kernel.prepare(machine)
    assert forwarding(machine) == "1"
    monkeypatch.setattr(network, "others_bridges", lambda: bridges)
    kernel.restore(machine)
    assert forwarding(machine) == value


def test_a_setting_that_stays_is_told_unless_it_was_the_same_before(
    machine: layout.Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (machine.kernel.parent / "net" / "bridge" / "bridge-nf-call-iptables").write_text("1\n")
    kernel.prepare(machine)
    monkeypatch.setattr(network, "others_bridges", lambda: {"docker0"})
    kernel.restore(machine)
    assert capsys.readouterr().out == (
        "net/ipv4/ip_forward stays 1: the bridge docker0 is newer than the cluster and may need it\n"
    )


def test_what_another_program_has_set_since_is_not_put_back(machine: layout.Layout) -> None:
    overcommit = machine.kernel.parent / "vm" / "overcommit_memory"
    overcommit.parent.mkdir()
    overcommit.write_text("0\n")
    kernel.prepare(machine)
    overcommit.write_text("2\n")
    kernel.restore(machine)
    assert overcommit.read_text() == "2\n"
    overcommit.write_text("1\n")  # as the kubelet sets it
    kernel.restore(machine)
    assert overcommit.read_text() == "0"


@pytest.mark.parametrize(
    ("before", "removed"),
    [
        ("", "--remove br_netfilter\n--remove xt_nfacct\n--remove nfnetlink_acct\n"),
        ("br_netfilter 1 0 -\n", "--remove xt_nfacct\n--remove nfnetlink_acct\n"),
        ("br_netfilter 1 0 -\nxt_nfacct 1 0 -\nnfnetlink_acct 1 1 xt_nfacct\n", ""),
    ],
)
def test_a_module_that_was_loaded_for_the_cluster_is_removed_with_it(
    machine: layout.Layout, monkeypatch: pytest.MonkeyPatch, before: str, removed: str
) -> None:
    folder = machine.kernel.parent
    (folder / "bin").mkdir()
    (folder / "bin" / "modprobe").write_text(f'#!/bin/sh\necho "$@" >> {folder}/told\n')
    (folder / "bin" / "modprobe").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(kernel, "_MODULES", folder / "modules")
    monkeypatch.setattr(kernel, "_PROFILES", folder / "profiles")
    (folder / "modules").write_text(before)
    (folder / "profiles").touch()
    kernel.prepare(machine)
    loaded = ("br_netfilter 1 0 -", "bridge 2 1 -", "nfnetlink_acct 1 1 xt_nfacct", "xt_nfacct 1 0 -")
    (folder / "modules").write_text("\n".join(loaded))
    (folder / "profiles").write_text("cri-containerd.apparmor.d (enforce)\n")
    kernel.restore(machine)
    told = folder / "told"
    assert (told.read_text() if told.exists() else "") == removed
    assert (folder / ".remove").read_text() == "cri-containerd.apparmor.d"


def test_a_long_path_gets_a_short_folder_for_the_kubelets_sockets(tmp_path: Path) -> None:
    home = Path("/home/alexander.konstantinopoulos/projects/model-serving/.state")
    long = layout.Layout(name="unit", state=home, bin=tmp_path)
    short = layout.Layout(name="unit", state=Path("/home/alex/model-serving/.state"), bin=tmp_path)
    assert short.kubelet.is_relative_to(short.state)
    for place in (long, short, layout.Layout(name="x" * 31, state=home / ("x" * 200), bin=tmp_path)):
        assert len(f"{place.kubelet}{layout.LONGEST_KUBELET_SOCKET}") <= layout.SOCKET_PATH_LIMIT


def test_what_root_has_written_becomes_the_users_but_not_what_is_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = layout.Layout(name="unit", state=tmp_path / "state", bin=tmp_path)
    images = tmp_path / "cache" / "model-serving" / "base-images"
    for path in (place.kubeconfig, place.etcd / "member", images / "1" / "layer", images / ".making-2" / "root"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    given: list[Path] = []
    monkeypatch.setattr(layout.Layout, "owner", (4711, 4712))
    monkeypatch.setattr(os, "lchown", lambda path, *owner: given.append(path) if owner == (4711, 4712) else None)
    layout.hand_over(place)
    expected = {place.kubeconfig, place.cluster, images.parent, images, images / "1", images / "1" / "layer"}
    assert set(given) == expected


@pytest.mark.skipif(shutil.which("ss") is None, reason="iproute2 has ss")
@pytest.mark.parametrize(
    ("family", "held", "wanted", "taken"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1", True),
        (socket.AF_INET, EVERY_ADDRESS, "127.0.0.1", True),
        (socket.AF_INET, "127.0.0.1", EVERY_ADDRESS, True),
        (socket.AF_INET, "127.0.0.1", "192.0.2.1", False),
        (socket.AF_INET6, "::", "127.0.0.1", True),
        (socket.AF_INET6, "::ffff:127.0.0.1", "127.0.0.1", True),
        (socket.AF_INET6, "::1", "127.0.0.1", False),
    ],
)
def test_a_port_is_taken_if_its_address_is(family: int, held: str, wanted: str, taken: bool) -> None:
    with socket.socket(family) as listener:
        listener.bind((held, 0))
        listener.listen()
        port = listener.getsockname()[1]
        process = Process(name="x", command=(), ready=lambda: True, ports={port: "the gateway"}, address=wanted)
        if not taken:
            checks.check_ports([process])
            return
        with pytest.raises(Failure, match=rf"{port}, wanted for the gateway: held by process \d+ \("):
            checks.check_ports([process])


def test_every_program_gets_its_flags_and_a_configuration_in_its_own_format() -> None:
    made = layout.Layout(name="unit", state=Path("/tmp/state"), bin=Path("/tmp/bin"))
    programs = [step for step in Cluster(made).steps("10.1.2.3") if isinstance(step, Process)]
    texts = {path: text for program in programs for path, text in program.files.items()}
    for path, text in texts.items():
        assert tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text), path
    used = {path.name for path in texts} - {"10-model-serving.conflist"} | {"network.conflist", "kubeadm.yaml"}
    used |= {name for program in programs if (SETTINGS / (name := f"{program.name}.flags")).exists()}
    assert used == {path.name for path in SETTINGS.iterdir()}, "every file is used"
    (kubelet,) = [program for program in programs if program.name == "kubelet"]
    assert f"--config={made.configuration}/kubelet.yaml" in kubelet.command
    assert not any("$" in word or word.startswith("#") for program in programs for word in program.command)
