"""A machine that cannot run the local cluster says so in its first second, all at once, with what to do."""

from __future__ import annotations

import ast
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from local import machine
from local.cluster import layout, ports
from local.tools import packages, recipe

HEADER = "  sl  local_address rem_address   st\n"
EVERY, LOOPBACK, OTHER = "00000000", "0100007F", "0A00000A"
EVERY_6, MAPPED, LOOPBACK_6 = "0" * 32, "0000000000000000FFFF00000100007F", "0" * 24 + "01000000"


def put(system: Path, path: str, text: str) -> None:
    (system / path).parent.mkdir(parents=True, exist_ok=True)
    (system / path).write_text(text)


def listening(system: Path, address: str, port: int, state: str = "0A") -> None:
    name = "tcp6" if len(address) == len(EVERY_6) else "tcp"
    put(system, f"proc/net/{name}", f"{HEADER}   0: {address}:{port:04X} 00000000:0000 {state} 00000000:00000000\n")


@pytest.mark.parametrize(
    ("address", "port", "taken"),
    [
        (EVERY, ports.GATEWAY, True),
        (LOOPBACK, ports.GATEWAY, True),
        (EVERY_6, ports.IMAGE_REGISTRY, True),
        (MAPPED, ports.IMAGE_REGISTRY, True),
        (LOOPBACK_6, ports.GATEWAY, False),
        (OTHER, ports.GATEWAY, False),
        # Of the pods' gateway, which listens on the bridge: another web server on every address is in its way.
        (EVERY, ports.CLUSTER_GATEWAY, True),
        (LOOPBACK, ports.CLUSTER_GATEWAY, False),
        (LOOPBACK, ports.API, False),
        (EVERY, 22, False),
    ],
)
def test_a_port_is_taken_where_the_cluster_listens(tmp_path: Path, address: str, port: int, taken: bool) -> None:
    listening(tmp_path, address, port)
    finding = machine.free_ports("local", tmp_path)
    assert bool(finding.remedy) == taken
    assert (f"{port} (" in finding.found) == taken


def test_a_connection_takes_no_port_and_a_running_cluster_has_its_own(tmp_path: Path) -> None:
    listening(tmp_path, EVERY, ports.GATEWAY, state="01")
    assert machine.free_ports("local", tmp_path).found == "free"
    listening(tmp_path, EVERY, ports.GATEWAY)
    put(tmp_path, "run/model-serving/local/state", "{}")
    assert not machine.free_ports("local", tmp_path).remedy
    assert machine.free_ports("other", tmp_path).remedy


def test_a_registry_of_debians_that_runs_since_boot_is_named_with_its_unit(tmp_path: Path) -> None:
    listening(tmp_path, EVERY_6, ports.IMAGE_REGISTRY)
    wants = tmp_path / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / "docker-registry.service").symlink_to("/lib/systemd/system/docker-registry.service")
    assert machine.free_ports("local", tmp_path).remedy == "Run: sudo systemctl disable --now docker-registry.service"


@pytest.mark.parametrize(
    ("path", "text", "found", "is_wrong"),
    [
        ("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n", "version 2", False),
        ("sys/fs/cgroup/cgroup.controllers", "cpuset cpu pids\n", "version 2 without memory", True),
        ("proc/cgroups", "#name n n enabled\ncpu 1 1 1\nmemory 2 1 1\npids 3 1 1\n", "version 1", False),
        ("proc/cgroups", "#name n n enabled\ncpu 1 1 1\nmemory 2 1 0\npids 3 1 1\n", "version 1 without memory", True),
        ("nothing", "", "version 1 without cpu, memory, pids", True),
    ],
)
def test_control_groups_have_what_limits_pods(tmp_path: Path, path: str, text: str, found: str, is_wrong: bool) -> None:
    put(tmp_path, path, text)
    finding = machine.control_groups(tmp_path)
    assert (finding.found, bool(finding.remedy)) == (found, is_wrong)


@pytest.mark.parametrize(
    ("filesystems", "listed", "found"),
    [
        ("nodev overlay\n", "kernel/net/bridge/br_netfilter.ko.xz: kernel/net/bridge/bridge.ko\n", "br_netfilter"),
        ("ext4\n", "kernel/fs/overlayfs/overlay.ko:\nkernel/net/bridge/br_netfilter.ko:\n", "overlay, br_netfilter"),
        ("ext4\n", "", "overlay is missing"),
        ("nodev overlay\n", "", "overlay, not br_netfilter"),
    ],
)
def test_kernel_modules_are_there_or_can_be_loaded(tmp_path: Path, filesystems: str, listed: str, found: str) -> None:
    put(tmp_path, "proc/filesystems", filesystems)
    put(tmp_path, f"lib/modules/{platform.release()}/modules.dep", listed)
    finding = machine.modules(tmp_path)
    assert found in finding.found
    assert bool(finding.remedy) == ("missing" in found)


@pytest.mark.parametrize(("kilobytes", "is_wrong"), [(2_000_000, True), (4_000_000, False)])
def test_too_little_memory_is_told_with_what_is_needed(tmp_path: Path, kilobytes: int, is_wrong: bool) -> None:
    put(tmp_path, "proc/meminfo", f"MemTotal: {kilobytes} kB\nMemFree: 1 kB\n")
    finding = machine.memory(tmp_path)
    assert bool(finding.remedy) == is_wrong
    assert not is_wrong or f"{machine.MEMORY_GB} GB" in finding.remedy


@pytest.mark.parametrize(("free_gb", "has_tools", "needed"), [(10, False, "14 GB"), (10, True, ""), (2, True, "3 GB")])
def test_the_first_time_needs_more_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_gb: int, has_tools: bool, needed: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, int(free_gb * 1e9)))
    if has_tools:
        put(tmp_path, "model-serving/tools/etcd-1/bin/etcd", "")
    remedy = machine.disk(tmp_path / "state").remedy
    assert needed in remedy
    assert bool(remedy) == bool(needed)


def test_the_cache_is_the_one_of_the_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "/somewhere"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert machine.cache() == recipe.cache_folder()
    assert machine.BRIDGE == layout.BRIDGE


def firewall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: int, zone: str) -> None:
    program = tmp_path / "firewall-cmd"
    program.write_text(f'#!/bin/sh\n[ "$1" = --state ] && exit {state}\necho {zone}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("state", "zone", "is_wrong"),
    [(0, "trusted", False), (0, "public", True), (0, "'no zone'", True), (252, "", False)],
)
def test_firewalld_that_would_reject_pods_is_told_with_the_command_that_lets_them_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: int, zone: str, is_wrong: bool
) -> None:
    firewall(tmp_path, monkeypatch, state, zone)
    remedy = machine.firewalld().remedy
    assert remedy == ("Run: sudo firewall-cmd --zone=trusted --add-interface=ms-pods" if is_wrong else "")


@pytest.mark.parametrize(("uid", "has_sudo", "is_wrong"), [(0, False, False), (1000, True, False), (1000, False, True)])
def test_root_is_had_or_asked_for(monkeypatch: pytest.MonkeyPatch, uid: int, has_sudo: bool, is_wrong: bool) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/usr/bin/{name}" if has_sudo else None)
    assert bool(machine.root().remedy) == is_wrong


def test_everything_that_is_wrong_is_in_one_message_within_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(packages, "COMMANDS", {"no-such-command": "one", "/no/such/file": "two", "sh": "dash"})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 10**9))
    monkeypatch.setattr(packages, "can_install", lambda: False)
    monkeypatch.setattr(sys, "argv", ["machine", "--state", str(tmp_path)])
    firewall(tmp_path, monkeypatch, 0, "public")
    began = time.monotonic()
    assert machine.main() == 1
    assert time.monotonic() - began < 1
    said = capsys.readouterr().err
    for word in (
        "platform: Linux on aarch64",
        "packages: one, two missing",
        packages.COMMAND,
        "disk: 1 GB free",
        "firewalld: runs",
        "model-serving:kubeContext",
    ):
        assert word in said
    assert "dash" not in said


def test_the_table_shows_what_is_well_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["machine", "--table", "--name", "unit"])
    machine.main()
    shown = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    assert shown == [
        "Python",
        "platform",
        "root",
        "packages",
        "control",
        "kernel",
        "memory",
        "disk",
        "ports",
        "firewalld",
        "address",
        "network",
    ]


def test_an_old_python_can_still_say_that_it_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (machine, packages, ports):
        assert module.__file__
        ast.parse(Path(module.__file__).read_text(encoding="utf-8"), feature_version=(3, 9))
    monkeypatch.setattr(sys, "version_info", (3, 9, 2, "final", 0))
    finding = machine.python()
    assert finding.found == "3.9.2, older than 3.11"
    assert "make PYTHON=" in finding.remedy


def test_only_the_standard_library_is_needed() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.append({str(layout.PROJECT)!r}); "
            "from local import machine; machine.look(machine.PROJECT / '.state', 'unit')",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
