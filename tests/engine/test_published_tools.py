"""`make tools` with a publisher on loopback that has the tools which are compiled here already."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from local.cluster.layout import PROJECT
from local.tools import recipe
from tests.conftest import Figure

pytestmark = pytest.mark.thorough("tests/unit/test_downloads.py, with small files")
SECONDS = 60


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which its files are published."""
    folder = tmp_path / "published"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def pack(archive: Path, *programs: Path) -> str:
    """Packs as publishers do, but quickly; returns the sum."""
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for program in programs:
            tar.add(program.resolve(), f"folder/{program.name}")
    return f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"


def test_every_tool_of_a_publisher_is_there_within_a_minute(
    tmp_path: Path, publisher: tuple[Path, str], figure: Figure
) -> None:
    published, url = publisher
    checkout = tmp_path / "checkout"
    shutil.copytree(PROJECT / "local", checkout / "local")
    tools = {tool.name: tool for tool in recipe.load()[1]}
    compiled = {name: tool.compiled(recipe.cache_folder()) for name, tool in tools.items()}
    pinned = checkout / "local" / "tools" / "tools.toml"
    text = pinned.read_text(encoding="utf-8")
    here = f"{platform.system().lower()}-{recipe.ARCHITECTURES[platform.machine()]}"
    for name, tool in tools.items():
        if tool.archive and name != "pulumi-language-python":
            # The archive of Pulumi's CLI has the language host, as tools.toml says.
            others = [compiled["pulumi-language-python"]] if name == "pulumi" else []
            programs = [program for folder in (compiled[name], *others) for program in (folder / "bin").iterdir()]
            found = pack(published / f"{name}.tar.gz", *programs)
            text = text.replace(tool.archive.url, f"{url}/{name}.tar.gz").replace(tool.archive.sum, found)
    pinned.write_text(text, encoding="utf-8")
    plugin = tools["pulumi-resource-docker-build"]
    file = published / f"{plugin.name}-v{plugin.version}-{here}.tar.gz"
    with tarfile.open(file, "w:gz", compresslevel=1) as tar:
        tar.add(compiled[plugin.name] / "bin" / plugin.name, plugin.name)
    code = checkout / "local" / "tools" / "recipe.py"
    code.write_text(code.read_text(encoding="utf-8").replace(recipe.PLUGINS, url), encoding="utf-8")
    wanted = [name for name, tool in tools.items() if tool.archive or tool.is_installable]

    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PULUMI_", "XDG_"))}
    began = time.monotonic()
    command = [sys.executable, "-m", "local.tools.build", "--bin", "bin", "--pulumi-home", "home"]
    done = subprocess.run(
        [*command, "--way", "download", "--only", *wanted],
        cwd=checkout,
        # A PATH without the project's tools, which would be reused.
        env=environment | {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stdout + done.stderr
    megabytes = sum(path.stat().st_size for path in published.iterdir()) / 1e6
    figure(f"{len(wanted)} tools, {megabytes:.0f} MB, in {seconds:.1f} s")
    assert seconds < SECONDS

    assert re.search(r"downloading tools: 5 of 5 files", done.stdout), done.stdout
    for name, program, option in (("pulumi", "pulumi", "version"), ("etcd", "etcd", "--version")):
        said = subprocess.run([checkout / "bin" / program, option], capture_output=True, encoding="utf-8", check=True)
        assert tools[name].version in said.stdout
    plugins = {path.name for path in (checkout / "home" / "plugins").iterdir()}
    assert plugins == {f"{name.removeprefix('pulumi-')}-v{tool.version}" for name, tool in tools.items() if tool.plugin}
