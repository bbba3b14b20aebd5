"""What data scientists install works without modules of Unix, and reads and writes UTF-8 whatever the locale is."""

from __future__ import annotations

import ast
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest
import yaml

from local.cluster.layout import PROJECT
from tests.unit.test_report import checkout, trained, write  # noqa: F401

PARTS = ("model_serving", "components", "server", "__main__.py")
TEXT_CALLS = {"read_text", "write_text", "open", "NamedTemporaryFile", "TemporaryFile", "fdopen"}
PROCESS_CALLS = {"run", "Popen", "check_output"}
ELSEWHERE = """
import os, runpy, signal, sys

# What Windows lacks. Python's own modules, imported before, keep theirs.
import asyncio, getpass, multiprocessing, pathlib, shutil, socket, subprocess, tempfile
for name in ("fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "syslog", "readline"):
    sys.modules[name] = None
for name in ("fork", "getuid", "geteuid", "getgid", "getpgid", "killpg", "pidfd_open", "setsid", "uname", "statvfs"):
    delattr(os, name)
for name in ("SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "pidfd_send_signal"):
    delattr(signal, name)
sys.argv = ["model_serving", *sys.argv[1:]]
runpy.run_module("model_serving", run_name="__main__", alter_sys=True)
"""


def command(*arguments: str, folder: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    """A command of ours where modules are taken away, and where a text without an encoding is an error."""
    options = ["-X", "warn_default_encoding", "-W", "error::EncodingWarning:model_serving"]
    return subprocess.run(
        [sys.executable, *options, "-c", ELSEWHERE, *arguments],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(PROJECT), "LC_ALL": "POSIX", "PYTHONUTF8": "0", "HOME": "/tmp"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def calls_without_encoding() -> Iterator[str]:
    for part in PARTS:
        path = PROJECT / part
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and is_text_without_encoding(node):
                    yield f"{file.relative_to(PROJECT)}:{node.lineno}: {ast.unparse(node)[:60]}"


def is_text_without_encoding(node: ast.Call) -> bool:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    keywords = {keyword.arg for keyword in node.keywords}
    if "encoding" in keywords:
        return False
    if name in PROCESS_CALLS:
        return bool(keywords & {"text", "universal_newlines"})
    modes = [str(each.value) for each in [*node.args, *(keyword.value for keyword in node.keywords)] if is_mode(each)]
    is_file = name in {"read_text", "write_text"} or bool(modes)
    return name in TEXT_CALLS and is_file and not any("b" in mode for mode in modes)


def is_mode(node: ast.expr) -> TypeGuard[ast.Constant]:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and set(node.value) <= set("rwaxbt+")


def test_every_text_names_its_encoding() -> None:
    assert list(calls_without_encoding()) == []


@pytest.mark.parametrize("name", ["convert", "publish", "report", "preview", "deploy", "audit"])
def test_every_command_explains_itself(name: str) -> None:
    done = command(name, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def test_a_model_is_converted(tmp_path: Path) -> None:
    (tmp_path / "tree").write_bytes(b"\x80\x04.")
    lock = (PROJECT / "models" / "iris-dtc" / "1.0" / "requirements.lock").read_text(encoding="utf-8")
    (tmp_path / "requirements.lock").write_text(f"# größer\n{lock}", encoding="utf-8")
    version = re.search(r"^scikit-learn==(\S+)", lock, re.MULTILINE)
    assert version
    metadata = {
        "artifacts": {"data": {"uri": "tree", "size": 3, "hash": hashlib.md5(b"\x80\x04.").hexdigest()}},  # noqa: S324
        "object_type": "model",
        "processors": {"model": {"type": "sklearn", "methods": {}}},
        "requirements": [{"module": "sklearn", "package_name": "scikit-learn", "version": version[1]}],
    }
    (tmp_path / "tree.mlem").write_text(yaml.safe_dump(metadata), encoding="utf-8")
    named = ["--name", "iris", "--version", "v1.0.0", "--lock", "requirements.lock", "--out", "out"]
    done = command("convert", "mlem", "tree.mlem", *named, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / "iris" / "v1.0.0" / "model-settings.json").exists()


def test_a_report_is_read_and_written_in_utf_8(trained: Path) -> None:  # noqa: F811
    write(trained, {"params.yaml": "größe: 3\n"})
    done = command("report", "--base", "main", folder=trained)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "größe" in done.stdout
